"""Mutated label maps: each has to give H×W uint8 or a `DatasetError` that names the file.

    python -m campaigns.label_fuzz --seed 1 --cases 3000

Bases: PNGs of every depth, grey and with a palette; other images; `.npy` of every type and order, with headers that
claim much; `.mat` of version 5, packed or not, in both byte orders. Mutations: those of `mutations`, in PNGs also under
checksums made right again, and files under another file's ending. Some are read by a source of a data set, as training
does, with an image that may be of another size. A PNG whose checksums are wrong and that gives other ids is a fault.
"""

import dataclasses
import io
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from campaigns.frame import Campaign, Run, main
from campaigns.image_corpus import corpus, picture, png, saved
from campaigns.image_fuzz import some, with_other_chunk
from campaigns.mutations import mutated, with_other_numbers
from ms_segformer.datasets.errors import DatasetError
from ms_segformer.datasets.label_file import as_label, read_label
from ms_segformer.datasets.sources import build_source

CLASSES = [f'class {number}' for number in range(12)]
COVERED = 'PNG under old checksums'
BOMBS = 0.003
ELEMENT_TYPES = {'i1': 1, 'u1': 2, 'i2': 3, 'u2': 4, 'i4': 5, 'u4': 6, 'f4': 7, 'f8': 9, 'i8': 12, 'u8': 13}


@dataclasses.dataclass
class Common:
    folder: Path
    files: dict[str, dict[str, bytes]]  # by ending and name
    expected: dict[bytes, np.ndarray]


def prepare(folder: Path) -> Common:
    ids = picture()[:, :, 0] % 12
    images = corpus()
    others = {
        f'{kind} {name}': content
        for kind, files in images.items()
        if kind not in ('PNG', 'refused kinds')
        for name, content in files.items()
    }
    files = {
        '.png': {**images['PNG'], **dict(label_pngs(ids))},
        '.npy': arrays(ids),
        '.mat': matrices(ids),
        '.tif': others,
    }
    expected = {}
    for ending, contents in files.items():
        for content in contents.values():
            (folder / f'label{ending}').write_bytes(content)
            try:
                expected[content] = read_label(folder / f'label{ending}')
            except DatasetError:
                pass
    for part in ('images', 'labels'):
        (folder / part).mkdir()
    return Common(folder, files, expected)


def label_pngs(ids: np.ndarray):
    """PNGs of ids: grey and with a palette of every depth, interlaced and not; palettes that are short or long."""
    for depth in (1, 2, 4, 8, 16):
        for interlaced in (False, True):
            yield f'ids {depth} {interlaced}', png(ids, depth, interlaced)
            if depth < 16:
                yield (
                    f'palette {depth} {interlaced}',
                    png(ids, depth, interlaced, palette=bytes(range(3 * 2 ** min(depth, 6)))),
                )
    yield 'short palette', png(ids, 8, palette=bytes(9))
    yield 'ids above 255', png(ids * 3, 16)
    yield 'colors that are equal', saved(np.dstack([ids] * 3), 'PNG')
    yield 'ids by OpenCV', cv2.imencode('.png', ids)[1].tobytes()


def arrays(ids: np.ndarray) -> dict[str, bytes]:
    """`.npy` files."""
    made = {
        dtype: ids.astype(dtype) for dtype in ('u1', '?', 'i2', '>u2', 'i8', '>f8', 'f2', 'c8', 'U3', 'M8[s]', 'V2')
    }
    made |= {
        'fortran': np.asfortranarray(ids),
        'channel': ids[:, :, None],
        'colors': picture(),
        'flat': ids.ravel(),
        'number': ids[0, 0],
        'empty': ids[:0],
        'negative': ids.astype(int) - 1,
        'large': ids.astype(int) * 300,
        'NaN': ids * np.nan,
        'infinite': ids * np.inf,
        'halves': ids / 2,
        'object': np.array([{}, 1], object),
        'record': np.zeros((3, 3), [('a', 'u1'), ('b', 'f4')]),
    }
    files = {}
    for name, array in made.items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        files[name] = buffer.getvalue()
    for name, header in {
        'claims much': "{'descr': '|u1', 'fortran_order': False, 'shape': (200000, 200000)}",
        'claims bytes': "{'descr': '|V2000000000', 'fortran_order': False, 'shape': (2, 2)}",
        'deep': '(' * 3000,
        'calls': "{'descr': __import__('os').system('ls')}",
        'long': ' ' * 60_000,
        'digits': "{'descr': '|u1', 'fortran_order': 0, 'shape': (" + '9' * 5000 + ', 2)}',
    }.items():
        files[name] = b'\x93NUMPY\1\0' + struct.pack('<H', len(header)) + header.encode()
    buffer = io.BytesIO()
    np.savez(buffer, S=ids)
    return files | {'archive': buffer.getvalue()}


def matrices(ids: np.ndarray) -> dict[str, bytes]:
    """`.mat` files: a matrix S of every stored type, alone or among others."""
    files = {}
    for order in '<>':
        for dtype, kind in ELEMENT_TYPES.items():
            plain = matrix(b'S', ids.astype(dtype), kind, order)
            other = matrix(b'names', ids[:3].astype(dtype), kind, order, flags=4)
            files[f'{dtype} {order}'] = mat(order, other, plain)
            files[f'{dtype} {order} packed'] = mat(order, zipped(other, order), zipped(plain, order))
    zeros = zipped(matrix(b'T', np.zeros((4000, 4000), np.uint8), 2, '<'), '<')
    files['bomb before it'] = mat('<', zeros, matrix(b'S', ids, 2, '<'))
    files['bomb'] = mat('<', zipped(matrix(b'S', np.zeros((4000, 4000), np.uint8), 2, '<'), '<'))
    files['HDF5'] = b'MATLAB 7.3 MAT-file'.ljust(124) + b'\0\2IM' + bytes(384) + b'\x89HDF\r\n\x1a\n' + bytes(200)
    files['version 4'] = struct.pack('<5i', 50, 3, 4, 0, 2) + b'S\0' + bytes(12)
    return files


