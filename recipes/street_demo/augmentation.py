"""What the training crops of the demonstration model go through, so that it learns more than one camera in one town.

CamVid's skies are white, its houses brown and its poles bright before the sky. So skies are painted blue and cloudy,
what has other colors elsewhere is tinted, class by class, roads and walls get a texture as of cobbles and bricks, and
poles, people, bicycles and cars are pasted from one crop into another.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from classes import CLASSES, IGNORE
from numpy.typing import NDArray

RARE = ('structural-other', 'fence', 'car', 'person', 'bicycle')
# Classes with the probability that a crop gets them pasted into it, or tinted or roughened in it.
PASTED = {'structural-other': 0.3, 'person': 0.08, 'bicycle': 0.08, 'car': 0.08}
TINTED = {
    'building-other': 0.3,
    'pavement': 0.3,
    'road': 0.15,
    'tree': 0.15,
    'fence': 0.3,
    'car': 0.3,
    'structural-other': 0.3,
}
ROUGHENED = {'road': 0.3, 'pavement': 0.3, 'building-other': 0.25}
SKY = CLASSES.index('sky-other')

MEAN = (124, 116, 104)  # what becomes about 0, with which the preprocessing pads

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
    exposure = np.exp(rng.uniform(np.log(0.6), np.log(1.5)))
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


def smooth_noise(side: int, cells: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """side×side values from 0 to 1 that change slowly: noise of cells×cells and of four times as many, enlarged."""
    coarse, fine = (rng.random((n, n), np.float32) for n in (cells, 4 * cells))
    size = (side, side)
    return 0.7 * cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC) + 0.3 * cv2.resize(fine, size)


def paint_sky(image: Image, label: Image, rng: np.random.Generator) -> Image:
    """Give the sky of a square crop a blue that pales towards the ground, with clouds or without."""
    side = label.shape[0]
    zenith = cv2.cvtColor(
        np.array([[[rng.uniform(95, 118), rng.uniform(60, 200), rng.uniform(130, 245)]]]).astype(np.uint8),
        cv2.COLOR_HSV2RGB,
    )[0, 0].astype(np.float32)
    horizon = zenith + (np.float32(rng.uniform(200, 255)) - zenith) * rng.uniform(0.2, 0.9)
    height = np.linspace(0, 1, side, dtype=np.float32)[:, None, None] ** rng.uniform(0.6, 2)
    painted = zenith + (horizon - zenith) * height
    if rng.random() < 0.6:
        noise = smooth_noise(side, int(rng.integers(2, 8)), rng)[..., None]
        clouds = np.clip((noise - rng.uniform(0.3, 0.7)) * rng.uniform(2, 8), 0, 1)
        painted = painted + (np.float32(rng.uniform(170, 255)) - painted) * clouds
    # What is darker than the sky where trees are bare stays in front of it.
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    in_sky = label == SKY
    bright = np.percentile(gray[in_sky], 70)
    share = np.clip((gray - 0.35 * bright) / max(0.4 * bright, 1), 0, 1) * in_sky
    share = cv2.GaussianBlur(share, (0, 0), 0.6)[..., None] * rng.uniform(0.6, 1)
    return (image + (painted - image) * share).astype(np.uint8)


def tint(image: Image, mask: NDArray[np.bool_], rng: np.random.Generator) -> Image:
    """Give what the mask covers another color and brightness; its light and shade stay."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[mask].astype(np.float32)[:, None]
    hue = np.array([[[rng.uniform(0, 180), rng.uniform(0, 220), 255]]]).astype(np.uint8)
    color = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32) / 255
    colored = np.clip(gray * (color / color.mean()) * np.exp(rng.uniform(-0.5, 0.6)), 0, 255)
    strength = rng.uniform(0.3, 1)
    image = image.copy()
    image[mask] = (image[mask] * (1 - strength) + colored * strength).astype(np.uint8)
    return image


def roughen(image: Image, mask: NDArray[np.bool_], rng: np.random.Generator) -> Image:
    """Give what the mask covers a texture of small patches, lighter and darker, in rows as cobbles and bricks lie."""
    height, width = mask.shape
    rows = int(rng.integers(height // 20, height // 3))
    columns = int(np.clip(rows * np.exp(rng.uniform(-1, 0.7)), 4, width // 2))
    kind = cv2.INTER_NEAREST if rng.random() < 0.4 else cv2.INTER_LINEAR
    patches = cv2.resize(rng.random((rows, columns), np.float32), (width, height), interpolation=kind)
    factor = 1 + rng.uniform(0.1, 0.6) * (patches[mask] - 0.5)[:, None]
    image = image.copy()
    image[mask] = np.clip(image[mask] * factor, 0, 255).astype(np.uint8)
    return image


def repaint(image: Image, label: Image, rng: np.random.Generator) -> Image:
    """Paint the sky, tint and roughen other classes of a crop, each with a probability of its own."""
    if np.count_nonzero(label == SKY) > 100 and rng.random() < 0.5:
        image = paint_sky(image, label, rng)
    for name, probability in TINTED.items():
        mask = label == CLASSES.index(name)
        if rng.random() < probability and mask.any():
            image = tint(image, mask, rng)
    for name, probability in ROUGHENED.items():
        mask = label == CLASSES.index(name)
        if rng.random() < probability and mask.any():
            image = roughen(image, mask, rng)
    return image


def paste(
    image: Image, label: Image, other: Image, other_label: Image, class_id: int, rng: np.random.Generator
) -> tuple[Image, Image]:
    """Put what another crop shows of a class into this one, at its place there, lighter or darker."""
    mask = other_label == class_id
    lit = np.clip(other[mask].astype(np.float32) * np.exp(rng.uniform(-0.9, 0.5)), 0, 255)
    image, label = image.copy(), label.copy()
    image[mask], label[mask] = lit.astype(np.uint8), class_id
    return image, label


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
        rare = int(rng.choice(list(self.with_class))) if rng.random() < crops.rare_share else None
        image, label = self._crop(rare, crops, rng)
        outside = (label == IGNORE) & ~image.any(axis=-1)
        for name, probability in PASTED.items():
            if rng.random() < probability:
                class_id = CLASSES.index(name)
                image, label = paste(image, label, *self._crop(class_id, crops, rng), class_id, rng)
        if rng.random() < 0.6:
            image = repaint(image, label, rng)
        image = recolor(image, rng)
        if rng.random() < 0.5:
            image[outside] = MEAN
        return image, label

    def _crop(self, rare: int | None, crops: Crops, rng: np.random.Generator) -> tuple[Image, Image]:
        """A crop of a random photograph; with `rare`, of one that shows this class."""
        at = int(rng.integers(len(self.images)) if rare is None else rng.choice(self.with_class[rare]))
        return random_crop(self.images[at], self.labels[at], rare, crops, rng)
