"""What the pipeline says of an image, and the rows that files and legends list of it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

BAND = 1 << 20  # pixels that are looked at together for boxes


class _Segments(TypedDict):
    masks: list[np.ndarray]
    labels: list[str]
    scores: list[float]


class SegmentationOutput(_Segments, total=False):
    """The content of a `SegmentationResult`: of each class present, in falling id, its mask (H×W uint8, 0 or 1, at the
    size of the upright image), its name, and the mean softmax probability over the mask, 0–1.

    The first three keys are those of ModelScope's `OutputKeys`. `image`, `confidence` and `margin` are there where they
    were asked for. An image of a list that cannot be segmented has `error`, `index` and `damaged` in place of the
    others. A frame of a video has `index` and `time` besides.
    """

    seg_map: np.ndarray  # H×W uint8 class ids, those without a name (VOID) among them
    image: np.ndarray  # H×W×3 uint8 RGB, upright
    confidence: np.ndarray  # H×W float16, 0–1: probability of the pixel's class
    margin: np.ndarray  # H×W float16, 0–1: that less the probability of the second best class
    error: str  # why there is no result
    index: int  # the position in the list, or in the video
    time: float  # of a frame: seconds from the first one
    damaged: bool  # the content is at fault: another try would give the same


class Row(TypedDict):
    """A segment of an image."""

    id: int  # of its class
    label: str
    score: float  # mean probability over the mask, 0–1
    pixels: int
    share: float  # of the image, 0–1


class BoxedRow(Row):
    """A segment of an image, and where it lies."""

    box: list[int]  # [left, top, width, height] in pixels, of all its parts together


def segments(result: Mapping[str, Any], classes: Sequence[str]) -> list[Row]:
    """One row per segment of a pipeline result, largest first."""
    counts = np.bincount(result['seg_map'].ravel(), minlength=len(classes))
    ids = sorted(np.flatnonzero(counts[: len(classes)]).tolist(), reverse=True)
    rows = [
        Row(
            id=i,
            label=label,
            score=round(float(score), 6),
            pixels=int(counts[i]),
            share=round(int(counts[i]) / result['seg_map'].size, 6),
        )
        for i, label, score in zip(ids, result['labels'], result['scores'], strict=True)
    ]
    return sorted(rows, key=lambda row: -row['pixels'])


def boxes(seg_map: np.ndarray, ids: Iterable[int]) -> dict[int, list[int]]:
    """The smallest upright rectangle around all pixels of each class, as [left, top, width, height].

    Args:
        seg_map: H×W uint8 class ids.
        ids: of the classes; each is in the map.
    """
    height, width = seg_map.shape
    in_row, in_column = np.zeros((256, height), bool), np.zeros((256, width), bool)
    step = max(1, BAND // width)
    for top in range(0, height, step):
        band = seg_map[top : top + step]
        in_row[band, np.arange(top, top + len(band))[:, None]] = True
        in_column[band, np.arange(width)] = True
    return {i: [*_extent(in_column[i], in_row[i])] for i in ids}


def _extent(columns: np.ndarray, rows: np.ndarray) -> tuple[int, int, int, int]:
    x, y = np.flatnonzero(columns), np.flatnonzero(rows)
    return int(x[0]), int(y[0]), int(x[-1] - x[0] + 1), int(y[-1] - y[0] + 1)
