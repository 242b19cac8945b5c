"""The images of a run as formats take them: read one after another from the JSON files of their results."""

import json
import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
from pycocotools import mask as coco

from ...datasets.regions import decode_rle
from ...metainfo import IGNORE_INDEX
from ..inputs import Input
from ..manifest import Manifest, holds_one_of
from ..output import Row
from ..plan import Job
from .regions import RunLengths


class Segment(Row):
    """A row of a result with its mask."""

    mask: RunLengths


class _Content(TypedDict):
    image: str | None
    height: int
    width: int
    segments: list[Segment]


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


def box_of(mask: RunLengths) -> list[int]:
    """[x, y, width, height] in pixels of the smallest box around a mask."""
    return [int(number) for number in coco.toBbox(mask)]


class SegmentedImages:
    """The images of a run that have a result, in their order; each is read when its turn comes.

    Args:
        manifest: of the output folder, entered.
        jobs: of the run, with the kind `json` among their outputs.

    Attributes:
        errors: why images are left out, after a first pass.
    """

    def __init__(self, manifest: Manifest, jobs: Iterable[Job]) -> None:
        self._manifest = manifest
        self._jobs = [job for job in jobs if job.state in ('done', 'skipped')]
        self._root = _common_folder([job.input for job in self._jobs])
        self.errors: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[SegmentedImage]:
        for job in self._jobs:
            path = Path(self._manifest.folder, job.outputs['json'])
            record = self._manifest.owned(job.input.key)[job.outputs['json']]
            try:
                if not holds_one_of(path, [record]):
                    self.errors[f'{path} has been changed since it was written: --overwrite makes it again'] = None
                    continue
                content = cast(_Content, json.loads(path.read_bytes()))
            except OSError as error:
                self.errors[f'{path} cannot be read ({error.strerror}): --overwrite makes it again'] = None
                continue
            yield SegmentedImage(
                _name(job.input, self._root),
                job.outputs['json'].removesuffix('.json'),
                job.input.key,
                content['height'],
                content['width'],
                content['segments'],
            )


def _common_folder(inputs: Iterable[Input]) -> str | None:
    """The folder that all files among the images lie in; None where they have none in common."""
    folders = {os.path.dirname(each.key) for each in inputs if each.kind == 'path'}
    try:
        return os.path.commonpath(folders) if folders else None
    except ValueError:  # several drives
        return None


def _name(image: Input, root: str | None) -> str:
    if image.kind == 'url':
        return image.key
    if image.kind == 'path' and root is not None:
        return os.path.relpath(image.key, root).replace(os.sep, '/')
    return posixpath.join(*image.place)
