"""From class logits to a label map at the photograph's size, with per-segment scores and masks.

The published models are defined by two bilinear resizes, logits to the network's input size and from there to the
photograph's, then softmax and argmax. Both resizes are linear and separable, so their composition is one sparse map per
axis (`resampling.two_step_taps`), applied here in bands of rows: the C×H×W tensor never exists.

On a CPU a C kernel does it, if it was compiled. Elsewhere, and without it, torch does, on the device of the logits:
besides them and the label map it holds at most three times a band, of `BAND_VALUES` or `DEVICE_BAND_VALUES` floats
(one row where that is more); only the label map, a byte a pixel, and 16 bytes a class come back, in one copy.

Logits that are finite in float32 give a right answer, of whatever size; NaN and infinity are a `LogitsError`, whichever
way is taken.
"""

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from ..errors import SegformerError
from ..preprocessors.shapes import ImageShapes
from . import kernel
from .float32 import exact_float32
from .resampling import ColumnStretch, Taps, stretch_rows, two_step_taps

TILE_SAMPLES = 8  # side, in samples of the logits, of a tile that has its own list of possible winners
BAND_VALUES = 4 << 20  # float32 values of one band of upsampled logits, 16 MiB
DEVICE_BAND_VALUES = 16 << 20  # the same where they are not on a CPU, 64 MiB
FEWEST_CLASSES = 32  # as which fewer of them count: what is kept of a pixel besides its logits, indices for example
FIXED_POINT = 1 << 30  # units of a probability of 1 while probabilities are added up: exactly, so in any order
FLOAT32_RANGE = 1e29  # magnitude up to which no mean or difference of logits overflows float32, in any unit used here
MOST_CLASSES = 256  # label maps are uint8


class LogitsError(SegformerError, ValueError):
    """Logits that hold NaN or infinity, of which no label map can be made; the message names the model."""


@dataclass(frozen=True)
class Confidence:
    """How sure a model is of every pixel of a photograph: H×W float16 maps, rounded by at most 2.5e-4.

    Attributes:
        probability: softmax probability of the best class, above 0 to 1; VOID counts as a class.
        margin: that probability less the second best class's, 0 to 1; 0 where the two are equally good.
    """

    probability: np.ndarray
    margin: np.ndarray

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> 'Confidence':
        """Maps to be filled."""
        return cls(np.empty(shape, np.float16), np.empty(shape, np.float16))


@dataclass(frozen=True)
class Segmentation:
    """The segments of one photograph.

    Attributes:
        seg_map: H×W uint8 class ids (argmax of the logits), VOID included.
        class_ids: ids of the classes present, descending, without VOID.
        scores: for each of them, the mean softmax probability of the class over its pixels, in (0, 1].
        counts: for each of them, its number of pixels.
        confidence: where it was asked for.
    """

    seg_map: np.ndarray
    class_ids: list[int]
    scores: list[float]
    counts: list[int]
    confidence: Confidence | None = None


def segment(
    logits: torch.Tensor | np.ndarray,
    shapes: ImageShapes,
    num_names: int,
    align_corners: bool = False,
    model: str | os.PathLike | None = None,
    confidence: bool = False,
) -> Segmentation:
    """Scale logits to the photograph and take the best class of every pixel.

    Equal to `interpolate(logits, shapes.padded)`, cut to `shapes.resized`, `interpolate(…, shapes.original)`, softmax
    and argmax, both bilinear, up to the rounding of float32.

    Args:
        logits: C×h×w float tensor or array (any memory layout; channels-last needs no copy), C ≤ 256. The work is done
            on the tensor's device.
        shapes: of the network's input and of the photograph.
        num_names: classes that have a name; ids from `num_names` on are VOID: they keep their pixels in `seg_map` but
            are no segment.
        align_corners: as in `torch.nn.functional.interpolate`.
        model: directory or name of the model, for messages.
        confidence: also find out how sure the best classes are; the rest of the result does not depend on it.

    Returns:
        `Segmentation`.

    Raises:
        LogitsError: the logits hold NaN or infinity, be it in the padding.
        ValueError: the shapes contradict each other.
    """
    logits = logits if isinstance(logits, torch.Tensor) else torch.as_tensor(logits, device='cpu')
    if logits.dim() != 3 or not 1 <= logits.shape[0] <= MOST_CLASSES:
        raise ValueError(f'logits of shape {tuple(logits.shape)}; expected C×h×w with at most {MOST_CLASSES} classes')
    rows, cols = taps_to_original(logits, shapes, align_corners)
    pixels = _class_after_class(logits.permute(1, 2, 0))
    labels = label_pixels(pixels, rows, cols, model)
    sure = confidence_pixels(pixels, rows, cols, model) if confidence else None
    return summarize(*labels, num_names, sure)


