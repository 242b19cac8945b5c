"""Cuts a window out of image and label map."""

import cv2
import numpy as np

from ..sample import Sample, change, image_keys, label_keys
from .arguments import pair
from .random_streams import stream
from .registry import register


@register
class SegRandomCrop:
    """Cut the same random window out of image and label map.

    Args:
        crop_size: (height, width) of the window in pixels; where the image is smaller it stays as it is.
        cat_max_ratio: below 1, up to ten further windows are drawn until the most frequent class covers less than
            this share of the labeled pixels and at least two classes are in it; the last is taken in any case.
        ignore_index: label value that does not count as a class.
    """

    def __init__(
        self, crop_size: int | tuple[int, int], cat_max_ratio: float = 1.0, ignore_index: int | None = 255
    ) -> None:
        self.crop_size = pair(crop_size, 'SegRandomCrop: crop_size')
        self.cat_max_ratio = cat_max_ratio
        self.ignore_index = ignore_index

    def __call__(self, results: Sample) -> Sample:
        """Crop; set `img_shape`."""
        rng, shape = stream(results), results['img'].shape
        window = self._window(rng, shape)
        if self.cat_max_ratio < 1:
            for _ in range(10):
                if self._is_varied(results['gt_semantic_seg'][window]):
                    break
                window = self._window(rng, shape)
        change(results, [*image_keys(results), *label_keys(results)], lambda array: array[window])
        results['img_shape'] = results['pad_shape'] = results['img'].shape
        return results

    def _window(self, rng: np.random.RandomState, shape: tuple[int, ...]) -> tuple[slice, slice]:
        height, width = self.crop_size
        top = rng.randint(0, max(shape[0] - height, 0) + 1)
        left = rng.randint(0, max(shape[1] - width, 0) + 1)
        return slice(top, top + height), slice(left, left + width)

    def _is_varied(self, label: np.ndarray) -> bool:
        counts = cv2.calcHist([label], [0], None, [256], [0, 256]).ravel()  # exact below 2**24 pixels
        if self.ignore_index is not None:
            counts[self.ignore_index] = 0
        return bool(np.count_nonzero(counts) > 1 and counts.max() / counts.sum(dtype=np.float64) < self.cat_max_ratio)
