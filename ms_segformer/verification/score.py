"""A confusion matrix over a data set that several processes fill, and that a killed run continues.

Each process keeps what it has counted in a file of its own, `<digest>-<random>.npz`: which images, and the counts of
them. The counts are integers, so the sum over the files is that of one unbroken evaluation, to the last pixel. Files
of another model, other data or other options have another digest and are not counted; a run that has finished removes
them too.
"""

import hashlib
import os
import re
import secrets
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..datasets.sources import Source
from ..errors import SegformerError
from ..files import TEMPORARY, atomic_write, locked, remove_left
from ..metrics import ConfusionMatrix
from ..metrics.confusion import ClassIds

PART = re.compile(r'[0-9a-f]{16}-[0-9a-f]{12}\.npz')  # names of files of progress
SECONDS = 20.0  # between two writes: at most this much work is lost


class ScoreError(SegformerError, ValueError):
    """Progress that cannot be counted together; the message says what to do."""


def digest_of(*facts: object) -> str:
    """What progress belongs to: the first 16 hexadecimal digits of the SHA-256 of some values' `repr`."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def digest_of_data(source: Source, ignore_index: int) -> str:
    """A data set's digest: name, size in bytes and time of change of every file, and how label maps are read."""
    files = [
        _file_facts(path)
        for i in range(len(source))
        for path in (source.image_path(i), source.label_path(i))
        if path is not None
    ]
    reading = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in vars(source).items()
        if isinstance(value, (bool, int, float, str, list, tuple, np.ndarray, type(None)))
    }
    return digest_of(ignore_index, sorted(reading.items()), files)


def _file_facts(path: str | os.PathLike) -> tuple[str, int, int]:
    status = os.stat(path)
    return os.path.basename(path), status.st_size, status.st_mtime_ns


@contextmanager
def alone(folder: str | os.PathLike) -> Iterator[None]:
    """Keep every other run out of a folder of progress, which is made, and removed at the end when nothing is in it.

    Where the system has no locks, nothing is kept out.

    Raises:
        ScoreError: another run counts there.
    """
    refusal = ScoreError(f'another run of verify counts in {folder}; wait for it, or give another -o')
    with locked(folder, refusal):
        try:
            yield
        finally:
            if not any(Path(folder).iterdir()):
                Path(folder).rmdir()


class Progress:
    """What has been counted so far, by earlier runs and by this process.

    Args:
        folder: where the files lie; created by the first write.
        digest: of model, data and options, 16 hexadecimal digits; see `digest_of`.
        images: number of images of the whole.
        num_classes: of the confusion matrix.

    Raises:
        ScoreError: files of this digest count an image twice, or are of another number of classes.
    """

    def __init__(self, folder: str | os.PathLike, digest: str, images: int, num_classes: int) -> None:
        self.folder, self.digest, self.images = Path(folder), digest, images
        self.total = ConfusionMatrix(num_classes)
        self.done = np.zeros(images, bool)
        self.engines: set[str] = set()  # what has counted, as texts
        self.engine = ''  # what counts here
        self._own = np.zeros(images, bool), ConfusionMatrix(num_classes).counts  # done, counts
        self._file = self.folder / f'{digest}-{secrets.token_hex(6)}.npz'
        self._written = time.monotonic()
        self.read()

    def read(self) -> None:
        """Take in the files that are there now, this process's own among them.

        Raises:
            ScoreError: as when it was made.
        """
        self.total.reset()
        self.done[:] = False
        for path in self.parts():
            done, counts, engine = _read(path, self.done.shape, self.total.counts.shape)
            self.engines.add(engine)
            if (self.done & done).any():
                raise ScoreError(
                    f'{self.folder}: {path.name} counts images that another file there counts too; '
                    'remove that folder and run again'
                )
            self.done |= done
            self.total.counts += counts

    def parts(self) -> list[Path]:
        """The files of this digest."""
        return sorted(self.folder.glob(f'{self.digest}-*.npz'))

    def left(self) -> list[int]:
        """Indices of the images that nobody has counted, as of the last `read`."""
        return np.flatnonzero(~self.done).tolist()

    def count(self, index: int, prediction: ClassIds, label: ClassIds) -> None:
        """Count one image, and write the file when the last time is `SECONDS` ago.

        Args:
            index: of the image, from 0.
            prediction, label: H×W class ids, see `ConfusionMatrix.update`.
        """
        done, one = self._own[0].copy(), ConfusionMatrix(self.total.num_classes)
        one.update(prediction, label)
        done[index] = True
        self._own = done, self._own[1] + one.counts  # both at once: Ctrl-C may come between any two statements
        if time.monotonic() - self._written >= SECONDS:
            self.write()

    def write(self) -> None:
        """Write what this process has counted, in one step."""
        done, counts = self._own
        if done.any():
            with atomic_write(self._file) as temporary:
                np.savez(temporary, done=done, counts=counts, engine=np.array(self.engine))
        self._written = time.monotonic()

    def remove(self) -> None:
        """Remove all progress of the folder, also that of data or a model that have changed since.

        To be called when the report is written, beside which the folder lies. Files of other programs stay.
        """
        for path in self.folder.glob('*.npz'):
            if PART.fullmatch(path.name):
                path.unlink()
        for path in self.folder.glob(f'{TEMPORARY}*'):  # of a run that was killed while it wrote
            remove_left(path)


def _read(path: Path, images: tuple, classes: tuple) -> tuple[np.ndarray, np.ndarray, str]:
    try:
        with np.load(path, allow_pickle=False) as content:
            done, counts, engine = content['done'], content['counts'], str(content['engine'])
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ScoreError(f'{path} cannot be read ({error}); remove it and run again') from None
    if done.shape != images or done.dtype != bool or counts.shape != classes or counts.dtype != np.int64:
        raise ScoreError(f'{path} is not what `verify` has written there; remove it and run again')
    return done, counts, engine


def shares(left: Sequence[int], processes: int) -> list[list[int]]:
    """The images that are left, dealt out."""
    return [list(left[number::processes]) for number in range(processes)]
