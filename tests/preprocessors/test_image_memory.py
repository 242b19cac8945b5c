"""Decoding a large image takes the bytes a pixel that `load_image` states (Linux).

python -m pytest -s tests/preprocessors/test_image_memory.py        prints what each kind of file takes
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIZE = 6400, 4700  # 30 megapixels
# Bytes a pixel that the docstring of `load_image` states: decoder and result.
STATED = {
    'RGB JPEG': 7,
    'progressive JPEG': 10,
    'CMYK JPEG': 7,
    'grey JPEG': 4,
    'RGB PNG': 7,
    'RGBA PNG': 7,
    'palette PNG': 4,
    '16-bit PNG': 5,
    'GIF': 4,
    'EXIF-rotated JPEG': 7,
    'RGB TIFF': 7,
    'BMP': 7,
    'AVIF': 10,
    'WebP': 16,
    'JPEG 2000': 20,
}
TOLERANCE = 1.15  # of the stated: the bands in work and the allocator

CODE = """
import sys
import numpy as np
from ms_segformer.preprocessors.image import load_image
def memory(field):
    return next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith(field)) * 1024
load_image(np.zeros((4, 4, 3), np.uint8))
before = memory('VmRSS')
image = load_image(sys.argv[1])
print((memory('VmHWM') - before) / image[..., 0].size)
"""


@pytest.fixture(scope='module')
def picture():
    rows = np.arange(SIZE[1], dtype=np.uint8)[:, None] // 16
    columns = np.arange(SIZE[0], dtype=np.uint8)[None] // 16
    return np.stack([rows + columns, rows ^ columns, np.broadcast_to(columns, SIZE[::-1])], axis=-1) * 16


def save(kind, picture, folder):
    rgb = Image.fromarray(picture)
    path = folder / ('a.jp2' if kind == 'JPEG 2000' else f'a.{kind.split()[-1].lower()}')
    if kind == '16-bit PNG':
        Image.fromarray(picture[:, :, 0].astype(np.uint16) * 257).save(path, compress_level=1)
    elif kind == 'EXIF-rotated JPEG':
        exif = Image.Exif()
        exif[0x0112] = 6
        rgb.save(path, exif=exif)
    else:
        mode = {'CMYK': 'CMYK', 'grey': 'L', 'RGBA': 'RGBA', 'palette': 'P', 'GIF': 'P'}.get(kind.split()[0], 'RGB')
        image = rgb.convert(mode)
        options = {
            'JPEG': {'progressive': kind.startswith('progressive'), 'subsampling': 0},
            'AVIF': {'speed': 10},
            'PNG': {'compress_level': 1},
            'WebP': {'method': 0},
            'TIFF': {'compression': 'tiff_lzw'},
        }
        image.save(path, **options.get(kind.split()[-1], {}))
    return path


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='reads the peak memory from /proc')
@pytest.mark.parametrize('kind', STATED)
def test_decoding_takes_the_stated_memory(kind, picture, tmp_path):
    if kind == 'AVIF' and '.avif' not in Image.registered_extensions():
        pytest.skip('this Pillow neither reads nor writes AVIF')
    path = save(kind, picture, tmp_path)
    done = subprocess.run([sys.executable, '-c', CODE, str(path)], text=True, capture_output=True, check=True)
    taken = float(done.stdout)
    print(f'{kind}: {taken:.2f} bytes a pixel, stated {STATED[kind]}')
    stated = STATED[kind]
    if kind == '16-bit PNG' and Image.open(path).mode == 'I':
        stated = 7  # older Pillow reads it as 32-bit integers
    assert taken < stated * TOLERANCE
