"""Open every pair of a source and report what is wrong, and how often each class occurs."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..errors import some_of
from ..files import atomic_write
from ..fonts import font_of, writable
from ..metainfo import IGNORE_INDEX
from .errors import DatasetError
from .parallel import map_in_processes
from .sources import FileSource, bad_values

MISSING_IMAGE = 'missing image'
MISSING_LABEL = 'missing label'
ONE_NAME = 'several images of one name'
UNREADABLE = 'unreadable'
SIZE_MISMATCH = 'size mismatch'
OUT_OF_RANGE = 'values out of range'
NOTHING_LABELED = 'nothing labeled'
# The last one is legitimate, and worth knowing: such a pair teaches nothing.
KINDS = (MISSING_IMAGE, MISSING_LABEL, ONE_NAME, UNREADABLE, SIZE_MISMATCH, OUT_OF_RANGE, NOTHING_LABELED)


@dataclass
class Problem:
    """One thing to report: its kind (of `KINDS`), the file, and what about it."""

    kind: str
    file: str
    detail: str


@dataclass
class Inspection:
    """What was found in one split.

    Attributes:
        classes: class names by id.
        pairs: number of pairs that were opened.
        problems: list of `Problem`, sorted by kind and file.
        pixels: int64 per class, pixels in all readable label maps.
        images: int64 per class, label maps it occurs in.
        ignored: pixels that are not labeled.
        sizes: {(width, height): number of images}.
    """

    classes: list[str]
    pairs: int = 0
    problems: list[Problem] = field(default_factory=list)
    pixels: np.ndarray = field(init=False)
    images: np.ndarray = field(init=False)
    ignored: int = 0
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pixels = np.zeros(len(self.classes), np.int64)
        self.images = np.zeros(len(self.classes), np.int64)

    def merge(self, other: 'Inspection') -> None:
        """Add what was found in further pairs of the same classes."""
        self.pairs += other.pairs
        self.problems += other.problems
        self.pixels += other.pixels
        self.images += other.images
        self.ignored += other.ignored
        for size, count in other.sizes.items():
            self.sizes[size] = self.sizes.get(size, 0) + count

    def counts(self) -> dict[str, int]:
        """Return {kind: number of problems} of the kinds that occur."""
        return {kind: count for kind in KINDS if (count := sum(problem.kind == kind for problem in self.problems))}

    @property
    def usable(self) -> bool:
        """Whether there are pairs and training could read all of them."""
        return self.pairs > 0 and not set(self.counts()) - {NOTHING_LABELED}

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-compatible values."""
        return {
            'usable': self.usable,
            'pairs': self.pairs,
            'problems': {
                kind: [
                    {'file': problem.file, 'detail': problem.detail}
                    for problem in self.problems
                    if problem.kind == kind
                ]
                for kind in self.counts()
            },
            'classes': [
                {'id': index, 'name': name, 'pixels': int(self.pixels[index]), 'images': int(self.images[index])}
                for index, name in enumerate(self.classes)
            ],
            'pixels_not_labeled': self.ignored,
            'sizes': [
                {'width': width, 'height': height, 'images': count}
                for (width, height), count in sorted(self.sizes.items())
            ],
        }


def inspect(source: FileSource, jobs: int | None = None, description: str = '') -> Inspection:
    """Open every pair of a source in parallel.

    Args:
        source: a source of files built with `check=False`, so that missing files are in its `pairing`.
        jobs: number of processes, None: one per available core.
        description: for the progress bar.

    Returns:
        An `Inspection`.
    """
    result = Inspection(source.CLASSES)
    result.problems += [
        Problem(MISSING_IMAGE, path, 'is in the split file, but there is no such image')
        for path in source.pairing.missing_images
    ]
    result.problems += [
        Problem(MISSING_LABEL, image, f'no label map {label}') for image, label in source.pairing.missing_labels
    ]
    result.problems += [
        Problem(ONE_NAME, ' and '.join(images), 'take the same label map: only the first was looked at')
        for images in source.pairing.ambiguous
    ]
    for part in map_in_processes(_inspect_some, source, range(len(source)), jobs, description):
        result.merge(part)
    result.problems.sort(key=lambda problem: (KINDS.index(problem.kind), problem.file))
    return result


def _inspect_some(source: FileSource, indices: Sequence[int]) -> Inspection:
    result = Inspection(source.CLASSES)
    for index in indices:
        result.pairs += 1
        img = _read(source.read_raw_image, index, source.image_path(index), result)
        if img is not None:
            size = img.shape[1], img.shape[0]
            result.sizes[size] = result.sizes.get(size, 0) + 1
        path = source.label_path(index)
        if path is not None:
            label = _read(source.read_raw_label, index, path, result)
            if label is not None:
                _inspect_label(source, path, label, img, result)
    return result


