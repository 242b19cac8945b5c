"""The SegFormer preprocessor: from an image to the network's input."""
import cv2
import numpy as np
import torch
from modelscope.preprocessors.base import Preprocessor
from modelscope.preprocessors.builder import PREPROCESSORS
from modelscope.utils.constant import Fields, ModeKeys

from ..config import read_configuration
from ..metainfo import PREPROCESSOR
from .image import load_image

SMALLEST_SIDE = 29  # pixels; the least that fills the first stage's 8×8 reduction of a map of a quarter of the size


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

    def __call__(self, image, channel_order='RGB'):
        """Prepare one image.

        Args:
            image, channel_order: see `preprocessors.image.load_image`.

        Returns:
            A dict: `img`, a 1×3×H×W float32 tensor in channels-last memory; `ori_shape` (h, w) of the upright image;
            `img_shape` (h, w) after resizing, the valid area; `pad_shape` (h, w) = (H, W); `filename`, or None.
        """
        array = load_image(image, channel_order)
        inputs = self.prepare(array)
        inputs['filename'] = str(image) if isinstance(image, str) or hasattr(image, '__fspath__') else None
        return inputs

    def prepare(self, image):
        """Like calling the preprocessor, for an image that is an H×W×3 uint8 RGB array already."""
        height, width = self.network_shape(*image.shape[:2])
        resized = image
        if (height, width) != image.shape[:2]:
            resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        tensor = self.normalise(resized)
        return {'img': tensor, 'ori_shape': image.shape[:2], 'img_shape': (height, width),
                'pad_shape': tuple(tensor.shape[2:])}

    def network_shape(self, height, width):
        """(h, w) that an image of this size is resized to, before padding."""
        if not self.settings.keep_ratio:
            return self.settings.scale[1], self.settings.scale[0]
        long_side, short_side = self.settings.scale
        factor = min(long_side / max(height, width), short_side / min(height, width))
        return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))

    def normalise(self, image):
        """H×W×3 uint8 RGB to a 1×3×H'×W' float32 tensor, padded with zeros to the divisor and to `SMALLEST_SIDE`."""
        height, width = image.shape[:2]
        divisor = self.settings.size_divisor or 1
        padded_height, padded_width = (
            -(-max(side, SMALLEST_SIDE) // divisor) * divisor for side in (height, width))
        padded = np.zeros((padded_height, padded_width, 3), np.float32)
        padded[:height, :width] = cv2.LUT(image, self._table)
        return torch.from_numpy(padded).permute(2, 0, 1)[None]


def normalisation_table(mean, std):
    """1×256×3 float32: what each 8-bit value becomes in each channel; float32 throughout, bit-equal to the original."""
    values = np.arange(256, dtype=np.float32)[:, None]
    return ((values - np.asarray(mean, np.float32)) / np.asarray(std, np.float32))[None]