def taps_to_original(logits: torch.Tensor, shapes: ImageShapes, align_corners: bool) -> tuple[Taps, Taps]:
    """The maps from the rows and columns of C×h×w logits to those of the photograph."""
    rows, cols = (
        two_step_taps(*sizes, align_corners)
        for sizes in zip(logits.shape[1:], shapes.padded, shapes.resized, shapes.original, strict=True)
    )
    return rows, cols


def summarize(
    seg_map: np.ndarray, sums: np.ndarray, counts: np.ndarray, num_names: int, confidence: Confidence | None = None
) -> Segmentation:
    """A `Segmentation` from a label map and, per class, the summed probability and the number of its pixels."""
    present = [c for c in range(min(num_names, len(counts)) - 1, -1, -1) if counts[c]]
    return Segmentation(
        seg_map,
        present,
        [float(sums[c] / counts[c]) for c in present],
        [int(counts[c]) for c in present],
        confidence,
    )


def masks(segmentation: Segmentation) -> list[np.ndarray]:
    """Return one H×W uint8 mask of 0 and 1 per entry of `segmentation.class_ids`."""
    return [(segmentation.seg_map == class_id).view(np.uint8) for class_id in segmentation.class_ids]


def label_pixels(
    pixels: torch.Tensor, rows: Taps, cols: Taps, model: str | os.PathLike | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stretch logits by one sparse map per axis and take the best class of every pixel.

    Args:
        pixels: h×w×C float tensor on any device, C ≤ 256; fastest in float32 with the classes side by side.
        rows, cols: of `resampling`, one output for each pixel.
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
    rows.check(pixels.shape[0])
    cols.check(pixels.shape[1])
    pixels = _class_after_class(pixels)
    found = None
    if pixels.device.type == 'cpu' and kernel.compiled():
        found = _label_compiled(pixels, rows, cols)
    return label_in_torch(pixels, rows, cols, model) if found is None else found


def confidence_pixels(
    pixels: torch.Tensor, rows: Taps, cols: Taps, model: str | os.PathLike | None = None
) -> Confidence:
    """Stretch logits by one sparse map per axis and find out how sure the best class of every pixel is.

    Band by band in torch, whatever made the label map: where two classes are equal up to rounding, the best class here
    may be the other one, with the same probability.

    Args:
        pixels, rows, cols, model: as in `label_pixels`, which checks them.

    Raises:
        LogitsError: the logits hold NaN or infinity.
    """
    pixels = _class_after_class(pixels)
    device, dtype = pixels.device, exact_type(pixels, model)
    columns = ColumnStretch(cols, dtype, device)
    height, width = len(rows.first), columns.final
    probability, margin = (torch.empty((height, width), dtype=torch.float16, device=device) for _ in range(2))
    with exact_float32(device):
        for band in bands(height, width, pixels.shape[2], device):
            read, down = rows.part(band)
            values = columns(stretch_rows(pixels[read.start : read.stop].to(dtype), down))  # rows×W×C
            best, label = values.max(-1, keepdim=True)
            values -= best
            sure = values.exp_().sum(-1).reciprocal_()
            second = values.scatter_(-1, label, 0).amax(-1)  # relative to the best
            probability[band] = sure
            margin[band] = second.neg_().add_(1).mul_(sure)
    return Confidence(probability.cpu().numpy(), margin.cpu().numpy())


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
        "precision 'bf16' or 'fp16' try 'float32'"
    )


def exact_type(logits: torch.Tensor, model: str | os.PathLike | None = None) -> torch.dtype:
    """float32, or float64 where means and differences of these logits could overflow float32.

    Raises:
        LogitsError: there is NaN or infinity among them.
    """
    return torch.float32 if largest_magnitude(logits, model) <= FLOAT32_RANGE else torch.float64


