"""Scales image and label map."""

import math
from collections.abc import Sequence
from functools import partial

import cv2
import numpy as np

from ..errors import DatasetError
from ..sample import Sample, change, image_keys, label_keys
from .arguments import Scales, check_pixels, checked_range, scales
from .random_streams import stream
from .registry import register


def fit_size(shape: Sequence[int], scale: Sequence[int]) -> tuple[int, int]:
    """Return the (height, width) of an image scaled with its ratio kept to fit into a scale.

    Args:
        shape: (height, width, …) of the image in pixels.
        scale: two numbers of pixels; the larger bounds the long side, the smaller the short side.
    """
    height, width = shape[:2]
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return int(height * factor + 0.5), int(width * factor + 0.5)


_INTERPOLATIONS = {
    'nearest': cv2.INTER_NEAREST,
    'bilinear': cv2.INTER_LINEAR,
    'bicubic': cv2.INTER_CUBIC,
    'area': cv2.INTER_AREA,
    'lanczos': cv2.INTER_LANCZOS4,
}


@register
class MMResize:
    """Scale image (bilinear) and label map (nearest).

    Args:
        img_scale: (long, short) in pixels, or a list of such pairs; None when `MMMultiScaleFlipAug` sets the scale.
        multiscale_mode: how one of several scales is drawn: `range` draws both sides uniformly between the smallest
            and the largest, `value` draws one of the pairs.
        ratio_range: (low, high): the single `img_scale` is multiplied by a ratio drawn uniformly from it.
        keep_ratio: scale to fit into (long, short) with the ratio kept; otherwise resize to (width, height).
        interpolation: of the image: nearest, bilinear, bicubic, area or lanczos.
        bbox_clip_border, backend, override: accepted for published configurations; they have no effect here.
    """

    def __init__(
        self,
        img_scale: Scales | None = None,
        multiscale_mode: str = 'range',
        ratio_range: tuple[float, float] | None = None,
        keep_ratio: bool = True,
        interpolation: str = 'bilinear',
        bbox_clip_border: bool = True,
        backend: str = 'cv2',
        override: bool = False,
    ) -> None:
        self.img_scale = None if img_scale is None else scales(img_scale, 'MMResize: img_scale')
        self.ratio_range = checked_range(ratio_range, 'MMResize: ratio_range') if ratio_range else None
        self.multiscale_mode = multiscale_mode
        self.keep_ratio = keep_ratio
        if multiscale_mode not in ('range', 'value'):
            raise DatasetError(f'MMResize: multiscale_mode is "range" or "value", got {multiscale_mode!r}')
        if self.ratio_range:
            if self.img_scale is None or len(self.img_scale) != 1:
                raise DatasetError(f'MMResize: ratio_range needs exactly one img_scale, got {img_scale!r}')
            check_pixels(
                math.prod(self.img_scale[0]) * self.ratio_range[1] ** 2,
                f'MMResize: img_scale {img_scale!r} with ratio_range {ratio_range!r}',
            )
        if interpolation not in _INTERPOLATIONS:
            raise DatasetError(f'MMResize: interpolation is one of {", ".join(_INTERPOLATIONS)}; got {interpolation!r}')
        self.interpolation = _INTERPOLATIONS[interpolation]

    def __call__(self, results: Sample) -> Sample:
        """Resize every image and label map; set `scale`, `scale_factor` (w, h, w, h), `img_shape`, `pad_shape`."""
        if 'scale' not in results:
            results['scale'] = self._scale(results)
        height, width = results['img'].shape[:2]
        new = fit_size((height, width), results['scale']) if self.keep_ratio else results['scale'][::-1]
        change(results, image_keys(results), partial(_resize, size=new, interpolation=self.interpolation))
        change(results, label_keys(results), partial(_resize, size=new, interpolation=cv2.INTER_NEAREST))
        factor = (new[1] / width, new[0] / height)
        results['scale_factor'] = np.array(factor * 2, np.float32)
        results['img_shape'] = results['pad_shape'] = results['img'].shape
        results['keep_ratio'] = self.keep_ratio
        return results

    def _scale(self, results: Sample) -> tuple[int, int]:
        if self.img_scale is None:
            factor = results.get('scale_factor')
            if isinstance(factor, float):
                height, width = results['img'].shape[:2]
                return int(width * factor), int(height * factor)
            raise DatasetError(
                'MMResize without img_scale gets its scale from MMMultiScaleFlipAug; '
                'give img_scale, or put it into the transforms of MMMultiScaleFlipAug'
            )
        rng = stream(results)
        if self.ratio_range:
            low, high = self.ratio_range
            ratio = rng.random_sample() * (high - low) + low
            return int(self.img_scale[0][0] * ratio), int(self.img_scale[0][1] * ratio)
        if len(self.img_scale) == 1:
            return self.img_scale[0]
        if self.multiscale_mode == 'value':
            return self.img_scale[rng.randint(len(self.img_scale))]
        longs, shorts = [max(scale) for scale in self.img_scale], [min(scale) for scale in self.img_scale]
        return rng.randint(min(longs), max(longs) + 1), rng.randint(min(shorts), max(shorts) + 1)


def _resize(array: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    height, width = size
    if array.shape[:2] == (height, width):
        return array
    if height < 1 or width < 1:
        raise DatasetError(
            f'an image of {array.shape[1]}×{array.shape[0]} pixels would become {width}×{height}; '
            'give a larger img_scale or ratio_range'
        )
    return cv2.resize(array, (width, height), interpolation=interpolation)
