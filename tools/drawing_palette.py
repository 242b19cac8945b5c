"""Finds the colors in which COCO-Stuff's classes are drawn, and measures them.

python tools/drawing_palette.py             measure the table in ms_segformer/results/palettes.py
python tools/drawing_palette.py --search    search it anew and write it: some minutes, the same colors every time

Each group of classes, COCO-Stuff's supercategories with a few parted, has a region of OKLCH (Ottosson 2020: lightness
0-1, chroma, hue in degrees); a class with a color of its own in everybody's mind has a narrower one. Within the regions
the search keeps classes apart, as measured by CIEDE2000: all of them a little, those that meet in pictures more, those
of a street most, and the most frequent ones also for people who do not see all colors (Machado et al., "A
Physiologically-based Model for Simulation of Color Vision Deficiency", IEEE TVCG 2009, severity 1).
"""

import argparse
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ms_segformer.datasets.coco_stuff import CLASSES
from ms_segformer.files import atomic_write
from ms_segformer.results import palettes

TABLE = Path(palettes.__file__)
SEED = 16
SWEEPS, STARTS = 24, 3


class Region(NamedTuple):
    """Bounds in OKLCH, each (low, high); a hue above 360 goes on from 0."""

    lightness: tuple[float, float]
    chroma: tuple[float, float]
    hue: tuple[float, float]


