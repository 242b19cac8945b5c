"""Bilinear resizing along one axis as a sparse map: which samples every output is the weighted mean of.

All that this package scales without `torch.nn.functional.interpolate` goes through here, with the samples and weights
that torch takes.
"""

import math
from typing import NamedTuple

import numpy as np
import torch


class Taps(NamedTuple):
    """A sparse map: output i is `sum(weights[i, t] * input[first[i] + t])`.

    Attributes:
        first: int32 array of n, not falling.
        weights: float32 array of n×T, from 0 to 1 with the sum 1.
    """

    first: np.ndarray
    weights: np.ndarray

    def reads(self, outputs: slice) -> range:
        """The samples that some outputs read."""
        first = self.first[outputs]
        return range(int(first[0]), int(first[-1]) + self.weights.shape[1])

    def part(self, outputs: slice) -> tuple[range, 'Taps']:
        """The samples that some outputs read, and their taps counted from the first of these."""
        read = self.reads(outputs)
        return read, Taps(
            np.ascontiguousarray(self.first[outputs] - read.start), np.ascontiguousarray(self.weights[outputs])
        )

    def matrix(self, size: int) -> torch.Tensor:
        """The map from `size` samples as a dense n×size float32 matrix."""
        matrix = np.zeros((len(self.first), size), np.float32)
        np.put_along_axis(matrix, self.first[:, None] + np.arange(self.weights.shape[1]), self.weights, 1)
        return torch.from_numpy(matrix)

    def check(self, size: int) -> None:
        """Raise ValueError where this is no map from `size` samples."""
        first, weights = self
        if (
            not isinstance(first, np.ndarray)
            or not isinstance(weights, np.ndarray)
            or first.dtype != np.int32
            or weights.dtype != np.float32
            or first.ndim != 1
            or weights.ndim != 2
            or not len(first)
            or len(first) != len(weights)
        ):
            raise ValueError(
                'a map from logits to pixels is an int32 array of n first samples and a float32 array of '
                f'n×T weights, n and T at least 1; got {_described(first)} and {_described(weights)}'
            )
        taps = weights.shape[1]
        if not 1 <= taps <= size or first[0] < 0 or first.max() > size - taps or (first[1:] < first[:-1]).any():
            raise ValueError(
                f'first samples from {first.min()} to {first.max()} with {taps} taps each do not lie in '
                f'ascending order within {size} samples'
            )
        if not (weights.min() >= 0 and np.abs(weights.sum(1, dtype=np.float64) - 1).max() < 1e-6):
            raise ValueError('weights that are negative, NaN, or do not add up to 1 for each output')


def _described(array: object) -> str:
    return f'{array.dtype} of {array.shape}' if isinstance(array, np.ndarray) else type(array).__name__


def resize_taps(size: int, final: int, align_corners: bool = False) -> Taps:
    """A resize from `size` samples to `final`; `align_corners` as in `torch.nn.functional.interpolate`."""
    low, high, share = _bilinear(size, final, align_corners)
    first = np.minimum(low, max(size - 2, 0))
    weights = np.zeros((final, min(size, 2)))
    np.add.at(weights, (np.arange(final), low - first), 1 - share)
    np.add.at(weights, (np.arange(final), high - first), share)
    return Taps(first.astype(np.int32), weights.astype(np.float32))


def two_step_taps(size: int, padded: int, valid: int, final: int, align_corners: bool = False) -> Taps:
    """Two resizes in one.

    Args:
        size: samples of the logits.
        padded: samples after the first resize.
        valid: how many of those, from the first on, go into the second resize.
        final: samples after the second resize.
        align_corners: as in `torch.nn.functional.interpolate`.

    Raises:
        ValueError: the sizes contradict each other.
    """
    if not 0 < valid <= padded or final < 1 or size < 1:
        raise ValueError(
            f'logits of {size} samples, a network input of {padded} of which {valid} are valid, and a '
            f'photograph of {final} samples do not fit together; expected 0 < valid <= padded and at '
            'least one sample of each'
        )
    low, high, fraction = _bilinear(size, padded, align_corners)
    below, above, share = _bilinear(valid, final, align_corners)
    index = np.stack([low[below], high[below], low[above], high[above]], 1)  # final×4 samples of the logits
    weight = np.stack(
        [
            (1 - share) * (1 - fraction[below]),
            (1 - share) * fraction[below],
            share * (1 - fraction[above]),
            share * fraction[above],
        ],
        1,
    )
    taps = int((index.max(1) - index.min(1)).max()) + 1
    first = np.minimum(index.min(1), size - taps)
    weights = np.zeros((final, taps))
    np.add.at(weights, (np.arange(final)[:, None], index - first[:, None]), weight)
    return Taps(first.astype(np.int32), weights.astype(np.float32))


def _bilinear(size: int, final: int, align_corners: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two samples and the share of the second that torch's bilinear resize reads for each output."""
    outputs = np.arange(final, dtype=np.float64)
    if align_corners:
        step = np.float32(size - 1) / np.float32(final - 1) if final > 1 else np.float32(0)
        position = np.float64(step) * outputs
    else:  # torch multiplies and subtracts with one rounding, to float32
        position = np.float64(np.float32(size) / np.float32(final)) * (outputs + 0.5) - 0.5
    position = np.maximum(position.astype(np.float32), np.float32(0))
    low = np.minimum(position.astype(np.int64), size - 1)
    return low, np.minimum(low + 1, size - 1), np.minimum(position - low, 1.0)


def stretch_rows(pixels: torch.Tensor, taps: Taps) -> torch.Tensor:
    """h×w×C to n×w×C."""
    matrix = taps.matrix(len(pixels)).to(pixels.device, pixels.dtype, non_blocking=True)
    return (matrix @ pixels.flatten(1)).unflatten(1, pixels.shape[1:])


class ColumnStretch:
    """Stretches rows×w×C to rows×n×C with one small matrix product per block of output columns.

    Args:
        taps: from w to n.
        dtype, device: of what will be stretched.
    """

    WIDTH = 32

    def __init__(self, taps: Taps, dtype: torch.dtype, device: torch.device) -> None:
        self.final = len(taps.first)
        blocks = math.ceil(self.final / self.WIDTH)
        pad = blocks * self.WIDTH - self.final
        first = np.pad(taps.first, (0, pad), 'edge').reshape(blocks, -1)
        weights = np.pad(taps.weights, ((0, pad), (0, 0)), 'edge').reshape(blocks, self.WIDTH, -1)
        size = int((first.max(1) - first.min(1)).max()) + weights.shape[2]
        start = np.minimum(first.min(1), int(first.max()) + weights.shape[2] - size)
        self.index = torch.from_numpy((start[:, None] + np.arange(size)).ravel()).long().to(device, non_blocking=True)
        self.matrices = torch.stack(
            [Taps(f - s, w).matrix(size) for f, s, w in zip(first, start, weights, strict=True)]
        ).to(device, dtype, non_blocking=True)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        gathered = rows.index_select(1, self.index).unflatten(1, (len(self.matrices), -1))  # rows×blocks×size×C
        return torch.matmul(self.matrices, gathered).flatten(1, 2)[:, : self.final]
