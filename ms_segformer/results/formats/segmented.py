"""An image with its segments, as formats take it."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco

from ...datasets.regions import decode_rle
from ...metainfo import IGNORE_INDEX
from ..output import Row
from .regions import RunLengths


class Segment(Row):
    """A row of a result with its mask."""

    mask: RunLengths


@dataclass(frozen=True)
class SegmentedImage:
    """An image with its segments.

    Attributes:
        name: what formats call it: its path below the folder that all images of the run lie in, with `/`; or its URL.
        base: the name of its results below the output folder, without suffix.
        location: the file, as an absolute path; the URL; or the digest of a `data:` URL.
        height, width: in pixels, upright.
        segments: largest first.
    """

    name: str
    base: str
    location: str
    height: int
    width: int
    segments: Sequence[Segment]

    def mask(self, segment: Segment) -> np.ndarray:
        """The pixels of a segment, H×W uint8 of 0 and 1."""
        return decode_rle(segment['mask'], self.name)

    def label_map(self) -> np.ndarray:
        """H×W uint8 class ids, 255 where there is none."""
        label = np.full((self.height, self.width), IGNORE_INDEX, np.uint8)
        for segment in self.segments:
            label[self.mask(segment) > 0] = segment['id']
        return label


def common_folder(paths: Iterable[str]) -> str | None:
    """The folder that all files of absolute paths lie in; None where they have none in common."""
    folders = {os.path.dirname(path) for path in paths}
    try:
        return os.path.commonpath(folders) if folders else None
    except ValueError:  # several drives
        return None


def name_below(path: str, root: str) -> str:
    """A path below a folder, with `/`."""
    return os.path.relpath(path, root).replace(os.sep, '/')


def box_of(mask: RunLengths) -> list[int]:
    """[x, y, width, height] in pixels of the smallest box around a mask."""
    return [int(number) for number in coco.toBbox(mask)]
