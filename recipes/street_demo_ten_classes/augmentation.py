"""What the training crops of the demonstration model go through, so that it learns more than one camera in one town."""

from dataclasses import dataclass

import cv2
import numpy as np
from classes import CLASSES, IGNORE
from numpy.typing import NDArray

RARE = ('structural-other', 'fence', 'car', 'person', 'bicycle')

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Crops:
    """How a crop is cut: its side in pixels, and the range of scales, relative to the photograph."""

    side: int
    scales: tuple[float, float]
    rare_share: float = 0.5


def random_crop(
    image: Image, label: Image, rare_id: int | None, crops: Crops, rng: np.random.Generator
) -> tuple[Image, Image]:
    """Cut a scaled, sometimes turned and mirrored square from a photograph and its label map.

    Args:
        image: H×W×3 uint8. label: H×W uint8.
        rare_id: put a pixel of this class somewhere in the crop; None: anywhere.

    Returns:
        side×side×3 and side×side; what lies outside the photograph is black and ignored.
    """
    height, width = label.shape
    scale = np.exp(rng.uniform(*np.log(crops.scales)))
    half = crops.side / 2 / scale
    if rare_id is None:
        x, y = (rng.uniform(min(half, size / 2), max(size - half, size / 2)) for size in (width, height))
    else:
        rows, columns = np.nonzero(label == rare_id)
        pick = rng.integers(len(rows))
        x, y = (
            np.clip(at + rng.uniform(-0.8, 0.8) * half, min(half, size / 2), max(size - half, size / 2))
            for at, size in ((columns[pick], width), (rows[pick], height))
        )
    stretch = np.exp(rng.uniform(-0.12, 0.12))
    angle = np.deg2rad(rng.uniform(-6, 6)) if rng.random() < 0.3 else 0.0
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = scale * turn @ np.diag([mirror * stretch, 1 / stretch])
    offset = crops.side / 2 - linear @ np.array([x, y])
    matrix = np.hstack([linear, offset[:, None]])
    size = (crops.side, crops.side)
    if scale < 0.8:
        image = cv2.GaussianBlur(image, (0, 0), 0.35 / scale)
    interpolation = cv2.INTER_LINEAR if scale < 1 or rng.random() < 0.7 else cv2.INTER_CUBIC
    cut = cv2.warpAffine(image, matrix, size, flags=interpolation, borderMode=cv2.BORDER_CONSTANT)
    labels = cv2.warpAffine(
        label, matrix, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=IGNORE
    )
    return cut, labels


def recolor(image: Image, rng: np.random.Generator) -> Image:
    """Change hue, saturation, exposure, contrast and sharpness of an H×W×3 uint8 RGB image at random."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    turned = rng.uniform(-45, 45) if rng.random() < 1 / 3 else rng.uniform(-5, 5)  # in OpenCV's units of two degrees
    steps = np.arange(256)
    hue = ((steps + round(turned)) % 180).astype(np.uint8)
    saturation = 0.0 if rng.random() < 0.15 else np.exp(rng.uniform(np.log(0.3), np.log(1.8)))
    exposure = np.exp(rng.uniform(np.log(0.5), np.log(1.6)))
    gamma = np.exp(rng.uniform(-0.35, 0.35))
    value = np.clip((steps / 255) ** gamma * 255 * exposure, 0, 255)
    tables = np.stack([hue, np.clip(steps * saturation, 0, 255), value], axis=-1).astype(np.uint8)
    image = cv2.cvtColor(cv2.LUT(hsv, tables[None]), cv2.COLOR_HSV2RGB)
    contrast = rng.uniform(0.6, 1.5)
    tint = rng.uniform(0.85, 1.15, 3) if rng.random() < 0.3 else np.ones(3)
    middle = image.mean()
    levels = np.clip((steps[:, None] - middle) * contrast + middle, 0, 255) * tint
    image = cv2.LUT(image, np.clip(levels, 0, 255).astype(np.uint8)[None])
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6))
    if rng.random() < 0.15:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 90))]
        image = cv2.imdecode(cv2.imencode('.jpg', image, quality)[1], cv2.IMREAD_COLOR)
    return image


class CropSource:
    """Draws batches; the batch of a step depends on the seed and the step alone, so a run can go on from any step."""

    def __init__(self, images: list[Image], labels: list[Image], seed: int) -> None:
        self.images, self.labels, self.seed = images, labels, seed
        least = 60  # pixels a photograph must have of a class to be drawn for it
        ids = [CLASSES.index(name) for name in RARE]
        self.with_class = {
            rare: [at for at, label in enumerate(labels) if np.count_nonzero(label == rare) >= least] for rare in ids
        }

    def batch(self, step: int, size: int, crops: Crops) -> tuple[Image, Image]:
        """`size`×side×side×3 images and `size`×side×side labels, both uint8."""
        rng = np.random.default_rng([self.seed, step])
        pairs = [self._pair(crops, rng) for _ in range(size)]
        return np.stack([image for image, _ in pairs]), np.stack([label for _, label in pairs])

    def _pair(self, crops: Crops, rng: np.random.Generator) -> tuple[Image, Image]:
        rare = None
        at = int(rng.integers(len(self.images)))
        if rng.random() < crops.rare_share:
            rare = int(rng.choice(list(self.with_class)))
            at = int(rng.choice(self.with_class[rare]))
        image, label = random_crop(self.images[at], self.labels[at], rare, crops, rng)
        return recolor(image, rng), label
