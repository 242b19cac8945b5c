"""A small data set to try training with: circles, squares and triangles on noisy ground, always the same ones."""

import contextlib
import os
import shutil
from pathlib import Path

import cv2
import numpy as np

from .errors import DatasetError
from .preparation import require_no_file

CLASSES = ('background', 'circle', 'square', 'triangle')
SPLITS = {'train': 12, 'val': 4}
SIDES = (96, 160)  # pixels, shortest and longest
_COLORS = ((120, 120, 120), (210, 60, 60), (60, 170, 80), (70, 90, 210))  # RGB by class, which every shape varies


def write_example(folder: str | os.PathLike) -> Path:
    """Write `images/{train,val}/NN.jpg`, `annotations/{train,val}/NN.png` (ids 0-3) and `classes.txt`.

    Args:
        folder: is made, or is there and empty.

    Raises:
        DatasetError: it is a file, holds something already, or cannot be written.
    """
    folder = require_empty(folder)
    random = np.random.default_rng(0)
    try:
        for split, count in SPLITS.items():
            for kind in ('images', 'annotations'):
                (folder / kind / split).mkdir(parents=True)
            for number in range(count):
                image, label = _picture(random)
                _write(folder / 'images' / split / f'{number:02}.jpg', image[..., ::-1])
                _write(folder / 'annotations' / split / f'{number:02}.png', label)
        (folder / 'classes.txt').write_text(''.join(f'{name}\n' for name in CLASSES), encoding='utf-8')
    except OSError as error:
        for name in ('images', 'annotations'):  # so that the folder is as it was
            shutil.rmtree(folder / name, ignore_errors=True)
        with contextlib.suppress(OSError):
            (folder / 'classes.txt').unlink()
        raise DatasetError(f'{folder} cannot be written ({error}); make room or choose another folder') from None
    return folder


def require_empty(folder: str | os.PathLike) -> Path:
    """Return a folder that may be filled.

    Raises:
        DatasetError: there is a file, or something in it.
    """
    folder = Path(folder)
    require_no_file(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise DatasetError(f'{folder} holds something already; choose a folder that is empty or does not exist')
    return folder


def _write(path: Path, pixels: np.ndarray) -> None:
    done, content = cv2.imencode(path.suffix, pixels)
    if not done:
        raise DatasetError(f'OpenCV could not encode {path}')
    path.write_bytes(content.tobytes())


def _picture(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """H×W×3 uint8 RGB, and H×W uint8 class ids: a shape of each class, each in a quarter of its own."""
    height, width = random.integers(SIDES[0], SIDES[1] + 1, 2).tolist()
    label = np.zeros((height, width), np.uint8)
    image = np.empty((height, width, 3), np.float32)
    image[:] = _varied(random, 0)
    for kind, quarter in zip((1, 2, 3), random.permutation(4).tolist(), strict=False):
        center = (0.25 + 0.5 * (quarter % 2)) * width, (0.25 + 0.5 * (quarter // 2)) * height
        shape = _shape(random, kind, label.shape, center, 0.25 * min(height, width))
        label[shape], image[shape] = kind, _varied(random, kind)
    image += random.normal(0, 12, image.shape)
    return image.clip(0, 255).astype(np.uint8), label


def _varied(random: np.random.Generator, kind: int) -> np.ndarray:
    return np.array(_COLORS[kind], np.float32) + random.uniform(-30, 30, 3)


def _shape(
    random: np.random.Generator, kind: int, size: tuple[int, int], center: tuple[float, float], radius: float
) -> np.ndarray:
    """H×W bool, a circle (1), square (2) or triangle (3) of about a radius, turned by any angle."""
    count = {1: 60, 2: 4, 3: 3}[kind]  # corners
    angles = 2 * np.pi * (np.arange(count) / count + random.uniform())
    radius *= random.uniform(0.9, 1.0) * {1: 1.0, 2: 1.2, 3: 1.3}[kind]
    points = np.stack([center[0] + radius * np.cos(angles), center[1] + radius * np.sin(angles)], 1)
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [points.round().astype(np.int32)], 1)
    return mask > 0