# Group: its region, and its classes; a class may have a region of its own.
GROUPS: dict[str, tuple[Region, dict[str, Region | None]]] = {
    'person': (Region((0.55, 0.62), (0.2, 0.25), (15, 24)), dict.fromkeys(['person'])),
    'vehicle': (
        Region((0.3, 0.7), (0.15, 0.3), (264, 308)),
        {
            **dict.fromkeys('bicycle car motorcycle airplane bus train truck boat'.split()),
            'car': Region((0.36, 0.5), (0.18, 0.3), (262, 272)),
        },
    ),
    'outdoor': (
        Region((0.65, 0.92), (0.14, 0.22), (48, 108)),
        {
            **dict.fromkeys(['traffic light', 'fire hydrant', 'stop sign', 'parking meter', 'bench']),
            'traffic light': Region((0.82, 0.92), (0.15, 0.2), (88, 105)),
            'stop sign': Region((0.55, 0.68), (0.18, 0.25), (26, 40)),
            'fire hydrant': Region((0.6, 0.75), (0.17, 0.24), (32, 55)),
            'bench': Region((0.4, 0.6), (0.08, 0.16), (50, 85)),
        },
    ),
    'animal': (
        Region((0.6, 0.88), (0.11, 0.2), (40, 84)),
        dict.fromkeys('bird cat dog horse sheep cow elephant bear zebra giraffe'.split()),
    ),
    'accessory': (
        Region((0.45, 0.8), (0.12, 0.26), (342, 368)),
        dict.fromkeys('backpack umbrella handbag tie suitcase'.split()),
    ),
    'sports': (
        Region((0.4, 0.85), (0.12, 0.3), (310, 344)),
        dict.fromkeys(
            [
                *('frisbee', 'skis', 'snowboard', 'sports ball', 'kite', 'baseball bat', 'baseball glove'),
                *('skateboard', 'surfboard', 'tennis racket'),
            ]
        ),
    ),
    'kitchen': (
        Region((0.45, 0.9), (0.07, 0.16), (158, 186)),
        dict.fromkeys(['bottle', 'wine glass', 'cup', 'fork', 'knife', 'spoon', 'bowl']),
    ),
    'food': (
        Region((0.66, 0.95), (0.1, 0.2), (60, 108)),
        {
            **dict.fromkeys(['banana', 'apple', 'sandwich', 'orange', 'broccoli', 'carrot', 'hot dog', 'pizza']),
            **dict.fromkeys(['donut', 'cake', 'food-other', 'fruit', 'salad', 'vegetable']),
            'banana': Region((0.85, 0.95), (0.14, 0.2), (95, 108)),
            'apple': Region((0.5, 0.65), (0.16, 0.22), (24, 40)),
            'orange': Region((0.7, 0.78), (0.15, 0.2), (52, 66)),
            'carrot': Region((0.65, 0.75), (0.15, 0.2), (42, 56)),
            'fruit': Region((0.6, 0.8), (0.14, 0.22), (20, 50)),
            'broccoli': Region((0.5, 0.75), (0.12, 0.2), (118, 140)),
            'salad': Region((0.6, 0.88), (0.14, 0.22), (118, 134)),
            'vegetable': Region((0.5, 0.85), (0.14, 0.22), (116, 138)),
        },
    ),
    'furniture': (
        Region((0.35, 0.8), (0.05, 0.13), (338, 385)),
        {
            **dict.fromkeys(['chair', 'couch', 'potted plant', 'bed', 'dining table', 'toilet', 'cabinet', 'counter']),
            **dict.fromkeys(['cupboard', 'desk-stuff', 'door-stuff', 'furniture-other', 'light', 'mirror-stuff']),
            **dict.fromkeys(['shelf', 'stairs', 'table']),
            'potted plant': Region((0.5, 0.75), (0.1, 0.18), (138, 156)),
            'light': Region((0.9, 0.97), (0.07, 0.15), (95, 108)),
            'mirror-stuff': Region((0.75, 0.9), (0.03, 0.07), (190, 230)),
        },
    ),
    'electronic': (
        Region((0.4, 0.85), (0.08, 0.16), (188, 212)),
        dict.fromkeys(['tv', 'laptop', 'mouse', 'remote', 'keyboard', 'cell phone']),
    ),
    'appliance': (
        Region((0.4, 0.85), (0.04, 0.1), (195, 225)),
        dict.fromkeys('microwave oven toaster sink refrigerator'.split()),
    ),
    'indoor': (
        Region((0.65, 0.95), (0.14, 0.24), (108, 128)),
        {
            **dict.fromkeys(['book', 'clock', 'vase', 'scissors', 'teddy bear', 'hair drier', 'toothbrush']),
            'teddy bear': Region((0.5, 0.75), (0.08, 0.14), (55, 80)),
        },
    ),
    'building': (
        Region((0.44, 0.78), (0.07, 0.15), (24, 56)),
        {
            **dict.fromkeys('bridge building-other house roof skyscraper tent'.split()),
            'building-other': Region((0.5, 0.66), (0.07, 0.12), (34, 52)),
        },
    ),
    'structural': (
        Region((0.45, 0.85), (0.03, 0.09), (300, 350)),
        {
            **dict.fromkeys('cage fence net railing structural-other'.split()),
            'fence': Region((0.45, 0.62), (0.05, 0.1), (330, 355)),
            'structural-other': Region((0.6, 0.85), (0.04, 0.09), (288, 306)),
        },
    ),
    'plant': (
        Region((0.32, 0.82), (0.07, 0.2), (116, 156)),
        {
            **dict.fromkeys('branch bush flower grass leaves moss plant-other straw tree'.split()),
            'tree': Region((0.42, 0.54), (0.1, 0.16), (138, 152)),
            'grass': Region((0.68, 0.82), (0.14, 0.2), (126, 142)),
            'flower': Region((0.65, 0.8), (0.15, 0.22), (346, 364)),
            'branch': Region((0.35, 0.5), (0.06, 0.1), (80, 116)),
            'straw': Region((0.78, 0.9), (0.08, 0.13), (92, 106)),
        },
    ),
    'sky': (
        Region((0.76, 0.97), (0.01, 0.11), (220, 248)),
        {
            'sky-other': Region((0.76, 0.84), (0.08, 0.11), (226, 242)),
            'clouds': Region((0.9, 0.95), (0.015, 0.035), (220, 248)),
            'fog': Region((0.79, 0.86), (0.015, 0.035), (220, 248)),
        },
    ),
    'water': (
        Region((0.45, 0.72), (0.09, 0.18), (232, 258)),
        dict.fromkeys('river sea water-other waterdrops'.split()),
    ),
    'ground': (
        Region((0.45, 0.8), (0.04, 0.11), (55, 92)),
        {
            **dict.fromkeys('dirt ground-other mud sand'.split()),
            'sand': Region((0.8, 0.9), (0.05, 0.09), (82, 95)),
            'mud': Region((0.33, 0.45), (0.04, 0.08), (55, 80)),
            'snow': Region((0.96, 0.99), (0, 0.012), (200, 250)),
            'playingfield': Region((0.55, 0.75), (0.1, 0.16), (138, 156)),
        },
    ),
    'way': (
        Region((0.35, 0.8), (0, 0.02), (0, 360)),
        {
            **dict.fromkeys('gravel pavement platform railroad road'.split()),
            'road': Region((0.42, 0.5), (0, 0.015), (0, 360)),
            'pavement': Region((0.68, 0.78), (0, 0.03), (280, 340)),
        },
    ),
    'solid': (
        Region((0.35, 0.75), (0.015, 0.07), (35, 110)),
        {
            **dict.fromkeys('hill mountain rock solid-other stone wood'.split()),
            'hill': Region((0.5, 0.68), (0.06, 0.1), (100, 116)),
            'mountain': Region((0.45, 0.62), (0.02, 0.045), (40, 80)),
            'rock': Region((0.4, 0.52), (0.015, 0.03), (40, 90)),
            'stone': Region((0.6, 0.75), (0.015, 0.03), (40, 90)),
            'wood': Region((0.45, 0.62), (0.07, 0.11), (55, 75)),
        },
    ),
    'floor': (
        Region((0.5, 0.85), (0.04, 0.1), (50, 82)),
        dict.fromkeys('carpet floor-marble floor-other floor-stone floor-tile floor-wood'.split()),
    ),
    'ceiling': (Region((0.86, 0.97), (0.005, 0.05), (75, 108)), dict.fromkeys(['ceiling-other', 'ceiling-tile'])),
    'wall': (
        Region((0.6, 0.92), (0.015, 0.06), (60, 95)),
        {
            **dict.fromkeys('wall-concrete wall-other wall-panel wall-stone wall-tile wall-wood'.split()),
            'wall-concrete': Region((0.74, 0.84), (0.015, 0.045), (70, 95)),
            'wall-brick': Region((0.5, 0.65), (0.06, 0.12), (30, 50)),
        },
    ),
    'window': (Region((0.55, 0.82), (0.04, 0.09), (248, 285)), dict.fromkeys(['window-blind', 'window-other'])),
    'textile': (
        Region((0.5, 0.9), (0.05, 0.15), (286, 336)),
        dict.fromkeys(
            [
                *('banner', 'blanket', 'cloth', 'clothes', 'curtain', 'mat', 'napkin', 'pillow', 'rug'),
                *('textile-other', 'towel'),
            ]
        ),
    ),
    'raw material': (
        Region((0.5, 0.93), (0.01, 0.07), (180, 300)),
        {
            **dict.fromkeys('cardboard metal paper plastic'.split()),
            'cardboard': Region((0.6, 0.75), (0.06, 0.1), (65, 85)),
            'paper': Region((0.93, 0.98), (0.005, 0.03), (80, 110)),
        },
    ),
}

