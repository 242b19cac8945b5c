"""Pascal VOC in its own folders."""

import os
from pathlib import Path
from typing import ClassVar

from ...metainfo import IGNORE_INDEX
from .classes import Colors
from .folders import SegSourceRaw

VOC_CLASSES = (
    'background',
    'aeroplane',
    'bicycle',
    'bird',
    'boat',
    'bottle',
    'bus',
    'car',
    'cat',
    'chair',
    'cow',
    'diningtable',
    'dog',
    'horse',
    'motorbike',
    'person',
    'pottedplant',
    'sheep',
    'sofa',
    'train',
    'tvmonitor',
)


class _SegSourceVoc(SegSourceRaw):
    """Pascal VOC in its own layout: `<path>/VOCdevkit/<year>/{JPEGImages,SegmentationClass,ImageSets/Segmentation}`.

    The arguments not listed here are those of `SegSourceRaw`.

    Args:
        path: folder that holds `VOCdevkit`. Nothing is downloaded.
        split: train, val or trainval.
    """

    YEAR: ClassVar[str]

    def __init__(
        self,
        path: str | os.PathLike,
        split: str = 'trainval',
        reduce_zero_label: bool = False,
        palette: Colors = None,
        ignore_index: int | None = IGNORE_INDEX,
        to_float32: bool = True,
        num_processes: int | None = None,
        cache_at_init: bool = False,
        cache_on_the_fly: bool = False,
        check: bool = True,
    ) -> None:
        root = Path(path) / 'VOCdevkit' / self.YEAR
        classes = VOC_CLASSES[1 if reduce_zero_label else 0 :]
        super().__init__(
            root / 'JPEGImages',
            root / 'SegmentationClass',
            root / 'ImageSets' / 'Segmentation' / f'{split}.txt',
            classes,
            '.jpg',
            '.png',
            reduce_zero_label,
            palette,
            ignore_index,
            to_float32,
            check=check,
        )


class SegSourceVoc2010(_SegSourceVoc):
    __doc__ = _SegSourceVoc.__doc__
    YEAR = 'VOC2010'


class SegSourceVoc2012(_SegSourceVoc):
    __doc__ = _SegSourceVoc.__doc__
    YEAR = 'VOC2012'
