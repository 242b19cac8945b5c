"""A small data set and a small model for the commands that measure an mIoU."""

import json
from pathlib import Path

import cv2
import numpy as np

from ms_segformer.cli.main import main


def random_pairs(root: Path, names: list[str]) -> Path:
    """Write small pictures with label maps of COCO-Stuff classes, as training ids, below `root`; returns it."""
    random = np.random.RandomState(0)
    for folder in ('images/val', 'labels/val'):
        (root / folder).mkdir(parents=True)
    for name in names:
        cv2.imwrite(str(root / 'images' / 'val' / f'{name}.jpg'), random.randint(0, 256, (60, 90, 3), np.uint8))
        label = random.randint(0, 171, (60, 90), np.uint8)
        cv2.imwrite(str(root / 'labels' / 'val' / f'{name}_labelTrainIds.png'), label)
    return root


def scale_to(folder: Path, size: list[int]) -> None:
    """Set the size, [long side, short side] in pixels, that a model directory is tested at."""
    configuration = json.loads((folder / 'configuration.json').read_text())
    for pipeline in (configuration.get('test_pipeline'), configuration['dataset']['val']['pipeline']):
        if pipeline:
            pipeline[0]['img_scale'] = size
    (folder / 'configuration.json').write_text(json.dumps(configuration))


def evaluated(model: Path, data: Path, folder: Path) -> dict:
    """What `ms-segformer eval` says; `folder` takes its file."""
    words = ['--model', model, '--data', data, '--device', 'cpu', '--json', folder / 'eval.json']
    assert main(['eval', *map(str, words)]) == 0
    return json.loads((folder / 'eval.json').read_text())
