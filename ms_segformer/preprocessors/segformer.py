"""The SegFormer preprocessor: from an image to the network's input."""
import os

import cv2
import numpy as np
import torch
from modelscope.preprocessors.base import Preprocessor
from modelscope.preprocessors.builder import PREPROCESSORS
from modelscope.utils.constant import Fields, ModeKeys

from ..config.limits import SMALLEST_SIDE, WHOLE_PIXELS
from ..config.reader import read_configuration
from ..metainfo import PREPROCESSOR
from .image import MAX_PIXELS, ImageError, load_image


@PREPROCESSORS.register_module(group_key=Fields.cv, module_name=PREPROCESSOR, force=True)
class SegformerPreprocessor(Preprocessor):
    """Loads, resizes, normalises and pads one image as the configuration's test pipeline says.

    Args:
        model_dir: directory with the `configuration.json` to go by.
        settings: `config.PreprocessSettings` to use instead.
    """

    def __init__(self, model_dir=None, settings=None, mode=ModeKeys.INFERENCE, **_):
        super().__init__(mode)
        self.settings = settings or read_configuration(model_dir).preprocess
        self._table = normalisation_table(self.settings.mean, self.settings.std)

    def __call__(self, image, channel_order='RGB', resize=True, max_pixels=MAX_PIXELS):
        """Prepare one image.

        Args:
            image, channel_order, max_pixels: see `preprocessors.image.load_image`.
            resize: False leaves the image at its own size.

        Returns:
            A dict: `img`, a 1×3×H×W float32 tensor in channels-last memory; `ori_shape` (h, w) of the upright image;
            `img_shape` (h, w) after resizing, the valid area; `pad_shape` (h, w) = (H, W); `filename`, or None.

        Raises:
            ImageError: it cannot be read, or has more than `limits.WHOLE_PIXELS` at its own size.
        """
        inputs = self.load(image, channel_order, resize, max_pixels)
        height, width = inputs['pad_shape']
        if height * width > WHOLE_PIXELS:
            raise ImageError(f'{inputs["filename"] or "the image"}: {width}×{height} pixels are more than '
                             f"{WHOLE_PIXELS:,}, the most that go through the network in one piece; use mode='slide' "
                             '(--mode slide), or leave resize=False (--full-size) out')
        inputs['img'] = self.window(inputs.pop('image'), 0, inputs['pad_shape'][0], 0, inputs['pad_shape'][1])
        return inputs

    def load(self, image, channel_order='RGB', resize=True, max_pixels=MAX_PIXELS):
        """Like calling the preprocessor, but with `image`, H×W×3 uint8 after resizing, in place of the tensor."""
        array = load_image(image, channel_order, max_pixels)
        height, width = self.network_shape(*array.shape[:2]) if resize else array.shape[:2]
        resized = array
        if (height, width) != array.shape[:2]:
            resized = cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR)
        divisor = self.settings.size_divisor or 1
        pad_shape = tuple(-(-max(side, SMALLEST_SIDE) // divisor) * divisor for side in (height, width))
        filename = str(image) if isinstance(image, (str, os.PathLike)) else None
        return {'image': resized, 'ori_shape': array.shape[:2], 'img_shape': (height, width), 'pad_shape': pad_shape,
                'filename': filename}

    def network_shape(self, height, width):
        """(h, w) that an image of this size is resized to, before padding."""
        if not self.settings.keep_ratio:
            return self.settings.scale[1], self.settings.scale[0]
        long_side, short_side = self.settings.scale
        factor = min(long_side / max(height, width), short_side / min(height, width))
        return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))

    def window(self, image, top, bottom, left, right):
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
                tensor[:part.shape[0], :part.shape[1]] = cv2.LUT(part, self._table)
        return torch.from_numpy(tensor).permute(2, 0, 1)[None]


def normalisation_table(mean, std):
    """1×256×3 float32: what each 8-bit value becomes in each channel; float32 throughout, bit-equal to the original."""
    values = np.arange(256, dtype=np.float32)[:, None]
    return ((values - np.asarray(mean, np.float32)) / np.asarray(std, np.float32))[None]
