"""Results of a run in the formats of other tools, made from the JSON files of its images."""

import itertools
from collections.abc import Callable, Iterable, Iterator

from ..manifest import FORMAT_LIST, Manifest
from ..plan import Job
from . import coco, labelme, labelstudio, masks, panoptic, table
from .files import FormatError, FormatFiles
from .images import SegmentedImages
from .options import FormatOptions

WRITERS: dict[str, Callable[[SegmentedImages, FormatFiles, FormatOptions], None]] = {
    'coco': coco.write_coco,
    'panoptic': panoptic.write_panoptic,
    'labelme': labelme.write_labelme,
    'labelstudio': labelstudio.write_labelstudio,
    'masks': masks.write_masks,
    'csv': table.write_table,
}


def write_formats(
    names: Iterable[str], manifest: Manifest, jobs: Iterable[Job], options: FormatOptions, overwrite: bool = False
) -> tuple[list[str], list[str]]:
    """Write the finished images of a run in formats, reading one image after the other.

    Args:
        names: of `WRITERS`.
        manifest: of the output folder, entered.
        jobs: of the run, with the kind `json` among their outputs.
        options: see `FormatOptions`.
        overwrite: replace files that are not this command's, or were changed.

    Returns:
        (paths written, relative to the folder; what was left out or left as it was, and why).

    Raises:
        OSError: a file cannot be written.
    """
    jobs = list(jobs)
    images = SegmentedImages(manifest, jobs)
    files = FormatFiles(manifest, overwrite, {job.input.file for job in jobs if job.input.file})
    manifest.remove_leftovers(itertools.chain(files.known, _paths(jobs)))
    errors = []
    try:
        for name in dict.fromkeys(names):
            try:
                WRITERS[name](images, files, options)
            except FormatError as error:
                errors.append(str(error))
    finally:
        files.save()
    return files.written, [*images.errors, *files.refused, *errors]


def _paths(jobs: Iterable[Job]) -> Iterator[str]:
    """The files that a run may write, relative to the folder: a killed one may have left its temporary ones."""
    yield from (FORMAT_LIST, coco.PATH, panoptic.PATH, labelstudio.PATH, labelstudio.CONFIG, table.PATH)
    for job in jobs:
        base = job.outputs.get('json', '').removesuffix('.json')
        yield from (f'{labelme.FOLDER}/{base}.json', f'{masks.FOLDER}/{base}.png', f'{panoptic.FOLDER}/{base}.png')
