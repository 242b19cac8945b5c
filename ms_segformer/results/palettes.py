"""The colors in which classes are drawn: made for eyes, where a configuration's `PALETTE` tells ids apart.

COCO-Stuff's classes have the colors of what they are: the sky is blue, plants are green, water is a deeper blue, ground
brown, ways gray, buildings warm, people and vehicles saturated; what is near in meaning is near in hue.
tools/drawing_palette.py finds and measures them.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from ..datasets.class_names import CHINESE_NAMES
from ..datasets.coco_stuff import CLASSES, PALETTE, Color, distinct_palette
from ..datasets.sources import make_palette

Palette: TypeAlias = Sequence[Sequence[int]] | np.ndarray  # (red, green, blue) a class, each 0–255
VOID_COLOR = (0, 0, 0)

# By group, as written by `python tools/drawing_palette.py --search`: red, green, blue as six hexadecimal digits.
COLORS: dict[str, dict[str, str]] = {
    'person': {
        'person': 'cc2346',
    },
    'vehicle': {
        'bicycle': '9433f4',
        'car': '0909b8',
        'motorcycle': '3c086b',
        'airplane': '5355b6',
        'bus': 'bf79f6',
        'train': '5142de',
        'truck': '13358c',
        'boat': '988ef7',
    },
    'outdoor': {
        'traffic light': 'd9c729',
        'fire hydrant': 'da5936',
        'stop sign': 'c33c03',
        'parking meter': '989401',
        'bench': '5b4404',
    },
    'animal': {
        'bird': 'fd8619',
        'cat': 'b48601',
        'dog': 'c85d18',
        'horse': 'b26d3b',
        'sheep': 'dbb462',
        'cow': 'c88f4b',
        'elephant': 'e6964a',
        'bear': '9f7a23',
        'zebra': 'be7e42',
        'giraffe': 'ed5509',
    },
    'accessory': {
        'backpack': 'ef50bf',
        'umbrella': 'fe4895',
        'handbag': 'aa567f',
        'tie': 'd57897',
        'suitcase': 'df8cc1',
    },
    'sports': {
        'frisbee': 'fd87d0',
        'skis': '764489',
        'snowboard': '7e085d',
        'sports ball': '973fca',
        'kite': 'be258f',
        'baseball bat': '9e72be',
        'baseball glove': 'c958a0',
        'skateboard': '965696',
        'surfboard': 'ba5ebb',
        'tennis racket': '6d197b',
    },
    'kitchen': {
        'bottle': '0d9860',
        'wine glass': '2d7b5a',
        'cup': '2de2d3',
        'fork': '19625b',
        'knife': 'a0d4b5',
        'spoon': '64ffbf',
        'bowl': '47c994',
    },
    'food': {
        'banana': 'fef55b',
        'apple': 'ab331f',
        'sandwich': 'd37812',
        'orange': 'dc8818',
        'broccoli': '318419',
        'carrot': 'd57029',
        'hot dog': 'afa355',
        'pizza': 'b6b568',
        'donut': 'c69a36',
        'cake': 'f5c868',
        'food-other': 'af8d44',
        'fruit': 'ff9075',
        'salad': '94cd6d',
        'vegetable': '459d19',
    },
    'furniture': {
        'chair': '542a42',
        'couch': '6d0b2c',
        'potted plant': '51ab5f',
        'bed': '80312e',
        'dining table': 'af5b6b',
        'toilet': '602330',
        'cabinet': '91417d',
        'counter': 'c49a9b',
        'cupboard': '631b3f',
        'desk-stuff': '612421',
        'door-stuff': 'b67e80',
        'furniture-other': '7e3041',
        'light': 'efeb92',
        'mirror-stuff': '77bac6',
        'shelf': '6f0d13',
        'stairs': '502f39',
        'table': '76586d',
    },
    'electronic': {
        'tv': '2b807e',
        'laptop': '44969e',
        'mouse': '0b6876',
        'remote': '5daeab',
        'keyboard': '8edfd7',
        'cell phone': '5cc8d3',
    },
    'appliance': {
        'microwave': '76e1ed',
        'oven': '497b81',
        'toaster': '017e9a',
        'sink': '02515f',
        'refrigerator': '4aadc9',
    },
    'indoor': {
        'book': '80b12c',
        'clock': '769f36',
        'vase': 'c9f20d',
        'scissors': 'a5bb23',
        'teddy bear': '7b5e29',
        'hair drier': 'c7c44d',
        'toothbrush': 'b0cb5e',
    },
    'building': {
        'bridge': '8b320b',
        'building-other': 'c0815a',
        'house': '724631',
        'roof': 'cf7873',
        'skyscraper': '77441a',
        'tent': '74423f',
    },
    'structural': {
        'cage': '5c4b79',
        'fence': '70426c',
        'net': '7f7693',
        'railing': '82577a',
        'structural-other': '7d77b3',
    },
    'plant': {
        'branch': '655d34',
        'bush': '115728',
        'flower': 'd26499',
        'grass': '55cc4b',
        'leaves': '757d4c',
        'moss': '6c8137',
        'plant-other': '025903',
        'straw': 'e1ca78',
        'tree': '2c6f06',
    },
    'sky': {
        'sky-other': '71cffc',
        'clouds': 'cfe3f8',
        'fog': 'c0d5dd',
    },
    'water': {
        'river': '1e62ac',
        'sea': '0b51aa',
        'water-other': '02598f',
        'waterdrops': '78a9db',
    },
    'ground': {
        'dirt': '704e02',
        'ground-other': '64541e',
        'mud': '67482c',
        'sand': 'c8be9a',
        'snow': 'fcfcfc',
        'playingfield': '029443',
    },
    'way': {
        'gravel': '2f3e3b',
        'pavement': 'b7b7b7',
        'platform': '6b6063',
        'railroad': '475056',
        'road': '605f61',
    },
    'solid': {
        'hill': '61683f',
        'mountain': '907961',
        'rock': '4c473a',
        'solid-other': '715946',
        'stone': '87806c',
        'wood': '6c4f25',
    },
    'floor': {
        'carpet': '8a5435',
        'floor-marble': '6f6149',
        'floor-other': 'e2c8b4',
        'floor-stone': '805a38',
        'floor-tile': '8c541e',
        'floor-wood': '865812',
    },
    'ceiling': {
        'ceiling-other': 'd1d1cd',
        'ceiling-tile': 'e6e4cf',
    },
    'wall': {
        'wall-concrete': 'b3ab8b',
        'wall-other': '8b7d70',
        'wall-panel': '8b8057',
        'wall-stone': 'fbe0b8',
        'wall-tile': 'b6b19f',
        'wall-wood': '9d8e77',
        'wall-brick': 'a67d67',
    },
    'window': {
        'window-blind': 'b0afe6',
        'window-other': '899cb3',
    },
    'textile': {
        'banner': 'dadaff',
        'blanket': '605f7f',
        'cloth': 'b072a1',
        'clothes': 'b28dcc',
        'curtain': '6a4daf',
        'mat': '856a97',
        'napkin': '5f5a99',
        'pillow': '8479e0',
        'rug': 'd2a1c6',
        'textile-other': '6f5492',
        'towel': '6c5b79',
    },
    'raw material': {
        'cardboard': 'ba986e',
        'metal': '73968e',
        'paper': 'e9e8e0',
        'plastic': 'cceffb',
    },
}


def _by_name() -> dict[str, Color]:
    return {name: _color(digits) for group in COLORS.values() for name, digits in group.items()}


def _color(digits: str) -> Color:
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


_COLOR_OF = _by_name()
# The 171 colors by training id, all distinct.
DRAWING_PALETTE: tuple[Color, ...] = tuple(_COLOR_OF.get(name, (0, 0, 0)) for name in CLASSES)

# OKLab to linear RGB (Björn Ottosson, "A perceptual color space for image processing", 2020).
_OKLAB_TO_LMS = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def linear(colors: Palette | Color) -> np.ndarray:
    """sRGB colors (…×3, 0–255) to linear light of 0–1."""
    values = np.asarray(colors, np.float64) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def companded(light: np.ndarray) -> np.ndarray:
    """Linear light of 0–1 to sRGB of 0–1."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def oklch_to_linear(colors: np.ndarray) -> np.ndarray:
    """OKLCH (…×3: lightness 0–1, chroma, hue in degrees) to linear RGB, outside of 0–1 where no screen shows it."""
    lightness, chroma, hue = np.moveaxis(np.asarray(colors, np.float64), -1, 0)
    lab = np.stack([lightness, chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))], -1)
    return (lab @ _OKLAB_TO_LMS.T) ** 3 @ _LMS_TO_RGB.T


