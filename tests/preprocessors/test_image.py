"""Every form of an image gives the same pixels, and what is no image is a clear error."""

import base64
import errno
import io
import os
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageOps

from ms_segformer import download
from ms_segformer.preprocessors import image as image_module
from ms_segformer.preprocessors.image import (
    ANIMATED,
    FORMATS,
    DamagedImageError,
    ImageError,
    ImageMemoryError,
    image_files,
    load_image,
)


@pytest.fixture(scope='module')
def rgb():
    return np.random.default_rng(0).integers(0, 256, (13, 21, 3), dtype=np.uint8)


@pytest.fixture
def png(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / 'a photo.png')
    return tmp_path / 'a photo.png'


FORMS = {
    'path': lambda png, rgb: str(png),
    'pathlib': lambda png, rgb: png,
    'file URL': lambda png, rgb: png.as_uri(),
    'data URL': lambda png, rgb: 'data:image/png;base64,' + base64.b64encode(png.read_bytes()).decode(),
    'bytes': lambda png, rgb: png.read_bytes(),
    'bytearray': lambda png, rgb: bytearray(png.read_bytes()),
    'memoryview of every other byte': lambda png, rgb: memoryview(
        bytes(2) + bytes(byte for pair in zip(png.read_bytes(), png.read_bytes(), strict=True) for byte in pair)
    )[2::2],
    'BytesIO': lambda png, rgb: io.BytesIO(png.read_bytes()),
    'PIL opened': lambda png, rgb: Image.open(png),
    'PIL converted': lambda png, rgb: Image.open(png).convert('RGB'),
    'PIL RGBA': lambda png, rgb: Image.fromarray(np.dstack([rgb, rgb[:, :, 0]])),
    'row of a data set': lambda png, rgb: {'image': Image.fromarray(rgb), 'label': None},
    'uint8': lambda png, rgb: rgb,
    'not contiguous': lambda png, rgb: np.repeat(rgb, 2, axis=1)[:, ::2],
    'RGBA': lambda png, rgb: np.dstack([rgb, rgb[:, :, 0]]),
    'int64': lambda png, rgb: rgb.astype(np.int64),
    'uint16 within 0-255': lambda png, rgb: rgb.astype(np.uint16),
    'uint16': lambda png, rgb: rgb.astype(np.uint16) * 257,
    'float32 0-255': lambda png, rgb: rgb.astype(np.float32),
    'float64 0-1': lambda png, rgb: rgb / 255,
    'float16 0-255': lambda png, rgb: rgb.astype(np.float16),
    'tensor': lambda png, rgb: torch.from_numpy(rgb),
    'tensor with gradients': lambda png, rgb: torch.from_numpy(rgb).float().requires_grad_(),
    'float16 tensor': lambda png, rgb: torch.from_numpy(rgb).half(),
    'bfloat16 tensor': lambda png, rgb: torch.from_numpy(rgb).bfloat16(),
    'big-endian uint16': lambda png, rgb: rgb.astype('>u2') * 257,
}


@pytest.mark.parametrize('form', FORMS)
def test_every_form_gives_the_same_pixels(png, rgb, form):
    loaded = load_image(FORMS[form](png, rgb))
    assert loaded.dtype == np.uint8 and loaded.flags.c_contiguous
    np.testing.assert_array_equal(loaded, rgb)


def test_bgr_arrays_are_turned_round_and_files_are_not(png, rgb):
    np.testing.assert_array_equal(load_image(rgb[:, :, ::-1], channel_order='BGR'), rgb)
    np.testing.assert_array_equal(load_image(png, channel_order='BGR'), rgb)
    with pytest.raises(ImageError, match="'RGB' or 'BGR'"):
        load_image(rgb, channel_order='GBR')


