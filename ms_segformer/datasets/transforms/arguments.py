"""What the arguments of transforms may be."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from ...config.limits import DIVISOR, TRAINING_PIXELS
from ...config.schema import FLAG, TEXT, Kind, either, integer, number, several
from ..errors import DatasetError

Scales: TypeAlias = tuple[int, int] | Sequence[tuple[int, int]]  # (long, short) in pixels, or several of them


def pair(value: Any, what: str) -> tuple[int, int]:
    """Return (a, b) as two integers from one number or a sequence of two."""
    if isinstance(value, (int, np.integer)):
        value = (value, value)
    if (
        not isinstance(value, (list, tuple))
        or len(value) != 2
        or not all(isinstance(side, (int, float, np.number)) and 0 < side < math.inf for side in value)
    ):
        raise DatasetError(f'{what} is a pair of positive numbers, got {value!r}')
    check_pixels(value[0] * value[1], f'{what} {value!r}')
    return int(value[0]), int(value[1])


def check_pixels(count: float, what: str) -> None:
    """Refuse images of more pixels than training takes."""
    if count > TRAINING_PIXELS:
        raise DatasetError(f'{what} makes images of {int(count):,} pixels; accepted: up to {TRAINING_PIXELS:,}')


def scales(img_scale: Scales, what: str) -> list[tuple[int, int]]:
    """Return the scales of a configuration as a list of (long, short): one pair, or a list of pairs."""
    if len(img_scale) and isinstance(img_scale[0], (list, tuple)):
        return [pair(scale, what) for scale in img_scale]
    return [pair(img_scale, what)]


def checked_range(value: Any, what: str) -> tuple[float, float]:
    """Return a (low, high), or raise where it is none."""
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not value[0] <= value[1]:
        raise DatasetError(f'{what} is a pair (low, high) with low ≤ high, got {value!r}')
    return value[0], value[1]


_PIXELS = Kind('a number of pixels', number(1, TRAINING_PIXELS).accepts)
_PAIR = Kind('a pair of positive numbers', several(_PIXELS, 2).accepts)
_RANGE = several(number(0, 1e6), 2)
_SHARES = Kind('a probability from 0 to 1, or a list of them', either(number(0, 1), several(number(0, 1))).accepts)
_DELTA = number(0, 1e6)
_COLORS = Kind(
    'numbers, one per channel', lambda value: isinstance(value, np.ndarray) or several(number(-1e6, 1e6)).accepts(value)
)
ARGUMENTS = {  # of all transforms; what is left out is checked by the transform alone, or has no effect
    'img_scale': either(_PAIR, several(_PAIR)),
    'ratio_range': _RANGE,
    'keep_ratio': FLAG,
    'multiscale_mode': TEXT,
    'interpolation': TEXT,
    'crop_size': either(_PIXELS, _PAIR),
    'cat_max_ratio': number(0, 1),
    'ignore_index': integer(0, 255),
    'flip_ratio': _SHARES,
    'direction': either(TEXT, several(TEXT)),
    'brightness_delta': _DELTA,
    'contrast_range': _RANGE,
    'saturation_range': _RANGE,
    'hue_delta': number(0, 360),
    'mean': _COLORS,
    'std': _COLORS,
    'to_rgb': FLAG,
    'size': either(_PIXELS, _PAIR),
    'size_divisor': integer(1, DIVISOR),
    'pad_to_square': FLAG,
    'pad_val': either(
        number(-1e6, 1e6),
        Kind(
            'a mapping of numbers',
            lambda value: isinstance(value, dict) and all(map(number(-1e6, 1e6).accepts, value.values())),
        ),
    ),
    'keys': several(TEXT),
    'meta_keys': several(TEXT),
    'flip': FLAG,
    'flip_direction': either(TEXT, several(TEXT)),
    'scale_factor': either(number(1e-3, 1e3), several(number(1e-3, 1e3))),
    'to_float32': FLAG,
    'reduce_zero_label': FLAG,
}
