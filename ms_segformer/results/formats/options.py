"""What formats need to know besides the images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .regions import SIMPLIFY


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
    """

    classes: Sequence[str]
    palette: np.ndarray
    regions: str = 'rle'
    simplify: float = SIMPLIFY
    min_area: int = 0
    image_prefix: str = '/data/local-files/?d='
