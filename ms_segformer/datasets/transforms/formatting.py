"""Makes tensors of arrays, and keeps what the model needs."""

from collections.abc import Sequence
from typing import Any, cast

import cv2
import numpy as np
import torch

from ..errors import DatasetError
from ..sample import Formatted, Sample
from .registry import register


def _to_chw(img: np.ndarray) -> torch.Tensor:
    """Return an H×W×C (or H×W) array as a contiguous C×H×W float32 or uint8 tensor."""
    if img.ndim == 2:
        return torch.from_numpy(np.ascontiguousarray(img)[None])
    planes = np.empty((img.shape[2], *img.shape[:2]), img.dtype)
    for channel, plane in enumerate(planes):
        cv2.extractChannel(img, channel, plane)
    return torch.from_numpy(planes)


def _with_tensors(results: Sample, keys: list[str]) -> dict[str, Any]:
    """The sample, which now holds tensors under some keys."""
    changed = cast(dict[str, Any], results)
    for key in keys:
        changed[key] = _to_chw(changed[key])
    return changed


@register
class DefaultFormatBundle:
    """Turn `img` into a 3×H×W tensor and `gt_semantic_seg` into a 1×H×W uint8 tensor."""

    def __call__(self, results: Sample) -> dict[str, Any]:
        """Replace both; fill in `scale_factor` and `img_norm_cfg` where no transform set them."""
        results.setdefault('scale_factor', 1.0)
        results.setdefault(
            'img_norm_cfg', {'mean': np.zeros(3, np.float32), 'std': np.ones(3, np.float32), 'to_rgb': False}
        )
        return _with_tensors(results, [key for key in ('img', 'gt_semantic_seg') if key in results])


@register
class ImageToTensor:
    """Turn the images under `keys` into C×H×W tensors.

    Args:
        keys: keys of the results, usually `['img']`.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = list(keys)

    def __call__(self, results: Sample) -> dict[str, Any]:
        """Replace each image."""
        return _with_tensors(results, self.keys)


@register
class Collect:
    """Keep what the model needs.

    Args:
        keys: keys of the results to keep.
        meta_keys: keys to gather in the dict `img_metas`; one that no transform has set is left out.
    """

    def __init__(
        self,
        keys: Sequence[str],
        meta_keys: Sequence[str] = (
            'filename',
            'ori_filename',
            'ori_shape',
            'img_shape',
            'pad_shape',
            'scale_factor',
            'flip',
            'flip_direction',
            'img_norm_cfg',
        ),
    ) -> None:
        self.keys = list(keys)
        self.meta_keys = tuple(meta_keys)

    def __call__(self, results: dict[str, Any]) -> Formatted:
        """Return a new dict of `keys` and `img_metas`.

        Raises:
            DatasetError: one of `keys` is not among the results.
        """
        missing = [key for key in self.keys if key not in results]
        if missing:
            raise DatasetError(
                f'Collect: {missing} are not in the sample, which has {sorted(results)}; '
                'correct "keys", or the order of the pipeline'
            )
        data = {key: results[key] for key in self.keys}
        data['img_metas'] = {key: results[key] for key in self.meta_keys if key in results}
        return cast(Formatted, data)