def _class_after_class(pixels: torch.Tensor) -> torch.Tensor:
    """h×w×C of any layout and type to float32, where pixels may stand further apart than C."""
    pixels = pixels.detach().to(torch.float32)
    pitch = pixels.stride(1)
    if pixels.stride() == (pixels.shape[1] * pitch, pitch, 1) and pitch >= pixels.shape[2]:
        return pixels
    # contiguous() may leave any stride to an axis of one sample; type and device are not left to torch's defaults
    return torch.empty(pixels.shape, dtype=torch.float32, device=pixels.device).copy_(pixels)


def _label_compiled(pixels: torch.Tensor, rows: Taps, cols: Taps) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """As `label_in_torch`, by the C kernel in as many threads as torch may use; None where it is not made for them."""
    rows, cols = (Taps(*map(np.ascontiguousarray, axis)) for axis in (rows, cols))
    seg_map = np.empty((len(rows.first), len(cols.first)), np.uint8)
    height, width = seg_map.shape
    tile = max(1, round(TILE_SAMPLES * max(height / pixels.shape[0], width / pixels.shape[1])))
    threads = torch.get_num_threads()
    step = max(tile, math.ceil(height / (threads * 4) / tile) * tile) if threads > 1 else height

    def label(top: int) -> tuple[np.ndarray, np.ndarray] | None:
        return kernel.label_band(pixels, rows, cols, seg_map, range(top, min(top + step, height)), tile)

    tops = range(0, height, step)
    found = [band for band in (_pool(threads).map(label, tops) if len(tops) > 1 else map(label, tops)) if band]
    if len(found) < len(tops):
        return None
    return seg_map, np.sum([sums for sums, _ in found], 0), np.sum([counts for _, counts in found], 0)


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix='segment')


def label_in_torch(
    pixels: torch.Tensor, rows: Taps, cols: Taps, model: str | os.PathLike | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `label_pixels`, which checks the arguments, in torch on the device of the logits."""
    found, largest = _label_bands(pixels, rows, cols, torch.float32)
    if not largest <= FLOAT32_RANGE:
        found, _ = _label_bands(pixels, rows, cols, exact_type(pixels, model))
    return found


def _label_bands(
    pixels: torch.Tensor, rows: Taps, cols: Taps, dtype: torch.dtype
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], float]:
    """The results of `label_pixels`, and the largest magnitude among the logits, NaN if there is one.

    Nothing waits for the device before everything is there.
    """
    device, classes = pixels.device, pixels.shape[2]
    columns = ColumnStretch(cols, dtype, device)
    height, width = len(rows.first), columns.final
    seg_map = torch.empty((height, width), dtype=torch.uint8, device=device)
    sums, counts = torch.zeros((2, classes), dtype=torch.int64, device=device)
    with exact_float32(device):
        for band in bands(height, width, classes, device):
            read, down = rows.part(band)
            values = columns(stretch_rows(pixels[read.start : read.stop].to(dtype), down))  # rows×W×C
            best, label = values.max(-1, keepdim=True)
            probability = values.sub_(best).exp_().sum(-1).reciprocal_()
            label = label.flatten()
            seg_map[band] = label.view(-1, width)
            sums.index_add_(0, label, (probability.flatten() * FIXED_POINT).long())
            counts.index_add_(0, label, torch.ones_like(label))
    largest = torch.stack(torch.aminmax(pixels)).abs().amax()[None]
    parts = (sums, counts, largest, seg_map.flatten())
    packed = torch.cat([part.view(torch.uint8) for part in parts]).cpu().numpy()  # in one copy
    ends = np.cumsum([8 * classes, 8 * classes, 4])
    fixed, number, magnitude, labels = np.split(packed, ends)
    return (
        labels.reshape(height, width),
        fixed.view(np.int64) / FIXED_POINT,
        number.view(np.int64),
    ), float(magnitude.view(np.float32)[0])


def bands(height: int, width: int, classes: int, device: torch.device | None = None) -> Iterator[slice]:
    """Cut the rows of a photograph so that the stretched logits of a band stay within what a device works on at a time.

    Args:
        height, width: of the photograph.
        classes: C of the logits.
        device: where they are; None for the CPU.
    """
    values = BAND_VALUES if device is None or device.type == 'cpu' else DEVICE_BAND_VALUES
    step = max(1, values // (width * max(classes, FEWEST_CLASSES)))
    return (slice(top, min(top + step, height)) for top in range(0, height, step))
