"""`manifest.jsonl` in an output folder: which file was made from which image, with which model and options.

One JSON object a line and image:

- `input`: `path` with `size` and `mtime_ns`, and for a link `link_to`, or, of a folder that is a video, with `size` and
  `sha256` over its rate and the names, sizes and times of its images; or `url` with `size` and `sha256` of its
  content, `etag` and `last_modified`; or `store`, the URL of an object in a store, with the same; or `data`, the digest
  of a `data:` URL;
- `outputs`: its files, relative to the folder, each with `size` and `sha256`: another content is not ours any more;
- `model`: `name` as it was given and `sha256` over weights and settings (`models.fingerprint`);
- `options`: those that change results;
- `error`: null, or why there is no result; where there are `outputs` nevertheless, what a video's lack. An image that
  has one keeps its line when a later try fails before anything is written. Where another try may succeed, `input` is
  without what tells contents apart, and the next run tries again;
- `writing`: true in the line that announces the files of an image before the first of them appears, with `before`: what
  stands in their places, as in `outputs`. After a run only images that are unfinished have it, because the run was
  killed or a file could not be written.

While a run goes on lines are appended, and a later line of an image replaces an earlier one. At its end the file is
written anew, the images of the run last and in their order, so that it does not depend on how often a run was broken.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypedDict

from ..errors import SegformerError
from ..files import TEMPORARY, atomic_write, locked, remove_left, temporary_prefix

NAME = 'manifest.jsonl'
FORMAT_LIST = 'formats.json'  # beside it: what other formats were written, `{"outputs": {path: record}}`
LARGEST_LIST = 2**28  # bytes of it: a million files
LONGEST_LINE = 2**22  # bytes
READ = 2**20  # bytes of a file at a time
_BEGIN = b'{"input": {"'


class ManifestError(SegformerError, ValueError):
    """An output folder that cannot be used; the message says why and what to do."""


class Record(TypedDict):
    """What tells a content from every other."""

    size: int  # bytes
    sha256: str


class ModelName(TypedDict):
    """A model as it was named, and the digest over its weights and settings."""

    name: str
    sha256: str


class _Entry(TypedDict):
    input: dict[str, Any]
    outputs: dict[str, Record]
    model: ModelName
    options: dict[str, Any]
    error: str | None


class Entry(_Entry, total=False):
    """A line of the manifest; see above."""

    writing: bool
    before: dict[str, Record]


def key_of(entry: Entry) -> str:
    """What tells an entry's input from every other: `inputs.Input.key`."""
    return next(entry['input'][kind] for kind in ('path', 'url', 'store', 'data') if kind in entry['input'])


def to_line(entry: Entry) -> bytes:
    """An entry as a line of the manifest."""
    try:
        return (json.dumps(entry, ensure_ascii=False) + '\n').encode()
    except UnicodeEncodeError:  # a file name that is no text; escaped, it comes back as it was
        return (json.dumps(entry) + '\n').encode()


def read_manifest(folder: str | os.PathLike) -> tuple[dict[str, Entry], int, bool]:
    """Read the manifest of a folder.

    Returns:
        (entries by their input's key, the last line of each; bytes of the file that hold them; whether these end
        with a line's end, which an editor may have taken): what a killed process left of a last line is not counted.
        Without a manifest, ({}, 0, True).

    Raises:
        ManifestError: the file is another program's, or damaged.
    """
    path = Path(folder) / NAME
    if not os.path.lexists(path):
        return {}, 0, True
    entries: dict[str, Entry] = {}
    return entries, *entries_of(_lines(path), path, entries)


def entries_of(lines: Iterable[bytes], path: str | os.PathLike, entries: dict[str, Entry]) -> tuple[int, bool]:
    """Read lines of a manifest.

    Args:
        lines: each up to its end.
        path: for error messages.
        entries: by their input's key; those of the lines are added, or take the place of earlier ones.

    Returns:
        (bytes of the lines; whether the last one has its end).

    Raises:
        ManifestError: they are another program's, or damaged.
    """
    whole, ended = 0, True
    try:
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                torn = line.rstrip(b'\0')  # zeros: a file system after a power cut
                if line.endswith(b'\n') or not torn.startswith(_BEGIN[: len(torn)]) or not (torn or entries):
                    raise
                break
            key = key_of(_checked(entry))
            entries.pop(key, None)  # the place of an entry is that of its last line
            entries[key] = entry
            whole, ended = whole + len(line), line.endswith(b'\n')
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError) as error:
        raise ManifestError(
            f'{path}: not a manifest of ms-segformer predict, or a damaged one ({error}); write to '
            'another folder (-o), or move the file away: what lies beside it is left alone'
        ) from None
    return whole, ended


def _lines(path: Path) -> Iterator[bytes]:
    if not path.is_file():
        raise ValueError('not a regular file')
    with open(path, 'rb') as file:
        while line := file.readline(LONGEST_LINE):
            if len(line) == LONGEST_LINE:
                raise ValueError(f'it has a line of more than {LONGEST_LINE} bytes')
            yield line


