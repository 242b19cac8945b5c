"""What the pipeline says of an image, and the rows that files and legends list of it."""

from typing import TypedDict

import numpy as np


class _Segments(TypedDict):
    masks: list[np.ndarray]
    labels: list[str]
    scores: list[float]


class SegmentationOutput(_Segments, total=False):
    """What the pipeline says of an image: of each class present, in falling id, its mask (H×W uint8, 0 or 1, at the
    size of the upright image), its name, and the mean softmax probability over the mask, 0–1.

    The first three keys are those of ModelScope's `OutputKeys`. `image` is there where it was asked for. An image of a
    list that cannot be segmented has `error`, `index` and `damaged` in place of the others.
    """

    seg_map: np.ndarray  # H×W uint8 class ids, those without a name (VOID) among them
    image: np.ndarray  # H×W×3 uint8 RGB, upright
    error: str  # why there is no result
    index: int  # the image's position in the list
    damaged: bool  # the content is at fault: another try would give the same


class Row(TypedDict):
    """A segment of an image."""

    id: int  # of its class
    label: str
    score: float  # mean probability over the mask, 0–1
    pixels: int
    share: float  # of the image, 0–1
