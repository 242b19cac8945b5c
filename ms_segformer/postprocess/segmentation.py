"""From class logits to a label map at the photograph's size, with per-segment scores and masks.

The published models are defined by two bilinear resizes, logits to the network's input size and from there to the
photograph's, then softmax and argmax. Both resizes are linear and separable, so their composition is one sparse map per
axis (`axis_taps`), applied here in bands of rows: the C×H×W tensor never exists.

Logits that are finite in float32 give a right answer, of whatever size; NaN and infinity are a `LogitsError`, whichever
way is taken.
"""
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

try:
    from . import _segment
except ImportError:  # built without a C compiler; the same result in more time
    _segment = None

TILE_SAMPLES = 8  # side, in samples of the logits, of a tile that has its own list of possible winners
BAND_VALUES = 4 << 20  # float32 values of one band of upsampled logits, 16 MiB
FLOAT32_RANGE = 1e29  # magnitude up to which no mean or difference of logits overflows float32, in any unit used here
MOST_CLASSES = 256  # label maps are uint8


class LogitsError(ValueError):
    """Logits that hold NaN or infinity, of which no label map can be made; the message names the model."""


@dataclass(frozen=True)
class Segmentation:
    """The segments of one photograph.

    Attributes:
        seg_map: H×W uint8 class ids (argmax of the logits), VOID included.
        class_ids: ids of the classes present, descending, without VOID.
        scores: for each of them, the mean softmax probability of the class over its pixels, in (0, 1].
        counts: for each of them, its number of pixels.
    """

    seg_map: np.ndarray
    class_ids: list
    scores: list
    counts: list


def segment(
        logits: torch.Tensor | np.ndarray, pad_shape: Sequence[int], img_shape: Sequence[int],
        ori_shape: Sequence[int], num_names: int, align_corners: bool = False,
        model: str | os.PathLike | None = None) -> Segmentation:
    """Scale logits to the photograph and take the best class of every pixel.

    Equal to `interpolate(logits, pad_shape)`, cut to `img_shape`, `interpolate(…, ori_shape)`, softmax and argmax, both
    bilinear, up to the rounding of float32.

    Args:
        logits: C×h×w float tensor or array (any memory layout; channels-last needs no copy), C ≤ 256.
        pad_shape: (height, width) of the network's input, padding included.
        img_shape: (height, width) of its valid part, at the top left.
        ori_shape: (height, width) of the photograph.
        num_names: classes that have a name; ids from `num_names` on are VOID: they keep their pixels in `seg_map` but
            are no segment.
        align_corners: as in `torch.nn.functional.interpolate`.
        model: directory or name of the model, for messages.

    Returns:
        `Segmentation`.

    Raises:
        LogitsError: the logits hold NaN or infinity, be it in the padding.
        ValueError: the shapes contradict each other.
    """
    logits = logits if isinstance(logits, torch.Tensor) else torch.as_tensor(logits, device='cpu')
    if logits.dim() != 3 or not 1 <= logits.shape[0] <= MOST_CLASSES:
        raise ValueError(f'logits of shape {tuple(logits.shape)}; expected C×h×w with at most {MOST_CLASSES} classes')
    (rows, cols) = (_checked_taps(n, *sizes, align_corners)
                    for n, *sizes in zip(logits.shape[1:], pad_shape[:2], img_shape[:2], ori_shape[:2], strict=True))
    return summarise(*label_pixels(logits.permute(1, 2, 0), rows, cols, model), num_names)


def summarise(seg_map, sums, counts, num_names):
    """A `Segmentation` from a label map and, per class, the summed probability and the number of its pixels."""
    present = [c for c in range(min(num_names, len(counts)) - 1, -1, -1) if counts[c]]
    return Segmentation(seg_map, present, [float(sums[c] / counts[c]) for c in present],
                        [int(counts[c]) for c in present])


def masks(segmentation):
    """Return one H×W uint8 mask of 0 and 1 per entry of `segmentation.class_ids`."""
    return [(segmentation.seg_map == class_id).view(np.uint8) for class_id in segmentation.class_ids]


