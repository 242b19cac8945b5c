"""Mutated images and what else may be called one: each has to give H×W×3 uint8 or an `ImageError`.

    python -m campaigns.image_fuzz --seed 1 --cases 10000

Bases: `image_corpus`, every kind that is read, in many forms, and kinds that are not; bombs. Mutations: those of
`mutations`, two files spliced, chunks of a PNG with right checksums, entries of a TIFF. Beside them arrays, tensors,
strings, dicts and objects that are odd. Each goes to `load_image` in one of the forms it takes; some to the reading of
training images, and some through the pipeline with the tiny model, alone, or in a list between two images that have to
come out as they do alone.
"""

import base64
import dataclasses
import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from modelscope.pipelines.base import Pipeline
from PIL import Image

from campaigns.frame import TINY_MODEL, Campaign, Run, main
from campaigns.image_corpus import BOMBS, bomb, corpus, picture, png_chunk
from campaigns.mutations import BOUNDARIES, mutated, spliced, with_other_numbers
from ms_segformer.datasets.errors import DatasetError
from ms_segformer.datasets.image_file import read_image
from ms_segformer.pipelines.image_segmentation import SegformerPipeline
from ms_segformer.preprocessors.image import FORMATS, ImageError, load_image

STRINGS = (
    '',
    ' ',
    '/',
    '.',
    '~',
    '-',
    '\0',
    'a\0b',
    '\udcff.jpg',
    'x' * 300,
    'x/' * 3000,
    '图.png',
    '*?[',
    'C:\\a.jpg',
    'http://',
    'http:///a.jpg',
    'http://[::1',
    'http://[x]/a',
    'https://:99999/',
    'http://\udcff/',
    'ftp://a/b.jpg',
    'file://',
    'file:///',
    'file://host/a.jpg',
    'file:///%00',
    'file:///%ff',
    'file:%2e',
    'FILE:///nowhere',
    'data:',
    'data:,',
    'data:image/png;base64',
    'data:image/png;base64,',
    'data:image/png;base64,AAAA',
    'data:;base64,é',
    'data:image/png;base64,====',
    'DATA:,x',
    's3://bucket/a',
    'a:b',
    '//a/b',
    '/dev/zero',
    '/dev/stdin',
    '/proc/self/mem',
    '/proc/self/environ',
)
BOMBS_SHARE = 0.003  # of the cases, for each takes seconds
ODD = 0.1
TRAINING = 0.08
PIPELINE = 0.02


@dataclasses.dataclass
class Common:
    """What is mutated, and the pipeline with two good images and what it makes of them."""

    folder: Path
    files: dict[str, dict[str, bytes]]
    segmenter: Pipeline
    neighbors: list[np.ndarray]
    expected: list[np.ndarray]


def prepare(folder: Path) -> Common:
    torch.set_num_threads(1)
    segmenter = SegformerPipeline(str(TINY_MODEL), device='cpu', engine='torch')
    neighbors = [picture(), picture()[::-1, ::-1]]
    common = Common(folder, corpus(), segmenter, neighbors, [segmenter(image)['seg_map'] for image in neighbors])
    for files in common.files.values():  # imports what decoding takes
        for content in files.values():
            try:
                load_image(content)
            except ImageError:
                pass
    (folder / 'image').write_bytes(common.files['PNG']['RGB'])
    read_image(folder / 'image')
    return common


def make(random: np.random.Generator, common: Common) -> tuple[str, Run]:
    """An image or something odd, and what reads it."""
    way = random.random()
    if way < ODD:
        kind, source = 'odd objects', odd(random, common)
    else:
        kind, content = file(random, common)
        source = given(content, random, common.folder / 'image')
    use = random.random()
    if kind != 'bombs' and use < PIPELINE:
        return kind, lambda: through_pipeline(source, random.random() < 0.5, common)
    if isinstance(source, Path) and use < TRAINING * 5:
        return kind, lambda: check(read_image(source))
    return kind, lambda: check(load_image(source))


def file(random: np.random.Generator, common: Common) -> tuple[str, bytes]:
    """The content of a file, mutated but for some of the bombs, and the kind it is of."""
    if random.random() < BOMBS_SHARE:
        content = bomb(int(random.integers(len(BOMBS))), common.folder)
        return 'bombs', content if random.random() < 0.7 else with_other_numbers(content, random)
    kind = some(list(common.files), random)
    content = some(list(common.files[kind].values()), random)
    way = random.random()
    if way < 0.05:
        return kind, content
    if way < 0.2:
        return kind, with_other_numbers(content, random)
    if way < 0.3:
        other = some(list(common.files[some(list(common.files), random)].values()), random)
        return kind, spliced(content, other, random)
    if way < 0.6 and kind == 'PNG':
        return kind, with_other_chunk(content, random)
    if way < 0.6 and kind == 'TIFF':
        return kind, with_other_entry(content, random)
    return kind, mutated(content, random)


