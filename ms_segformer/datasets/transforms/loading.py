"""What published configurations begin with: reading, which the source has done."""

import numpy as np

from ..sample import Sample
from .registry import register


@register
class LoadImageFromFile:
    """Accepted at the beginning of a pipeline, where the source has read the image already.

    Args:
        to_float32: convert to float32, so that resizing does not round to gray levels.
        color_type, channel_order, file_client_args, mode: accepted for published configurations; images are BGR here.
    """

    def __init__(
        self,
        to_float32: bool = False,
        color_type: str = 'color',
        channel_order: str = 'bgr',
        file_client_args: dict | None = None,
        mode: str | None = None,
    ) -> None:
        self.to_float32 = to_float32

    def __call__(self, results: Sample) -> Sample:
        """Convert `img` where that is asked for."""
        if self.to_float32:
            results['img'] = results['img'].astype(np.float32)
        return results


@register
class LoadAnnotations:
    """Accepted at the beginning of a pipeline, where the source has read the label map already.

    Args:
        reduce_zero_label: accepted; the source does it, by its own `reduce_zero_label`.
        with_bbox, with_label, with_mask, with_seg, imdecode_backend: accepted; only label maps are read here.
    """

    def __init__(
        self,
        reduce_zero_label: bool = False,
        with_bbox: bool = False,
        with_label: bool = False,
        with_mask: bool = False,
        with_seg: bool = True,
        imdecode_backend: str | None = None,
    ) -> None:
        pass

    def __call__(self, results: Sample) -> Sample:
        """Return the sample as it is."""
        return results
