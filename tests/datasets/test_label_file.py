"""Label maps of any kind are class ids, or a data set error with the path."""

import io
import os
import pickle
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ms_segformer.datasets.errors import DatasetError
from ms_segformer.datasets.label_file import as_label, label_of_image, read_label


def _png(width, depth, color_type, row, palette=b''):
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    header = struct.pack('>IIBBBBB', width, 1, depth, color_type, 0, 0, 0)
    return (
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', header)
        + (chunk(b'PLTE', palette) if palette else b'')
        + chunk(b'IDAT', zlib.compress(b'\0' + row))
        + chunk(b'IEND', b'')
    )


@pytest.mark.parametrize(
    ('png', 'expected'),
    [
        (_png(4, 8, 0, bytes([0, 1, 170, 255])), [0, 1, 170, 255]),
        (_png(8, 1, 0, bytes([0b01100001])), [0, 1, 1, 0, 0, 0, 0, 1]),
        (_png(4, 2, 0, bytes([0b00011011])), [0, 1, 2, 3]),
        (_png(4, 4, 0, bytes([0x01, 0x2F])), [0, 1, 2, 15]),
        (_png(4, 16, 0, bytes([0, 0, 0, 3, 0, 170, 0, 255])), [0, 3, 170, 255]),
        (_png(3, 8, 3, bytes([0, 2, 1]), bytes([0, 0, 0, 128, 0, 0, 0, 128, 0])), [0, 2, 1]),
        (_png(2, 8, 2, bytes([5, 5, 5, 7, 7, 7])), [5, 7]),
    ],
    ids=['grey8', 'grey1', 'grey2', 'grey4', 'grey16', 'palette', 'equal RGB'],
)
def test_label_maps_are_read_as_ids_whatever_their_png_type(tmp_path, png, expected):
    (tmp_path / 'x.png').write_bytes(png)
    np.testing.assert_array_equal(read_label(tmp_path / 'x.png'), [expected])


@pytest.mark.parametrize(
    ('png', 'message'),
    [
        (_png(2, 8, 2, bytes([5, 6, 5, 7, 7, 7])), 'it holds colors'),
        (_png(2, 16, 0, bytes([1, 0, 0, 0])), 'values from 0 to 256'),
    ],
)
def test_a_label_map_that_is_no_label_map_is_refused(tmp_path, png, message):
    (tmp_path / 'x.png').write_bytes(png)
    with pytest.raises(DatasetError, match=message):
        read_label(tmp_path / 'x.png')


@pytest.mark.parametrize('form, said', [('JPEG', 'a lossy JPEG'), ('WEBP', 'a lossy WebP')])
def test_lossy_label_maps_are_refused(tmp_path, form, said):
    """Their values come back as others, which are classes too."""
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    image.save(tmp_path / 'x.png', form)
    with pytest.raises(DatasetError, match=rf'x\.png is {said}, which changes class ids; .* PNG'):
        read_label(tmp_path / 'x.png')
    with Image.open(tmp_path / 'x.png') as opened:
        if form == 'JPEG':
            with pytest.raises(DatasetError, match='label map of 3 is a lossy JPEG'):
                label_of_image(opened, 'of 3')


def test_lossless_webp_is_read(tmp_path):
    label = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(label).save(tmp_path / 'x.webp', lossless=True)
    np.testing.assert_array_equal(read_label(tmp_path / 'x.webp'), label)


@pytest.mark.parametrize(
    ('png', 'expected'),
    [(_png(4, 2, 0, bytes([0b00011011])), [0, 1, 2, 3]), (_png(4, 4, 0, bytes([0x01, 0x2F])), [0, 1, 2, 15])],
)
def test_images_of_few_bits_hold_the_ids_of_their_file(tmp_path, png, expected):
    """Pillow stretches them to 0-255."""
    (tmp_path / 'x.png').write_bytes(png)
    with Image.open(tmp_path / 'x.png') as image:
        for _ in range(2):  # not decoded yet, and decoded
            np.testing.assert_array_equal(label_of_image(image, 'x'), [expected])


IDS = np.array([[0, 1, 2], [170, 255, 3]])


@pytest.mark.parametrize(
    'array',
    [
        IDS,
        IDS.astype(np.uint8),
        IDS.astype('>u2'),
        IDS.astype(float),
        IDS.astype(np.float16),
        np.asfortranarray(IDS),
        IDS[:, :, None],
        np.dstack([IDS] * 3),
    ],
    ids=lambda array: f'{array.dtype}{array.shape}',
)
def test_arrays_of_any_numeric_type_are_read(tmp_path, array):
    np.save(tmp_path / 'x.npy', array)
    label = read_label(tmp_path / 'x.npy')
    assert label.dtype == np.uint8 and label.flags.writeable
    np.testing.assert_array_equal(label, IDS)


