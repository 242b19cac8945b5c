import logging
import string
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from small_font import small_font

from ms_segformer import fonts
from ms_segformer.errors import ArgumentError

CHINESE = '人道路天空'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The only folder of fonts, empty."""
    folder = tmp_path / 'fonts'
    folder.mkdir()
    monkeypatch.setattr(fonts, 'font_folders', lambda: [tmp_path / 'missing', folder])
    monkeypatch.delenv(fonts.VARIABLE, raising=False)
    clear()
    yield folder
    clear()


def clear():
    fonts._face_for.cache_clear()
    fonts._warn.cache_clear()


def drawn(text, texts):
    image = Image.new('L', (200, 40))
    ImageDraw.Draw(image).text((4, 4), text, 255, fonts.font_of(20, texts))
    return np.asarray(image)


def name_of(font):
    return font.getname() if isinstance(font, ImageFont.FreeTypeFont) else 'the bitmap of Pillow before 10.1'


def test_plain_letters_have_pillows_own_font(folder):
    (folder / 'all.ttf').write_bytes(small_font(CHINESE + string.ascii_letters))
    assert name_of(fonts.font_of(20, ['road'])) == name_of(fonts.font_of(20))
    assert fonts.writable(['road', 'a/b-1'], ['x', 'y']) == ['road', 'a/b-1']


def test_chinese_is_written_in_a_font_of_the_system(folder):
    (folder / 'other.ttf').write_bytes(small_font('абв'))
    (folder / 'broken.ttf').write_bytes(b'no font')
    (folder / 'more').mkdir()
    (folder / 'more' / 'han.TTF').write_bytes(small_font(CHINESE + string.ascii_letters))
    assert fonts.writable(['人', '道路', 'car'], ['person', 'road', 'car']) == ['人', '道路', 'car']
    assert fonts.font_of(20, ['人']).path == str(folder / 'more' / 'han.TTF')
    assert (drawn('人', ['人']) != drawn('道', ['人', '道'])).any()  # each has its own shape, no box for all


def test_fonts_for_chinese_come_first_and_regular_ones_before_bold(folder):
    for name in ('a.ttf', 'NotoSansSC-Bold.otf', 'simhei.ttf', 'NotoSansSC-Regular.otf'):
        (folder / name).write_bytes(small_font(CHINESE))
    assert fonts.font_of(20, ['人']).path == str(folder / 'NotoSansSC-Regular.otf')


def test_without_a_font_the_other_name_stands_and_that_is_said_once(folder, caplog):
    (folder / 'other.ttf').write_bytes(small_font('人'))  # has one of them only
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert fonts.writable(['人道', 'car'], ['person', 'x']) == ['person', 'car']
    assert [record.getMessage() for record in caplog.records] == [
        'no font of this system shows 人道 (person): pictures have what is in brackets instead; install a font such '
        'as Noto Sans CJK, or name a font file in the environment variable MS_SEGFORMER_FONT'
    ]
    assert name_of(fonts.font_of(20, ['人道'])) == name_of(fonts.font_of(20))


def test_the_variable_names_a_font_file(folder, tmp_path, monkeypatch):
    (folder / 'NotoSansSC-Regular.ttf').write_bytes(small_font(CHINESE))
    own = tmp_path / 'own.ttf'
    own.write_bytes(small_font(CHINESE))
    monkeypatch.setenv(fonts.VARIABLE, str(own))
    assert fonts.font_of(20, ['人']).path == str(own)
    clear()
    own.write_bytes(b'no font')
    with pytest.raises(ArgumentError, match='MS_SEGFORMER_FONT=.*own.ttf: no font file that can be read'):
        fonts.font_of(20, ['人'])


@pytest.mark.parametrize(
    'platform, variables, expected',
    [
        ('linux', {'XDG_DATA_HOME': '/h', 'XDG_DATA_DIRS': '/a:/b'}, ['/h/fonts', '/a/fonts', '/b/fonts']),
        ('linux', {}, ['/usr/local/share/fonts', '/usr/share/fonts']),
        ('darwin', {}, ['/Library/Fonts', '/System/Library/Fonts']),
        ('win32', {'WINDIR': '/w', 'LOCALAPPDATA': '/l'}, ['/l/Microsoft/Windows/Fonts', '/w/Fonts']),
    ],
)
def test_each_system_keeps_fonts_in_its_own_folders(monkeypatch, platform, variables, expected):
    for name in ('XDG_DATA_HOME', 'XDG_DATA_DIRS', 'WINDIR', 'LOCALAPPDATA'):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, 'platform', platform)
    assert [folder.as_posix() for folder in fonts.font_folders()][-len(expected) :] == expected


def test_a_real_font_of_this_system_shows_chinese():
    face = fonts._face_for('人道路')
    if face is None:
        pytest.skip('no Chinese font is installed: apt-get install fonts-noto-cjk or fonts-wqy-zenhei')
    assert (drawn('人', ['人道路']) != drawn('路', ['人道路'])).any()