# Classes that meet: in a scene everybody photographs, and below those that do in the sample of COCO-Stuff.
STREET = (
    *('road', 'pavement', 'building-other', 'tree', 'sky-other', 'person', 'car', 'fence', 'bicycle'),
    'structural-other',
)
SCENES = {
    'street': (*STREET, 'bus', 'truck', 'motorcycle', 'traffic light', 'stop sign', 'grass', 'clouds', 'wall-concrete'),
    'coast': ('sea', 'sand', 'sky-other', 'clouds', 'person', 'surfboard', 'boat', 'rock', 'tree', 'kite', 'umbrella'),
    'country': (
        *('grass', 'tree', 'sky-other', 'clouds', 'mountain', 'hill', 'dirt', 'river', 'bush', 'fence', 'house'),
        *('cow', 'sheep', 'horse', 'person', 'snow', 'rock', 'road'),
    ),
    'room': (
        *('wall-concrete', 'ceiling-other', 'floor-wood', 'couch', 'chair', 'bed', 'tv', 'window-other', 'curtain'),
        *('rug', 'table', 'door-stuff', 'person', 'cat', 'dog', 'book', 'light', 'pillow', 'laptop'),
    ),
    'kitchen': (
        *('wall-tile', 'cabinet', 'counter', 'oven', 'refrigerator', 'sink', 'microwave', 'floor-tile', 'bottle'),
        *('bowl', 'cup', 'person', 'window-other'),
    ),
    'meal': (
        *('dining table', 'pizza', 'cake', 'sandwich', 'bowl', 'cup', 'fork', 'knife', 'spoon', 'wine glass'),
        *('bottle', 'person', 'food-other', 'vegetable', 'salad', 'chair'),
    ),
    'game': (
        'playingfield',
        'person',
        'sports ball',
        'baseball bat',
        'baseball glove',
        'tennis racket',
        'fence',
        'tree',
    ),
}

