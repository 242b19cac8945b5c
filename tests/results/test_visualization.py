import time

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from small_font import small_font

from ms_segformer import fonts
from ms_segformer.datasets.coco_stuff import CLASSES
from ms_segformer.results.palettes import palette_for
from ms_segformer.results.visualization import draw_names, draw_result, label_map_image, overlay, shown_names

# Pillow before 10.1 brings one small bitmap font: its letters have one size and cannot have an edge.
needs_sized_font = pytest.mark.skipif(
    not isinstance(fonts.font_of(20), ImageFont.FreeTypeFont), reason='needs Pillow 10.1, whose own font has every size'
)


@pytest.fixture
def without_fonts(monkeypatch, tmp_path):
    """A system whose only folder of fonts is empty; returns the folder."""
    monkeypatch.setattr(fonts, 'font_folders', lambda: [tmp_path])
    monkeypatch.delenv(fonts.VARIABLE, raising=False)
    for cached in (fonts._face_for, fonts._warn):
        cached.cache_clear()
    yield tmp_path
    fonts._face_for.cache_clear()


def rows_of(*segments):
    return [{'id': i, 'label': label, 'score': 0.9, 'pixels': 100, 'share': share} for i, label, share in segments]


def test_names_are_chinese_on_request(without_fonts, caplog):
    (without_fonts / 'han.ttf').write_bytes(small_font('人汽车'))
    assert shown_names(['person', 'car', 'my own'], 'zh') == ['人', '汽车', 'my own']
    assert shown_names(['person', 'car']) == ['person', 'car']
    assert not caplog.records


def test_without_a_font_names_are_latin_and_a_warning_says_so(without_fonts, caplog):
    assert shown_names(['person', '裂缝', 'rust'], 'zh') == ['person', 'class 1', 'rust']
    assert '人 (person), 裂缝 (class 1)' in caplog.text


def test_the_legend_has_the_names_it_is_given():
    image, seg_map = np.full((200, 300, 3), 128, np.uint8), np.zeros((200, 300), np.uint8)
    palette = palette_for(CLASSES)
    rows = rows_of((0, 'person', 1.0))
    plain = draw_result(image, seg_map, rows, palette)
    other = draw_result(image, seg_map, rows, palette, class_names=['somebody'])
    assert plain.shape[1] < other.shape[1]  # a longer name, a wider legend
    np.testing.assert_array_equal(plain[:200, :300], other[:200, :300])
    np.testing.assert_array_equal(plain, draw_result(image, seg_map, rows, palette, class_names=['person']))


def test_names_on_segments_are_an_option():
    image, seg_map = np.full((200, 300, 3), 128, np.uint8), np.zeros((200, 300), np.uint8)
    rows, palette = rows_of((0, 'person', 1.0)), palette_for(CLASSES)
    plain, named = draw_result(image, seg_map, rows, palette), draw_result(image, seg_map, rows, palette, names=True)
    assert plain.shape == named.shape
    np.testing.assert_array_equal(plain[:200, :300], overlay(image, seg_map, palette))
    changed = (plain != named).any(-1)
    assert changed[:200, :300].any() and not changed[:, 300:].any()


def shape(kind):
    """240×320 mask of a shape."""
    image = Image.new('L', (320, 240))
    draw = ImageDraw.Draw(image)
    if kind == 'ring':
        draw.ellipse((20, 10, 300, 230), fill=1)
        draw.ellipse((90, 70, 230, 170), fill=0)
    elif kind == 'corner':
        draw.polygon([(0, 0), (319, 0), (0, 239)], fill=1)
    elif kind == 'edge':
        draw.rectangle((0, 200, 319, 239), fill=1)
    else:
        draw.rectangle((30, 40, 250, 190), fill=1)
    return np.asarray(image)


@needs_sized_font
@pytest.mark.parametrize('kind', ['block', 'ring', 'corner', 'edge'])
def test_a_name_stands_wholly_inside_its_segment(kind):
    seg_map = shape(kind)
    picture = np.full((240, 320, 3), 100, np.uint8)
    changed = (draw_names(picture, seg_map, {1: 'tree'}) != picture).any(-1)
    assert changed.sum() > 100 and not changed[seg_map == 0].any()
    assert (picture == 100).all()  # the picture itself stays


def test_a_name_stands_where_its_segment_is_widest():
    seg_map = np.zeros((240, 320), np.uint8)
    seg_map[100:130, :200] = 1  # a long arm
    seg_map[40:200, 200:] = 1
    picture = np.full((240, 320, 3), 100, np.uint8)
    y, x = np.nonzero((draw_names(picture, seg_map, {1: 'sea'}) != picture).any(-1))
    assert abs(y.mean() - 120) < 6 and abs(x.mean() - 260) < 12


@needs_sized_font
@pytest.mark.parametrize('color', [(0, 0, 0), (255, 255, 255), (128, 128, 128), (230, 20, 60), (240, 230, 60)])
def test_names_are_readable_on_any_color(color):
    picture = np.full((480, 640, 3), color, np.uint8)
    gray = draw_names(picture, np.ones((480, 640), np.uint8), {1: 'wall-brick'}).astype(int).mean(-1)
    assert (gray > 235).sum() > 100 and (gray < 40).sum() > 100  # white letters, and a dark edge


def test_small_and_thin_and_nameless_segments_have_no_name():
    seg_map = np.zeros((240, 320), np.uint8)
    seg_map[:8, :8] = 1  # too small a share
    seg_map[100:106] = 2  # no room for letters
    seg_map[150:] = 3  # no name
    picture = np.full((240, 320, 3), 100, np.uint8)
    np.testing.assert_array_equal(draw_names(picture, seg_map, {1: 'cup', 2: 'pole'}), picture)


def test_each_large_piece_of_a_class_is_named():
    seg_map = np.zeros((240, 320), np.uint8)
    seg_map[20:100, 20:140] = seg_map[120:220, 180:300] = 1
    picture = np.full((240, 320, 3), 100, np.uint8)
    changed = (draw_names(picture, seg_map, {1: 'car'}) != picture).any(-1)
    assert changed[20:100, 20:140].any() and changed[120:220, 180:300].any()


@needs_sized_font
def test_long_names_are_written_smaller():
    seg_map = np.zeros((600, 600), np.uint8)
    seg_map[200:400, 200:400] = 1
    picture = np.full((600, 600, 3), 100, np.uint8)

    def height(name):
        y = np.nonzero((draw_names(picture, seg_map, {1: name}) != picture).any(-1))[0]
        return np.ptp(y)

    assert 0 < height('floor-marble or stone') < height('floor')


def test_a_large_picture_is_named_in_moderate_time():
    seg_map = np.zeros((2048, 2048), np.uint8)
    for index in range(16):
        seg_map[index // 4 * 512 :, index % 4 * 512 :] = index
    picture = np.full((2048, 2048, 3), 100, np.uint8)
    start = time.process_time()
    draw_names(picture, seg_map, {index: f'a class {index}' for index in range(16)})
    assert time.process_time() - start < 20


def test_a_label_map_holds_the_ids_and_shows_the_drawn_colors():
    seg_map = np.array([[0, 157], [255, 137]], np.uint8)
    image = label_map_image(seg_map, palette_for(CLASSES))
    np.testing.assert_array_equal(np.asarray(image), seg_map)
    np.testing.assert_array_equal(np.asarray(image.convert('RGB')), palette_for(CLASSES)[seg_map])
