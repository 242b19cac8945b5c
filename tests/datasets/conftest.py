"""A small data set on disk that tests may damage."""

import numpy as np
import pytest
from PIL import Image

CLASSES = ['sky', 'ground', 'house']


def _write_pair(images, labels, name, size=(40, 30), seed=0, suffix='.png'):
    """Write a random JPEG and a label map of vertical stripes of classes 0-2 with a column of 255."""
    rng = np.random.RandomState(seed)
    width, height = size
    for folder in (images, labels):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    coarse = rng.randint(0, 256, (height // 5, width // 5, 3), np.uint8)
    Image.fromarray(coarse).resize(size, Image.BILINEAR).save(images / f'{name}.jpg', quality=95)
    label = np.repeat(np.arange(width)[None] * 3 // width, height, 0).astype(np.uint8)
    label[:, -1] = 255
    Image.fromarray(label).save(labels / f'{name}{suffix}')
    return label


@pytest.fixture
def write_pair():
    """The function that writes a pair."""
    return _write_pair


@pytest.fixture
def pairs(tmp_path):
    """Folder with `images`, `labels` (five pairs of 40×30, one in a subfolder) and `classes.txt`."""
    for index, name in enumerate(['a', 'b', 'c', 'd', 'deep/e']):
        _write_pair(tmp_path / 'images', tmp_path / 'labels', name, seed=index)
    (tmp_path / 'classes.txt').write_text('\n'.join(CLASSES) + '\n')
    return tmp_path


@pytest.fixture
def section(pairs):
    """`data_source` section for `pairs`."""
    return {
        'type': 'SegSourceRaw',
        'img_root': str(pairs / 'images'),
        'label_root': str(pairs / 'labels'),
        'classes': CLASSES,
    }