# Training ids of the classes that cover a thousandth of an image at least, in 21 images of COCO-Stuff 164k (CC BY 4.0):
# 13 of train2017, 8 of val2017.
SAMPLE = (
    '0 15 59 63 155',
    '0 44 93 95 120 141 144 164',
    '0 17 142 143 145',
    '69',
    '7 94 112 137 157',
    '14 108 143',
    '0 25 32 84 93 101 112 133 157 160 161',
    '0 2 7 9 101 103 112 116 128 131 137 139 145 157 160',
    '56 63 98 118 160',
    '0 16 56 73 81 89 93 111 127 140 161',
    '0 62 86 90 93 103 105 111 140 161',
    '68 100 111 120 127 131 160 161',
    '0 38 103 114',
    '0 56 58 60 62 72 73 75 86 90 106 107 111 118 120 140 144 153 160 169',
    '0 30 108 147',
    '0 8 14 24 26 67 83 84 93 104 113 114 128 136 138 145 157 160',
    '0 37 84 143 145 148',
    '62 63 64 66 98 118 127 131 160 168',
    '0 5 84 137 145 157',
    '22 112',
    '56 59 60 89 100 102 120 160 161 163 168',
)
# The twenty that are in most of those images.
FREQUENT = (
    *('person', 'wall-concrete', 'tree', 'clothes', 'sky-other', 'wall-other', 'grass', 'metal', 'furniture-other'),
    *('building-other', 'chair', 'sea', 'laptop', 'road', 'floor-other', 'rug', 'tv', 'plastic', 'light', 'paper'),
)
# The least CIEDE2000 that the search aims at: between any two classes; two that meet; two of a street; and two that are
# frequent or of a street, as seen by people with each kind of color blindness.
AIMS = {'all': 5.0, 'meeting': 11.0, 'street': 20.0, 'color-blind': 9.0}
# What the table has, in the guides too.
REACHED = {'all': 5.0, 'meeting': 9.5, 'street': 18.9, 'color-blind': 8.3}

# What a color looks like without one kind of cone, in linear RGB.
COLOR_BLINDNESS = {
    'protanopia': ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    'deuteranopia': ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.01182, 0.04294, 0.968881)),
    'tritanopia': ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.3039)),
}
_RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)
_WHITE = _RGB_TO_XYZ.sum(1)  # D65


def seen(colors: np.ndarray, blindness: str) -> np.ndarray:
    """N×3 sRGB (0-255) as someone with a color blindness sees them, N×3 float in 0-255."""
    seen_light = palettes.linear(colors) @ np.array(COLOR_BLINDNESS[blindness]).T
    return palettes.companded(np.clip(seen_light, 0, 1)) * 255


