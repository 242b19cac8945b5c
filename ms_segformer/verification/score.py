"""A confusion matrix over a data set that several processes fill, and that a killed run continues.

Each process keeps what it has counted in a file of its own, `<digest>-<random>.npz`: which images, and the counts of
them. The counts are integers, so the sum over the files is that of one unbroken evaluation, to the last pixel. Files
of another model, other data or other options have another digest and are left alone.
"""
import hashlib
import os
import secrets
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..files import TEMPORARY, atomic_write, remove_left
from ..metrics.segmentation import ConfusionMatrix

SECONDS = 20.0  # between two writes: at most this much work is lost


class ScoreError(ValueError):
    """Progress that cannot be counted together; the message says what to do."""


def digest_of(*facts: object) -> str:
    """What progress belongs to: the first 16 hexadecimal digits of the SHA-256 of some values' `repr`."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def digest_of_data(dataset: object) -> str:
    """A data set's digest: name, size in bytes and time of change of every file, and the class names."""
    source = dataset.source
    files = [_file_facts(path) for i in range(len(source)) for path in (source.image_path(i), source.label_path(i))]
    return digest_of(list(dataset.CLASSES), files)


def _file_facts(path: str | os.PathLike) -> tuple[str, int, int]:
    status = os.stat(path)
    return os.path.basename(path), status.st_size, status.st_mtime_ns


class Progress:
    """What has been counted so far, by earlier runs and by this process.

    Args:
        folder: where the files lie; created by the first write.
        digest: of model, data and options, see `digest_of`.
        images: number of images of the whole.
        num_classes: of the confusion matrix.

    Raises:
        ScoreError: files of this digest count an image twice, or are of another number of classes.
    """

    def __init__(self, folder: str | os.PathLike, digest: str, images: int, num_classes: int) -> None:
        self.folder, self.digest, self.images = Path(folder), digest, images
        self.total = ConfusionMatrix(num_classes)
        self.done = np.zeros(images, bool)
        self._own = ConfusionMatrix(num_classes)
        self._own_done = np.zeros(images, bool)
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
            done, counts = _read(path, self.done.shape, self.total.counts.shape)
            if (self.done & done).any():
                raise ScoreError(f'{self.folder}: {path.name} counts images that another file there counts too; '
                                 'remove that folder and run again')
            self.done |= done
            self.total.counts += counts

    def parts(self) -> list[Path]:
        """The files of this digest."""
        return sorted(self.folder.glob(f'{self.digest}-*.npz'))

    def left(self) -> list[int]:
        """Indices of the images that nobody has counted, as of the last `read`."""
        return np.flatnonzero(~self.done).tolist()

    def count(self, index: int, prediction: np.ndarray, label: np.ndarray) -> None:
        """Count one image, and write the file when the last time is `SECONDS` ago.

        Args:
            index: of the image, from 0.
            prediction, label: H×W class ids, see `ConfusionMatrix.update`.
        """
        self._own.update(prediction, label)
        self._own_done[index] = True
        if time.monotonic() - self._written >= SECONDS:
            self.write()

    def write(self) -> None:
        """Write what this process has counted, in one step."""
        if self._own_done.any():
            with atomic_write(self._file) as temporary:
                np.savez(temporary, done=self._own_done, counts=self._own.counts)
        self._written = time.monotonic()

    def remove(self) -> None:
        """Remove the files of this digest, and the folder if nothing else is in it: the result is kept elsewhere."""
        for path in self.parts():
            path.unlink()
        for path in self.folder.glob(f'{TEMPORARY}*'):  # of a run that was killed while it wrote
            remove_left(path)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def _read(path: Path, images: tuple, classes: tuple) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as content:
            done, counts = content['done'], content['counts']
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ScoreError(f'{path} cannot be read ({error}); remove it and run again') from None
    if done.shape != images or done.dtype != bool or counts.shape != classes or counts.dtype != np.int64:
        raise ScoreError(f'{path} is not what `verify` has written there; remove it and run again')
    return done, counts


def share(left: Iterable[int], number: int, of: int) -> list[int]:
    """The images of process `number` (from 0) of `of`."""
    return list(left)[number::of]
