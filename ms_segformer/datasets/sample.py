"""A sample on its way: from a source, through the transforms, to a batch."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypedDict, cast

import numpy as np

if TYPE_CHECKING:
    import torch


class Normalization(TypedDict):
    """What was done to the gray levels of an image: one mean and standard deviation per channel."""

    mean: np.ndarray
    std: np.ndarray
    to_rgb: bool


class ImageMeta(TypedDict, total=False):
    """What is known of an image besides its pixels: `img_metas`, of which a key that nothing has set is left out.

    filename: its path. ori_filename: the same, relative to its folder.
    ori_shape, img_shape, pad_shape: of the image as read, as scaled or cropped, and as padded.
    scale_factor: (w, h, w, h) by which it was scaled, or the one number by which it is to be.
    """

    filename: str
    ori_filename: str
    ori_shape: tuple[int, ...]
    img_shape: tuple[int, ...]
    pad_shape: tuple[int, ...]
    scale_factor: np.ndarray | float
    flip: bool
    flip_direction: str | None
    img_norm_cfg: Normalization


class Sample(ImageMeta, total=False):
    """What a source loads and transforms work on. EasyCV's transforms, and a user's, may add keys of their own.

    img: H×W×3 BGR, uint8 or float32. gt_semantic_seg: H×W uint8 class ids, absent at inference.
    img_fields, seg_fields: the keys that hold images and label maps.
    seg_filename: path of the label map.
    scale: (long, short) or (width, height) to scale to.
    rng: random stream of this sample; without it the draws come from numpy's global stream.
    """

    img: np.ndarray
    gt_semantic_seg: np.ndarray
    img_fields: list[str]
    seg_fields: list[str]
    seg_filename: str
    scale: tuple[int, int]
    keep_ratio: bool
    pad_fixed_size: tuple[int, int] | None
    pad_size_divisor: int | None
    rng: np.random.RandomState


class Formatted(TypedDict, total=False):
    """A sample as the network takes it: what `Collect` keeps.

    Of a training pipeline: img 3×H×W float32, gt_semantic_seg 1×H×W uint8, img_metas of the image.
    Of a test pipeline: img and img_metas lists with one entry per version, label H×W uint8 at the image's own size, and
    the number of the sample.
    """

    img: 'torch.Tensor | list[torch.Tensor]'
    gt_semantic_seg: 'torch.Tensor'
    img_metas: ImageMeta | list[ImageMeta]
    label: 'torch.Tensor'
    index: int


class Batch(TypedDict, total=False):
    """Samples of one kind, joined by `collate`.

    Training: img N×3×H×W, gt_semantic_seg N×1×H×W, img_metas list of N dicts.
    Testing: img and img_metas as lists over the versions; a version's images are N×3×H×W when their sizes agree and a
    list of N 1×3×H×W otherwise; label list of N H×W tensors, index list of N.
    """

    img: 'torch.Tensor | list[torch.Tensor | list[torch.Tensor]]'
    gt_semantic_seg: 'torch.Tensor'
    img_metas: list[ImageMeta] | list[list[ImageMeta]]
    label: 'list[torch.Tensor]'
    index: list[int]


def image_keys(sample: Sample) -> list[str]:
    """The keys that hold images."""
    return sample.get('img_fields', ['img'])


def label_keys(sample: Sample) -> list[str]:
    """The keys that hold label maps."""
    return sample.get('seg_fields', [])


def change(sample: Sample, keys: Iterable[str], function: Callable[[np.ndarray], np.ndarray]) -> None:
    """Put what a function makes of them in the place of some images or label maps."""
    arrays = cast(dict[str, np.ndarray], sample)  # the sample itself says which of its keys hold arrays
    for key in keys:
        arrays[key] = function(arrays[key])