def _checked(entry: Any) -> Entry:
    """The entry, if it has the fields of one, and of their types."""
    for output, record in (*entry['outputs'].items(), *entry.get('before', {}).items()):
        _check_record(output, record)
    if not (
        isinstance(key_of(entry), str)
        and all(isinstance(value, (str, int)) for value in entry['input'].values())
        and isinstance(entry['options'], dict)
        and isinstance(entry['model']['sha256'], str)
        and isinstance(entry['model']['name'], str)
        and isinstance(entry['error'], (str, type(None)))
    ):
        raise ValueError('an entry has other fields')
    return entry


def _check_record(output: str, record: Any) -> None:
    if not output or '\0' in output or output.startswith('/') or '..' in output.split('/'):
        raise ValueError(f'{output} is not in its folder')
    if not isinstance(record['size'], int) or not isinstance(record['sha256'], str):
        raise ValueError(f'of {output} it does not say what it holds')


def read_format_files(folder: str | os.PathLike) -> dict[str, Record]:
    """What `formats.json` of a folder says of the files of other formats, by path relative to it; {} without one.

    Raises:
        ManifestError: it is another program's, or damaged.
    """
    path = Path(folder) / FORMAT_LIST
    if not os.path.lexists(path):
        return {}
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_LIST:
            raise ValueError('no regular file of a usual size')
        records = dict(json.loads(path.read_bytes())['outputs'])
        for output, record in records.items():
            _check_record(output, record)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ManifestError(
            f'{path}: not a list of ms-segformer predict, or a damaged one ({error}); write to another folder (-o), '
            'or move the file away'
        ) from None
    return records


def record_of(content: bytes) -> Record:
    """The record of a content."""
    return Record(size=len(content), sha256=hashlib.sha256(content).hexdigest())


def record_of_file(path: str | os.PathLike) -> Record:
    """The record of what a file holds, which may be larger than the memory."""
    digest, size = hashlib.sha256(), 0
    with open(path, 'rb') as file:
        while block := file.read(READ):
            digest.update(block)
            size += len(block)
    return Record(size=size, sha256=digest.hexdigest())


def records_in(entry: Entry, output: str) -> list[Record]:
    """What an entry says a file may hold: its result or, where it is still being written, what stood there before."""
    return [records[output] for records in (entry['outputs'], entry.get('before', {})) if output in records]


