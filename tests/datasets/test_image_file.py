"""Images of a data set: any kind, upright, whole, of a bounded size."""

import os

import cv2
import numpy as np
import pytest
from PIL import Image

from ms_segformer.datasets import image_file
from ms_segformer.datasets.errors import DatasetError
from ms_segformer.datasets.image_file import read_image


def test_a_rotated_image_comes_upright(tmp_path):
    picture = Image.fromarray(np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / 'x.jpg', exif=exif)
    assert read_image(tmp_path / 'x.jpg').shape == (30, 20, 3)


@pytest.mark.parametrize('mode', ['L', 'CMYK', 'RGBA', 'P'])
def test_images_of_any_mode_give_three_channels(tmp_path, mode):
    suffix = 'jpg' if mode in ('L', 'CMYK') else 'png'
    picture = Image.fromarray(np.random.RandomState(0).randint(0, 256, (16, 24, 3), np.uint8)).convert(mode)
    picture.save(tmp_path / f'x.{suffix}')
    img = read_image(tmp_path / f'x.{suffix}')
    assert img.shape == (16, 24, 3) and img.dtype == np.uint8
    expected = np.asarray(Image.open(tmp_path / f'x.{suffix}').convert('RGB'))[..., ::-1]
    np.testing.assert_array_equal(img, expected)


@pytest.mark.parametrize(
    'make, said',
    [
        (lambda path: None, 'image .*x.jpg does not exist'),
        (lambda path: path.mkdir(), 'image .*x.jpg: a directory'),
        (os.mkfifo, 'image .*x.jpg: a pipe, socket'),
        (lambda path: path.touch(), 'image .*x.jpg is an empty file'),
        (lambda path: path.write_bytes(b'GIF89a' + bytes(40)), 'image .*x.jpg cannot be decoded: not .*; restore or'),
        (
            lambda path: path.write_bytes(b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 15\n'),
            'image .*x.jpg is a Git LFS pointer, not the file: run `git lfs pull`, or download the file',
        ),
        (lambda path: path.write_bytes(bytes(2000)), 'image .*x.jpg has 2,000 bytes; at most 1,000 are read'),
    ],
)
def test_what_is_no_image_is_a_data_set_error_in_one_line(tmp_path, monkeypatch, make, said):
    monkeypatch.setattr(image_file, 'LARGEST_FILE', 1000)
    make(tmp_path / 'x.jpg')
    with pytest.raises(DatasetError, match=f'^{said}.*$'):
        read_image(tmp_path / 'x.jpg')


def test_a_huge_jpeg_is_left_to_the_reader_that_knows_limits(tmp_path, monkeypatch):
    Image.new('RGB', (40, 30)).save(tmp_path / 'x.jpg')
    content = bytearray((tmp_path / 'x.jpg').read_bytes())
    at = content.index(b'\xff\xc0') + 5
    content[at : at + 4] = (20_000).to_bytes(2, 'big') * 2
    (tmp_path / 'x.jpg').write_bytes(content)
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('decoded by OpenCV'))
    with pytest.raises(DatasetError, match='x.jpg cannot be decoded: 20000×20000 pixels are more than 134,217,728'):
        read_image(tmp_path / 'x.jpg')
