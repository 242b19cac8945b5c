"""Where samples come from: folders of images with label maps, annotation files of other tools, or a table of pairs.

A source knows its classes and colors, pairs every image with its label map, and loads a pair:

    source = SegSourceRaw(img_root='train2017', label_root='annotations/train2017', split='train.txt',
                          label_suffix='_labelTrainIds.png', classes=['person', …])
    sample = source.load(0)      # {'img': H×W×3 uint8 BGR, 'gt_semantic_seg': H×W uint8, 'filename': …}

Nothing is skipped or replaced: a file that is missing, unreadable, of another size than its partner, or with values
outside the classes raises `DatasetError` with its name.
"""

from .annotated import AnnotationSource
from .classes import ClassNames, Colors, make_palette, read_classes
from .coco_json import SegSourceCoco
from .coco_stuff import SegSourceCocoStuff10k, SegSourceCocoStuff164k
from .folders import CONVERTED_SUFFIX, SegSourceRaw
from .label_ids import say_if_255_looks_like_a_class, share_ids
from .label_studio import SegSourceLabelStudio
from .label_values import bad_values, reduce_zero_label
from .labelme import SegSourceLabelMe
from .pairing import Pairing, pair_files, read_split
from .registry import ANNOTATION_SOURCES, SOURCES, FileSource, build_source
from .source import Source
from .table import SegSourcePairs
from .voc import SegSourceVoc2010, SegSourceVoc2012

__all__ = [
    'ANNOTATION_SOURCES',
    'CONVERTED_SUFFIX',
    'SOURCES',
    'AnnotationSource',
    'ClassNames',
    'Colors',
    'FileSource',
    'Pairing',
    'SegSourceCoco',
    'SegSourceCocoStuff10k',
    'SegSourceCocoStuff164k',
    'SegSourceLabelMe',
    'SegSourceLabelStudio',
    'SegSourcePairs',
    'SegSourceRaw',
    'SegSourceVoc2010',
    'SegSourceVoc2012',
    'Source',
    'bad_values',
    'build_source',
    'make_palette',
    'pair_files',
    'read_classes',
    'read_split',
    'reduce_zero_label',
    'say_if_255_looks_like_a_class',
    'share_ids',
]