def _read(reader: Callable[[int], np.ndarray], index: int, path: str, result: Inspection) -> np.ndarray | None:
    try:
        return reader(index)
    except DatasetError as error:
        result.problems.append(Problem(UNREADABLE, path, str(error)))
        return None


def _inspect_label(
    source: FileSource, path: str, label: np.ndarray, img: np.ndarray | None, result: Inspection
) -> None:
    if img is not None and label.shape != img.shape[:2]:
        result.problems.append(
            Problem(
                SIZE_MISMATCH,
                path,
                f'{label.shape[1]}×{label.shape[0]} pixels, its image has {img.shape[1]}×{img.shape[0]} (width×height)',
            )
        )
    count = len(source.CLASSES)
    bad = bad_values(label, count)
    if bad:
        values = ', '.join(f'{value} ({pixels} pixels)' for value, pixels in bad.items())
        result.problems.append(
            Problem(OUT_OF_RANGE, path, f'holds {values}; allowed are 0-{count - 1} and {IGNORE_INDEX}')
        )
    pixels = np.bincount(label.ravel(), minlength=256)
    result.ignored += int(pixels[IGNORE_INDEX])
    pixels = pixels[:count]
    if not pixels.any():
        result.problems.append(Problem(NOTHING_LABELED, path, 'no pixel carries a class'))
    result.pixels += pixels
    result.images += pixels > 0


def histogram_lines(inspection: Inspection, width: int = 40) -> list[str]:
    """Return the classes that occur as lines of text with bars, and a last line that names those that do not."""
    total = max(int(inspection.pixels.sum()), 1)
    longest = max(map(len, inspection.classes))
    top = max(int(inspection.pixels.max(initial=0)), 1)
    lines = [f'{"class":<{longest}}  {"% of pixels":>11}  {"images":>7}']
    for index in np.argsort(-inspection.pixels, kind='stable'):
        pixels = int(inspection.pixels[index])
        if pixels:
            bar = '█' * max(round(width * pixels / top), 1)
            lines.append(
                f'{inspection.classes[index]:<{longest}}  {100 * pixels / total:>11.3f}  '
                f'{inspection.images[index]:>7}  {bar}'
            )
    absent = [name for name, pixels in zip(inspection.classes, inspection.pixels, strict=True) if not pixels]
    if absent:
        shown = some_of(absent, 12, count=True)
        lines.append(f'{len(absent)} of {len(inspection.classes)} classes do not occur: {shown}')
    return lines


def draw_histogram(
    inspections: dict[str, Inspection], palettes: dict[str, list[list[int]]], path: str | os.PathLike
) -> np.ndarray:
    """Draw a bar per class and split, on a logarithmic scale of pixels, and write it as PNG.

    Args:
        inspections: {split: `Inspection`}, all with the same classes or not.
        palettes: {split: one (red, green, blue) per class}.
        path: of the PNG.

    Returns:
        H×W×3 uint8 RGB array.
    """
    panels = [_draw_panel(split, inspection, palettes[split]) for split, inspection in inspections.items()]
    image = Image.new('RGB', (sum(panel.width for panel in panels), max(panel.height for panel in panels)), 'white')
    left = 0
    for panel in panels:
        image.paste(panel, (left, 0))
        left += panel.width
    with atomic_write(path) as temporary:
        image.save(temporary, 'PNG')
    return np.asarray(image)


def _draw_panel(split: str, inspection: Inspection, palette: list[list[int]]) -> Image.Image:
    row, bar_width = 13, 360
    names = writable(inspection.classes, [f'class {index}' for index in range(len(inspection.classes))])
    font = font_of(10, names)
    margin = max(int(font.getlength(name)) for name in names) + 14
    image = Image.new('RGB', (margin + bar_width + 110, 40 + row * len(inspection.classes)), 'white')
    draw = ImageDraw.Draw(image)
    draw.text(
        (8, 6), f'{split}: pixels per class (logarithmic bars), images with it; {inspection.pairs} pairs', 'black', font
    )
    top = np.log1p(max(int(inspection.pixels.max(initial=0)), 1))
    for index, name in enumerate(names):
        y = 30 + row * index
        pixels, images = int(inspection.pixels[index]), int(inspection.images[index])
        draw.text((8, y), name, 'black' if pixels else (170, 170, 170), font)
        length = int(bar_width * np.log1p(pixels) / top)
        if length:
            draw.rectangle((margin, y + 1, margin + length, y + row - 3), tuple(palette[index]), (120, 120, 120))
        draw.text((margin + length + 6, y), f'{pixels:,} px, {images} img' if pixels else '-', (90, 90, 90), font)
    return image