GREY = {
    '2-D': lambda grey: grey,
    'H×W×1': lambda grey: grey[:, :, None],
    'grey and alpha': lambda grey: np.dstack([grey, grey // 2]),
    'PIL L': Image.fromarray,
    'PIL LA': lambda grey: Image.merge('LA', [Image.fromarray(grey), Image.fromarray(grey // 2)]),
    'PIL I': lambda grey: Image.fromarray(grey.astype(np.int32)),
    'PIL I of 16 bits': lambda grey: Image.fromarray(grey.astype(np.int32) * 257),
    'PIL I;16': lambda grey: Image.fromarray(grey.astype(np.uint16) * 257),
    'PIL F': lambda grey: Image.fromarray(grey.astype(np.float32)),
    'PIL F 0-1': lambda grey: Image.fromarray((grey / 255).astype(np.float32)),
}


@pytest.mark.parametrize('form', GREY)
def test_grey_images_become_three_equal_channels(rgb, form):
    grey = rgb[:, :, 0].copy()
    grey[0, 0] = 255
    np.testing.assert_array_equal(load_image(GREY[form](grey)), np.repeat(grey[:, :, None], 3, axis=2))


def test_booleans_are_black_and_white():
    np.testing.assert_array_equal(load_image(np.array([[True, False]]))[0, :, 0], [255, 0])
    np.testing.assert_array_equal(load_image(Image.fromarray(np.array([[True, False]])))[0, :, 0], [255, 0])


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation_is_applied(tmp_path, rgb, orientation):
    upright = {
        1: rgb,
        2: rgb[:, ::-1],
        3: rgb[::-1, ::-1],
        4: rgb[::-1],
        5: rgb.transpose(1, 0, 2),
        6: np.rot90(rgb, -1),
        7: rgb[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(rgb),
    }[orientation]
    image = Image.fromarray(rgb)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / 'a.png', exif=exif)
    np.testing.assert_array_equal(load_image(tmp_path / 'a.png'), upright)


@pytest.mark.parametrize('suffix', ['png', 'webp', 'jpg'])
@pytest.mark.parametrize('exif', [b'II', b'Exif\0\0MM\0*\xff\xff\xff\xff', b'nothing of it'])
def test_damaged_exif_does_not_cost_the_pixels(tmp_path, rgb, suffix, exif):
    Image.fromarray(rgb).save(tmp_path / f'a.{suffix}', exif=exif)
    Image.fromarray(rgb).save(tmp_path / f'b.{suffix}')
    np.testing.assert_array_equal(load_image(tmp_path / f'a.{suffix}'), load_image(tmp_path / f'b.{suffix}'))


@pytest.mark.parametrize('info', [{'exif': b'II'}, {'exif': 3}, {'Raw profile type exif': '\nexif\n 4\nnot hex'}])
def test_damaged_exif_of_a_pil_image_does_not_cost_the_pixels(rgb, info):
    image = Image.fromarray(rgb)
    image.info.update(info)
    np.testing.assert_array_equal(load_image(image), rgb)


@pytest.mark.parametrize(
    'name, like',
    [
        ('gray.png', None),
        ('la.png', 'gray.png'),
        ('gray16.png', 'gray.png'),
        ('rgba.png', 'small.bmp'),
        ('small.bmp', None),
        ('palette.png', 'small.bmp'),
        ('cmyk.jpg', 'small.bmp'),
        ('small.webp', 'small.bmp'),
        ('small.gif', 'small.bmp'),
        ('one_bit.png', None),
        ('exif6.jpg', None),
        ('px1.png', None),
        ('px7x5.png', None),
        ('wide.jpg', None),
        ('tall.jpg', None),
    ],
)
def test_awkward_files_are_read(oracle, name, like):
    folder = oracle / 'golden' / 'edge'
    image = load_image(folder / name)
    assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
    if like:  # the same photograph in another format: alike but for what the format loses
        other = load_image(folder / like)
        assert image.shape == other.shape
        assert np.abs(image.astype(int) - other).mean() < 16
    if name == 'exif6.jpg':
        assert image.shape[:2] == (160, 107), 'stored as 107×160 with orientation 6, upright it is 160 high'


@pytest.mark.parametrize(
    'content, message',
    [
        (b'', 'not an image'),
        (b'hello', 'not an image'),
        (None, 'NoneType is not an image'),
        (3, 'int is not an image'),
        (np.zeros((3, 10, 12), np.uint8), 'channels-first'),
        (np.zeros((2, 4, 5, 3), np.uint8), 'a list of images'),
        (np.zeros((0, 5, 3), np.uint8), r'shape \(0, 5, 3\)'),
        (np.full((4, 4), np.nan), 'NaN'),
        (np.full((4, 4), -1.0), 'normalized'),
        (np.full((4, 4), 300), '0–255'),
        (np.full((4, 4), 256.0), '0–255 or 0–1'),
        (np.full((4, 4), 300), 'int64 with values from 300 to 300; expected 0–255: scale them'),
        (np.full((4, 4), 70_000, np.uint32), 'uint32 with values from 70000'),
        (np.full((4, 4), -1, np.int32), 'from -1'),
        (torch.full((4, 4), 2**40), 'int64 with values'),
        (Image.new('I', (4, 4), 65_536), '0–255 or 0–65535: scale them'),
        (Image.new('I', (4, 4), -1), 'the PIL image: a gray 32-bit image with values from -1 to -1'),
        (torch.zeros(4, 4).to_sparse(), r'a sparse tensor.*tensor.to_dense\(\)'),
        (torch.zeros(4, 4).to_sparse_csr(), 'a sparse tensor'),
        (torch.zeros(4, 4, device='meta'), r'meta.*tensor.cpu\(\)'),
        (
            torch.quantize_per_tensor(torch.zeros(4, 4), 1, 0, torch.quint8),
            r'a quantized tensor.*tensor.dequantize\(\)',
        ),
        (torch.nested.nested_tensor([torch.zeros(4, 4)]), 'a nested tensor'),
        (torch.zeros(4, 4, dtype=torch.cfloat), 'complex64'),
        ('http://[', 'neither a path nor a URL'),
        ('http://127.0.0.1:99999/a.jpg', 'cannot be fetched .Port out of range'),
        (np.array([['a']]), 'numeric'),
        ({'text': 1}, 'under image or img'),
        ('data:image/png;base64,%', 'base64'),
        ('data:image/png;base64,é', 'base64'),
    ],
)
def test_what_is_no_image_is_a_clear_error(content, message):
    with pytest.raises(ImageError, match=message):
        load_image(content)


def test_file_errors_name_the_file(tmp_path, png):
    with pytest.raises(FileNotFoundError, match='nowhere.jpg'):
        load_image(tmp_path / 'nowhere.jpg')
    with pytest.raises(ImageError, match='a directory'):
        load_image(tmp_path)
    broken = tmp_path / 'broken.png'
    broken.write_bytes(png.read_bytes()[:-200])
    with pytest.raises(ImageError, match='broken.png.*truncated'):
        load_image(broken)


@pytest.mark.parametrize('kind', FORMATS)
def test_a_damaged_image_of_any_kind_is_an_image_error(kind):
    """Whatever its decoder raises: AVIF a RuntimeError, others a NotImplementedError or a struct.error."""
    if kind not in Image.registered_extensions().values() or kind not in Image.SAVE:
        pytest.skip(f'this Pillow does not write {kind}')
    chance = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(chance.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(buffer, kind)
    content = np.frombuffer(buffer.getvalue(), np.uint8)
    assert load_image(buffer.getvalue()).shape == (40, 50, 3)
    damaged = 0
    for _ in range(60):
        changed = content[: chance.integers(1, len(content) + 1)].copy()
        where = chance.integers(0, len(changed), 8) // chance.choice([1, 20])  # in half of the cases its head
        changed[where] = chance.integers(0, 256, 8)
        try:
            load_image(changed.tobytes(), max_pixels=10**5)
        except ImageError:
            damaged += 1
    assert damaged


@pytest.mark.parametrize('value', [70_000, 2**31, 2**32 - 1])
def test_a_tiff_of_32_bits_does_not_wrap(tmp_path, value):
    """By hand: Pillow writes unsigned numbers as if they had a sign."""
    tags = {256: 2, 257: 2, 258: 32, 259: 1, 262: 1, 273: 8, 277: 1, 278: 2, 279: 16}  # 2×2 pixels, from byte 8 on
    directory = struct.pack('<H', len(tags)) + b''.join(struct.pack('<HHII', tag, 4, 1, tags[tag]) for tag in tags)
    (tmp_path / 'a.tif').write_bytes(
        b'II*\0' + struct.pack('<I', 24) + struct.pack('<4I', 0, 1, 2, value) + directory + bytes(4)
    )
    with pytest.raises(ImageError, match='a.tif: a gray 32-bit image with values from .* expected 0–255 or 0–65535'):
        load_image(tmp_path / 'a.tif')


@pytest.mark.parametrize('kind', ANIMATED)
def test_of_several_frames_the_first_is_taken_and_that_is_said_once(tmp_path, rgb, kind, caplog):
    if kind not in Image.SAVE_ALL:
        pytest.skip(f'this Pillow does not write {kind} with several frames')
    frames = [Image.fromarray(rgb), Image.new('RGB', rgb.shape[1::-1], 'red'), Image.new('RGB', rgb.shape[1::-1])]
    frames[0].save(tmp_path / f'one.{kind}', kind)
    frames[0].save(tmp_path / f'several.{kind}', kind, save_all=True, append_images=frames[1:])
    for _ in range(2):
        first = load_image(tmp_path / f'several.{kind}')
    assert caplog.messages == [f'{tmp_path}/several.{kind} has several frames or pages; the first is taken']
    assert np.abs(first - load_image(tmp_path / f'one.{kind}').astype(int)).mean() < 5
    assert len(caplog.messages) == 1, 'of one frame nothing is said'


def test_a_damaged_second_frame_does_not_matter(rgb):
    buffer = io.BytesIO()
    frames = [Image.fromarray(rgb).quantize(9), Image.fromarray(rgb[::-1].copy()).quantize(9)]
    frames[0].save(buffer, 'gif', save_all=True, append_images=frames[1:])
    whole = load_image(buffer.getvalue())
    for length in range(len(buffer.getvalue()) // 2 + 50, len(buffer.getvalue()), 7):
        np.testing.assert_array_equal(load_image(buffer.getvalue()[:length]), whole)


@pytest.mark.parametrize('kind', ['ICO', 'ICNS', 'TGA', 'EPS'])
def test_other_kinds_are_not_even_opened(kind):
    """Pillow decodes icons before their size can be looked at, and runs Ghostscript for EPS."""
    buffer = io.BytesIO()
    Image.new('RGB', (64, 64)).save(buffer, kind)
    with pytest.raises(DamagedImageError, match='not an image of a kind that is read .JPEG, PNG'):
        load_image(buffer.getvalue())


@pytest.mark.parametrize(
    'raised, error, said',
    [
        (MemoryError(), ImageMemoryError, 'a.png: there is not enough memory'),
        (OSError(errno.EIO, 'Input/output error'), ImageError, 'a.png: cannot be read .Input/output error'),
        (RuntimeError('odd'), DamagedImageError, 'a.png: a truncated or damaged image .odd'),
    ],
)
def test_only_a_content_that_is_at_fault_is_called_damaged(tmp_path, monkeypatch, raised, error, said):
    Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')

    def fail(*_):
        raise raised

    monkeypatch.setattr(ImageFile.ImageFile, 'load', fail)
    with pytest.raises(error, match=said) as caught:
        load_image(tmp_path / 'a.png')
    assert caught.type is error


def test_the_size_is_looked_at_again_after_decoding(tmp_path, monkeypatch):
    Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
    load = ImageFile.ImageFile.load

    def grow(image):
        load(image)
        image._size = 20, 20

    monkeypatch.setattr(ImageFile.ImageFile, 'load', grow)
    with pytest.raises(ImageError, match='20×20 pixels are more than 100'):
        load_image(tmp_path / 'a.png', max_pixels=100)


MODES = {
    **{
        mode: lambda rgb, mode=mode: Image.fromarray(rgb).convert(mode)
        for mode in ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'RGBX', 'CMYK', 'YCbCr', 'HSV')
    },
    'P with transparency': lambda rgb: with_info(Image.fromarray(rgb).quantize(9), transparency=2),
    'LAB': lambda rgb: Image.frombytes('LAB', rgb.shape[1::-1], rgb.tobytes()),
}


def with_info(image, **info):
    image.info.update(info)
    return image


@pytest.mark.parametrize('band', [1, 50, 10**6])
@pytest.mark.parametrize('mode', MODES)
def test_bands_equal_the_conversion_in_one_go(rgb, mode, band, monkeypatch):
    monkeypatch.setattr(image_module, 'BAND', band)
    image = MODES[mode](rgb)
    np.testing.assert_array_equal(load_image(image), np.asarray(image.convert('RGB')))


@pytest.mark.parametrize('band', [1, 50, 10**6])
@pytest.mark.parametrize('values', ['16 bits', '8 of 16 bits', 'floats', 'floats within 0-1'])
def test_the_range_of_a_grey_image_is_that_of_all_its_bands(rgb, values, band, monkeypatch):
    monkeypatch.setattr(image_module, 'BAND', band)
    grey = np.sort(rgb[:, :, 0], axis=None).reshape(rgb.shape[:2])  # the first rows alone are dark
    array = {
        '16 bits': grey.astype(np.uint16) * 257,
        '8 of 16 bits': grey.astype(np.uint16),
        'floats': grey.astype(np.float32),
        'floats within 0-1': (grey / 255).astype(np.float32),
    }[values]
    np.testing.assert_array_equal(load_image(Image.fromarray(array)), np.repeat(grey[:, :, None], 3, axis=2))


@pytest.mark.parametrize('suffix', ['png', 'tif', 'jpg', 'webp'])
@pytest.mark.parametrize('orientation', range(10))
def test_bands_are_turned_upright_as_pillow_turns_the_whole(tmp_path, rgb, orientation, suffix, monkeypatch):
    monkeypatch.setattr(image_module, 'BAND', 50)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(rgb).save(tmp_path / f'a.{suffix}', exif=exif)
    with Image.open(tmp_path / f'a.{suffix}') as image:
        np.testing.assert_array_equal(load_image(tmp_path / f'a.{suffix}'), np.asarray(ImageOps.exif_transpose(image)))


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, rgb, monkeypatch):
    Image.new('P', (20_000, 20_000)).save(tmp_path / 'small_file.gif')
    assert (tmp_path / 'small_file.gif').stat().st_size < 2**20
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, 'load', lambda *_: pytest.fail('decoded'))
        with pytest.raises(ImageError, match='small_file.gif: 20000×20000 pixels.*134,217,728.*max_pixels'):
            load_image(tmp_path / 'small_file.gif')
        with pytest.raises(ImageError, match='PIL image: 21×13 pixels'):
            load_image(Image.fromarray(rgb), max_pixels=272)
    assert load_image(Image.fromarray(rgb), max_pixels=273).shape == rgb.shape
    for nonsense in (0, -1, 1.5, None, '9'):
        with pytest.raises(ValueError, match='max_pixels'):
            load_image(rgb, max_pixels=nonsense)


@pytest.mark.parametrize(
    'kind, options, side, limit',
    [
        ('AVIF', {}, 9700, '93,952,409, the limit for AVIF'),
        ('WEBP', {}, 7700, '58,720,256, the limit for WEBP'),
        ('JPEG2000', {}, 6900, '46,976,204, the limit for JPEG2000'),
        ('JPEG', {'progressive': True}, 8900, '78,293,674, the limit for progressive JPEG'),
    ],
)
def test_files_that_take_more_memory_a_pixel_may_have_fewer(kind, options, side, limit, rgb, monkeypatch):
    if kind not in Image.registered_extensions().values() or kind not in Image.SAVE:
        pytest.skip(f'this Pillow does not write {kind}')
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, kind, **options)
    assert load_image(buffer.getvalue()).shape == rgb.shape
    monkeypatch.setattr(ImageFile.ImageFile, 'size', (side, side))
    monkeypatch.setattr(ImageFile.ImageFile, 'load', lambda image: fail(RuntimeError('decoded')))
    with pytest.raises(ImageError, match=f'{side}×{side} pixels are more than {limit}; with max_pixels'):
        load_image(buffer.getvalue())
    with pytest.raises(ImageError, match='decoded'):
        load_image(buffer.getvalue(), max_pixels=10**8)


def fail(error):
    raise error


@pytest.mark.parametrize(
    'raised',
    [
        OSError('truncated'),
        RuntimeError('one\ntwo'),
        NotImplementedError('a header'),
        SyntaxError('broken'),
        struct.error('unpack'),
        OverflowError(),
        EOFError('no more'),
        Image.DecompressionBombError('a bomb'),
        IndexError(),
    ],
)
def test_a_pil_image_that_cannot_be_decoded_is_an_image_error(raised, rgb, monkeypatch):
    image = Image.fromarray(rgb)
    monkeypatch.setattr(image, 'load', lambda: fail(raised))
    words = ' '.join(str(raised).split()) or type(raised).__name__
    with pytest.raises(DamagedImageError, match=f'^the PIL image: a truncated or damaged image .{words}.$'):
        load_image(image)


def test_what_a_decoder_says_is_only_shown_by_a_terminal(rgb, monkeypatch):
    image = Image.fromarray(rgb)
    monkeypatch.setattr(image, 'load', lambda: fail(RuntimeError('\x1b[2J' * 5000)))
    with pytest.raises(DamagedImageError, match=r'\\x1b\[2J') as caught:
        load_image(image)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


@pytest.mark.parametrize('pillows', [100, 200])  # a warning above it, an error above twice as much
@pytest.mark.filterwarnings('error')
def test_pillow_has_no_say_in_the_size_of_a_tiff(pillows, rgb, monkeypatch):
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, 'TIFF', compression='tiff_lzw')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', pillows)
    monkeypatch.setattr(image_module, 'LARGE_TIFF', 100)
    np.testing.assert_array_equal(load_image(buffer.getvalue()), rgb)
    assert Image.MAX_IMAGE_PIXELS == pillows


@pytest.mark.parametrize('flags', [8, 12])  # what a frame leaves: the background, or what was there
def test_a_frame_of_a_gif_that_is_larger_than_the_image_is_not_made(flags, rgb):
    """Pillow fills it while it opens the file: 4 GiB here."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, 'GIF', interlace=False)
    content = buffer.getvalue()
    at = content.index(b',', 13 + 768)
    frame = b'\x21\xf9\x04' + bytes([flags + 1, 0, 0, 0, 0]) + b',\0\0\0\0\xff\xff\xff\xff' + content[at + 9 :]
    with pytest.raises(ImageError, match='the .* bytes given: a truncated or damaged image .*4294836225 pixels'):
        load_image(content[:at] + frame)


def test_a_gif_whose_size_is_only_that_of_its_frame_is_read(rgb):
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, 'GIF', interlace=False)
    content = buffer.getvalue()
    assert load_image(content[:6] + bytes(4) + content[10:]).shape == rgb.shape


class Gives:
    def __init__(self, found):
        self.found = found

    def read(self):
        return fail(self.found) if isinstance(self.found, Exception) else self.found


@pytest.mark.parametrize(
    'found, said',
    [
        ('text', 'the file object given: reading it gives str; expected a file object opened in binary'),
        (None, 'the file object given: reading it gives NoneType'),
        (RuntimeError('odd'), 'the file object given.*odd'),
        (OSError(errno.EIO, 'Input/output error'), 'the file object given: cannot be read .Input/output error'),
    ],
)
def test_a_file_object_that_does_not_give_bytes_is_an_image_error(found, said):
    with pytest.raises(ImageError, match=said):
        load_image(Gives(found))


def test_what_would_wait_for_ever_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / 'pipe.jpg')
    terminal, other = os.openpty()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / 'socket.jpg'))
        for path in (
            tmp_path / 'pipe.jpg',
            (tmp_path / 'pipe.jpg').as_uri(),
            tmp_path / 'socket.jpg',
            '/dev/zero',
            os.ttyname(other),
        ):
            with pytest.raises(ImageError, match='a pipe, socket, terminal or other device'):
                load_image(path)
    os.close(terminal)
    os.close(other)


@pytest.mark.skipif(os.geteuid() == 0, reason='root opens every file')
def test_a_file_that_may_not_be_read_is_said(png):
    png.chmod(0)
    with pytest.raises(ImageError, match='a photo.png: cannot be opened .Permission denied'):
        load_image(png)


def test_an_undecodable_or_impossible_name_is_an_error_like_another(tmp_path):
    for name in (os.fsdecode(tmp_path / '') + '/\udcff.jpg', str(tmp_path / ('x' * 300 + '.jpg')), 'a\0.jpg'):
        with pytest.raises((FileNotFoundError, ImageError)):
            load_image(name)


def test_pillows_limit_is_left_as_it_was(png):
    limit = Image.MAX_IMAGE_PIXELS
    load_image(png)
    assert Image.MAX_IMAGE_PIXELS == limit


@pytest.fixture
def server(png):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            found = self.path == '/photo.png'
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(png.read_bytes() if found else b'')

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{http.server_port}'
        http.shutdown()


def test_urls_are_fetched(server, rgb):
    np.testing.assert_array_equal(load_image(f'{server}/photo.png'), rgb)
    with pytest.raises(ImageError, match='missing.png.*404'):
        load_image(f'{server}/missing.png')


def test_a_server_that_drips_is_left_at_the_deadline(monkeypatch):
    monkeypatch.setattr(download, 'DEADLINE_SECONDS', 0.3)
    with socket.create_server(('127.0.0.1', 0)) as silent:
        url = f'http://127.0.0.1:{silent.getsockname()[1]}/a.jpg'
        with pytest.raises(ImageError, match='a.jpg: cannot be fetched .not complete after 0.3 seconds'):
            load_image(url)


def test_folders_are_searched_for_images(tmp_path):
    for name in ('b.JPG', 'a.png', '.hidden.png', 'text.txt', 'sub/c.webp', '.git/d.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(Path(p).relative_to(tmp_path)) for p in image_files(tmp_path)] == ['a.png', 'b.JPG', 'sub/c.webp']


@pytest.mark.parametrize('loaded', [True, False])
def test_a_closed_pil_image_is_called_that(png, loaded):
    with Image.open(png) as image:
        if loaded:
            image.load()
    if loaded:
        image.close()
    with pytest.raises(ImageError, match='^the PIL image has been closed') as caught:
        load_image(image)
    assert not isinstance(caught.value, DamagedImageError)


def test_grey_with_premultiplied_alpha_is_read(rgb):
    grey = Image.fromarray(rgb).convert('L')
    with_alpha = Image.merge('LA', (grey, Image.new('L', grey.size, 255)))
    np.testing.assert_array_equal(load_image(with_alpha.convert('La')), load_image(grey))


def test_lazily_negated_and_conjugated_tensors_are_read(rgb):
    plain = torch.from_numpy(rgb).float()
    lazy = torch.imag(torch.complex(torch.zeros_like(plain), -plain).conj())
    assert lazy.is_neg()
    np.testing.assert_array_equal(load_image(lazy), rgb)


def test_floats_a_little_above_1_are_not_taken_for_0_to_255(rgb):
    with pytest.raises(ImageError, match=r'a little above 1; .*clip\(0, 1\)'):
        load_image((rgb / 255 * 1.05).astype(np.float32))
    assert load_image(np.full((4, 4), 1.2)).max() == 1
