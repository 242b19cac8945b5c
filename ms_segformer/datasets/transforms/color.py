"""Changes the colors of an image."""

from collections.abc import Sequence

import cv2
import numpy as np

from ..errors import DatasetError
from ..sample import Sample, change, image_keys
from .arguments import checked_range
from .random_streams import stream
from .registry import register


@register
class MMPhotoMetricDistortion:
    """Change brightness, contrast, saturation and hue, and swap channels, each with probability 1/2.

    Contrast comes before or after the change of saturation and hue, with equal probability. The image becomes float32
    and is not clipped: values may leave 0-255, as in the original.

    Args:
        brightness_delta: largest shift, in gray levels.
        contrast_range, saturation_range: (low, high) of the factor.
        hue_delta: largest shift, in degrees.
    """

    def __init__(
        self,
        brightness_delta: float = 32,
        contrast_range: tuple[float, float] = (0.5, 1.5),
        saturation_range: tuple[float, float] = (0.5, 1.5),
        hue_delta: float = 18,
    ) -> None:
        self.brightness_delta = brightness_delta
        self.contrast_range = checked_range(contrast_range, 'MMPhotoMetricDistortion: contrast_range')
        self.saturation_range = checked_range(saturation_range, 'MMPhotoMetricDistortion: saturation_range')
        self.hue_delta = hue_delta

    def __call__(self, results: Sample) -> Sample:
        """Replace `img` by its distorted copy."""
        rng = stream(results)
        img: np.ndarray = results['img'].astype(np.float32)
        if rng.randint(2):
            img += np.float32(rng.uniform(-self.brightness_delta, self.brightness_delta))
        contrast_first = rng.randint(2) == 1
        if contrast_first:
            self._contrast(img, rng)
        img = self._saturation_and_hue(img, rng)
        if not contrast_first:
            self._contrast(img, rng)
        if rng.randint(2):
            img = cv2.merge([img[..., channel] for channel in rng.permutation(3)])
        results['img'] = img
        return results

    def _contrast(self, img: np.ndarray, rng: np.random.RandomState) -> None:
        if rng.randint(2):
            img *= np.float32(rng.uniform(*self.contrast_range))

    def _saturation_and_hue(self, img: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        hsv = cv2.cvtColor(img, cv2.COLOR_BGR2HSV)  # float32: hue in degrees, saturation 0-1
        if rng.randint(2):
            hsv[..., 1] *= np.float32(rng.uniform(*self.saturation_range))
        if rng.randint(2):
            hue = hsv[..., 0] + np.float32(rng.uniform(-self.hue_delta, self.hue_delta))
            hue -= np.float32(360) * (hue > 360)
            hue += np.float32(360) * (hue < 0)
            hsv[..., 0] = hue
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


@register
class MMNormalize:
    """Subtract the mean and divide by the standard deviation of each channel.

    Args:
        mean, std: one number per channel, in gray levels, in RGB order when `to_rgb` (else in the image's order).
        to_rgb: turn BGR into RGB first.
    """

    def __init__(
        self, mean: Sequence[float] | np.ndarray, std: Sequence[float] | np.ndarray, to_rgb: bool = True
    ) -> None:
        self.mean = np.array(mean, np.float32)
        self.std = np.array(std, np.float32)
        self.to_rgb = to_rgb
        if self.mean.shape != self.std.shape or self.mean.ndim != 1 or not (self.std > 0).all():
            raise DatasetError(f'MMNormalize: mean and std hold one number per channel, std above 0; got {mean}, {std}')
        self._shift, self._scale = self.mean.astype(np.float64), 1 / self.std.astype(np.float64)
        # The normalized value of each of the 256 gray levels: a uint8 image is looked up, not computed.
        self._table = ((np.arange(256)[:, None] - self._shift) * self._scale).astype(np.float32)  # 256×C

    def __call__(self, results: Sample) -> Sample:
        """Replace the images by float32; set `img_norm_cfg`."""
        change(results, image_keys(results), self._normalize)
        results['img_norm_cfg'] = {'mean': self.mean, 'std': self.std, 'to_rgb': self.to_rgb}
        return results

    def _normalize(self, img: np.ndarray) -> np.ndarray:
        if self.to_rgb:
            img = cv2.cvtColor(img, cv2.COLOR_BGR2RGB)
        if img.dtype == np.uint8:
            return cv2.LUT(img, self._table[None])
        img = cv2.subtract(img, self._shift[None], dtype=cv2.CV_32F)
        return cv2.multiply(img, self._scale[None], dst=img)
