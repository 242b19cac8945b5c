"""Image and label transforms with the names and the meaning they have in EasyCV's published configurations.

A transform is a callable that takes a `Sample` (see `ms_segformer.datasets.sample`) and returns it. Random draws happen
in the original's order and with the original's calls, so a `RandomState(seed)` as the sample's `rng` and
`numpy.random.seed(seed)` there give the same crop, flip and colors.
"""

from .color import MMNormalize, MMPhotoMetricDistortion
from .compose import Compose, build
from .cropping import SegRandomCrop
from .flipping import MMRandomFlip
from .formatting import Collect, DefaultFormatBundle, ImageToTensor
from .loading import LoadAnnotations, LoadImageFromFile
from .multi_scale import MMMultiScaleFlipAug
from .padding import MMPad
from .random_streams import sample_rng
from .registry import TRANSFORMS
from .scaling import MMResize, fit_size

__all__ = [
    'TRANSFORMS',
    'Collect',
    'Compose',
    'DefaultFormatBundle',
    'ImageToTensor',
    'LoadAnnotations',
    'LoadImageFromFile',
    'MMMultiScaleFlipAug',
    'MMNormalize',
    'MMPad',
    'MMPhotoMetricDistortion',
    'MMRandomFlip',
    'MMResize',
    'SegRandomCrop',
    'build',
    'fit_size',
    'sample_rng',
]
