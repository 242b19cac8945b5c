"""The photographs that an int8 network is calibrated with, and those it is compared with float32 on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ArgumentError
from ..preprocessors.image import image_files

Size = tuple[int, int]  # height, width
HELD_BACK = 5  # of so many photographs one is held back


@dataclass(frozen=True)
class Photographs:
    """Paths of photographs, in order.

    Attributes:
        calibration: to take the ranges of the activations from.
        held_back: to compare on.
        shapes: path to (height, width) of the photograph, and of the network's input for it.
    """

    calibration: tuple[str, ...]
    held_back: tuple[str, ...]
    shapes: Mapping[str, tuple[Size, Size]]


def choose(folder: str | os.PathLike, limit: int, annotations: str | os.PathLike | None = None) -> list[str]:
    """At most `limit` images of a folder, spread evenly over their names.

    Args:
        annotations: a folder whose images are label maps and left out, and so is a PNG beside another image of its
            name.

    Raises:
        FileNotFoundError: no such folder.
        ArgumentError: it has fewer than two images.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f'{folder}: no such folder; expected a folder of photographs')
    found = sorted(image_files(folder))
    if annotations is not None:
        found = _without_label_maps(found, Path(annotations).resolve())
    if len(found) < 2:
        raise ArgumentError(
            f'{folder} has {len(found)} images; at least 2 are needed, one to calibrate with and one to compare on, '
            'and 50 to 300 like those that the model will see are better'
        )
    count = min(len(found), limit)
    return [found[i * len(found) // count] for i in range(count)]


def split(shapes: Mapping[str, tuple[Size, Size]]) -> Photographs:
    """Hold every fifth photograph back, or the last one of fewer; see `Photographs.shapes`."""
    paths = list(shapes)
    held = paths[HELD_BACK - 1 :: HELD_BACK] or paths[-1:]
    return Photographs(tuple(path for path in paths if path not in held), tuple(held), shapes)


def _without_label_maps(found: Sequence[str], annotations: Path) -> list[str]:
    beside = Counter(os.path.splitext(path)[0] for path in found)
    kept = []
    for path in found:
        folder, (stem, suffix) = Path(path).parent.resolve(), os.path.splitext(path)
        if folder == annotations:
            is_label_map = suffix.lower() == '.png' and beside[stem] > 1
        else:
            is_label_map = annotations in folder.parents
        if not is_label_map:
            kept.append(path)
    return kept


class Inputs(Sequence[np.ndarray]):
    """The network's inputs for photographs, made when they are asked for; NNCF goes through them more than once.

    Args:
        paths: of images that can be read.
        prepare: path to 1×3×H×W float32.
        tell: called after each of them.
        size: to cut from the middle of each; None: as they are.
    """

    def __init__(
        self,
        paths: Sequence[str],
        prepare: Callable[[str], np.ndarray],
        tell: Callable[[], object],
        size: Size | None = None,
    ) -> None:
        self.paths, self._prepare, self._tell, self._size = paths, prepare, tell, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]  # NNCF asks for no slices
        prepared = self._prepare(self.paths[index])
        self._tell()
        if self._size is None:
            return prepared
        top, left = ((there - wanted) // 2 for there, wanted in zip(prepared.shape[2:], self._size, strict=True))
        return np.ascontiguousarray(prepared[:, :, top : top + self._size[0], left : left + self._size[1]])
