"""Masks of Label Studio's brush: run lengths in a stream of bits, a list of byte values in its JSON.

The stream: 32 bits, how many values it holds; 5 bits, the width of a value less 1; four times 4 bits, widths of
lengths less 1. Then blocks: a bit that says whether one value is repeated, two bits for which of the four widths, the
length less 1 in that width, and the value, or as many of them. Values are those of RGBA pixels, row by row; the mask
is their last channel.
"""

from typing import Any

import numpy as np

from .errors import DatasetError
from .regions import check_size

_CHANNELS = 4
_WIDTHS = (3, 4, 8, 16)  # bits of a length, of the blocks that are written
_VALUE = 8


def encode_brush(mask: np.ndarray) -> list[int]:
    """H×W mask, 0 outside, to Label Studio's brush; the inside is 255 in all four channels."""
    flat = np.asarray(mask, bool).ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    lengths = np.diff(np.append(starts, flat.size)) * _CHANNELS
    longest = 1 << _WIDTHS[-1]
    pieces = -(-lengths // longest)  # a longer run takes several blocks
    values = np.repeat(flat[starts], pieces).astype(np.int64) * 255
    sizes = np.full(pieces.sum(), longest)
    sizes[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * longest
    kinds = np.searchsorted([1 << width for width in _WIDTHS], sizes)
    header = [(flat.size * _CHANNELS, 32), (_VALUE - 1, 5), *((width - 1, 4) for width in _WIDTHS)]
    bits = [np.array([number >> place & 1 for number, width in header for place in reversed(range(width))], np.uint8)]
    bits.append(_blocks(kinds, sizes - 1, values))
    return np.packbits(np.concatenate(bits)).tolist()


def _blocks(kinds: np.ndarray, lengths: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The blocks as bits, uint8 of 0 and 1; all arrays int64, one entry a block."""
    widths = np.array(_WIDTHS)[kinds] + 3 + _VALUE
    ends = np.cumsum(widths)
    bits = np.zeros(int(ends[-1]), np.uint8)
    for kind, width in enumerate(_WIDTHS):
        chosen = kinds == kind
        word = (4 + kind) << (width + _VALUE) | lengths[chosen] << _VALUE | values[chosen]
        total = 3 + width + _VALUE
        places = np.arange(total)
        bits[(ends[chosen] - total)[:, None] + places] = word[:, None] >> (total - 1 - places) & 1
    return bits


def decode_brush(stream: Any, height: int, width: int, where: object) -> np.ndarray:
    """Decode a brush mask of Label Studio.

    Args:
        stream: the list of byte values.
        height, width: of the image.
        where: what it belongs to, for messages.

    Returns:
        H×W uint8 array of 0 and 1.

    Raises:
        DatasetError: it is no such stream, or one for another size.
    """
    check_size([height, width], where)
    try:
        data = bytes(stream)
    except (TypeError, ValueError):
        data = b''
    if not isinstance(stream, list) or not data:
        raise DatasetError(f'{where}: a brush mask is a list of numbers of 0-255')
    reader = _Bits(data)
    try:
        values = _values(reader, height * width * _CHANNELS)
    except ValueError as error:
        raise DatasetError(f'{where}: the brush mask is damaged ({error}); export the file anew') from None
    return values.reshape(height, width, _CHANNELS)[..., -1]


class _Bits:
    """Reads whole numbers from a stream of bits, the highest bit first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._end = data, 0, 8 * len(data)

    def read(self, width: int) -> int:
        start, stop = self._at, self._at + width
        if stop > self._end:
            raise ValueError('it ends too early')
        self._at = stop
        word = int.from_bytes(self._data[start >> 3 : (stop + 7) >> 3], 'big')
        return word >> (-stop % 8) & ((1 << width) - 1)

    def read_many(self, width: int, number: int) -> np.ndarray:
        """Which of so many numbers are not 0, uint8 of 0 and 1."""
        start, stop = self._at, self._at + width * number
        if stop > self._end:
            raise ValueError('it ends too early')
        self._at = stop
        part = np.frombuffer(self._data[start >> 3 : (stop + 7) >> 3], np.uint8)
        bits = np.unpackbits(part)[start % 8 : start % 8 + width * number].reshape(number, width)
        return np.asarray(bits.any(1), np.uint8)


def _values(reader: _Bits, expected: int) -> np.ndarray:
    """Which values of a stream are not 0, uint8 of 0 and 1."""
    if reader.read(32) != expected:
        raise ValueError('it is for an image of another size')
    width = reader.read(5) + 1
    widths = [reader.read(4) + 1 for _ in range(4)]
    values = np.zeros(expected, np.uint8)
    at = 0
    while at < expected:
        repeated = reader.read(1)
        end = at + 1 + reader.read(widths[reader.read(2)])
        if end > expected:
            raise ValueError('it holds more than it says')
        values[at:end] = bool(reader.read(width)) if repeated else reader.read_many(width, end - at)
        at = end
    return values