def lab(colors: np.ndarray) -> np.ndarray:
    """N×3 sRGB (0-255) to CIELAB under D65."""
    xyz = palettes.linear(colors) @ _RGB_TO_XYZ.T / _WHITE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def ciede2000(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Color difference of CIELAB colors (…×3, broadcast) after Sharma, Wu and Dalal, 2005."""
    (l1, a1, b1), (l2, a2, b2) = np.moveaxis(first, -1, 0), np.moveaxis(second, -1, 0)
    chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    stretch = 1.5 - np.sqrt(chroma**7 / (chroma**7 + 25.0**7)) / 2
    c1, c2 = np.hypot(a1 * stretch, b1), np.hypot(a2 * stretch, b2)
    h1, h2 = (np.degrees(np.arctan2(b, a * stretch)) % 360 for a, b in ((a1, b1), (a2, b2)))
    gray = c1 * c2 == 0
    turn = np.where(gray, 0, (h2 - h1 + 180) % 360 - 180)
    hue = np.where(gray, h1 + h2, (h1 + turn / 2) % 360)
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    cos = [np.cos(np.radians(factor * hue + shift)) for factor, shift in ((1, -30), (2, 0), (3, 6), (4, -63))]
    t = 1 - 0.17 * cos[0] + 0.24 * cos[1] + 0.32 * cos[2] - 0.2 * cos[3]
    of_l = (l2 - l1) / (1 + 0.015 * (mean_l - 50) ** 2 / np.sqrt(20 + (mean_l - 50) ** 2))
    of_c = (c2 - c1) / (1 + 0.045 * mean_c)
    of_h = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2)) / (1 + 0.015 * mean_c * t)
    bend = -np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2)))) * 2 * np.sqrt(mean_c**7 / (mean_c**7 + 25.0**7))
    return np.sqrt(np.maximum(of_l**2 + of_c**2 + of_h**2 + bend * of_c * of_h, 0))


def pairs(kind: str) -> np.ndarray:
    """171×171 bool: the pairs of classes that an aim holds for."""
    wanted = np.zeros((len(CLASSES), len(CLASSES)), bool)
    if kind == 'all':
        wanted[:] = True
    sets = {
        'all': [],
        'meeting': [*SCENES.values(), *([CLASSES[int(i)] for i in row.split()] for row in SAMPLE)],
        'street': [STREET],
        'color-blind': [(*FREQUENT, *STREET)],
    }
    for names in sets[kind]:
        ids = [CLASSES.index(name) for name in names]
        wanted[np.ix_(ids, ids)] = True
    np.fill_diagonal(wanted, False)
    return wanted


def measured(colors: np.ndarray) -> dict[str, tuple[float, str, str]]:
    """The least difference of each aim, as reached by 171×3 colors of 0-255, and the two classes that have it."""
    result = {}
    for kind in ('all', 'meeting', 'street'):
        result[kind] = _least(colors, pairs(kind))
    for blindness in COLOR_BLINDNESS:
        result[blindness] = _least(seen(colors, blindness), pairs('color-blind'))
    return result


def _least(colors: np.ndarray, wanted: np.ndarray) -> tuple[float, str, str]:
    values = lab(colors)
    difference = np.where(wanted, ciede2000(values[:, None], values[None]), np.inf)
    first, second = np.unravel_index(difference.argmin(), difference.shape)
    return float(difference[first, second]), CLASSES[first], CLASSES[second]


def regions() -> dict[str, Region]:
    """The region of every class."""
    return {name: own or region for region, classes in GROUPS.values() for name, own in classes.items()}


def inside(color: np.ndarray, region: Region, slack: float = 0.0) -> np.ndarray:
    """Whether OKLCH colors (…×3) are in a region, or not farther from it than `slack`, in its units of chroma."""
    lightness, chroma, hue = np.moveaxis(color, -1, 0)
    turn = np.degrees(slack / np.maximum(chroma, 1e-3))
    turned = (hue - region.hue[0] + turn) % 360 <= region.hue[1] - region.hue[0] + 2 * turn
    return (
        (np.abs(lightness - np.mean(region.lightness)) <= np.ptp(region.lightness) / 2 + slack)
        & (np.abs(chroma - np.mean(region.chroma)) <= np.ptp(region.chroma) / 2 + slack)
        & turned
    )


def _candidates(region: Region) -> np.ndarray:
    """N×3 sRGB colors of 0-255 on a grid over a region, without those that no screen shows."""
    steps = [np.linspace(*bounds, count) for bounds, count in zip(region, (7, 5, 7), strict=True)]
    grid = np.stack(np.meshgrid(*steps, indexing='ij'), -1).reshape(-1, 3)
    light = palettes.oklch_to_linear(grid)
    shown = ((light >= -1e-4) & (light <= 1 + 1e-4)).all(-1)
    return np.unique(np.round(palettes.companded(np.clip(light[shown], 0, 1)) * 255), axis=0)


class _Search:
    """Moves one class after another to the candidate that leaves the least missing to the aims."""

    def __init__(self) -> None:
        own = regions()
        self.candidates = [_candidates(own[name]) for name in CLASSES]
        views = [lambda colors: colors, *(lambda colors, kind=kind: seen(colors, kind) for kind in COLOR_BLINDNESS)]
        self.lab = [[lab(view(colors)) for colors in self.candidates] for view in views]
        self.aims = [np.max([pairs(kind) * AIMS[kind] for kind in ('all', 'meeting', 'street')], axis=0)]
        self.aims += [pairs('color-blind') * AIMS['color-blind']] * len(COLOR_BLINDNESS)

    def run(self, random: np.random.Generator) -> tuple[float, np.ndarray]:
        """(what is missing, 171×3 colors), from a random start."""
        choice = np.array([random.integers(len(colors)) for colors in self.candidates])
        current = [np.stack([colors[i] for colors, i in zip(view, choice, strict=True)]) for view in self.lab]
        for _ in range(SWEEPS):
            before = choice.copy()
            for index in random.permutation(len(CLASSES)):
                missing = self._missing(index, current)
                best = int(missing.argmin())
                if missing[best] < missing[choice[index]] - 1e-9:
                    choice[index] = best
                    for view, values in zip(self.lab, current, strict=True):
                        values[index] = view[index][best]
            if (choice != before).sum() < 3:
                break
        total = sum(self._missing(i, current)[choice[i]] for i in range(len(CLASSES)))
        return total, np.stack([colors[i] for colors, i in zip(self.candidates, choice, strict=True)])

    def _missing(self, index: int, current: list[np.ndarray]) -> np.ndarray:
        """What each candidate of a class leaves missing to the aims, relative to them, large gaps counting more."""
        total = np.zeros(len(self.candidates[index]))
        for view, values, aims in zip(self.lab, current, self.aims, strict=True):
            others = np.flatnonzero(aims[index])
            if len(others):
                aim = aims[index, others]
                gap = np.maximum(aim - ciede2000(view[index][:, None], values[None, others]), 0) / aim
                total += (gap**2 + 20 * gap**6).sum(1)
        return total


def search() -> np.ndarray:
    """171×3 uint8: the best of some starts."""
    moves, random = _Search(), np.random.default_rng(SEED)
    found = []
    for start in range(STARTS):
        found.append(moves.run(random))
        print(f'start {start + 1} of {STARTS}: {found[-1][0]:.4f} is missing to the aims', flush=True)
    return min(found, key=lambda each: each[0])[1].astype(np.uint8)


def table(colors: np.ndarray) -> str:
    """The table of `ms_segformer.results.palettes` as Python."""
    by_name = dict(zip(CLASSES, colors.tolist(), strict=True))
    lines = ['COLORS: dict[str, dict[str, str]] = {']
    for group, (_, classes) in GROUPS.items():
        lines.append(f"    '{group}': {{")
        for name in classes:
            red, green, blue = by_name[name]
            lines.append(f"        '{name}': '{red:02x}{green:02x}{blue:02x}',")
        lines.append('    },')
    return '\n'.join([*lines, '}'])


def report(colors: np.ndarray) -> str:
    """The measured differences as lines of text."""
    return '\n'.join(f'{kind:<13} {value:5.1f}  {a}, {b}' for kind, (value, a, b) in measured(colors).items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--search', action='store_true', help='find the colors anew and write them')
    if parser.parse_args().search:
        colors = search()
        text = TABLE.read_text(encoding='utf-8')
        text = re.sub(r'^COLORS: .*?^\}', lambda _: table(colors), text, flags=re.DOTALL | re.MULTILINE)
        with atomic_write(TABLE) as temporary:
            temporary.write_text(text, encoding='utf-8')
    else:
        colors = np.array(palettes.DRAWING_PALETTE)
    print(report(colors))


if __name__ == '__main__':
    main()
