"""Data: sources of image and label pairs, transforms, and what is found out about a data set before training.

`seg_dataset`, which registers `SegDataset` (pairs through transforms) with ModelScope, is imported by name, and so are
`transforms` and `loader`, which need torch.
"""

from .errors import DatasetError
from .image_file import read_image
from .inspection import Inspection, inspect
from .label_file import read_label
from .layout import find_data_sources
from .preparation import Preparation, prepare_coco_stuff
from .sample import Batch, Formatted, ImageMeta, Sample
from .sources import build_source

__all__ = [
    'Batch',
    'DatasetError',
    'Formatted',
    'ImageMeta',
    'Inspection',
    'Preparation',
    'Sample',
    'build_source',
    'find_data_sources',
    'inspect',
    'prepare_coco_stuff',
    'read_image',
    'read_label',
]