def oklab(colors: Palette | Color) -> np.ndarray:
    """sRGB colors (…×3, 0–255) to OKLab: lightness 0–1, and two axes of hue."""
    lms = np.cbrt(linear(colors) @ np.linalg.inv(_LMS_TO_RGB).T)
    return lms @ np.linalg.inv(_OKLAB_TO_LMS).T


def palette_for(classes: Sequence[str], palette: Palette | None = None) -> np.ndarray:
    """256×3 uint8 colors by class id; ids without a class are black.

    A palette that somebody chose is used, with repeated colors told apart. The published one and the random one that a
    data set without a palette has are nobody's choice: in their place, and without one, a class whose name COCO-Stuff
    has gets its color of `DRAWING_PALETTE`, and the others get colors far from those and from each other.

    Args:
        classes: class names by id; `road`, `sky` and `sky-other`, `道路`, and common words for the same, such as
            `sidewalk`, are known.
        palette: (red, green, blue) per class, as the configuration has it.
    """
    if palette is not None and not _is_default(classes, palette):
        colors: Sequence[Color] = distinct_palette(palette)
    else:
        colors = _by_names(tuple(classes))
    table = np.zeros((256, 3), np.uint8)
    table[:] = VOID_COLOR
    if len(colors):
        table[: len(colors)] = np.asarray(colors, np.uint8)[:256]
    return table


