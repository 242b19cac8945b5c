"""The C kernel `_segment.c` behind types, and which of its forms runs."""

import numpy as np
import torch

from .resampling import Taps

try:
    from . import _segment
except ImportError:  # built without a C compiler; torch gives the same result in more time
    _segment = None  # type: ignore[assignment]  # a module that is not there

TORCH = 'torch'  # no kernel
KERNELS = (*(_segment.kernels if _segment else ()), TORCH)  # that this processor can run, fastest first
_torch_only = _segment is None


def use(name: str) -> None:
    """Take one of `KERNELS` from now on; for tests and measurements.

    Raises:
        ValueError: this processor or build has no such kernel.
    """
    global _torch_only
    if name not in KERNELS:
        raise ValueError(f'this processor or build has no kernel {name!r}; it has {", ".join(KERNELS)}')
    _torch_only = name == TORCH
    if not _torch_only:
        _segment.use(name)


def compiled() -> bool:
    """Whether `label_band` can be called."""
    return not _torch_only


def label_band(
    pixels: torch.Tensor, rows: Taps, cols: Taps, seg_map: np.ndarray, band: range, tile: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Take the best class of every pixel in a band of rows.

    Args:
        pixels: h×w×C float32 tensor on the CPU, rows and classes side by side; C ≤ 256.
        rows, cols: in contiguous memory; they read inside `pixels`.
        seg_map: H×W uint8 in contiguous memory; the band's rows are written.
        band: the rows.
        tile: side, in pixels of the label map, of a square that has its own list of possible winners.

    Returns:
        (sums, counts): float64 and int64 arrays of C: the summed softmax probability of each class over its pixels, and
        their number. None, and labels of no use, where a logit is NaN or beyond 1e29, or an output row has more than 64
        taps: the kernel's arithmetic is not made for them.

    Raises:
        ValueError: the pixels are of another type or elsewhere, or sizes that do not fit together.
    """
    if pixels.dtype != torch.float32 or pixels.device.type != 'cpu':
        raise ValueError(f'pixels of {pixels.dtype} on {pixels.device}; the kernel reads float32 from memory')
    height, width, classes = pixels.shape
    sums, counts = np.zeros(classes), np.zeros(classes, np.int64)
    done = _segment.segment_band(
        pixels.data_ptr(),
        height,
        width,
        classes,
        pixels.stride(1),
        rows.first.ctypes.data,
        rows.weights.ctypes.data,
        rows.weights.shape[1],
        len(rows.first),
        cols.first.ctypes.data,
        cols.weights.ctypes.data,
        cols.weights.shape[1],
        len(cols.first),
        seg_map.ctypes.data,
        sums.ctypes.data,
        counts.ctypes.data,
        band.start,
        band.stop,
        tile,
    )
    return (sums, counts) if done else None
