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
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from .segmentation import Segmentation, label_pixels, largest_magnitude, resize_taps, summarise

BLOCK = 96 << 20  # bytes of full-size logits in work at a time, intermediate results included
MARGIN = 2  # pixels before a window's start that outputs waiting for it still read, for the resize to the photograph


def slide_segment(
        engine: Callable[[torch.Tensor], torch.Tensor], read: Callable[[int, int, int, int], torch.Tensor],
        pad_shape: tuple[int, int], img_shape: tuple[int, int], ori_shape: tuple[int, int],
        crop_size: tuple[int, int], stride: tuple[int, int], num_names: int, align_corners: bool = False,
        model: str | os.PathLike | None = None) -> Segmentation:
    """Segment an image window by window.

    Args:
        engine: callable from 1×3×h×w float32 to 1×C×h'×w' logits; see `runtime.create_engine`.
        read: callable (top, bottom, left, right) to that part of the network's input, 1×3×h×w float32. It is asked for
            one window at a time, in reading order.
        pad_shape: (height, width) of the network's input, padding included; windows cover all of it.
        img_shape: (height, width) of its valid part, at the top left.
        ori_shape: (height, width) of the photograph.
        crop_size, stride: (height, width) of a window, and of the step from one to the next.
        num_names: as in `postprocess.segment`.
        align_corners: as in `torch.nn.functional.interpolate`.
        model: directory or name of the model, for messages.

    Returns:
        `postprocess.Segmentation`.

    Raises:
        LogitsError: a window's logits hold NaN or infinity, or are so large that a sum of them does.
        ValueError: a stride below 1 or above the window.
    """
    if any(not 1 <= step <= size for step, size in zip(stride, crop_size, strict=True)):
        raise ValueError(
            f'stride {tuple(stride)} with windows of {tuple(crop_size)}; expected 1 <= stride <= crop_size')
    tops, lefts = (_starts(*sizes) for sizes in zip(pad_shape, crop_size, stride, strict=True))
    mosaic = _Mosaic(tops, lefts, pad_shape, crop_size, align_corners)
    rows, cols = (resize_taps(valid, final, align_corners) for valid, final in zip(img_shape, ori_shape, strict=True))
    row_stops, col_stops = _finished(tops, rows), _finished(lefts, cols)
    seg_map = np.empty(ori_shape, np.uint8)
    sums = counts = 0
    for k, top in enumerate(tops):
        bottom = min(top + crop_size[0], pad_shape[0])
        for j, left in enumerate(lefts):
            right = min(left + crop_size[1], pad_shape[1])
            logits = engine(read(top, bottom, left, right))[0]
            largest_magnitude(logits.permute(1, 2, 0), model)  # in sums NaN is no longer told from infinity
            mosaic.add(k, j, logits)
            for block in _blocks(row_stops[k:k + 2], col_stops[j:j + 2], rows, cols, logits.shape[0]):
                block_rows, block_cols = _part(rows, block[0]), _part(cols, block[1])
                pixels = mosaic.average(block_rows[0], block_cols[0])
                labels, block_sums, block_counts = label_pixels(pixels, block_rows[1], block_cols[1], model)
                seg_map[block] = labels
                sums, counts = sums + block_sums, counts + block_counts
            mosaic.forget(k, j)
    return summarise(seg_map, sums, counts, num_names)


def _starts(size, crop, stride):
    """First pixels of the windows along an axis."""
    count = max(size - crop + stride - 1, 0) // stride + 1
    return [max(min(i * stride + crop, size) - crop, 0) for i in range(count)]


def _finished(starts, taps):
    """Outputs that need no pixel from window i on: `count + 1` numbers, from 0 to all of them."""
    first, weights = taps
    last = first + weights.shape[1] - 1
    return [0] + [int(np.searchsorted(last, start)) for start in starts[1:]] + [len(first)]


