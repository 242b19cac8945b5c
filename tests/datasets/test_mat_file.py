"""Matrices of MATLAB files, against what SciPy writes and by hand."""

import io
import struct
import zlib

import numpy as np
import pytest

from ms_segformer.datasets import mat_file
from ms_segformer.datasets.errors import DatasetError
from ms_segformer.datasets.label_file import read_label
from ms_segformer.datasets.mat_file import MatFileError, read_matrix

IDS = np.arange(12).reshape(3, 4)


def element(kind, content, order='<'):
    return struct.pack(f'{order}II', kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(name, array, kind, order='<', flags=9):
    stored = array.astype(array.dtype.newbyteorder(order)).tobytes('F')
    return element(
        14,
        element(6, struct.pack(f'{order}II', flags, 0), order)
        + element(5, struct.pack(f'{order}{array.ndim}i', *array.shape), order)
        + element(1, name, order)
        + element(kind, stored, order),
        order,
    )


def packed(content, order='<'):
    content = zlib.compress(content)
    return struct.pack(f'{order}II', 15, len(content)) + content


def file(*elements, order='<'):
    return b'MATLAB 5.0 MAT-file'.ljust(124) + (b'\0\1IM' if order == '<' else b'\1\0MI') + b''.join(elements)


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('dtype', ['u1', 'i1', 'u2', 'i4', 'u8', 'f4', 'f8'])
def test_what_scipy_writes_is_read(dtype, compressed):
    savemat = pytest.importorskip('scipy.io').savemat
    large = (np.random.default_rng(0).integers(0, 100, (70, 90))).astype(dtype)
    buffer = io.BytesIO()
    savemat(buffer, {'names': np.array(['a', 'bcd'], object), 'S': large, 'T': IDS}, do_compression=compressed)
    np.testing.assert_array_equal(read_matrix(buffer.getvalue(), 'S'), large)
    np.testing.assert_array_equal(read_matrix(buffer.getvalue(), 'T'), IDS)


@pytest.mark.parametrize('order', '<>')
def test_both_byte_orders_and_packed_matrices_are_read(order):
    one, two = matrix(b'S', IDS.astype(np.uint16), 4, order), matrix(b'T', IDS.astype(np.uint8), 2, order)
    content = file(packed(two, order), packed(one, order), two, order=order)
    np.testing.assert_array_equal(read_matrix(content, 'S'), IDS)
    np.testing.assert_array_equal(read_matrix(content, 'T'), IDS)


S = matrix(b'S', IDS.astype(np.uint8), 2)
PACKED = packed(S)
FAULTS = {
    'HDF5': (b'MATLAB 7.3 MAT-file'.ljust(124) + b'\0\2IM' + bytes(400), 'version 7.3 .HDF5., .* save it .* with -v7'),
    'version 4': (struct.pack('<5i', 0, 3, 4, 0, 2) + bytes(200), 'not a MATLAB file of version 5 to 7'),
    'short': (b'MATLAB 5.0', 'not a MATLAB file'),
    'no S': (file(matrix(b'T', IDS.astype(np.uint8), 2)), 'holds no matrix S, but T'),
    'nothing': (file(), 'holds no matrix S, but none'),
    'cells': (
        file(
            element(14, element(6, struct.pack('<II', 1, 0)) + element(5, struct.pack('<2i', 1, 1)) + element(1, b'S'))
        ),
        'S is not a matrix of real numbers',
    ),
    'complex': (file(matrix(b'S', IDS.astype(np.uint8), 2, flags=0x800 + 9)), 'S is not a matrix of real numbers'),
    'cut off': (file(S[:-8]), 'ends too early'),
    'packed, cut off': (file(PACKED[:-3]), 'ends too early'),
    'packed, a bit': (file(PACKED[:20] + bytes([PACKED[20] ^ 1]) + PACKED[21:]), 'damaged'),
    'packed, another checksum': (file(PACKED[:-1] + bytes([PACKED[-1] ^ 1])), 'damaged'),
    'too few numbers': (
        file(
            element(
                14,
                element(6, struct.pack('<II', 9, 0))
                + element(5, struct.pack('<2i', 5, 5))
                + element(1, b'S')
                + element(2, bytes(24)),
            )
        ),
        'does not have the numbers',
    ),
    'a negative shape': (
        file(
            element(
                14,
                element(6, struct.pack('<II', 9, 0))
                + element(5, struct.pack('<2i', -5, -5))
                + element(1, b'S')
                + element(2, bytes(25)),
            )
        ),
        'S has the shape -5×-5',
    ),
    'too large': (file(packed(matrix(b'S', np.zeros((300, 400), np.uint8), 2))), '120,0.. bytes; at most 100,000'),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_other_files_are_refused_in_one_line(fault, tmp_path, monkeypatch):
    content, said = FAULTS[fault]
    monkeypatch.setattr(mat_file, 'LARGEST', 100_000)
    with pytest.raises(MatFileError, match=f'^.*{said}.*$'):
        read_matrix(content, 'S')
    (tmp_path / 'x.mat').write_bytes(content)
    with pytest.raises(DatasetError, match=f'^label map .*x.mat cannot be read: .*{said}.*$'):
        read_label(tmp_path / 'x.mat')


def test_of_other_matrices_only_the_beginning_is_unpacked(monkeypatch):
    sizes = []
    unpacked = mat_file._unpacked
    monkeypatch.setattr(
        mat_file, '_unpacked', lambda element, size, *rest: sizes.append(size) or unpacked(element, size, *rest)
    )
    bomb = packed(matrix(b'T', np.zeros((3000, 3000), np.uint8), 2))
    np.testing.assert_array_equal(read_matrix(file(bomb, S), 'S'), IDS)
    assert max(sizes) <= 4096
