"""A folder of Parquet files in which every image of a run is once, whatever was killed on the way.

The images are dealt out into parts, each of which becomes one file, `part-<digest of its images>.parquet`. Whoever
segments a part writes it below `_unfinished`, which readers of Parquet pass over. Only the run itself, of which there
is one at a time, moves it from there to its name, so an image is in at most one file, and a file is complete. The next
run leaves out the parts that are there, and the images in them.

The folder may be a directory, or lie in a store that fsspec knows.
"""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from glob import has_magic
from typing import TYPE_CHECKING, Any

from ..errors import one_line
from ..files import atomic_write, locked
from ..stores import StoreError, in_words, open_store, scheme_of
from .manifest import NAME as MANIFEST
from .manifest import ManifestError

if TYPE_CHECKING:
    import pyarrow

RECORD = '_ms_segformer.json'  # says of the folder which model and options its rows are of
UNFINISHED = '_unfinished'
PART = re.compile(r'part-[0-9a-f]{32}\.parquet')
MOST_PARTS = 1024  # that are aimed at; each holds from FEWEST to MOST images
FEWEST, MOST = 8, 256


@dataclass(frozen=True)
class Part:
    """Images whose rows go into one file.

    Attributes:
        name: of the file.
        keys: of the images, which are their `path` in the rows.
        again: the file is there, and these of its rows are to be replaced.
    """

    name: str
    keys: tuple[str, ...]
    again: bool = False

    def single(self) -> 'list[Part]':
        """The images of a part that is not there yet as parts of one image each."""
        return [self] if self.again or len(self.keys) == 1 else [part_of((key,)) for key in self.keys]


def part_of(keys: Sequence[str]) -> Part:
    """The part of some images; the same images have the same name."""
    digest = hashlib.sha256()
    for key in keys:
        digest.update(os.fsencode(key) + b'\0')
    return Part(f'part-{digest.hexdigest()[:32]}.parquet', tuple(keys))