def with_other_chunk(content: bytes, random: np.random.Generator) -> bytes:
    """A PNG with a chunk mutated, doubled or left out, under a checksum made right; the data may be unpacked for it."""
    at, chunks = 8, []
    while at + 12 <= len(content):
        (length,) = struct.unpack('>I', content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    number = int(random.integers(len(chunks)))
    name, inner = chunks[number]
    change = random.random()
    if change < 0.2:
        chunks[number : number + 1] = chunks[number : number + 1] * int(random.integers(3))
    elif name == b'IDAT' and change < 0.6:
        chunks[number] = name, zlib.compress(mutated(zlib.decompress(inner), random))
    else:
        chunks[number] = name, (with_other_numbers if change < 0.8 else mutated)(inner, random)
    return content[:8] + b''.join(png_chunk(*chunk) for chunk in chunks)


def with_other_entry(content: bytes, random: np.random.Generator) -> bytes:
    """A TIFF with another tag, type, count or value in its first directory."""
    order = '<' if content[:2] == b'II' else '>'
    (start,) = struct.unpack(f'{order}I', content[4:8])
    data = bytearray(content)
    if start + 2 > len(data):  # BigTIFF
        return with_other_numbers(content, random)
    (count,) = struct.unpack_from(f'{order}H', data, start)
    at = start + 2 + 12 * int(random.integers(max(count, 1)))
    where, form = some([(0, 'H'), (2, 'H'), (4, 'I'), (8, 'I'), (8, 'I'), (8, 'I'), (8, 'H')], random)
    values = [int(random.integers(16)), some(BOUNDARIES, random), int(random.integers(254, 350))]
    if at + 12 <= len(data):
        struct.pack_into(f'{order}{form}', data, at + where, some(values, random) % (1 << (16 if form == 'H' else 32)))
    return bytes(data)


def given(content: bytes, random: np.random.Generator, path: Path) -> Any:
    """A file in one of the forms that `load_image` takes."""
    way = random.integers(7)
    if way == 0:
        return io.BytesIO(content)
    if way == 1:
        return bytearray(content)
    if way == 2:
        return 'data:image/png;base64,' + base64.b64encode(content).decode()
    if way == 3:
        try:
            return Image.open(io.BytesIO(content), formats=FORMATS)
        except Exception:  # not even opened: then it is not what is looked at here
            return content
    path.write_bytes(content)
    return {4: path, 5: str(path), 6: path.as_uri()}[int(way)]


def odd(random: np.random.Generator, common: Common) -> Any:
    """What is hardly an image."""
    return some((odd_array, odd_tensor, odd_pillow, odd_string, odd_object), random)(random, common)


def odd_array(random: np.random.Generator, common: Common) -> np.ndarray:
    shape = tuple(some((0, 1, 2, 3, 4, 5, 7, 30), random) for _ in range(random.integers(0, 6)))
    dtype = some(
        (
            'u1',
            'u2',
            '>u2',
            'i1',
            'i4',
            'u4',
            'i8',
            'u8',
            'f2',
            'f4',
            'f8',
            '>f8',
            'c8',
            '?',
            'O',
            'U3',
            'S2',
            'M8[s]',
            'm8[s]',
            'V4',
            [('a', 'u1')],
        ),
        random,
    )
    values = some((0, 1, -1, 0.5, 200, 255, 256, 300, 65535, 65536, 2**31, 2**63, 1e30, np.nan, np.inf), random)
    with np.errstate(all='ignore'):
        try:
            array = np.full(shape, values, np.float64).astype(dtype)
        except (TypeError, ValueError):
            array = np.zeros(shape, dtype)
    way = random.integers(4)
    if way == 0 and array.ndim:
        return array[::-1]
    if way == 1 and dtype in ('u1', 'f4', 'i4'):
        return np.ma.masked_array(array)
    return np.broadcast_to(array, (20, *shape)) if way == 2 else array


def odd_tensor(random: np.random.Generator, common: Common) -> Any:
    tensor = torch.full((8, 9, 3), some((0.0, 0.5, 200.0, -3.0, 1e9, float('nan')), random))
    return some(
        (
            lambda: tensor.requires_grad_(),
            lambda: tensor.bfloat16(),
            lambda: tensor.half(),
            lambda: tensor.to_sparse(),
            lambda: tensor.to('meta'),
            lambda: torch.complex(tensor, tensor),
            lambda: tensor.bool(),
            lambda: tensor.permute(2, 0, 1),
            lambda: tensor[None],
            lambda: tensor.to(torch.int32),
            lambda: tensor[:0],
            lambda: torch.quantize_per_tensor(tensor.nan_to_num(), 1.0, 0, torch.quint8),
            lambda: tensor[:1].expand(8, 9, 3),
            lambda: torch.nn.Parameter(tensor),
            lambda: torch.nested.nested_tensor([tensor, tensor]),
            lambda: torch.float32,
            lambda: torch.device('cpu'),
            lambda: torch.Size([3, 3]),
        ),
        random,
    )()


def odd_pillow(random: np.random.Generator, common: Common) -> Any:
    mode = some(
        (
            '1',
            'L',
            'LA',
            'La',
            'P',
            'PA',
            'RGB',
            'RGBA',
            'RGBa',
            'RGBX',
            'CMYK',
            'YCbCr',
            'LAB',
            'HSV',
            'I',
            'F',
            'I;16',
            'I;16B',
            'I;16L',
        ),
        random,
    )
    image = Image.new(mode, (int(random.integers(0, 50)), int(random.integers(0, 50))))
    if image.mode in 'IF' and image.width and image.height:
        image.putpixel((0, 0), some((0, 255, 256, 65536, -1, 2**31 - 1), random))
    if random.random() < 0.2:
        image.info['exif'] = random.bytes(40)
    if random.random() < 0.2:
        image.close()
    return image


def odd_string(random: np.random.Generator, common: Common) -> Any:
    text = some((*STRINGS, str(common.folder), f'{common.folder}/nowhere.jpg', f'{common.folder}/image/under'), random)
    way = random.integers(6)
    if way == 0:
        return text + ''.join(chr(random.integers(1, 0x2000)) for _ in range(5))
    if way == 1:
        return text.encode('utf-8', 'surrogateescape')
    if way == 2:
        return Path(text) if '\0' not in text else text
    return text


class Reads:
    """A file object whose reading gives or raises something."""

    name = ['not', 'a', 'name']

    def __init__(self, found: Any):
        self.found = found

    def read(self, *_: int) -> Any:
        if isinstance(self.found, BaseException):
            raise self.found
        return self.found


class PathLike:
    def __init__(self, found: Any):
        self.found = found

    def __fspath__(self) -> Any:
        return self.found


def odd_object(random: np.random.Generator, common: Common) -> Any:
    good = common.files['PNG']['RGB']
    return some(
        (
            None,
            True,
            3,
            3.5,
            1j,
            object(),
            object,
            len,
            ...,
            {},
            {'image': None},
            {'image': 3},
            {'img': {'image': good}},
            {1: 2},
            {'image': b''},
            {'image': good},
            b'',
            bytearray(),
            memoryview(good),
            memoryview(good)[::2],
            io.StringIO('a'),
            io.BytesIO(),
            np.float32(3),
            np.uint8(3),
            Reads('text'),
            Reads(None),
            Reads(good),
            Reads(OSError('no')),
            Reads(ValueError('closed')),
            Reads(RuntimeError('odd')),
            Reads(3),
            PathLike('nowhere'),
            PathLike(b'nowhere'),
            open('/dev/null', 'rb'),
            Image,
            frozenset(),
        ),
        random,
    )


def some(choices: Any, random: np.random.Generator) -> Any:
    return choices[int(random.integers(len(choices)))]


def check(image: np.ndarray) -> None:
    """Look at what reading gave."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise AssertionError(f'an array of {image.dtype} and shape {image.shape}')


def through_pipeline(source: Any, alone: bool, common: Common) -> str:
    """Segment an image alone or between two others, which have to come out as they did before."""
    if alone and not isinstance(source, (list, tuple, frozenset, set, torch.Size)):
        found = common.segmenter(source)
        if isinstance(found, dict):
            return f'segmented{check_result(found) or ""}'
        raise AssertionError(f'the pipeline gave a {type(found).__name__} for one image')
    first, second = common.neighbors
    results = common.segmenter([first, source, second], batch_size=2)
    for got, expected in zip(results[::2], common.expected, strict=True):
        np.testing.assert_array_equal(got['seg_map'], expected)
    if 'error' not in results[1]:
        check_result(results[1])
    elif '\n' in results[1]['error'] or results[1]['index'] != 1:
        raise AssertionError(f'an odd entry: {results[1]}')
    return 'segmented between two others, which were right'


def check_result(result: dict) -> None:
    seg_map = result['seg_map']
    if seg_map.dtype != np.uint8 or seg_map.ndim != 2 or any(mask.shape != seg_map.shape for mask in result['masks']):
        raise AssertionError('masks and label map do not fit')


CAMPAIGN = Campaign('images', prepare, make, (ImageError, FileNotFoundError, DatasetError), cases=10_000)

if __name__ == '__main__':
    sys.exit(main(CAMPAIGN))
