import importlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ms_segformer.datasets.coco_stuff import CLASSES, DISTINCT_PALETTE, PALETTE
from ms_segformer.datasets.sources import make_palette
from ms_segformer.results.palettes import COLORS, DRAWING_PALETTE, SYNONYMS, oklab, palette_for

COLOR_OF = dict(zip(CLASSES, DRAWING_PALETTE, strict=True))


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / 'tools'))
    return importlib.import_module('drawing_palette')


def test_every_class_has_a_color_of_its_own():
    assert sorted(name for group in COLORS.values() for name in group) == sorted(CLASSES)
    assert len(set(DRAWING_PALETTE)) == 171 and (0, 0, 0) not in DRAWING_PALETTE


# CIELAB pairs and differences from the table in Sharma, Wu and Dalal, 2005.
@pytest.mark.parametrize(
    'first, second, difference',
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, -1, 2), (50, 0, 0), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_difference_of_colors_is_ciede2000(tool, first, second, difference):
    assert tool.ciede2000(np.array(first), np.array(second)) == pytest.approx(difference, abs=1e-4)
    assert tool.ciede2000(np.array(second), np.array(first)) == pytest.approx(difference, abs=1e-4)


def test_lab_of_red_and_white(tool):
    found = tool.lab(np.array([[255, 0, 0], [255, 255, 255]]))
    np.testing.assert_allclose(found, [[53.24, 80.09, 67.2], [100, 0, 0]], atol=0.02)


def test_gray_is_gray_to_the_color_blind_and_red_and_green_meet(tool):
    for blindness in tool.COLOR_BLINDNESS:
        np.testing.assert_allclose(tool.seen(np.array([[128, 128, 128]]), blindness), 128, atol=0.1)
    red, olive = np.array([[185, 80, 60]]), np.array([[125, 112, 58]])
    normal = tool.ciede2000(tool.lab(red), tool.lab(olive))
    blind = tool.ciede2000(*(tool.lab(tool.seen(color, 'deuteranopia')) for color in (red, olive)))
    assert normal > 25 and blind < normal / 2


def test_classes_differ_as_the_documentation_says(tool):
    measured = {kind: value for kind, (value, _, _) in tool.measured(np.array(DRAWING_PALETTE)).items()}
    measured['color-blind'] = min(measured.pop(kind) for kind in tool.COLOR_BLINDNESS)
    assert set(measured) == set(tool.REACHED)
    for kind, least in tool.REACHED.items():
        assert least <= measured[kind] < least + 0.1, measured
    count = tool.pairs('meeting').sum() // 2
    for language in ('en', 'zh'):
        text = (Path(__file__).parents[2] / 'docs' / language / 'predict.md').read_text(encoding='utf-8')
        section = text[text.index('palette.svg') :]
        assert all(f' | {least:.1f} |\n' in section for least in tool.REACHED.values())
        assert f'{count:,} ' in section


def test_what_is_near_in_meaning_is_near_in_hue(tool):
    assert list(COLORS) == list(tool.GROUPS)
    regions = tool.regions()
    for group, (_, classes) in tool.GROUPS.items():
        assert list(COLORS[group]) == list(classes)
        for name in classes:
            lightness, a, b = oklab(COLOR_OF[name])
            oklch = np.array([lightness, np.hypot(a, b), np.degrees(np.arctan2(b, a))])
            assert tool.inside(oklch, regions[name], slack=0.004), (name, oklch)


def test_the_classes_that_meet_are_those_of_the_sample(tool, shared):
    folder = shared / 'data' / 'cocostuff_sample' / 'annotations'
    images, pixels, rows = np.zeros(171, int), np.zeros(171), []
    for path in sorted(folder.glob('*/*_labelTrainIds.png')):
        label = np.asarray(Image.open(path))
        counts = np.bincount(label.ravel(), minlength=256)[:171]
        images += counts > 0
        pixels += counts / label.size
        rows.append(' '.join(map(str, np.flatnonzero(counts >= 0.001 * label.size))))
    assert tuple(rows) == tool.SAMPLE
    order = sorted(range(171), key=lambda index: (-images[index], -pixels[index]))
    assert tuple(CLASSES[index] for index in order[:20]) == tool.FREQUENT


def test_the_table_is_written_as_it_stands(tool):
    assert tool.table(np.array(DRAWING_PALETTE)) in tool.TABLE.read_text(encoding='utf-8')


def test_a_palette_that_somebody_chose_is_kept():
    given = [[1, 2, 3], [200, 0, 0], [1, 2, 3]]
    table = palette_for(['road', 'car', 'tree'], given)
    assert table.shape == (256, 3) and table.dtype == np.uint8
    assert table[:2].tolist() == given[:2] and table[2].tolist() != given[2]  # repeated, so told apart
    assert not table[3:].any()


@pytest.mark.parametrize('palette', [None, PALETTE, np.array(PALETTE), [list(color) for color in PALETTE]])
def test_the_published_palette_gives_way_to_the_drawn_one(palette):
    assert palette_for(CLASSES, palette)[:171].tolist() == [list(color) for color in DRAWING_PALETTE]


def test_a_palette_made_from_the_published_one_is_somebodys_choice():
    assert palette_for(CLASSES, DISTINCT_PALETTE)[:171].tolist() == [list(color) for color in DISTINCT_PALETTE]


def test_known_names_have_their_color_and_others_are_far_from_them():
    names = ['Sky', 'sidewalk', 'rust', '道路', 'crack', 'traffic_light', 'Wall-Brick', 'pedestrian', 'person']
    table = palette_for(names, make_palette(None, names))
    expected = {'Sky': 'sky-other', 'sidewalk': 'pavement', '道路': 'road', 'traffic_light': 'traffic light'}
    expected |= {'Wall-Brick': 'wall-brick', 'pedestrian': 'person'}
    for name, known in expected.items():
        assert tuple(table[names.index(name)]) == COLOR_OF[known], name
    distance = np.linalg.norm(oklab(table[: len(names)])[:, None] - oklab(table[: len(names)])[None], axis=-1)
    assert distance[~np.eye(len(names), dtype=bool)].min() > 0.07  # the second person is another color, too


@pytest.mark.parametrize('count', [0, 1, 2, 30, 255])
def test_unknown_names_have_colors_of_their_own(count):
    names = [f'kind {index}' for index in range(count)]
    table = palette_for(names)
    assert len({tuple(color) for color in table[:count].tolist()}) == count
    assert (table[:count].any(1)).all() and not table[count:].any()
    np.testing.assert_array_equal(table, palette_for(names))


def test_synonyms_are_of_known_classes_and_no_class_itself():
    assert set(SYNONYMS.values()) <= set(CLASSES)
    assert not set(SYNONYMS) & set(CLASSES)
    assert all(word == word.lower() for word in SYNONYMS)
