"""Changes of bytes that several campaigns make."""

import numpy as np

BOUNDARIES = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x3FFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    0x1000000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """One to eight changes of one kind (bits, bytes, pieces cut out or copied from elsewhere), or the end cut off."""
    data, kind = bytearray(content), random.integers(5)
    for _ in range(random.integers(1, 9)):
        at = int(random.integers(max(len(data), 1)))
        length = int(random.integers(1, 64))
        if kind == 0 and data:
            data[at] ^= 1 << int(random.integers(8))
        elif kind == 1:
            data[at : at + length] = random.bytes(length)
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            source = int(random.integers(max(len(data), 1)))
            data[at:at] = data[source : source + length]
        elif kind == 4:
            return bytes(data[:at])
    return bytes(data)


def with_other_numbers(content: bytes, random: np.random.Generator, within: int = 128) -> bytes:
    """One to three numbers of 1, 2 or 4 bytes in the head replaced by ones at which something overflows."""
    data = bytearray(content)
    for _ in range(random.integers(1, 4)):
        size = int(random.choice([1, 2, 4]))
        at = int(random.integers(max(1, min(within, len(data)) - size + 1)))
        value = BOUNDARIES[random.integers(len(BOUNDARIES))] % (1 << 8 * size)
        data[at : at + size] = value.to_bytes(size, 'big' if random.random() < 0.5 else 'little')
    return bytes(data)


def spliced(first: bytes, second: bytes, random: np.random.Generator) -> bytes:
    """The beginning of one and the end of another."""
    return first[: random.integers(len(first) + 1)] + second[random.integers(len(second) + 1) :]
