"""Files of `predict --format`, read by the other projects' own readers in an environment of theirs: `make interop`."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from labeled_images import CLASSES, export, finish, label_map

PYTHON = os.environ.get('MS_SEGFORMER_INTEROP_PYTHON')
SCRIPT = Path(__file__).with_name('readers.py')
# The reader, the package it comes in, what is written for it, and how near it has to come: exactly, or a mean IoU over
# classes of at least a hundredth of the image. By COCO's rule a pixel belongs to a polygon when its center does. The
# others fill a polygon with its outline: Pillow in LabelMe, whose files allow for it (0.981 measured), OpenCV with
# whole numbers in supervision: half a pixel more is much in these small pictures, and 0.932 were measured.
READERS = [
    ('pycocotools', 'pycocotools', 'coco', {}, 1),
    ('pycocotools', 'pycocotools', 'coco', {'regions': 'polygons'}, 0.98),
    ('supervision', 'supervision', 'coco', {}, 1),
    ('supervision', 'supervision', 'coco', {'regions': 'polygons'}, 0.92),
    ('label_studio', 'label_studio_sdk', 'labelstudio', {}, 1),
    ('label_studio', 'label_studio_sdk', 'labelstudio', {'regions': 'polygons'}, 0.98),
    ('labelme', 'labelme', 'labelme', {}, 0.98),
    ('datumaro', 'datumaro', 'coco', {}, 1),
    ('datumaro', 'datumaro', 'coco', {'regions': 'polygons'}, 0.98),
    ('panopticapi', 'panopticapi', 'panoptic', {}, 1),
]


def run(*words):
    variables = {**os.environ, 'QT_QPA_PLATFORM': 'offscreen'}
    return subprocess.run([PYTHON, *words], capture_output=True, text=True, timeout=300, env=variables)


@pytest.mark.parametrize('reader, package, format, options, least', READERS)
def test_their_reader_gives_the_label_maps_back(tmp_path, monkeypatch, reader, package, format, options, least):
    if PYTHON is None:
        pytest.skip('needs an environment with the other projects: run `make interop`')
    if run('-c', f'import {package}').returncode:
        pytest.skip(f'{package} is not installed in {PYTHON}')
    monkeypatch.chdir(tmp_path)
    images = {tmp_path / 'out' / 'images' / f'{seed}.png': label_map(seed, 300, 400) for seed in range(2)}
    jobs = finish('out', images)
    assert export('out', jobs, [format], **options)[1] == []
    (tmp_path / 'found').mkdir()
    done = run(str(SCRIPT), 'out', json.dumps(CLASSES), reader, 'found')
    assert done.returncode == 0, done.stderr
    for path, expected in images.items():
        label = np.where(expected < len(CLASSES), expected, 255)
        found = np.load(f'found/{path.name}.npy')
        if least == 1:
            np.testing.assert_array_equal(found, label)
        else:
            ids = [each for each in range(len(CLASSES)) if (label == each).mean() >= 0.01]
            ious = [((label == i) & (found == i)).sum() / ((label == i) | (found == i)).sum() for i in ids]
            print(f'{reader}: mean IoU {np.mean(ious):.4f}')
            assert np.mean(ious) >= least
