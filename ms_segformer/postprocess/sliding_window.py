"""Sliding windows: an image of any size through the network piece by piece, in bounded memory.

Windows of `crop_size` stand every `stride` pixels, the last one shifted back to the border. Each window's logits are
scaled to the window, overlapping ones averaged, the average scaled to the photograph, and the best class taken: what
the configurations mean by `test_cfg: {mode: slide}`.

Neither the C×H×W logits nor a whole row of windows is ever held. Window logits stay at a quarter of the window's size,
and of a window whose output is complete only the rows that overlap with the windows below. With float32 logits of C
classes, an image of width W, windows of h×w every sw pixels in rows at least sh pixels apart, the peak over image,
label map and network is about

    C/4 · ( (W/sw) · w · (h - sh) + 4·h·w )  bytes  +  `BLOCK` bytes

The last row of windows is shifted back, so sh there may be less than the stride. The image takes 3 bytes a pixel and
the label map 1. While a file is decoded it takes 4 to 7 bytes a pixel as JPEG, PNG, GIF, TIFF or BMP and up to 20 in
other formats (`preprocessors.image.load_image` lists them); of a list, up to two images are read ahead. (20,000×20,000
pixels, which `max_pixels` has to allow, C = 172, windows of 512×512 every 341: 2.8 GB while a JPEG is decoded; then 1.6
GB of image and label map, 0.22 of overlaps, 0.60 at the last row, which stands 51 pixels below the one before, 45 MB of
windows, 0.1 GB of blocks.)
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..preprocessors.shapes import ImageShapes
from .float32 import exact_float32
from .resampling import Taps, resize_taps, stretch_rows
from .segmentation import Confidence, Segmentation, confidence_pixels, exact_type, label_pixels, summarize

BLOCK = 96 << 20  # bytes of full-size logits in work at a time, intermediate results included
MARGIN = 2  # pixels before a window's start that outputs waiting for it still read, for the resize to the photograph

Engine = Callable[[torch.Tensor], torch.Tensor]
ReadPart = Callable[[int, int, int, int], torch.Tensor]


def slide_segment(
    engine: Engine,
    read: ReadPart,
    shapes: ImageShapes,
    crop_size: tuple[int, int],
    stride: tuple[int, int],
    num_names: int,
    align_corners: bool = False,
    model: str | os.PathLike | None = None,
    confidence: bool = False,
) -> Segmentation:
    """Segment an image window by window.

    Args:
        engine: callable from 1×3×h×w float32 to 1×C×h'×w' logits, on whose device the work is done; see
            `engines.create_engine`.
        read: callable (top, bottom, left, right) to that part of the network's input, 1×3×h×w float32. It is asked for
            one window at a time, in reading order.
        shapes: of the network's input, all of which the windows cover, and of the photograph.
        crop_size, stride: (height, width) of a window, and of the step from one to the next.
        num_names: as in `postprocess.segment`.
        align_corners: as in `torch.nn.functional.interpolate`.
        model: directory or name of the model, for messages.
        confidence: as in `postprocess.segment`; 4 bytes a pixel more.

    Returns:
        `postprocess.Segmentation`.

    Raises:
        LogitsError: a window's logits hold NaN or infinity.
        ValueError: a stride below 1 or above the window.
    """
    mosaic = Mosaic(shapes.padded, crop_size, stride, align_corners, model)
    rows, cols = taps_from_padded(shapes, align_corners)
    row_stops, col_stops = _finished(mosaic.tops, rows), _finished(mosaic.lefts, cols)
    seg_map = np.empty(shapes.original, np.uint8)
    sure = Confidence.empty(shapes.original) if confidence else None
    sums: np.ndarray | float = 0.0
    counts: np.ndarray | int = 0
    for k, j in mosaic.fill(engine, read):
        for block in _blocks(row_stops[k : k + 2], col_stops[j : j + 2], rows, cols, mosaic.classes):
            (down, block_rows), (across, block_cols) = rows.part(block[0]), cols.part(block[1])
            average = mosaic.average(down, across)
            labels, block_sums, block_counts = label_pixels(average, block_rows, block_cols, model)
            seg_map[block] = labels
            if sure:
                part = confidence_pixels(average, block_rows, block_cols, model)
                sure.probability[block], sure.margin[block] = part.probability, part.margin
            sums, counts = sums + block_sums, counts + block_counts
        mosaic.forget(k, j)
    return summarize(seg_map, np.asarray(sums), np.asarray(counts), num_names, sure)


def taps_from_padded(shapes: ImageShapes, align_corners: bool) -> tuple[Taps, Taps]:
    """The maps from the rows and columns of the network's input to those of the photograph."""
    rows, cols = (
        resize_taps(valid, final, align_corners) for valid, final in zip(shapes.resized, shapes.original, strict=True)
    )
    return rows, cols


def _starts(size: int, crop: int, stride: int) -> list[int]:
    """First pixels of the windows along an axis."""
    count = max(size - crop + stride - 1, 0) // stride + 1
    return [max(min(i * stride + crop, size) - crop, 0) for i in range(count)]


def _finished(starts: list[int], taps: Taps) -> list[int]:
    """Outputs that need no pixel from window i on: `count + 1` numbers, from 0 to all of them."""
    last = taps.first + taps.weights.shape[1] - 1
    return [0] + [int(np.searchsorted(last, start)) for start in starts[1:]] + [len(last)]


