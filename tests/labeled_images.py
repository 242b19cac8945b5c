"""Finished results of images, without a model: label maps as a run of `predict` leaves them in an output folder."""

import cv2
import numpy as np
from PIL import Image

from ms_segformer.results import Manifest, ResultWriter, Run, SegmentationResult, change, find_input, make_plan
from ms_segformer.results.formats.export import write_formats
from ms_segformer.results.formats.options import FormatOptions
from ms_segformer.results.manifest import record_of
from ms_segformer.results.palettes import palette_for

CLASSES = ['sky', 'tree', 'road', 'car', 'person, sitting', 'VÖGEL & Co; "<8>"']
VOID = 200  # no class has it


def label_map(seed=0, height=120, width=160):
    """H×W uint8: regions with holes, slopes and small parts, of the classes and of none; like a photograph's."""
    random = np.random.default_rng(seed)
    widths = [(9 - each) * height / 120 for each in range(len(CLASSES) + 1)]
    scores = [cv2.GaussianBlur(random.random((height, width)), (0, 0), each) for each in widths]
    label = np.argmax([(score - score.mean()) / score.std() for score in scores], 0).astype(np.uint8)
    label[label == len(CLASSES)] = VOID
    return label


def result_of(label):
    """A label map as the pipeline returns it."""
    ids = [each for each in reversed(range(len(CLASSES))) if (label == each).any()]
    return {
        'masks': [(label == each).astype(np.uint8) for each in ids],
        'labels': [CLASSES[each] for each in ids],
        'scores': [0.5 + 0.01 * each for each in ids],
        'seg_map': label,
    }


def finish(folder, images):
    """Write images, and their results into `folder`.

    Args:
        folder: of the output.
        images: {path of an image to write: H×W uint8 label map}.

    Returns:
        (jobs, all done).
    """
    writer = ResultWriter(folder, CLASSES)
    run = Run({'name': 'none', 'sha256': '0'}, {}, ('labels', 'json'))
    for path, label in images.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(palette_for(CLASSES)[label]).save(path)
    with Manifest(folder) as manifest:
        jobs = make_plan([find_input(str(path)) for path in images], manifest, run)
        for job, label in zip(jobs, images.values(), strict=True):
            result = SegmentationResult(result_of(label), CLASSES)
            contents, _ = writer.contents(job.outputs, job.input.name, result)
            files = {job.outputs[kind]: content for kind, content in contents.items()}
            new = change(job, manifest, run, {output: record_of(content) for output, content in files.items()})
            writer.write(files)
            manifest.append(job.entry(run, job.input.version, new.outputs))
            job.state = 'done'
    return jobs


def export(folder, jobs, names, overwrite=False, **options):
    """`write_formats` over finished jobs."""
    with Manifest(folder) as manifest:
        return write_formats(names, manifest, jobs, FormatOptions(CLASSES, palette_for(CLASSES), **options), overwrite)
