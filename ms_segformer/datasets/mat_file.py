"""Reads one numeric matrix of a MATLAB file of version 5, 6 or 7 (those of COCO-Stuff 10k), in bounded memory.

Such a file is a header of 128 bytes and a row of elements, each a tag (what it is, how many bytes) and its content. A
matrix is an element whose content is elements again: flags, dimensions, name, numbers. An element may be packed with
zlib; of those only the first bytes are unpacked, until one has the name.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from typing import Literal, TypeAlias

import numpy as np

from ..errors import SegformerError

ByteOrder: TypeAlias = Literal['<', '>']
LARGEST = 2**29  # bytes of numbers that are read
_STORED = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 9: 'f8', 12: 'i8', 13: 'u8'}
_MATRIX, _PACKED = 14, 15
_NUMERIC = range(6, 16)  # classes of matrices: double, single, and integers of 8 to 64 bits
_COMPLEX = 0x800
_HEAD = 4096  # bytes of a packed matrix in which its name has to be


class MatFileError(SegformerError, ValueError):
    """A file that is not read; the message says why."""


def read_matrix(content: bytes | memoryview, name: str) -> np.ndarray:
    """Return a matrix of real numbers.

    Args:
        content: the file.
        name: of the matrix.

    Returns:
        An array of the type in which the numbers are stored (MATLAB stores small whole numbers as uint8, whatever the
        type of the matrix).

    Raises:
        MatFileError: no file of this version, a damaged one, no such matrix in it, or a larger one than `LARGEST`.
    """
    content = memoryview(content)
    order = _byte_order(content)
    names = []
    for kind, element in _elements(content[128:], order):
        head = _unpacked(element, _HEAD) if kind == _PACKED else memoryview(element)
        if kind == _PACKED:
            kind, head = _first(head, order)
        if kind != _MATRIX:
            continue
        matrix = _Matrix(head, order)
        names.append(matrix.name)
        if matrix.name == name:
            matrix.check()
            body = head if len(head) >= matrix.end else _first(_unpacked(element, matrix.end + 8, True), order)[1]
            return matrix.numbers(body)
    raise MatFileError(f'it holds no matrix {name}, but {", ".join(names) or "none"}')


def _byte_order(content: memoryview) -> ByteOrder:
    header = bytes(content[:128])
    if header.startswith(b'MATLAB 7.3') or bytes(content[:8]) == b'\x89HDF\r\n\x1a\n':
        raise MatFileError('it is of version 7.3 (HDF5), which is not read; save it in MATLAB with -v7')
    if len(header) < 128 or header[126:] not in (b'IM', b'MI'):
        raise MatFileError('it is not a MATLAB file of version 5 to 7')
    return '<' if header[126:] == b'IM' else '>'


def _elements(content: memoryview, order: ByteOrder) -> Iterator[tuple[int, memoryview]]:
    """The kinds and contents of elements in a row."""
    at = 0
    while at + 8 <= len(content):
        kind, element, at = _element(content, at, order)
        yield kind, element


def _element(content: memoryview, at: int, order: ByteOrder) -> tuple[int, memoryview, int]:
    """The kind and content of the element that begins somewhere, and where the next begins."""
    if at + 8 > len(content):
        raise MatFileError('it is damaged: it ends too early')
    kind, size = struct.unpack_from(f'{order}II', content, at)
    if kind >> 16:  # up to 4 bytes, within the tag
        kind, size = kind & 0xFFFF, kind >> 16
        if size > 4:
            raise MatFileError('it is damaged: an element has a wrong size')
        return kind, content[at + 4 : at + 4 + size], at + 8
    start = at + 8
    if start + size > len(content):
        raise MatFileError('it is damaged: it ends too early')
    return kind, content[start : start + size], start + size + (-size % 8 if kind != _PACKED else 0)


def _first(content: memoryview, order: ByteOrder) -> tuple[int, memoryview]:
    """The kind of an element, and its content as far as it is there."""
    if len(content) < 8:
        raise MatFileError('it is damaged: it ends too early')
    (kind,) = struct.unpack_from(f'{order}I', content)
    return kind, content[8:]


def _unpacked(element: memoryview, size: int, whole: bool = False) -> memoryview:
    """The first bytes of a packed element; with `whole` all of them, and their checksum is looked at."""
    unpacking = zlib.decompressobj()
    try:
        found = unpacking.decompress(element, size)
        if whole and not unpacking.eof:
            unpacking.decompress(unpacking.unconsumed_tail, 64)  # what fills up the last number, and the checksum
    except zlib.error as error:
        raise MatFileError(f'it is damaged: {error}') from None
    if whole and not unpacking.eof:
        raise MatFileError('it is damaged: its packed data have no end')
    return memoryview(found)


class _Matrix:
    """What the first elements in a matrix say.

    Attributes:
        name: of the matrix.
        end: bytes of the matrix up to the end of its numbers, 0 when it has none.
    """

    def __init__(self, content: memoryview, order: ByteOrder) -> None:
        self._order = order
        kind, flags, at = _element(content, 0, order)
        if kind != 6 or len(flags) < 8:
            raise MatFileError('it is damaged: a matrix does not begin with its flags')
        (self._flags,) = struct.unpack_from(f'{order}I', flags)
        kind, shape, at = _element(content, at, order)
        self._shape = struct.unpack(f'{order}{len(shape) // 4}i', shape[: len(shape) // 4 * 4])
        kind, name, self._numbers_at = _element(content, at, order)
        self.name = bytes(name).decode('latin-1')
        self.end = self._end(content) if self._flags & 0xFF in _NUMERIC else 0

    def _end(self, content: memoryview) -> int:
        if self._numbers_at + 8 > len(content):
            raise MatFileError('it is damaged: it ends too early')
        kind, size = struct.unpack_from(f'{self._order}II', content, self._numbers_at)
        return self._numbers_at + 8 + (0 if kind >> 16 else size)

    def check(self) -> None:
        """Raise unless this is a matrix of real numbers that is not too large."""
        if self._flags & 0xFF not in _NUMERIC or self._flags & _COMPLEX:
            raise MatFileError(f'{self.name} is not a matrix of real numbers')
        if len(self._shape) < 2 or min(self._shape) < 1:
            raise MatFileError(f'{self.name} has the shape {"×".join(map(str, self._shape)) or "()"}')
        size = max(math.prod(self._shape), self.end)
        if size > LARGEST:
            raise MatFileError(f'{self.name} has {size:,} bytes; at most {LARGEST:,} are read')

    def numbers(self, content: memoryview) -> np.ndarray:
        """The numbers of the matrix, from its whole content."""
        kind, stored, _ = _element(content, self._numbers_at, self._order)
        dtype = np.dtype(_STORED.get(kind, 'V1')).newbyteorder(self._order)
        if kind not in _STORED or len(stored) != math.prod(self._shape) * dtype.itemsize:
            raise MatFileError(f'it is damaged: {self.name} does not have the numbers that its shape asks for')
        return np.frombuffer(stored, dtype).reshape(self._shape, order='F')