def _blocks(
    row_range: list[int], col_range: list[int], rows: Taps, cols: Taps, classes: int
) -> Iterator[tuple[slice, slice]]:
    """Cut a rectangle of the photograph into blocks whose logits stay within `BLOCK`."""
    (top, bottom), (left, right) = row_range, col_range
    if top >= bottom or left >= right:
        return
    side = max(16, math.isqrt(BLOCK // (16 * classes)))  # in pixels of the network's input; four arrays of that size
    down = max(1, int(side * len(rows.first) / (int(rows.first[-1]) + 2)))
    across = max(1, int(side * len(cols.first) / (int(cols.first[-1]) + 2)))
    for y in range(top, bottom, down):
        for x in range(left, right, across):
            yield slice(y, min(y + down, bottom)), slice(x, min(x + across, right))


@dataclass
class _Window:
    top: int
    left: int
    logits: torch.Tensor  # rows from `row` on, h×w×C
    row: int
    rows: Taps  # from all rows of the logits to the window's pixels
    cols: Taps


class Mosaic:
    """The windows over an image, and the logits of those that are still needed.

    Args:
        shape: (height, width) of the network's input.
        crop_size, stride: (height, width) of a window, and of the step from one to the next.
        align_corners: as in `torch.nn.functional.interpolate`.
        model: directory or name of the model, for messages.

    Attributes:
        tops, lefts: first rows and columns of the windows.
        classes: channels of the logits, from the first window on.
        dtype: of the averages: float32, or float64 once a window's logits may overflow that.
        device: that of the logits.

    Raises:
        ValueError: a stride below 1 or above the window.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        crop_size: tuple[int, int],
        stride: tuple[int, int],
        align_corners: bool,
        model: str | os.PathLike | None,
    ) -> None:
        if any(not 1 <= step <= size for step, size in zip(stride, crop_size, strict=True)):
            raise ValueError(
                f'stride {tuple(stride)} with windows of {tuple(crop_size)}; expected 1 <= stride <= crop_size'
            )
        self.tops, self.lefts = (_starts(*sizes) for sizes in zip(shape, crop_size, stride, strict=True))
        self.crop = min(crop_size[0], shape[0]), min(crop_size[1], shape[1])
        self.align_corners, self.model = align_corners, model
        self.windows: dict[tuple[int, int], _Window] = {}
        self.cover = [
            _coverage(starts, size, total)
            for starts, size, total in zip((self.tops, self.lefts), self.crop, shape, strict=True)
        ]
        self.classes, self.dtype, self.device = 0, torch.float32, torch.device('cpu')

    def fill(self, engine: Engine, read: ReadPart) -> Iterator[tuple[int, int]]:
        """Run the network on one window after the other; yields each window's number in its column and row."""
        height, width = self.crop
        for k, top in enumerate(self.tops):
            for j, left in enumerate(self.lefts):
                self._add(k, j, engine(read(top, top + height, left, left + width))[0])
                yield k, j

    def _add(self, k: int, j: int, logits: torch.Tensor) -> None:
        # In sums NaN is no longer told from infinity.
        if exact_type(logits.permute(1, 2, 0), self.model) == torch.float64:
            self.dtype = torch.float64
        logits = logits.detach().to(torch.float32).permute(1, 2, 0).contiguous()
        rows, cols = (
            resize_taps(size, crop, self.align_corners) for size, crop in zip(logits.shape[:2], self.crop, strict=True)
        )
        self.windows[k, j] = _Window(self.tops[k], self.lefts[j], logits, 0, rows, cols)
        self.classes, self.device = logits.shape[2], logits.device

    def average(self, rows: range, cols: range) -> torch.Tensor:
        """Mean of the windows over a range of rows and columns: rows×cols×C float32."""
        total = torch.zeros(len(rows), len(cols), self.classes, dtype=self.dtype, device=self.device)
        with exact_float32(self.device):
            for window in self.windows.values():
                self._add_part(total, window, rows, cols)
        counts = self.cover[0][rows.start : rows.stop, None] * self.cover[1][None, cols.start : cols.stop]
        return total.div_(torch.from_numpy(counts)[..., None].to(self.device)).float()

    def _add_part(self, total: torch.Tensor, window: _Window, rows: range, cols: range) -> None:
        top, bottom = max(rows.start, window.top), min(rows.stop, window.top + self.crop[0])
        left, right = max(cols.start, window.left), min(cols.stop, window.left + self.crop[1])
        if top >= bottom or left >= right:
            return
        read_rows, down = window.rows.part(slice(top - window.top, bottom - window.top))
        read_cols, across = window.cols.part(slice(left - window.left, right - window.left))
        source = window.logits[
            read_rows.start - window.row : read_rows.stop - window.row, read_cols.start : read_cols.stop
        ].to(self.dtype)
        part = total[top - rows.start : bottom - rows.start, left - cols.start : right - cols.start]
        part += across.matrix(len(read_cols)).to(source) @ stretch_rows(source, down)

    def forget(self, k: int, j: int) -> None:
        """Drop what no later window's output needs, after window (k, j) and the output up to it are done."""
        below, beside = (
            starts[i + 1] - MARGIN if i + 1 < len(starts) else math.inf
            for starts, i in ((self.tops, k), (self.lefts, j))
        )
        for key, window in list(self.windows.items()):
            if window.left + self.crop[1] <= beside:
                self._shorten(key, window, below)

    def _shorten(self, key: tuple[int, int], window: _Window, below: float) -> None:
        if window.top + self.crop[0] <= below:
            del self.windows[key]
            return
        row = int(window.rows.first[int(max(below - window.top, 0))])
        if row > window.row:
            window.logits = window.logits[row - window.row :].clone()
            window.row = row


def _coverage(starts: list[int], crop: int, size: int) -> np.ndarray:
    """How many windows lie over each pixel of an axis."""
    cover = np.zeros(size, np.float32)
    for start in starts:
        cover[start : start + crop] += 1
    return cover
