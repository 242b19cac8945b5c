"""What formats need to know besides the images."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

from ...errors import ArgumentError
from .regions import SIMPLIFY

REGIONS = ('rle', 'polygons')
MOST_SIMPLIFY = 1000  # pixels


@dataclass(frozen=True)
class FormatOptions:
    """What is the same for all images of a format.

    Attributes:
        classes: names by id.
        palette: 256×3 uint8, the colors by class id.
        regions: `rle` or `polygons`, where a format has both (COCO, Label Studio).
        simplify: how far an outline of a polygon may move, in pixels.
        min_area: connected parts of fewer pixels are left out, of COCO, LabelMe and Label Studio.
        image_prefix: what Label Studio finds the images by, before their names.

    Raises:
        ArgumentError: regions of another kind, or a number out of range.
    """

    classes: Sequence[str]
    palette: np.ndarray
    regions: str = 'rle'
    simplify: float = SIMPLIFY
    min_area: int = 0
    image_prefix: str = '/data/local-files/?d='

    def __post_init__(self) -> None:
        if self.regions not in REGIONS:
            raise ArgumentError(f"regions is {self.regions!r}; accepted: 'rle' or 'polygons'")
        if not isinstance(self.simplify, Real) or not 0 <= self.simplify <= MOST_SIMPLIFY:
            raise ArgumentError(f'simplify is {self.simplify!r}; accepted: 0 to {MOST_SIMPLIFY} pixels')
        if not isinstance(self.min_area, Integral) or self.min_area < 0:
            raise ArgumentError(f'min_area is {self.min_area!r}; accepted: a whole number of pixels, 0 or more')
