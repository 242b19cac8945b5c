"""An output folder in a store: the manifest and the files of a run, put in batches that a log announces.

A batch is what a file's manifest is line by line: first one object of the log that says which files come and what they
will hold, then the files, and in the next object that they are there. A run that was killed leaves at most two batches
that are announced and not confirmed; the next run makes them again and puts what does not hold its content yet.

Stores have no locks. Each object of the log is made on the condition that there is none of its name, so of two runs
that begin from one state one is refused before it puts a file, where the store has such requests.
"""

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from ..stores import StoredObject, StoreError, check_url, in_background, open_store, scheme_of
from .manifest import NAME, Entry, Manifest, ManifestError, Record, key_of, record_of, to_line
from .palettes import Palette
from .store_log import header, part_name, part_of, read_entries
from .writer import ResultWriter

Result = TypeVar('Result')

BATCH = 64  # images
BATCH_BYTES = 2**25  # of files, from which on a batch goes
BATCH_SECONDS = 5  # after which a batch goes with the next image that is finished
LONGEST_KEY = 1024  # bytes of an object's name in S3, and in most others


class StoreFolder:
    """The URL of a folder in a store, with `/` as paths have it."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip('/')

    def __str__(self) -> str:
        return self._url

    def __truediv__(self, output: str) -> str:
        return f'{self._url}/{output}'


@dataclass
class _Batch:
    """What is put together.

    Attributes:
        announced, ended: lines of the manifest, before the files and after them.
        files: content by output.
    """

    announced: list[bytes] = field(default_factory=list)
    ended: list[bytes] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    @property
    def due(self) -> bool:
        return (
            len(self.ended) >= BATCH
            or sum(map(len, self.files.values())) >= BATCH_BYTES
            or time.monotonic() - self.begun >= BATCH_SECONDS
        )


class StoreManifest(Manifest):
    """The manifest of an output folder in a store, while a run writes there; see the module.

    Args:
        url: of the folder.

    Raises:
        ManifestError: the manifest is not ours.
        StoreError: the store does not answer, or has no such bucket.
    """

    def __init__(self, url: str) -> None:
        self.folder = StoreFolder(url)  # type: ignore[assignment]  # whoever needs a path of the system asks before
        try:
            self.store = open_store(url)
        except StoreError as error:
            raise StoreError(f'{self.folder}: {error}') from None
        self.longest = LONGEST_KEY - len(os.fsencode(str(self.folder).split('/', 3)[-1])) - 1
        self.entries: dict[str, Entry] = {}
        self._sizes: dict[str, int] = {}  # of what is there, by output
        self._log: list[str] = []  # URLs of its objects
        self._version: StoredObject | None = None  # the manifest as it was when the run began
        self._generation, self._number = '', 0
        self._run = secrets.token_hex(16)
        self._batch = _Batch()
        self._confirmed: list[bytes] = []  # lines that the next object of the log takes along
        self._putting: Future[None] | None = None
        self._one_batch = threading.Lock()  # a Ctrl-C between two lines of `_flush` has a batch put twice
        self._failed = False

    def __enter__(self) -> 'StoreManifest':
        folder = str(self.folder)
        self._version = self._told(lambda: self.store.info(f'{folder}/{NAME}'))  # before it is read
        objects = self._told(lambda: self.store.below(folder))
        beside: list[StoredObject] = []
        for each in objects:
            output = each.url[len(folder) + 1 :]
            self._sizes[output] = each.version.get('size', -1)
            if output.startswith(NAME):
                beside.append(each)
        self._log = [each.url for each in beside if part_of(each.url[len(folder) + 1 :])]
        self.entries, self._generation, self._number = self._told(lambda: read_entries(self.store, folder, beside))
        return self

    def __exit__(self, *raised: object) -> None:
        if raised[0] is None or self._failed:
            return
        with suppress(StoreError, ManifestError):  # what ended the run is said, and what is not put is made again
            self._flush()
            self._wait()
            if self._confirmed:
                self._append_to_log(self._confirmed)

    def size_of(self, output: str) -> int | None:
        return self._sizes.get(output)

    def identity_of(self, output: str) -> str | None:
        return f'{self.folder}/{output}'

    def look(self, output: str) -> tuple[bool, str | None]:
        return output in self._sizes, None

    def link_among(self, folder: str) -> str | None:
        return None

    def holds_one_of(self, output: str, records: list[Record]) -> bool:
        size = self._sizes.get(output)
        if size is None:
            raise FileNotFoundError(output)
        if size not in [record['size'] for record in records]:
            return False
        if size == 0:  # no part of nothing can be asked for
            return record_of(b'') in records
        return self._told(lambda: record_of(self.store.read(f'{self.folder}/{output}', size))) in records

    def remove_leftovers(self, outputs: Iterable[str]) -> None:
        """An object is there whole or not at all: nothing is left."""

    def append(self, entry: Entry) -> None:
        """Take a line. One that announces files goes out before they do, and at the latest two batches later.

        Raises:
            ManifestError: another run is writing there.
            StoreError: what was put before did not arrive.
        """
        self.entries[key_of(entry)] = entry
        line = to_line(entry)
        if entry.get('writing'):
            self._batch.announced.append(line)
            return
        self._batch.ended.append(line)
        if self._putting and self._putting.done():
            self._wait()
        if self._batch.due:
            self._flush()

    def put(self, contents: dict[str, bytes]) -> None:
        """Take files of an image, by output, which was announced."""
        self._batch.files.update(contents)

    def compact(self, keys: Iterable[str]) -> None:
        """Put what is left, and write the manifest anew, in one object that takes the place of the log."""
        self._flush()
        self._wait()
        content = self.content(keys)
        generation = record_of(content)['sha256'][:16]
        if self._version is None or generation != self._generation:
            self._told(self._refuse_other_run)
            self._told(lambda: self.store.put(f'{self.folder}/{NAME}', content))
        self._told(lambda: self.store.remove(self._log))
        self._log.clear()

    def _flush(self) -> None:
        """Have the batch put, once the one before is; two of them are in memory at most."""
        self._wait()
        batch = self._batch
        if batch.announced or batch.ended:
            self._putting = in_background(lambda: self._put(batch))
        self._batch = _Batch()

    def _wait(self) -> None:
        if self._putting:
            self._told(self._putting.result)
            self._putting = None  # after: Ctrl-C may end the wait, and then it is waited for again

    def _put(self, batch: _Batch) -> None:
        with self._one_batch:
            if batch.announced:
                self._append_to_log([*self._confirmed, *batch.announced])
                self._confirmed = []
            self.store.each(lambda output: self._put_file(output, batch.files[output]), list(batch.files))
            self._confirmed += batch.ended

    def _append_to_log(self, lines: list[bytes]) -> None:
        self._refuse_other_run()
        self._number += 1
        url = f'{self.folder}/{part_name(self._generation, self._number)}'
        content = header(self._run, self._number) + b''.join(lines)
        try:
            self.store.put(url, content, new=True)
        except FileExistsError:
            if not self.store.holds(url, content):  # else it is this run's, whose first answer was lost
                raise self._busy() from None
        self._log.append(url)

    def _refuse_other_run(self) -> None:
        now = self.store.info(f'{self.folder}/{NAME}')
        if (now and now.version) != (self._version and self._version.version):
            raise self._busy()

    def _busy(self) -> ManifestError:
        return ManifestError(
            f'{self.folder}: another run is writing there, or has done so since this one began; wait until it has '
            'ended, or write to another folder (-o). The same command goes on'
        )

    def _put_file(self, output: str, content: bytes) -> None:
        url = f'{self.folder}/{output}'
        try:
            self.store.put(url, content, new=output not in self._sizes)
        except FileExistsError:
            if not self.store.holds(url, content):
                raise ManifestError(
                    f'{url} has appeared since the run began, and is not its result; move it away, or write to another '
                    'folder (-o)'
                ) from None
        self._sizes[output] = len(content)

    def _told(self, work: Callable[[], Result]) -> Result:
        """Do something with the store; that it fails ends the run, and is said with what to do."""
        try:
            return work()
        except ManifestError:
            self._failed = True
            raise
        except StoreError as error:
            self._failed = True
            raise StoreError(
                f'{self.folder}: {error}. Results that are there are kept, and the same command goes on with the others'
            ) from None


class StoreWriter(ResultWriter):
    """A `ResultWriter` whose files go into a store, in the batches of its manifest.

    Args:
        manifest: of the output folder, entered.
        classes, palette, language, names: of `ResultWriter`.
    """

    def __init__(
        self,
        manifest: StoreManifest,
        classes: Sequence[str],
        palette: Palette | None = None,
        language: str = 'en',
        names: bool = False,
    ) -> None:
        super().__init__('', classes, palette, language, names)
        self.folder = manifest.folder
        self._manifest = manifest

    def write(self, contents: dict[str, bytes]) -> None:
        """Take files for the manifest's batch; that one cannot be put is said by the manifest.

        Args:
            contents: bytes by path, relative to the folder.
        """
        self._manifest.put(contents)


def open_manifest(folder: str) -> Manifest:
    """The manifest of an output folder, a path or the URL of a folder in a store, to be entered.

    Raises:
        ArgumentError, StoreError: the store cannot be opened.
    """
    return StoreManifest(check_url(folder)) if scheme_of(folder) else Manifest(folder)


def writer_for(
    manifest: Manifest,
    classes: Sequence[str],
    palette: Palette | None = None,
    language: str = 'en',
    names: bool = False,
) -> ResultWriter:
    """What writes into the folder of a manifest; the other arguments are those of `ResultWriter`."""
    if isinstance(manifest, StoreManifest):
        return StoreWriter(manifest, classes, palette, language, names)
    return ResultWriter(manifest.folder, classes, palette, language, names)
