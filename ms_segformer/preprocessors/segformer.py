"""The SegFormer preprocessor: from an image to the network's input."""

import os
from collections.abc import Sequence
from typing import TypedDict

import cv2
import numpy as np
import torch
from modelscope.preprocessors.base import Preprocessor
from modelscope.preprocessors.builder import PREPROCESSORS
from modelscope.utils.constant import Fields, ModeKeys

from ..config.limits import SMALLEST_SIDE, WHOLE_PIXELS
from ..config.reader import PreprocessSettings, read_configuration
from ..errors import ArgumentError
from ..metainfo import PREPROCESSOR
from .image import MAX_PIXELS, ImageError, ImageSource, load_image
from .shapes import ImageShapes

Shape = tuple[int, int]  # (height, width)


class _Shapes(TypedDict):
    ori_shape: Shape  # of the upright image
    img_shape: Shape  # after resizing: the valid area
    pad_shape: Shape  # of the network's input
    filename: str | None


class PreparedImage(_Shapes, total=False):
    """An image on its way through the pipeline; what ModelScope's `preprocess`, `forward` and `postprocess` hand on."""

    image: np.ndarray  # from `load`: H×W×3 uint8 RGB after resizing
    img: torch.Tensor  # from calling the preprocessor: 1×3×H×W float32 in channels-last memory
    logits: torch.Tensor  # from the pipeline's `forward`: 1×C×h×w float32
    picture: np.ndarray  # where the result shall have it: H×W×3 uint8 RGB, at its own size


@PREPROCESSORS.register_module(group_key=Fields.cv, module_name=PREPROCESSOR, force=True)
class SegformerPreprocessor(Preprocessor):
    """Loads, resizes, normalizes and pads one image as the configuration's test pipeline says.

    Args:
        model_dir: directory with the `configuration.json` to go by.
        settings: `config.settings.PreprocessSettings` to use instead.
    """

    def __init__(
        self,
        model_dir: str | os.PathLike | None = None,
        settings: PreprocessSettings | None = None,
        mode: str = ModeKeys.INFERENCE,
        **_: object,
    ) -> None:
        super().__init__(mode)
        if settings is None:
            if model_dir is None:
                raise ArgumentError('neither model_dir nor settings are given; pass the directory of a model')
            settings = read_configuration(model_dir).preprocess
        self.settings = settings
        self._table = normalization_table(self.settings.mean, self.settings.std)

    def __call__(
        self, image: ImageSource, channel_order: str = 'RGB', resize: bool = True, max_pixels: int = MAX_PIXELS
    ) -> PreparedImage:
        """Prepare one image.

        Args:
            image, channel_order, max_pixels: see `preprocessors.image.load_image`.
            resize: False leaves the image at its own size.

        Raises:
            ImageError: it cannot be read, or has more than `config.limits.WHOLE_PIXELS` at its own size.
        """
        loaded = self.load(image, channel_order, resize, max_pixels)
        height, width = loaded['pad_shape']
        if height * width > WHOLE_PIXELS:
            raise ImageError(
                f'{loaded["filename"] or "the image"}: {width}×{height} pixels are more than '
                f"{WHOLE_PIXELS:,}, the most that go through the network in one piece; use mode='slide' "
                '(--mode slide), or leave resize=False (--full-size) out'
            )
        return PreparedImage(
            img=self.window(loaded['image'], 0, height, 0, width),
            ori_shape=loaded['ori_shape'],
            img_shape=loaded['img_shape'],
            pad_shape=loaded['pad_shape'],
            filename=loaded['filename'],
        )

    def load(
        self, image: ImageSource, channel_order: str = 'RGB', resize: bool = True, max_pixels: int = MAX_PIXELS
    ) -> PreparedImage:
        """Like calling the preprocessor, but with the image after resizing in place of the tensor."""
        array = load_image(image, channel_order, max_pixels)
        original = array.shape[0], array.shape[1]
        shapes = self.shapes(*original, resize)
        resized = array
        if shapes.resized != original:
            resized = cv2.resize(array, shapes.resized[::-1], interpolation=cv2.INTER_LINEAR)
        filename = str(image) if isinstance(image, (str, os.PathLike)) else None
        return PreparedImage(
            image=resized,
            ori_shape=original,
            img_shape=shapes.resized,
            pad_shape=shapes.padded,
            filename=filename,
        )

    def shapes(self, height: int, width: int, resize: bool = True) -> ImageShapes:
        """The sizes that an image of this size goes through."""
        resized = self.network_shape(height, width) if resize else (height, width)
        divisor = self.settings.size_divisor or 1
        padded_height, padded_width = (-(-max(side, SMALLEST_SIDE) // divisor) * divisor for side in resized)
        return ImageShapes((padded_height, padded_width), resized, (height, width))

    def network_shape(self, height: int, width: int) -> Shape:
        """(h, w) that an image of this size is resized to, before padding."""
        if not self.settings.keep_ratio:
            return self.settings.scale[1], self.settings.scale[0]
        long_side, short_side = self.settings.scale
        factor = min(long_side / max(height, width), short_side / min(height, width))
        return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))

    def window(self, image: np.ndarray, top: int, bottom: int, left: int, right: int) -> torch.Tensor:
        """A part of the network's input.

        Args:
            image: H×W×3 uint8 RGB, already resized.
            top, bottom, left, right: the part, in pixels; beyond the image it is zero.

        Returns:
            1×3×(bottom-top)×(right-left) float32 tensor in channels-last memory.
        """
        part = np.ascontiguousarray(image[top:bottom, left:right])
        if part.shape[:2] == (bottom - top, right - left):
            tensor = cv2.LUT(part, self._table)
        else:
            tensor = np.zeros((bottom - top, right - left, 3), np.float32)
            if part.size:
                tensor[: part.shape[0], : part.shape[1]] = cv2.LUT(part, self._table)
        return torch.from_numpy(tensor).permute(2, 0, 1)[None]


def normalization_table(mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """1×256×3 float32: what each 8-bit value becomes in each channel; float32 throughout, bit-equal to the original."""
    values = np.arange(256, dtype=np.float32)[:, None]
    return ((values - np.asarray(mean, np.float32)) / np.asarray(std, np.float32))[None]
