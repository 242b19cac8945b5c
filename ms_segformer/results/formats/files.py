"""The files of formats in an output folder, and `formats.json`, which says what was written into them.

A file that holds something else than it says, because somebody has corrected it or it is another program's, is not
replaced.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ...errors import SegformerError
from ...files import atomic_write
from ..manifest import FORMAT_LIST, Manifest, Record, holds_one_of, read_format_files


class FormatError(SegformerError, ValueError):
    """A file of a format that is not written; the message says why and what to do."""


class FormatFiles:
    """Writes files of formats, each complete or not at all, and none over what is not this command's.

    Args:
        manifest: of the output folder, entered: its lock keeps other runs out.
        overwrite: replace what stands in the way.
        inputs: (device, inode) of the images of the run, which are never replaced.

    Attributes:
        written: the paths so far, relative to the folder.
        refused: why files that were attempted stay as they are.

    Raises:
        ManifestError: `formats.json` is another program's, or damaged.
    """

    def __init__(self, manifest: Manifest, overwrite: bool, inputs: Set[tuple[int, int]] = frozenset()) -> None:
        self.folder = manifest.folder
        self.written: list[str] = []
        self.refused: list[str] = []
        self._manifest, self._overwrite, self._inputs = manifest, overwrite, inputs
        self._results = {output for entry in manifest.entries.values() for output in entry['outputs']}
        self._records = read_format_files(self.folder)

    @property
    def known(self) -> list[str]:
        """The paths that `formats.json` lists."""
        return list(self._records)

    def write(self, path: str, content: bytes) -> None:
        """Write a file.

        Args:
            path: relative to the folder, with `/`.

        Raises:
            FormatError: something that is not ours stands there.
            OSError: it cannot be written.
        """
        record = Record(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        if self._may_write(path, record):
            with atomic_write(self.folder / path) as temporary:
                temporary.write_bytes(content)
        self._note(path, record)

    def attempt(self, path: str, content: bytes) -> None:
        """Like `write`, for one file of many: that it is not ours is noted in `refused`, and the others go on."""
        try:
            self.write(path, content)
        except FormatError as error:
            self.refused.append(str(error))

    @contextmanager
    def writing(self, path: str) -> Iterator[TextIO]:
        """Yield a text file to write to, in UTF-8; it stands at `path` when the block ends. Errors as for `write`."""
        self._check_place(path)
        with atomic_write(self.folder / path) as temporary:
            with open(temporary, 'w', encoding='utf-8', errors='surrogateescape', newline='') as file:
                yield file
            record = _record_of_file(temporary)
            self._may_write(path, record)
        self._note(path, record)

    def save(self) -> None:
        """Write `formats.json`."""
        content = json.dumps({'outputs': dict(sorted(self._records.items()))}, indent=0) + '\n'
        path = self.folder / FORMAT_LIST
        if not path.is_file() or path.read_text() != content:
            with atomic_write(path) as temporary:
                temporary.write_text(content)

    def _note(self, path: str, record: Record) -> None:
        self._records[path] = record
        self.written.append(path)

    def _may_write(self, path: str, record: Record) -> bool:
        """Whether a file has to be written; False where it holds its content already."""
        self._check_place(path)
        target = self.folder / path
        if not target.exists():
            return True
        if holds_one_of(target, [record]):
            return False
        if not self._overwrite and not holds_one_of(target, [self._records[path]] if path in self._records else []):
            raise FormatError(
                f'{target} has been changed since it was written, or was not written by this command; it is left as '
                'it is. Move it away, use --overwrite, or write to another folder (-o)'
            )
        return True

    def _check_place(self, path: str) -> None:
        target = self.folder / path
        link = self._manifest.link_among(os.path.dirname(path))
        try:
            status = os.lstat(target)
        except OSError:
            status = None
        if link or (status and not stat.S_ISREG(status.st_mode)):
            raise FormatError(
                f'{link or target} is a symbolic link, folder or device, which nothing is written to; '
                'move it away, or write to another folder (-o)'
            )
        if path in self._results or (status and (status.st_dev, status.st_ino) in self._inputs):
            what = 'the result of an image' if path in self._results else 'one of the images'
            raise FormatError(f'{target} is {what}; write to another folder (-o)')


def _record_of_file(path: Path) -> Record:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while part := file.read(2**20):
            digest.update(part)
    return Record(size=path.stat().st_size, sha256=digest.hexdigest())
