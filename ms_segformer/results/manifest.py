"""`manifest.jsonl` in an output folder: which file was made from which image, with which model and options.

One JSON object a line and image:

- `input`: `path` with `size` and `mtime_ns` (a failure to look at it leaves them out), or `url` with `etag`,
  `last_modified`, or `size` and `sha256` of its content; or `data`, the digest of a `data:` URL;
- `outputs`: its files, relative to the folder;
- `model`: `name` as it was given and `sha256` over weights and settings (`models.fingerprint`);
- `options`: those that change results;
- `error`: null, or why there is no result;
- `writing`: true in the line that announces the files of an image before the first of them appears. After a run only
  images that a killed one left unfinished, and that no later one was asked for, have it.

While a run goes on lines are appended, and a later line of an image replaces an earlier one. At its end the file is
written anew, the images of the run last and in their order, so that it does not depend on how often a run was broken.
"""
import json
import os
from collections.abc import Iterable
from pathlib import Path

from ..files import TEMPORARY, atomic_write, temporary_prefix

NAME = 'manifest.jsonl'
_BEGIN = b'{"input":'


class ManifestError(ValueError):
    """An output folder that cannot be used; the message says why and what to do."""


def key_of(entry: dict) -> str:
    """What tells an entry's input from every other: `inputs.Input.key`."""
    return next(entry['input'][kind] for kind in ('path', 'url', 'data') if kind in entry['input'])


def to_line(entry: dict) -> bytes:
    """An entry as a line of the manifest."""
    try:
        return (json.dumps(entry, ensure_ascii=False) + '\n').encode()
    except UnicodeEncodeError:  # a file name that is no text; escaped, it comes back as it was
        return (json.dumps(entry) + '\n').encode()


def read_manifest(folder: str | os.PathLike) -> tuple[dict[str, dict], int]:
    """Read the manifest of a folder.

    Returns:
        (entries by their input's key, the last line of each; bytes of the file that are whole lines): what a killed
        process left of a last line is not counted. Without a manifest, ({}, 0).

    Raises:
        ManifestError: the file is another program's, or damaged.
    """
    path = Path(folder) / NAME
    if not os.path.lexists(path):
        return {}, 0
    try:
        content = _read(path)
        whole = content.rfind(b'\n') + 1
        torn = content[whole:].rstrip(b'\0')  # zeros: a file system after a power cut
        if not torn.startswith(_BEGIN[:len(torn)]):
            raise ValueError('its last line is none of ours')
        entries = {}
        for line in content[:whole].splitlines():
            entry = _checked(json.loads(line))
            entries.pop(key_of(entry), None)  # the place of an entry is that of its last line
            entries[key_of(entry)] = entry
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ManifestError(f'{path}: not a manifest of ms-segformer predict, or a damaged one ({error}); write to '
                            'another folder (-o), or move the file away: what lies beside it is left alone') from None
    return entries, whole


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError('not a regular file')
    with open(path, 'rb') as file:
        begin = file.read(len(_BEGIN))
        if not _BEGIN.startswith(begin.rstrip(b'\0')):
            raise ValueError('it begins differently')  # a large one of another program is not read
        return begin + file.read()


def _checked(entry: dict) -> dict:
    for output in entry['outputs']:
        if output.startswith('/') or '..' in output.split('/'):
            raise ValueError(f'{output} is not in its folder')
    if not (isinstance(entry['options'], dict) and isinstance(entry['model']['sha256'], str)
            and isinstance(entry['model']['name'], str) and isinstance(entry['error'], (str, type(None)))):
        raise ValueError('an entry has other fields')
    return entry


class Manifest:
    """The manifest of an output folder, and the folder's lock, while a run writes there.

    >>> with Manifest('outputs') as manifest:                                      # doctest: +SKIP
    ...     manifest.append(entry)

    Args:
        folder: made when missing.

    Attributes:
        entries: the last entry of each input, by its key; see `key_of`.

    Raises:
        ManifestError: another process is writing there, or the manifest is not ours.
        OSError: the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.path = self.folder / NAME
        self.entries: dict[str, dict] = {}
        self._whole = 0  # bytes of whole lines
        self._lock = self._file = None

    def __enter__(self) -> 'Manifest':
        if self.folder.exists() and not self.folder.is_dir():
            raise ManifestError(f'{self.folder}: a file; results are written to a folder')
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.folder)
        try:
            self.entries, self._whole = read_manifest(self.folder)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for descriptor in (self._file, self._lock):
            if descriptor is not None:
                os.close(descriptor)
        self._lock = self._file = None

    def owned(self, key: str) -> list[str]:
        """The files of an input, relative to the folder."""
        return self.entries[key]['outputs'] if key in self.entries else []

    def append(self, entry: dict) -> None:
        """Add a line. One that announces files (`writing`) reaches the disk before this returns."""
        if self._file is None:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            os.ftruncate(self._file, self._whole)
        line = to_line(entry)
        while line:
            line = line[os.write(self._file, line):]
        if entry.get('writing'):
            os.fsync(self._file)
        self.entries[key_of(entry)] = entry

    def compact(self, keys: Iterable[str]) -> None:
        """Write the manifest anew: one line an input, those of `keys` last and in this order."""
        last = dict.fromkeys(keys)
        entries = [entry for key, entry in self.entries.items() if key not in last]
        entries += [self.entries[key] for key in last if key in self.entries]
        content = b''.join(map(to_line, entries))
        if not self.path.exists() or self.path.read_bytes() != content:
            with atomic_write(self.path) as temporary:
                temporary.write_bytes(content)

    def remove_leftovers(self, outputs: Iterable[str]) -> None:
        """Remove the temporary files of killed runs for the manifest and for some outputs, and no others."""
        folders: dict[Path, list[str]] = {self.folder: [NAME]}
        for output in outputs:
            folder, _, name = output.rpartition('/')
            folders.setdefault(self.folder / folder, []).append(name)
        for folder, names in folders.items():
            try:
                found = [name for name in os.listdir(folder) if name.startswith(TEMPORARY)]
            except OSError:  # not there yet
                continue
            prefixes = {temporary_prefix(name) for name in names} if found else ()
            length = len(temporary_prefix(NAME))
            for name in found:
                if name[:length] in prefixes:
                    (folder / name).unlink(missing_ok=True)


def _lock(folder: Path) -> int | None:
    """Take the folder's lock; the system drops it when the process ends, however it does. None: there are no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ManifestError(f'{folder}: another process is writing there; wait until it has ended, or write to another '
                            'folder (-o)') from None
    except OSError:  # a file system without locks
        os.close(descriptor)
        return None
    return descriptor


class OwnOutputs:
    """The files that manifests list: `path in OwnOutputs()` looks at those of its folder and of all above it."""

    def __init__(self):
        self._real: dict[str, str] = {}
        self._listed: dict[str, tuple[set[str], ...]] = {}

    def __contains__(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        real = self._real[folder]
        return any(os.path.join(real, name) in files for files in self._above(real))

    def _above(self, folder: str) -> tuple[set[str], ...]:
        """What the manifests of a folder and of those above it list, a set each."""
        if folder not in self._listed:
            parent = os.path.dirname(folder)
            above = self._above(parent) if parent != folder else ()
            try:
                entries, _ = read_manifest(folder)
            except (ManifestError, OSError):  # another program's, or none that may be read
                entries = {}
            files = {os.path.join(folder, *output.split('/')) for entry in entries.values()
                     for output in entry['outputs']}
            self._listed[folder] = (*above, files) if files else above
        return self._listed[folder]