def part_size(images: int) -> int:
    """How many images a part has: a number that follows from theirs alone, so that the next run deals out alike."""
    return max(FEWEST, min(MOST, images // MOST_PARTS))


class ParquetFolder:
    """A folder while a run fills it.

    Args:
        location: a directory, or the URL of a folder in a store, such as `s3://bucket/folder`; made when missing.
        record: what tells its rows from others: model and options, as JSON has them.

    Attributes:
        unfinished: where parts are to be written before `commit`, a path of `place`'s file system.

    Raises:
        ManifestError: another run writes there; there are results of another model or of other options, or files that
            no run with Ray has written.
        OSError: it cannot be made.
        StoreError: the store does not do what it is asked, here and later.
    """

    def __init__(self, location: str, record: dict[str, Any]) -> None:
        self.location = location
        self._files, self._path = file_system(location)
        self._local = is_local(self._files)
        self._record = record
        self.unfinished = f'{self._path}/{UNFINISHED}/{secrets.token_hex(6)}'
        self._open = ExitStack()

    def __enter__(self) -> 'ParquetFolder':
        with ExitStack() as opened:
            if self._local:
                busy = ManifestError(
                    f'{self.location}: another process is writing there; wait until it has ended, or write to another '
                    'folder (-o)'
                )
                opened.enter_context(locked(self._path, busy))
            with self._told():
                if self._is_ours():
                    self._remove()  # what a killed run has left
                else:
                    record = json.dumps(self._record, ensure_ascii=False, indent=1).encode()
                    write_file(self._files, f'{self._path}/{RECORD}', record)
            opened.callback(self._remove)
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _is_ours(self) -> bool:
        """Whether an earlier run has begun the folder, with the same model and options."""
        names = self._names()
        if RECORD not in names:
            theirs = [name for name in names if name.endswith('.parquet') or name in (MANIFEST, UNFINISHED)]
            if theirs:
                raise ManifestError(
                    f'{self.location}: holds {theirs[0]}, which no run with --ray has written; write to another '
                    'folder (-o)'
                )
            return False
        try:
            found = json.loads(self._files.cat_file(f'{self._path}/{RECORD}'))
            name, before = found['model']['name'], (found['model']['sha256'], found['options'])
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestError(
                f'{self.location}/{RECORD}: not what ms-segformer predict --ray has written, or damaged ({error}); '
                'write to another folder (-o), or move the file away'
            ) from None
        if before != (self._record['model']['sha256'], self._record['options']):
            raise ManifestError(
                f'{self.location}: its rows were made with another model or other options ({name}, '
                f'{found["options"]}); write to another folder (-o)'
            )
        return True

    def _names(self) -> list[str]:
        self._files.invalidate_cache()  # of what other processes have written it knows nothing
        try:
            return [entry.rstrip('/').rpartition('/')[2] for entry in self._files.ls(self._path, detail=False)]
        except FileNotFoundError:  # in a store a folder is there with its first file
            return []

    def _remove(self) -> None:
        """Remove what is unfinished; whoever still writes there belongs to a run that has ended."""
        path = f'{self._path}/{UNFINISHED}'
        with self._told(), suppress(FileNotFoundError):  # in a store a folder goes with its last file
            if self._local or not has_magic(path):
                self._files.rm(path, recursive=True)
                return
            for file in self._files.find(path):  # `rm` takes the path for a pattern
                self._files.rm_file(file)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Inside it, what goes wrong in a store is a `StoreError` that names the folder."""
        if self._local:
            yield
            return
        try:
            with in_words():
                yield
        except StoreError as error:
            raise StoreError(
                f'{self.location}: {error}. Rows that are there are kept, and the same command goes on with the others'
            ) from None

    def parts(self) -> list[str]:
        """Names of the files that are there."""
        with self._told():
            return sorted(name for name in self._names() if PART.fullmatch(name))

    def read(self, name: str, columns: list[str] | None = None) -> 'pyarrow.Table':
        """The rows of a file that is there.

        Raises:
            ManifestError: it is damaged.
        """
        import pyarrow as pa  # imported late: optional

        with self._told():
            try:
                return read_parquet(self._files, f'{self._path}/{name}', columns)
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:  # the system's, or the store's
                    raise
                raise ManifestError(
                    f'{self.location}/{name}: damaged, or not what ms-segformer predict --ray has written '
                    f'({one_line(error)}); move it away, and the same command makes its rows again'
                ) from None

    def plan(self, keys: Iterable[str], retry_failed: bool = False, size: int | None = None) -> 'Plan':
        """Deal out what is to be done.

        The same images in the same order are dealt out alike, whatever is done of them, so parts that are there are
        known by their names. Files of other parts, of a run with other images, are looked into.

        Args:
            keys: of the images; one that comes twice is taken once.
            retry_failed: also do again the rows that have an error.
            size: images a part; default: `part_size`.
        """
        unique = list(dict.fromkeys(keys))
        size = size or part_size(len(unique))
        dealt = [part_of(unique[start : start + size]) for start in range(0, len(unique), size)]
        there = set(self.parts())
        todo = [part for part in dealt if part.name not in there]
        others = there - {part.name for part in dealt}
        done = {key for name in others for key in self.read(name, ['path']).column('path').to_pylist()} if todo else ()
        if done:
            left = [tuple(key for key in part.keys if key not in done) for part in todo]
            todo = [part_of(some) for some in left if some]
        if retry_failed:
            wanted = set(unique)
            for name in sorted(there):
                rows = self.read(name, ['path', 'error']).to_pylist()
                failed = tuple(row['path'] for row in rows if row['error'] is not None and row['path'] in wanted)
                if failed:
                    todo.append(Part(name, failed, again=True))
        return Plan(todo, len(unique))

    def commit(self, part: Part) -> None:
        """Put a part that is written below `unfinished` to its place.

        Raises:
            OSError, StoreError: it is not there, or cannot be moved.
        """
        source, target = f'{self.unfinished}/{part.name}', f'{self._path}/{part.name}'
        if self._local:
            os.replace(source, target)
            return
        with self._told():
            if has_magic(source):  # `mv` takes it for a pattern
                self._files.cp_file(source, target)
                self._files.rm_file(source)
            else:
                self._files.mv(source, target)


@dataclass(frozen=True)
class Plan:
    """What is to be done of a run.

    Attributes:
        parts: to be segmented.
        images: number of images that were asked for.
    """

    parts: list[Part]
    images: int

    @property
    def left(self) -> int:
        """Number of images in the parts."""
        return sum(len(part.keys) for part in self.parts)


def file_system(location: str) -> tuple[Any, str]:
    """fsspec's file system of a directory or of the URL of a folder in a store, and the path in it."""
    from fsspec.implementations.local import LocalFileSystem  # imported late: optional, it comes with Ray Data

    # Not `url_to_fs`, to which `::` in a name is a chain of file systems.
    files = open_store(location).file_system if scheme_of(location) else LocalFileSystem()
    return files, str(files._strip_protocol(location)).rstrip('/') or '/'


def is_local(files: Any) -> bool:
    """Whether a file system of fsspec is this machine's."""
    from fsspec.implementations.local import LocalFileSystem  # imported late: with it

    return isinstance(files, LocalFileSystem)


def write_file(files: Any, path: str, content: bytes) -> None:
    """Write a file in one step."""
    if is_local(files):
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
    else:
        files.pipe_file(path, content)


def read_parquet(files: Any, path: str, columns: list[str] | None = None) -> 'pyarrow.Table':
    """The rows of a Parquet file."""
    from pyarrow import parquet  # imported late: optional

    with files.open(path, 'rb') as file:
        return parquet.read_table(file, columns=columns)


def replaced(rows: 'pyarrow.Table', new: 'pyarrow.Table') -> 'pyarrow.Table':
    """A table with the new rows in place of those with the same `path`."""
    import pyarrow as pa  # imported late: optional
    from pyarrow import compute

    both = pa.concat_tables([new, rows])  # the first of a path is found
    return both.take(compute.index_in(rows.column('path'), value_set=both.column('path')))


def to_parquet(table: 'pyarrow.Table') -> bytes:
    """A table as the content of a Parquet file."""
    import pyarrow as pa  # imported late: optional
    from pyarrow import parquet

    buffer = pa.BufferOutputStream()
    parquet.write_table(table, buffer, compression='zstd')
    return buffer.getvalue().to_pybytes()