def _blocks(row_range, col_range, rows, cols, classes):
    """Cut a rectangle of the photograph into blocks whose logits stay within `BLOCK`."""
    (top, bottom), (left, right) = row_range, col_range
    if top >= bottom or left >= right:
        return
    side = max(16, math.isqrt(BLOCK // (16 * classes)))  # in pixels of the network's input; four arrays of that size
    down = max(1, int(side * len(rows[0]) / (int(rows[0][-1]) + 2)))
    across = max(1, int(side * len(cols[0]) / (int(cols[0][-1]) + 2)))
    for y in range(top, bottom, down):
        for x in range(left, right, across):
            yield slice(y, min(y + down, bottom)), slice(x, min(x + across, right))


def _part(taps, outputs):
    """The input range that some outputs read, and their taps relative to its start."""
    first, weights = taps[0][outputs], taps[1][outputs]
    start, stop = int(first[0]), int(first[-1]) + weights.shape[1]
    return range(start, stop), (np.ascontiguousarray(first - start), np.ascontiguousarray(weights))


@dataclass
class _Window:
    top: int
    left: int
    logits: torch.Tensor  # rows from `row` on, h×w×C
    row: int
    rows: tuple  # taps from all rows of the logits to the window's pixels
    cols: tuple


class _Mosaic:
    """The windows whose logits are still needed."""

    def __init__(self, tops, lefts, shape, crop, align_corners):
        self.tops, self.lefts, self.shape = tops, lefts, shape
        self.crop = tuple(min(a, b) for a, b in zip(crop, shape, strict=True))
        self.align_corners = align_corners
        self.windows = {}
        self.cover = [_coverage(starts, size, total)
                      for starts, size, total in zip((tops, lefts), self.crop, shape, strict=True)]

    def add(self, k, j, logits):
        logits = logits.detach().to('cpu', torch.float32).permute(1, 2, 0).contiguous()
        rows, cols = (resize_taps(size, crop, self.align_corners)
                      for size, crop in zip(logits.shape[:2], self.crop, strict=True))
        self.windows[k, j] = _Window(self.tops[k], self.lefts[j], logits, 0, rows, cols)

    def average(self, rows, cols):
        """Mean of the windows over a range of rows and columns: rows×cols×C."""
        classes = next(iter(self.windows.values())).logits.shape[2]
        total = torch.zeros(len(rows), len(cols), classes, dtype=torch.float32, device='cpu')
        for window in self.windows.values():
            self._add_part(total, window, rows, cols)
        counts = self.cover[0][rows.start:rows.stop, None] * self.cover[1][None, cols.start:cols.stop]
        return total.div_(torch.from_numpy(counts)[..., None])

    def _add_part(self, total, window, rows, cols):
        top, bottom = max(rows.start, window.top), min(rows.stop, window.top + self.crop[0])
        left, right = max(cols.start, window.left), min(cols.stop, window.left + self.crop[1])
        if top >= bottom or left >= right:
            return
        across, down = (_part(taps, slice(start - origin, stop - origin)) for taps, start, stop, origin in (
            (window.cols, left, right, window.left), (window.rows, top, bottom, window.top)))
        source = window.logits[down[0].start - window.row:down[0].stop - window.row, across[0].start:across[0].stop]
        stretched = (_matrix(*down) @ source.flatten(1)).unflatten(1, source.shape[1:])  # rows×w×C
        part = total[top - rows.start:bottom - rows.start, left - cols.start:right - cols.start]
        part += _matrix(*across) @ stretched

    def forget(self, k, j):
        """Drop what no later window's output needs, after window (k, j) and the output up to it are done."""
        below, beside = (starts[i + 1] - MARGIN if i + 1 < len(starts) else math.inf
                         for starts, i in ((self.tops, k), (self.lefts, j)))
        for key, window in list(self.windows.items()):
            if window.left + self.crop[1] <= beside:
                self._shorten(key, window, below)

    def _shorten(self, key, window, below):
        if window.top + self.crop[0] <= below:
            del self.windows[key]
            return
        row = int(window.rows[0][max(below - window.top, 0)])
        if row > window.row:
            window.logits = window.logits[row - window.row:].clone()
            window.row = row


def _coverage(starts, crop, size):
    """How many windows lie over each pixel of an axis."""
    cover = np.zeros(size, np.float32)
    for start in starts:
        cover[start:start + crop] += 1
    return cover


def _matrix(source, taps):
    first, weights = taps
    matrix = np.zeros((len(first), len(source)), np.float32)
    np.put_along_axis(matrix, first[:, None] + np.arange(weights.shape[1]), weights, 1)
    return torch.from_numpy(matrix)
