"""The model cards' scripts, the photograph they name, and what they print."""

import ast
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from .fixtures import TINY_MODEL

CARDS = Path(__file__).parents[1] / 'cards'
IMAGE_HOST = 'modelscope.oss-cn-beijing.aliyuncs.com'
IMAGE_PATH = '/test/images/image_semantic_segmentation.jpg'


def photograph():
    """A JPEG with color ramps; the model finds several classes in it."""
    ramp = np.linspace(0, 255, 160, dtype=np.uint8)
    pixels = np.stack([np.tile(ramp, (120, 1)), np.tile(ramp[:120, None], (1, 160)), np.full((120, 160), 90)], axis=-1)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, 'JPEG', quality=95)
    return buffer.getvalue()


def labels_in(output):
    """The labels in what the prediction code prints."""
    return ast.literal_eval(re.search(r"'labels': (\[.*?\])", output, re.DOTALL)[1])


def expected_labels(image, directory=TINY_MODEL):
    """The labels of an image by this process's own pipeline."""
    from ms_segformer.pipelines.image_segmentation import SegformerPipeline

    return SegformerPipeline(str(directory), device='cpu')(image)['labels']
