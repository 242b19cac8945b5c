"""COCO-Stuff 164k: class names, colors, and the map from the official label ids to training ids.

The official label maps (`stuffthingmaps`) hold raw ids 0 to 181 and 255 where nothing is annotated. 11 of the 182 raw
ids are in no image (`ABSENT_RAW_IDS`); training closes those gaps, which gives 171 ids in the same order.
Sources: names and raw ids, the COCO-Stuff label list (Caesar et al., "COCO-Stuff: Thing and Stuff Classes in
Context", CVPR 2018; annotations CC BY 4.0); training ids and colors, the published ModelScope configurations.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

from ..metainfo import IGNORE_INDEX
from .errors import DatasetError

NUM_RAW_IDS = 182
Color: TypeAlias = tuple[int, int, int]  # red, green, blue of 0-255

# Raw id -> name. The first 91 are things (COCO's), the others stuff.
RAW_NAMES = (
    'person',
    'bicycle',
    'car',
    'motorcycle',
    'airplane',
    'bus',
    'train',
    'truck',
    'boat',
    'traffic light',
    'fire hydrant',
    'street sign',
    'stop sign',
    'parking meter',
    'bench',
    'bird',
    'cat',
    'dog',
    'horse',
    'sheep',
    'cow',
    'elephant',
    'bear',
    'zebra',
    'giraffe',
    'hat',
    'backpack',
    'umbrella',
    'shoe',
    'eye glasses',
    'handbag',
    'tie',
    'suitcase',
    'frisbee',
    'skis',
    'snowboard',
    'sports ball',
    'kite',
    'baseball bat',
    'baseball glove',
    'skateboard',
    'surfboard',
    'tennis racket',
    'bottle',
    'plate',
    'wine glass',
    'cup',
    'fork',
    'knife',
    'spoon',
    'bowl',
    'banana',
    'apple',
    'sandwich',
    'orange',
    'broccoli',
    'carrot',
    'hot dog',
    'pizza',
    'donut',
    'cake',
    'chair',
    'couch',
    'potted plant',
    'bed',
    'mirror',
    'dining table',
    'window',
    'desk',
    'toilet',
    'door',
    'tv',
    'laptop',
    'mouse',
    'remote',
    'keyboard',
    'cell phone',
    'microwave',
    'oven',
    'toaster',
    'sink',
    'refrigerator',
    'blender',
    'book',
    'clock',
    'vase',
    'scissors',
    'teddy bear',
    'hair drier',
    'toothbrush',
    'hair brush',
    'banner',
    'blanket',
    'branch',
    'bridge',
    'building-other',
    'bush',
    'cabinet',
    'cage',
    'cardboard',
    'carpet',
    'ceiling-other',
    'ceiling-tile',
    'cloth',
    'clothes',
    'clouds',
    'counter',
    'cupboard',
    'curtain',
    'desk-stuff',
    'dirt',
    'door-stuff',
    'fence',
    'floor-marble',
    'floor-other',
    'floor-stone',
    'floor-tile',
    'floor-wood',
    'flower',
    'fog',
    'food-other',
    'fruit',
    'furniture-other',
    'grass',
    'gravel',
    'ground-other',
    'hill',
    'house',
    'leaves',
    'light',
    'mat',
    'metal',
    'mirror-stuff',
    'moss',
    'mountain',
    'mud',
    'napkin',
    'net',
    'paper',
    'pavement',
    'pillow',
    'plant-other',
    'plastic',
    'platform',
    'playingfield',
    'railing',
    'railroad',
    'river',
    'road',
    'rock',
    'roof',
    'rug',
    'salad',
    'sand',
    'sea',
    'shelf',
    'sky-other',
    'skyscraper',
    'snow',
    'solid-other',
    'stairs',
    'stone',
    'straw',
    'structural-other',
    'table',
    'tent',
    'textile-other',
    'towel',
    'tree',
    'vegetable',
    'wall-brick',
    'wall-concrete',
    'wall-other',
    'wall-panel',
    'wall-stone',
    'wall-tile',
    'wall-wood',
    'water-other',
    'waterdrops',
    'window-blind',
    'window-other',
    'wood',
)

# Raw ids that no image of the data set carries: COCO never annotated these things.
ABSENT_RAW_IDS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)

CLASSES = tuple(name for raw_id, name in enumerate(RAW_NAMES) if raw_id not in ABSENT_RAW_IDS)
NUM_THINGS = 80  # training ids 0-79 are things, 80-170 stuff


def _raw_to_train() -> np.ndarray:
    table = np.full(256, IGNORE_INDEX, np.uint8)
    present = [raw_id for raw_id in range(NUM_RAW_IDS) if raw_id not in ABSENT_RAW_IDS]
    table[present] = np.arange(len(present), dtype=np.uint8)
    table.flags.writeable = False
    return table


# 256 uint8: raw id -> training id 0-170; 255 for the absent ids, for 182-254 and for 255 itself.
RAW_TO_TRAIN = _raw_to_train()

_PALETTE_HEX = (
    '00c04000c04000406080c0c000404000c0e000c0c080c04000c06080c0408020c00000e000004000a0c08000608000c0'
    '0020c08080e00000c080a0c080800080002080200080008040802000a000000000c080a00020000080804080a080a000'
    '008000c0802080608000008040002000e080800000c000a00060808080804000a080e080808040c000208060008000c0'
    '00802040e0000000408080a04060000080c00080a0c0e000008040808020c020800040c000002040a0808040408000a0'
    '40208080c0c00000a0c0a08080c000800060c0200080408040806040a000004000c080e040200000c0804080e0c0a000'
    '00c000c08060c0608000408040006040e080804000c000e040608080c0804000e0c0e08080c040c00060c060008040c0'
    '00806000e0004040408080e000600040c0c00080e080e00040c0408080608020804000c000406000a080c000408040e0'
    '002080c080c00040e080a080c08000804020802040c0008040c02000a040400000c0c0a000204040808040c0a080a040'
    '408000c0c0208060c040008040402000e0c0c00000c040a00060c0c080804040a080e0c0c08040c04020806040c000c0'
    '00c02040e04040004080c0a04060404080c000c0a0c0e04040804080c020c020c04040c000402040a0c0c040408040a0'
    '4020c0c0c0c00040a0c0a0c0c0c000804060c02040c0408040c06040a040404000'
)

# The 171 RGB colors of the published configurations, by training id. They are kept as published, and they are not
# distinct: 162 colors for 171 classes (person and bicycle look the same, for example). `DISTINCT_PALETTE` is.
PALETTE: tuple[Color, ...] = tuple(
    (red, green, blue)
    for red, green, blue in np.frombuffer(bytes.fromhex(''.join(_PALETTE_HEX)), np.uint8).reshape(-1, 3).tolist()
)


def distinct_palette(palette: Iterable[Sequence[int]]) -> tuple[Color, ...]:
    """Return `palette` with every repeated color moved to the nearest free one, so that no two entries are equal.

    Args:
        palette: sequence of (red, green, blue), each 0-255.

    Returns:
        A tuple of as many distinct (red, green, blue) tuples. An entry keeps its color unless an earlier entry has it.
    """
    colors = [(red, green, blue) for red, green, blue in palette]
    taken, seen, result = set(colors), set(), []
    for color in colors:
        if color in seen:
            color = _nearest_free(color, taken)
            taken.add(color)
        seen.add(color)
        result.append(color)
    return tuple(result)


def _nearest_free(color: Color, taken: set[Color], step: int = 16) -> Color:
    """Return the free color nearest to `color` on a grid of `step`, at least one and a half steps away."""
    grid = np.stack(np.meshgrid(*[np.arange(step // 2, 256, step)] * 3, indexing='ij'), -1).reshape(-1, 3)
    distance = np.square(grid - np.array(color)).sum(1)
    distance[distance < (1.5 * step) ** 2] = distance.max() + 1
    for index in np.argsort(distance, kind='stable'):
        red, green, blue = grid[index].tolist()
        candidate = red, green, blue
        if candidate not in taken:
            return candidate
    raise ValueError(f'no free color is left near {color}: {len(taken)} are taken')


DISTINCT_PALETTE = distinct_palette(PALETTE)


# How label maps of COCO-Stuff count: ids for training (0-170), the official ids of 164k (0-181), and those of 10k, one
# higher (1-182, 0 is "not labeled"). Each kind never holds some values that others do.
TRAINING, OFFICIAL, FROM_ONE = KINDS = 'training ids', 'official ids', 'official ids that count from 1'
_NEVER = {
    TRAINING: frozenset(range(len(CLASSES) + 1, NUM_RAW_IDS + 1)),
    OFFICIAL: frozenset((*ABSENT_RAW_IDS, NUM_RAW_IDS)),
    FROM_ONE: frozenset(raw_id + 1 for raw_id in ABSENT_RAW_IDS),
}


def foreign_ids(values: Iterable[int], from_one: bool = False) -> dict[str, int]:
    """Say of each kind of label map which of some values speaks against it.

    Args:
        values: ids in a label map, as stored.
        from_one: training ids, too, count from 1 in it, and 0 is "not labeled".

    Returns:
        {kind of `KINDS`: the largest of the values that maps of this kind never hold}, without the kinds that may hold
        them all. Values from 183 say nothing: 255 is "not labeled", others are in no kind of map.
    """
    found = set(values)
    never = {**_NEVER, TRAINING: _NEVER[TRAINING] - {len(CLASSES) + 1}} if from_one else _NEVER
    return {kind: max(found & ids) for kind, ids in never.items() if found & ids}


def raw_label_to_train(label: np.ndarray) -> np.ndarray:
    """Map an official label map to training ids.

    Args:
        label: H×W uint8 array of raw ids 0-181 and 255.

    Returns:
        H×W uint8 array of training ids 0-170 and 255 (unlabeled).

    Raises:
        DatasetError: the map holds an id of 182-254 or one of `ABSENT_RAW_IDS`, so it is no official map of COCO-Stuff.
    """
    label = np.asarray(label)
    if label.dtype != np.uint8:
        raise DatasetError(f'a COCO-Stuff label map is uint8, this one is {label.dtype}: read the PNG as it is stored')
    present = np.bincount(label.ravel(), minlength=256) > 0
    unknown = [value for value in (*ABSENT_RAW_IDS, *range(NUM_RAW_IDS, IGNORE_INDEX)) if present[value]]
    if unknown:
        raise DatasetError(
            f'the label map holds ids {unknown}, which no official one of COCO-Stuff 164k does: it is '
            'of another kind, such as one with training ids (0-170) or one of COCO-Stuff 10k (1-182)'
        )
    return RAW_TO_TRAIN[label]