def _is_default(classes: Sequence[str], palette: Palette) -> bool:
    given = np.asarray(palette).tolist()
    published = [list(color) for color in PALETTE[: len(given)]]
    return given in (published, make_palette(None, classes))


# Other words for classes of COCO-Stuff.
SYNONYMS = {
    **dict.fromkeys(('pedestrian', 'people', 'human', 'rider', 'man', 'woman', 'child', '行人', '人员'), 'person'),
    **dict.fromkeys(('bicyclist', 'cyclist', 'bike', '单车'), 'bicycle'),
    **dict.fromkeys(('automobile', '轿车', '车辆', 'vehicle'), 'car'),
    **dict.fromkeys(('motorbike', '电动车'), 'motorcycle'),
    **dict.fromkeys(('aeroplane', 'plane', 'aircraft'), 'airplane'),
    **dict.fromkeys(('ship', '船舶'), 'boat'),
    **dict.fromkeys(('sidewalk', 'footpath'), 'pavement'),
    **dict.fromkeys(('street', 'driveway', '路面', '公路', '马路'), 'road'),
    **dict.fromkeys(('pole', 'column', '杆'), 'structural-other'),
    **dict.fromkeys(('vegetation', 'plant', '植被', '植物'), 'plant-other'),
    **dict.fromkeys(('trees', '树木'), 'tree'),
    **dict.fromkeys(('lawn', 'meadow', '草'), 'grass'),
    **dict.fromkeys(('traffic sign', 'street sign', 'signsymbol', '交通标志'), 'stop sign'),
    **dict.fromkeys(('soil', 'terrain', 'earth', '土壤'), 'dirt'),
    **dict.fromkeys(('buildings', '建筑', '建筑物'), 'building-other'),
    **dict.fromkeys(('lake', '水', '水体'), 'water-other'),
    **dict.fromkeys(('ocean', '海洋'), 'sea'),
    **dict.fromkeys(('rail track', 'railway', '轨道'), 'railroad'),
    **dict.fromkeys(('sofa',), 'couch'),
    **dict.fromkeys(('television', 'tv monitor'), 'tv'),
    **dict.fromkeys(('墙', '墙壁'), 'wall-other'),
    **dict.fromkeys(('地板',), 'floor-other'),
    **dict.fromkeys(('窗', '窗户'), 'window-other'),
}


def _known() -> dict[str, Color]:
    """Colors by every word for a class."""
    words = {word: _COLOR_OF[name] for word, name in SYNONYMS.items()}
    for name, color in _COLOR_OF.items():
        words[name.removesuffix('-other').removesuffix('-stuff')] = color
    words |= {chinese: _COLOR_OF[name] for name, chinese in CHINESE_NAMES.items()}
    return words | _COLOR_OF


@lru_cache(16)
def _by_names(classes: tuple[str, ...]) -> tuple[Color, ...]:
    known = _known()
    colors: list[Color | None] = []
    for name in classes:
        color = known.get(name) or known.get(' '.join(name.lower().replace('_', ' ').split()))
        colors.append(None if color in colors else color)
    spread = iter(_far_from([VOID_COLOR, *(color for color in colors if color)], colors.count(None)))
    return tuple(color or next(spread) for color in colors)


def _far_from(taken: Sequence[Color], count: int) -> list[Color]:
    """Colors of middling lightness, each the farthest in OKLab from those taken and from the ones before it."""
    steps = np.linspace(0.45, 0.9, 7), np.array([0.06, 0.12, 0.18, 0.24]), np.arange(0, 360, 10)
    light = oklch_to_linear(np.stack(np.meshgrid(*steps, indexing='ij'), -1).reshape(-1, 3))
    light = light[((light >= 0) & (light <= 1)).all(-1)]
    candidates = np.round(companded(light) * 255)
    places = oklab(candidates)
    distance = np.min([np.square(places - oklab(color)).sum(1) for color in taken], axis=0)
    found: list[Color] = []
    for _ in range(count):
        best = int(distance.argmax())
        red, green, blue = candidates[best].astype(int).tolist()
        found.append((red, green, blue))
        distance = np.minimum(distance, np.square(places - places[best]).sum(1))
    return found
