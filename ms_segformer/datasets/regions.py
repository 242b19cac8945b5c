"""Regions of an image as annotation files write them, to masks: COCO's run lengths, and polygons.

What a file says is checked before anything of its size is made: pycocotools' C code writes past the end of an array
when run lengths do not fit it, and takes memory without end for a coordinate far away.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco

from ..preprocessors.image import MAX_PIXELS
from .errors import DatasetError

MAX_POINTS = 2**20  # of all polygons of one region
# Pixels that the outlines of one region are long together, each edge by its longer side: pycocotools takes 42 bytes
# for each (measured), and where there are none to be had it writes to address 0.
MAX_LENGTH = 2**23
_DIGITS = 7  # of five bits each, in a run length; 2**30 is above MAX_PIXELS


def decode_rle(rle: Any, where: object) -> np.ndarray:
    """Decode COCO's run lengths.

    Args:
        rle: `{'size': [H, W], 'counts': …}`, with compressed counts (text or bytes) or a list of them.
        where: what it belongs to, for messages.

    Returns:
        H×W uint8 array of 0 and 1.

    Raises:
        DatasetError: no run lengths, those of another size, or more than 134 megapixels.
    """
    if not isinstance(rle, dict) or not {'size', 'counts'} <= set(rle):
        raise DatasetError(f'{where}: run lengths are {{"size": [height, width], "counts": …}}; got other keys')
    height, width = check_size(rle['size'], where)
    counts = rle['counts']
    if isinstance(counts, (str, bytes)):
        lengths = _decompress(counts, where)
    elif isinstance(counts, list) and all(type(count) is int for count in counts):
        lengths = np.array([min(count, MAX_PIXELS + 1) for count in counts], np.int64)
    else:
        raise DatasetError(f'{where}: the counts of run lengths are a text or a list of whole numbers')
    if (lengths < 0).any() or (lengths > height * width).any() or lengths.sum() != height * width:
        raise DatasetError(
            f'{where}: the run lengths do not fit {height}×{width} pixels; the file is damaged, export it anew'
        )
    values = np.arange(len(lengths), dtype=np.uint8) & 1
    return np.repeat(values, lengths).reshape(width, height).T


def check_size(size: Any, where: object) -> tuple[int, int]:
    """Return (height, width) of an image or mask as a file says it.

    Raises:
        DatasetError: they are not two whole numbers of at least 1, or are too many pixels.
    """
    if (
        not isinstance(size, (list, tuple))
        or len(size) != 2
        or not all(type(side) is int and side > 0 for side in size)
    ):
        raise DatasetError(f'{where}: a size is [height, width] in pixels; got {str(size)[:80]}')
    if size[0] * size[1] > MAX_PIXELS:
        raise DatasetError(f'{where}: {size[0]}×{size[1]} pixels; at most {MAX_PIXELS:,} are read')
    return size[0], size[1]


def _decompress(counts: str | bytes, where: object) -> np.ndarray:
    """COCO's compressed counts to int64 lengths; each is five bits a character, as the difference to the last but one.

    The 32s of a character say that the number goes on, its 16s in the last one that the number is negative.
    """
    try:
        text = counts.encode('ascii') if isinstance(counts, str) else counts
    except UnicodeEncodeError:
        text = b'\0'
    characters = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    last = (characters & 32) == 0
    if (characters < 0).any() or (characters > 63).any() or (len(last) and not last[-1]):
        raise DatasetError(f"{where}: the counts are not COCO's compressed run lengths; export the file anew")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    if len(ends) and (ends - starts).max() >= _DIGITS:
        raise DatasetError(f'{where}: a run length has more than {_DIGITS} digits; the file is damaged')
    places = 5 * (np.arange(len(characters)) - np.repeat(starts, ends - starts + 1))
    numbers = np.add.reduceat((characters & 31) << places, starts) if len(ends) else np.zeros(0, np.int64)
    negative = (characters[ends] & 16) != 0
    numbers -= negative.astype(np.int64) << (places[ends] + 5)
    for first in (1, 2):  # from the fourth number on
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def fill_polygons(
    polygons: Sequence[Any], height: int, width: int, where: object, far: int | None = None
) -> np.ndarray:
    """Fill polygons as pycocotools does: a pixel belongs to one when its center does, holes by an edge walked twice.

    Args:
        polygons: of one region, each a sequence of (x, y) in pixels, 0 at the image's left and upper edge, or of
            x, y, x, y …; what lies outside of the image is cut off.
        height, width: of the image.
        where: what they belong to, for messages.
        far: the longer side of the image, in pixels, where height and width are those of a part.

    Returns:
        H×W uint8 array of 0 and 1: the pixels of any of them.

    Raises:
        DatasetError: fewer than three points, or what is no number, is several times further away than the image is
            large, or has too many points or too long an outline.
    """
    rings = [ring_of(points, where) for points in polygons]
    if sum(map(len, rings)) > MAX_POINTS:
        raise DatasetError(f'{where}: more than {MAX_POINTS:,} points in one region')
    limit = 3.0 * (far or max(height, width))
    for ring in rings:
        if len(ring) < 3:
            raise DatasetError(f'{where}: a polygon of {len(ring)} points; it takes at least three')
        if not np.isfinite(ring).all() or (np.abs(ring) > limit).any():
            raise DatasetError(f'{where}: a polygon has points far outside of its image of {width}×{height} pixels')
    if sum(float(np.abs(ring - np.roll(ring, 1, 0)).max(1).sum()) for ring in rings) > MAX_LENGTH:
        raise DatasetError(f'{where}: the outline of one region is more than {MAX_LENGTH:,} pixels long')
    if not rings:
        return np.zeros((height, width), np.uint8)
    encoded = coco.frPyObjects([ring.ravel().tolist() for ring in rings], height, width)
    return coco.decode(coco.merge(encoded))


def ring_of(points: Any, where: object) -> np.ndarray:
    """Return a polygon's points as N×2 float64, from (x, y) pairs or from x, y, x, y …

    Raises:
        DatasetError: they are anything else.
    """
    try:
        ring = np.asarray(points, np.float64)
    except (ValueError, TypeError, OverflowError):
        ring = np.empty(0)
    if ring.ndim == 1 and ring.size and ring.size % 2 == 0:
        ring = ring.reshape(-1, 2)
    if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) > MAX_POINTS:
        raise DatasetError(f'{where}: a polygon is a list of x and y of its points; got {str(points)[:80]}')
    return ring