def saved(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npy(header):
    return b'\x93NUMPY\1\0' + struct.pack('<H', len(header)) + header


@pytest.mark.parametrize(
    'content, said',
    [
        (saved(IDS)[:-1], 'not a whole .npy file of numbers .*buffer'),
        (saved(IDS)[:20], 'not a whole .npy file'),
        (b'x' * 200, 'not a whole .npy file'),
        (pickle.dumps(IDS), 'not a whole .npy file'),
        (saved(np.array([{'a': 1}], object)), 'not a whole .npy file of numbers .it holds Python objects'),
        (npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000000)}"), 'not a whole .npy file'),
        (npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': " + b'(' * 5000 + b'}'), 'not a whole .npy file'),
        (saved(np.array([['a']])), 'holds <U1 of the shape .1, 1.; expected a class id for each pixel'),
        (saved(np.ones((2, 2), complex)), 'holds complex128'),
        (saved(np.zeros(5)), r'of the shape \(5,\)'),
        (saved(np.zeros((2, 3, 4, 5))), 'of the shape'),
        (saved(np.zeros((0, 3))), '3×0 pixels, which is nothing'),
        (saved(IDS - 1), 'values from -1 to 254'),
        (saved(IDS + 0.5), 'values from 0.5 to 255.5'),
        (saved(IDS / 2), 'values from 0.0 to 127.5'),
        (saved(IDS * np.nan), 'values from nan'),
        (saved(np.broadcast_to(np.uint8(0), (2, 2, 3)) + np.arange(3, dtype=np.uint8)), 'it holds colors'),
    ],
)
def test_other_arrays_are_refused(tmp_path, content, said):
    (tmp_path / 'x.npy').write_bytes(content)
    with pytest.raises(DatasetError, match=f'^label map .*x.npy .*{said}.*$'):
        read_label(tmp_path / 'x.npy')


@pytest.mark.parametrize('mode', ['L', 'P', '1', 'RGB', 'I;16'])
def test_a_png_with_a_wrong_checksum_is_refused(tmp_path, mode):
    """Decoders pass over it, and give other ids."""
    ids = np.random.default_rng(0).integers(0, 2, (20, 30), dtype=np.uint8)
    Image.fromarray(ids.astype(np.uint16) if mode == 'I;16' else ids).convert(mode).save(tmp_path / 'x.png')
    content = bytearray((tmp_path / 'x.png').read_bytes())
    read_label(tmp_path / 'x.png')
    at = content.index(b'IDAT') + 12
    for changed in (content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :], content[:-12], content[:-1]):
        (tmp_path / 'x.png').write_bytes(changed)
        with pytest.raises(DatasetError, match='label map .*x.png is truncated or damaged'):
            read_label(tmp_path / 'x.png')


@pytest.mark.parametrize(
    'make, said',
    [
        (lambda path: None, ' does not exist'),
        (lambda path: path.mkdir(), ': a directory'),
        (os.mkfifo, ': a pipe, socket'),
        (lambda path: path.touch(), ' is an empty file'),
        (lambda path: path.write_bytes(b'no picture at all'), ': not an image of a kind that is read'),
        (lambda path: path.write_bytes(_png(2, 8, 6, bytes(8))[:40]), ' is truncated or damaged'),
        (lambda path: Image.new('P', (12_000, 12_000)).save(path), ' has 12000×12000 pixels; at most 134,217,728'),
        (
            lambda path: Image.new('P', (12_000, 12_000)).save(path, 'GIF'),
            ': 12000×12000 pixels are more than 134,217,728',
        ),
        (lambda path: Image.new('RGB', (20, 20)).save(path, 'EPS'), ': not an image of a kind that is read'),
    ],
)
@pytest.mark.filterwarnings('error')
def test_what_is_no_label_map_is_a_data_set_error_in_one_line(tmp_path, make, said):
    make(tmp_path / 'x.png')
    with pytest.raises(DatasetError, match=f'^label map .*x.png{said}.*$'):
        read_label(tmp_path / 'x.png')


def test_rows_of_other_lengths_are_no_label_map():
    with pytest.raises(DatasetError, match='label map here (is no array|holds object)'):
        as_label([[1, 2], [3]], 'here')