def holds_one_of(path: str | os.PathLike, records: list[Record]) -> bool:
    """Whether a regular file has a content of these; it is only read if its size is that of one."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode) or status.st_size not in [record['size'] for record in records]:
        return False
    return record_of_file(path) in records


class Manifest:
    """The manifest of an output folder, and the folder's lock, while a run writes there.

    >>> with Manifest('outputs') as manifest:                                      # doctest: +SKIP
    ...     manifest.append(entry)

    Args:
        folder: made when missing.

    Attributes:
        entries: the last entry of each input, by its key; see `key_of`.
        longest: bytes of a path in the folder, where the limit is not the system's to say.

    Raises:
        ManifestError: another process is writing there, or the manifest is not ours.
        OSError: the folder cannot be made.
    """

    longest: int | None = None

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self.path = self.folder / NAME
        self.entries: dict[str, Entry] = {}
        self._whole, self._ended = 0, True  # bytes of lines, and whether the last one has its end
        self._links: dict[str, str | None] = {}  # the link that a folder lies behind
        self._file: int | None = None
        self._open = ExitStack()

    def __enter__(self) -> 'Manifest':
        if self.folder.exists() and not self.folder.is_dir():
            raise ManifestError(f'{self.folder}: a file; results are written to a folder')
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ManifestError(
                f'{self.folder}: the folder cannot be made, because a file or a link that leads '
                'nowhere is in the way; write to another folder (-o)'
            ) from None
        with ExitStack() as opened:
            busy = ManifestError(
                f'{self.folder}: another process is writing there; wait until it has ended, or write to another '
                'folder (-o)'
            )
            opened.enter_context(locked(self.folder, busy))
            self.entries, self._whole, self._ended = read_manifest(self.folder)
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self._file = None

    def owned(self, key: str) -> dict[str, Record]:
        """The files of an input, relative to the folder, and what they hold."""
        return self.entries[key]['outputs'] if key in self.entries else {}

    def size_of(self, output: str) -> int | None:
        """The bytes of a file in the folder; None where there is none."""
        path = f'{self.folder}/{output}'
        return os.path.getsize(path) if os.path.isfile(path) else None

    def identity_of(self, output: str) -> 'tuple[int, int] | str | None':
        """What tells a file in the folder from every other, as `Input.identity`; None where there is none."""
        try:
            status = os.stat(f'{self.folder}/{output}')  # of many thousands of files: pathlib takes longer
        except (OSError, ValueError):
            return None
        return status.st_dev, status.st_ino

    def look(self, output: str) -> tuple[bool, str | None]:
        """Look at the place of a file in the folder.

        Returns:
            (something is there; what nothing is written to: a link, folder or device there, or a link above it).
        """
        path = f'{self.folder}/{output}'
        present = os.path.lexists(path)
        plain = not present or (os.path.isfile(path) and not os.path.islink(path))
        return present, self.link_among(os.path.dirname(output)) if plain else path

    def holds_one_of(self, output: str, records: list[Record]) -> bool:
        """Whether a file in the folder has a content of these.

        Raises:
            OSError: it is not there, or cannot be read.
        """
        return holds_one_of(f'{self.folder}/{output}', records)

    def link_among(self, folder: str) -> str | None:
        """The symbolic link that a folder below this one is or lies behind: what is there is not ours."""
        if folder not in self._links:
            path = f'{self.folder}/{folder}'
            self._links[folder] = (
                None if not folder else path if os.path.islink(path) else self.link_among(os.path.dirname(folder))
            )
        return self._links[folder]

    def append(self, entry: Entry) -> None:
        """Add a line. One that announces files (`writing`) reaches the disk before this returns."""
        if self._file is None:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            self._open.callback(os.close, self._file)
            os.ftruncate(self._file, self._whole)
        line = to_line(entry) if self._ended else b'\n' + to_line(entry)
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError:  # a full disk takes a part
            os.ftruncate(self._file, self._whole)
            raise
        self._whole, self._ended = self._whole + len(line), True
        if entry.get('writing'):
            os.fsync(self._file)
        self.entries[key_of(entry)] = entry

    def compact(self, keys: Iterable[str]) -> None:
        """Write the manifest anew: one line an input, those of `keys` last and in this order."""
        content = self.content(keys)
        if not self.path.exists() or self.path.read_bytes() != content:
            with atomic_write(self.path) as temporary:
                temporary.write_bytes(content)

    def content(self, keys: Iterable[str]) -> bytes:
        """The manifest as `compact` writes it."""
        last = dict.fromkeys(keys)
        entries = [entry for key, entry in self.entries.items() if key not in last]
        entries += [self.entries[key] for key in last if key in self.entries]
        return b''.join(map(to_line, entries))

    def remove_leftovers(self, outputs: Iterable[str]) -> None:
        """Remove the temporary files of killed runs for the manifest and for some outputs, and no others."""
        folders: dict[Path, list[str]] = {self.folder: [NAME]}
        for output in outputs:
            folder, _, name = output.rpartition('/')
            folders.setdefault(self.folder / folder, []).append(name)
        for place, names in folders.items():
            try:
                found = [name for name in os.listdir(place) if name.startswith(TEMPORARY)]
            except OSError:  # not there yet
                continue
            prefixes = {temporary_prefix(name) for name in names} if found else ()
            length = len(temporary_prefix(NAME))
            for name in found:
                if name[:length] in prefixes:
                    remove_left(place / name)


class OwnOutputs:
    """The results that manifests list: `path in OwnOutputs()` looks at those of its folder and of all above it.

    A file that holds something else than what the manifest says, or that is listed by another user's, is none.
    """

    def __init__(self) -> None:
        self._listed: dict[str, tuple[dict[str, list[Record]], ...]] = {}
        self._real: dict[str, str] = {}

    def __contains__(self, path: str) -> bool:
        folder, name = os.path.split(os.path.join(os.getcwd(), path))
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        for place in dict.fromkeys((self._real[folder], folder)):  # a folder of results may have become a link
            listed = os.path.join(place, name)
            records = [record for files in self._above(place) for record in files.get(listed, ())]
            if records and holds_one_of(path, records):
                return True
        return False

    def _above(self, folder: str) -> tuple[dict[str, list[Record]], ...]:
        """What the manifests of a folder and of those above it list, and what it may hold: a dict each."""
        if folder not in self._listed:
            parent = os.path.dirname(folder)
            above = self._above(parent) if parent != folder else ()
            files: dict[str, list[Record]] = {}
            for output, records in _own_records(folder):
                files.setdefault(os.path.join(folder, *output.split('/')), []).extend(records)
            self._listed[folder] = (*above, files) if files else above
        return self._listed[folder]


def _own_records(folder: str) -> Iterator[tuple[str, list[Record]]]:
    """What a folder's lists say of files, relative to it, if this user, or the system's, has written them."""
    if _is_own(os.path.join(folder, NAME)):
        with suppress(ManifestError, OSError):  # another program's, or none that may be read
            for entry in read_manifest(folder)[0].values():
                yield from ((output, records_in(entry, output)) for output in entry['outputs'])
    if _is_own(os.path.join(folder, FORMAT_LIST)):
        with suppress(ManifestError, OSError):
            yield from ((output, [record]) for output, record in read_format_files(folder).items())


def _is_own(path: str) -> bool:
    try:
        return not hasattr(os, 'geteuid') or os.lstat(path).st_uid in (0, os.geteuid())
    except OSError:
        return False
