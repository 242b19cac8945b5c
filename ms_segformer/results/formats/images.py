"""The images of a run as formats take them: read one after another from the JSON files of their results."""

import json
import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypedDict, cast

from ..inputs import Input
from ..manifest import Manifest, holds_one_of
from ..plan import Job
from .segmented import Segment, SegmentedImage, common_folder, name_below


class _Content(TypedDict):
    image: str | None
    height: int
    width: int
    segments: list[Segment]


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
        self._root = common_folder(job.input.key for job in self._jobs if job.input.kind == 'path')
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


def _name(image: Input, root: str | None) -> str:
    if image.kind in ('url', 'store'):
        return image.key
    if image.kind == 'path' and root is not None:
        return name_below(image.key, root)
    return posixpath.join(*image.place)