def label_pixels(pixels: torch.Tensor, rows: tuple[np.ndarray, np.ndarray], cols: tuple[np.ndarray, np.ndarray],
                 model: str | os.PathLike | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stretch logits by one sparse map per axis and take the best class of every pixel.

    Args:
        pixels: h×w×C float tensor, C ≤ 256; fastest in float32 on the CPU with the classes side by side.
        rows, cols: (first, weights) of `axis_taps`: int32 array of n, not falling, and float32 array of n×T, from 0 to
            1 with the sum 1, for n outputs.
        model: directory or name of the model, for messages.

    Returns:
        (seg_map, sums, counts): H×W uint8; float64 and int64 arrays of C: the summed softmax probability of each class
        over its pixels, and their number.

    Raises:
        LogitsError: the logits hold NaN or infinity.
        ValueError: a map that reads samples which are not there, or whose weights are no weighted mean.
    """
    if pixels.dim() != 3 or not 1 <= pixels.shape[2] <= MOST_CLASSES or pixels.numel() == 0:
        raise ValueError(f'logits of shape {tuple(pixels.shape)}; expected h×w×C with 1 to {MOST_CLASSES} classes')
    for size, (first, weights) in zip(pixels.shape[:2], (rows, cols), strict=True):
        _check_taps(size, first, weights)
    pixels = _class_after_class(pixels)
    found = None if _segment is None else _label_compiled(pixels, rows, cols)
    return _label_torch(pixels, rows, cols, model) if found is None else found


def largest_magnitude(logits: torch.Tensor, model: str | os.PathLike | None = None) -> float:
    """Return the largest magnitude among logits and refuse what is not finite.

    Args:
        logits: float tensor of any shape but an empty one, on any device.
        model: directory or name of the model, for the message.

    Returns:
        The largest absolute value.

    Raises:
        LogitsError: there is NaN or infinity among them.
    """
    low, high = torch.aminmax(logits)
    largest = float(torch.maximum(-low, high))
    if math.isfinite(largest):
        return largest
    nan, infinite = int(logits.isnan().sum()), int(logits.isinf().sum())
    kinds = ' and '.join(f'{count} {kind}' for count, kind in ((nan, 'NaN'), (infinite, 'infinite')) if count)
    raise LogitsError(
        f'the logits of {model or "the model"} are not finite ({kinds} of {logits.numel()} values), so that there is '
        'no best class. Its weights have diverged, or the arithmetic overflowed: use an earlier checkpoint, and with '
        "precision 'bf16' or 'fp16' try 'float32'")


def axis_taps(size, padded, valid, final, align_corners=False):
    """Compose two bilinear resizes along one axis.

    Args:
        size: samples of the logits.
        padded: samples after the first resize.
        valid: how many of those, from the first on, go into the second resize.
        final: samples after the second resize.
        align_corners: as in `torch.nn.functional.interpolate`.

    Returns:
        (first, weights): int32 array of `final`, float32 array of `final`×T; output i is
        `sum(weights[i, t] * input[first[i] + t])`.
    """
    low, high, fraction = _bilinear(size, padded, align_corners)
    below, above, share = _bilinear(valid, final, align_corners)
    index = np.stack([low[below], high[below], low[above], high[above]], 1)  # final×4 samples of the logits
    weight = np.stack([(1 - share) * (1 - fraction[below]), (1 - share) * fraction[below],
                       share * (1 - fraction[above]), share * fraction[above]], 1)
    taps = int((index.max(1) - index.min(1)).max()) + 1
    first = np.minimum(index.min(1), size - taps)
    weights = np.zeros((final, taps))
    np.add.at(weights, (np.arange(final)[:, None], index - first[:, None]), weight)
    return first.astype(np.int32), weights.astype(np.float32)


def resize_taps(size, final, align_corners=False):
    """As `axis_taps` for a single resize; two taps."""
    low, high, share = _bilinear(size, final, align_corners)
    first = np.minimum(low, max(size - 2, 0))
    weights = np.zeros((final, min(size, 2)))
    np.add.at(weights, (np.arange(final), low - first), 1 - share)
    np.add.at(weights, (np.arange(final), high - first), share)
    return first.astype(np.int32), weights.astype(np.float32)


def _bilinear(size, final, align_corners):
    """The two samples and the share of the second that torch's bilinear resize reads for each output."""
    one = np.float32(1)
    if align_corners:
        step = np.float32(size - 1) / np.float32(max(final - 1, 1)) if final > 1 else np.float32(0)
        position = step * np.arange(final, dtype=np.float32)
    else:
        half = np.float32(0.5)
        position = np.float32(size) / np.float32(final) * (np.arange(final, dtype=np.float32) + half) - half
        position = np.maximum(position, np.float32(0))
    low = np.minimum(position.astype(np.int64), size - 1)
    return low, np.minimum(low + 1, size - 1), np.minimum(position - low, one).astype(np.float64)


def _checked_taps(size, padded, valid, final, align_corners):
    if not 0 < valid <= padded or final < 1 or size < 1:
        raise ValueError(f'logits of {size} samples, a network input of {padded} of which {valid} are valid, and a '
                         f'photograph of {final} samples do not fit together; expected 0 < valid <= padded and at '
                         'least one sample of each')
    return axis_taps(size, padded, valid, final, align_corners)


def _check_taps(size: int, first: np.ndarray, weights: np.ndarray) -> None:
    """Refuse what is no sparse map from `size` samples, as `axis_taps` makes them."""
    if (not isinstance(first, np.ndarray) or not isinstance(weights, np.ndarray) or first.dtype != np.int32
            or weights.dtype != np.float32 or first.ndim != 1 or weights.ndim != 2 or not len(first)
            or len(first) != len(weights)):
        raise ValueError('a map from logits to pixels is an int32 array of n first samples and a float32 array of n×T '
                         f'weights, n and T at least 1; got {_described(first)} and {_described(weights)}')
    taps = weights.shape[1]
    if not 1 <= taps <= size or first[0] < 0 or first.max() > size - taps or (first[1:] < first[:-1]).any():
        raise ValueError(f'first samples from {first.min()} to {first.max()} with {taps} taps each do not lie in '
                         f'ascending order within {size} samples')
    if not (weights.min() >= 0 and np.abs(weights.sum(1, dtype=np.float64) - 1).max() < 1e-6):
        raise ValueError('weights that are negative, NaN, or do not add up to 1 for each output')


def _described(array: object) -> str:
    return f'{array.dtype} of {array.shape}' if isinstance(array, np.ndarray) else type(array).__name__


def _class_after_class(pixels: torch.Tensor) -> torch.Tensor:
    """h×w×C of any layout, type and device to float32 on the CPU, where pixels may stand further apart than C."""
    pixels = pixels.detach().to('cpu', torch.float32)
    pitch = pixels.stride(1)
    if pixels.stride() == (pixels.shape[1] * pitch, pitch, 1) and pitch >= pixels.shape[2]:
        return pixels
    # contiguous() may leave any stride to an axis of one sample; type and device are not left to torch's defaults
    return torch.empty(pixels.shape, dtype=torch.float32, device='cpu').copy_(pixels)


def _label_compiled(pixels, rows, cols):
    """As `_label_torch`, by the C kernel in as many threads as torch may use; None where it is not made for them."""
    (row_first, row_weights), (col_first, col_weights) = (map(np.ascontiguousarray, axis) for axis in (rows, cols))
    if pixels.dtype != torch.float32 or pixels.device.type != 'cpu':
        raise ValueError(f'pixels of {pixels.dtype} on {pixels.device}; the kernel reads float32 from memory')
    height, width, classes = pixels.shape
    seg_map = np.empty((len(row_first), len(col_first)), np.uint8)
    tile = max(1, round(TILE_SAMPLES * max(seg_map.shape[0] / height, seg_map.shape[1] / width)))
    threads = torch.get_num_threads()
    step = max(tile, math.ceil(len(row_first) / (threads * 4) / tile) * tile) if threads > 1 else len(row_first)

    def label(top):
        sums, counts = np.zeros(classes), np.zeros(classes, np.int64)
        done = _segment.segment_band(
            pixels.data_ptr(), height, width, classes, pixels.stride(1),
            row_first.ctypes.data, row_weights.ctypes.data, row_weights.shape[1], len(row_first),
            col_first.ctypes.data, col_weights.ctypes.data, col_weights.shape[1], len(col_first),
            seg_map.ctypes.data, sums.ctypes.data, counts.ctypes.data, top, min(top + step, len(row_first)), tile)
        return done, sums, counts

    tops = range(0, len(row_first), step)
    results = list(_pool(threads).map(label, tops) if len(tops) > 1 else map(label, tops))
    if not all(done for done, _, _ in results):
        return None
    return seg_map, sum(s for _, s, _ in results), sum(c for _, _, c in results)


@lru_cache(maxsize=1)
def _pool(threads):
    return ThreadPoolExecutor(threads, thread_name_prefix='segment')


def _label_torch(pixels, rows, cols, model=None):
    """Return the label map and, per class, the summed probability and the count of its pixels."""
    classes = pixels.shape[2]
    dtype = torch.float32 if largest_magnitude(pixels, model) <= FLOAT32_RANGE else torch.float64
    (first, weights), (height, width) = rows, (len(rows[0]), len(cols[0]))
    seg_map = np.empty((height, width), np.uint8)
    sums, counts = np.zeros(classes), np.zeros(classes, np.int64)
    step = max(1, BAND_VALUES // (width * classes))
    columns = _ColumnBlocks(cols, dtype)
    for top in range(0, height, step):
        band = slice(top, min(top + step, height))
        start, stop = int(first[band].min()), int(first[band].max()) + weights.shape[1]
        source = pixels[start:stop].to(dtype)
        vertical = _dense(first[band] - start, weights[band], stop - start).to(dtype)
        stretched = (vertical @ source.flatten(1)).unflatten(1, source.shape[1:])  # rows×w×C
        values = columns.apply(stretched)  # rows×W×C
        winners = _possible_winners(source)
        best, label = values[..., winners].max(-1)
        probability = values.sub_(best[..., None]).exp_().sum(-1).reciprocal_()
        label = winners[label].to(torch.uint8).numpy()
        seg_map[band] = label
        sums += np.bincount(label.ravel(), probability.numpy().ravel(), classes)
        counts += np.bincount(label.ravel(), minlength=classes)
    return seg_map, sums, counts


def _possible_winners(source):
    """Ids, ascending, of the classes whose maximum reaches the largest minimum of any class.

    Every upsampled value is a weighted mean of source values, so no other class can be the best anywhere.
    """
    flat = source.flatten(0, 1)
    return torch.nonzero(flat.amax(0) >= flat.amin(0).max())[:, 0]


def _dense(first, weights, size):
    matrix = np.zeros((len(first), size), np.float32)
    np.put_along_axis(matrix, first[:, None] + np.arange(weights.shape[1]), weights, 1)
    return torch.from_numpy(matrix)


class _ColumnBlocks:
    """Stretches rows×w×C to rows×W×C with one small matrix product per block of output columns."""

    WIDTH = 32

    def __init__(self, cols, dtype):
        first, weights = cols
        self.final = len(first)
        blocks = math.ceil(self.final / self.WIDTH)
        pad = blocks * self.WIDTH - self.final
        first = np.pad(first, (0, pad), 'edge').reshape(blocks, -1)
        weights = np.pad(weights, ((0, pad), (0, 0)), 'edge').reshape(blocks, self.WIDTH, -1)
        size = int((first.max(1) - first.min(1)).max()) + weights.shape[2]
        start = np.minimum(first.min(1), int(first.max()) + weights.shape[2] - size)
        self.index = torch.from_numpy((start[:, None] + np.arange(size)).ravel()).long()
        self.matrices = torch.stack([_dense(f - s, m, size) for f, s, m in zip(first, start, weights, strict=True)]
                                    ).to(dtype)

    def apply(self, rows):
        gathered = rows.index_select(1, self.index).unflatten(1, (len(self.matrices), -1))  # rows×blocks×size×C
        return torch.matmul(self.matrices, gathered).flatten(1, 2)[:, :self.final]
