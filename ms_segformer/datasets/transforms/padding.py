"""Pads image and label map."""

from functools import partial

import cv2
import numpy as np

from ..errors import DatasetError
from ..sample import Sample, change, image_keys, label_keys
from .arguments import pair
from .registry import register


@register
class MMPad:
    """Pad image and label map at the bottom and on the right.

    Args:
        size: (height, width) to pad to.
        size_divisor: pad to the next multiple of this instead.
        pad_to_square: pad to the longer side instead.
        pad_val: value for images (`img`) and label maps (`seg`), or one number for images.
    """

    def __init__(
        self,
        size: int | tuple[int, int] | None = None,
        size_divisor: int | None = None,
        pad_to_square: bool = False,
        pad_val: float | dict[str, float] | None = None,
    ) -> None:
        if sum([size is not None, size_divisor is not None, bool(pad_to_square)]) != 1:
            raise DatasetError(
                f'MMPad takes exactly one of size, size_divisor and pad_to_square; '
                f'got size={size}, size_divisor={size_divisor}, pad_to_square={pad_to_square}'
            )
        self.size = None if size is None else pair(size, 'MMPad: size')
        self.size_divisor = size_divisor
        values = pad_val if isinstance(pad_val, dict) else {} if pad_val is None else {'img': pad_val}
        self.pad_val = {'img': 0, 'seg': 255, **values}

    def __call__(self, results: Sample) -> Sample:
        """Pad; set `pad_shape`, `pad_fixed_size`, `pad_size_divisor`."""
        target = self._target(results['img'].shape)
        change(results, image_keys(results), partial(_pad, target=target, value=self.pad_val['img']))
        change(results, label_keys(results), partial(_pad, target=target, value=self.pad_val['seg']))
        results['pad_shape'] = results['img'].shape
        results['pad_fixed_size'], results['pad_size_divisor'] = self.size, self.size_divisor
        return results

    def _target(self, shape: tuple[int, ...]) -> tuple[int, int]:
        height, width = shape[:2]
        if self.size_divisor:
            return (
                -(-height // self.size_divisor) * self.size_divisor,
                -(-width // self.size_divisor) * self.size_divisor,
            )
        if self.size is None:
            return max(height, width), max(height, width)
        if height > self.size[0] or width > self.size[1]:
            raise DatasetError(
                f'MMPad: an image of {height}×{width} (height×width) does not fit into the size '
                f'{self.size[0]}×{self.size[1]}; crop it first or use size_divisor'
            )
        return self.size


def _pad(array: np.ndarray, target: tuple[int, int], value: float) -> np.ndarray:
    bottom, right = target[0] - array.shape[0], target[1] - array.shape[1]
    if not bottom and not right:
        return array
    return cv2.copyMakeBorder(array, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(value,) * 4)