def element(kind: int, content: bytes, order: str) -> bytes:
    return struct.pack(f'{order}II', kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(name: bytes, array: np.ndarray, kind: int, order: str, flags: int = 9) -> bytes:
    numbers = array.astype(array.dtype.newbyteorder(order)).tobytes('F')
    return element(
        14,
        element(6, struct.pack(f'{order}II', flags, 0), order)
        + element(5, struct.pack(f'{order}{array.ndim}i', *array.shape), order)
        + element(1, name, order)
        + element(kind, numbers, order),
        order,
    )


def zipped(content: bytes, order: str) -> bytes:
    content = zlib.compress(content)
    return struct.pack(f'{order}II', 15, len(content)) + content


def mat(order: str, *elements: bytes) -> bytes:
    return b'MATLAB 5.0'.ljust(124) + (b'\0\1IM' if order == '<' else b'\1\0MI') + b''.join(elements)


def bomb(random: np.random.Generator) -> tuple[str, bytes]:
    """A file of kilobytes that is, or claims to be, as large as is read or larger."""
    side = some((9_000, 11_500, 12_500, 30_000), random)
    way = random.integers(3)
    if way == 0 and side < 20_000:
        return '.png', saved(Image.new(some(('P', 'L', '1'), random), (side, side)), 'PNG')
    if way == 1 and side < 20_000:
        numbers = element(2, bytes(side * side), '<')
        inner = element(6, struct.pack('<II', 9, 0), '<') + element(5, struct.pack('<2i', side, side), '<')
        return '.mat', mat('<', zipped(element(14, inner + element(1, b'S', '<') + numbers, '<'), '<'))
    return '.png', with_other_numbers(png(np.zeros((9, 9), np.uint8), 8)[:33] + bytes(200), random, 26)


def make(random: np.random.Generator, common: Common) -> tuple[str, Run]:
    """A label map, and what reads it."""
    if random.random() < BOMBS:
        kind, (ending, content), source = 'bombs', bomb(random), b''
    else:
        kind, ending, content, source = file(random, common)
    if random.random() < 0.2:
        size = some(((37, 29), (29, 37), (4000, 3000)), random)
        return f'{kind}, in a data set', lambda: through_source(content, ending, size, common)
    if kind == 'npy' and random.random() < 0.1:
        return 'odd rows', lambda: odd_rows(some(([[1, 2], [3]], [], [[]], None, {}, 'abc', [['a']], [[None]]), random))
    path = common.folder / f'label{ending}'
    path.write_bytes(content)
    return kind, lambda: read(path, kind, common.expected.get(source))


def file(random: np.random.Generator, common: Common) -> tuple[str, str, bytes, bytes]:
    """Kind, ending, content and what it was made of."""
    ending = some(list(common.files), random)
    source = some(list(common.files[ending].values()), random)
    way = random.random()
    if way < 0.1:
        return f'{ending[1:]} as it is', ending, source, source
    if way < 0.15:
        return 'another ending', some([*common.files, '.PNG', ''], random), source, b''
    if ending == '.png' and way < 0.5:
        return 'PNG under new checksums', ending, with_other_chunk(source, random), b''
    change = with_other_numbers if way < 0.6 else mutated
    return COVERED if ending == '.png' else ending[1:], ending, change(source, random), source


def read(path: Path, kind: str, expected: np.ndarray | None) -> None:
    """Read a label map; what is wrong with it has to be said with its path."""
    try:
        label = read_label(path)
    except DatasetError as error:
        if str(path) not in str(error):
            raise AssertionError(f'no path: {error}') from None
        raise
    check(label)
    if kind == COVERED and expected is not None and not np.array_equal(label, expected):
        raise AssertionError('other ids under a checksum')


def check(label: np.ndarray) -> None:
    if label.dtype != np.uint8 or label.ndim != 2 or not label.size:
        raise AssertionError(f'an array of {label.dtype} and shape {label.shape}')


def through_source(content: bytes, ending: str, size: tuple[int, int], common: Common) -> None:
    """Load a pair as training does."""
    for part in ('images', 'labels'):
        for left in (common.folder / part).iterdir():
            left.unlink()
    cv2.imwrite(str(common.folder / 'images' / 'a.jpg'), np.zeros((size[1], size[0], 3), np.uint8))
    (common.folder / 'labels' / f'a{ending}').write_bytes(content)
    source = build_source(
        {
            'type': 'SegSourceRaw',
            'img_root': str(common.folder / 'images'),
            'classes': CLASSES,
            'label_root': str(common.folder / 'labels'),
            'label_suffix': ending,
        }
    )
    check(source.load(0)['gt_semantic_seg'])


def odd_rows(rows: object) -> None:
    check(as_label(rows, 'of a table'))


CAMPAIGN = Campaign('label maps', prepare, make, (DatasetError,), cases=3000)

if __name__ == '__main__':
    sys.exit(main(CAMPAIGN))
