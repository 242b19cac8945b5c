"""A label map in a few lines of text that two machines can compare, rounding granted."""

import hashlib
from typing import Any

import numpy as np

ROWS, COLUMNS = 24, 32  # cells that a photograph is divided into


def describe(seg_map: np.ndarray, classes: list[str]) -> dict[str, Any]:
    """What a label map looks like.

    Args:
        seg_map: H×W uint8 class ids.
        classes: names by id.

    Returns:
        `size` [H, W]; `sha256` of the bytes of the map, row by row; `cells`, `ROWS` texts with two hexadecimal digits
        for each of `COLUMNS` cells: the class id in its middle; `shares`, name to share of the pixels, largest first.
    """
    rows, columns = (_middles(length, parts) for length, parts in zip(seg_map.shape, (ROWS, COLUMNS), strict=True))
    counts = np.bincount(seg_map.ravel(), minlength=256)
    present = sorted(np.flatnonzero(counts).tolist(), key=lambda i: -counts[i])
    return {
        'size': list(seg_map.shape),
        'sha256': hashlib.sha256(np.ascontiguousarray(seg_map, np.uint8).tobytes()).hexdigest(),
        'cells': [bytes(row.tolist()).hex() for row in seg_map[np.ix_(rows, columns)]],
        'shares': {
            (classes[i] if i < len(classes) else f'{i}'): round(float(counts[i] / seg_map.size), 5) for i in present
        },
    }


def _middles(length: int, parts: int) -> np.ndarray:
    return ((np.arange(parts) + 0.5) * length / parts).astype(int)


def same_cells(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Share of the cells of two descriptions that hold the same class; 0 when the photographs differ in size."""
    if one['size'] != other['size']:
        return 0.0
    first, second = (np.frombuffer(bytes.fromhex(''.join(each['cells'])), np.uint8) for each in (one, other))
    return float((first == second).mean()) if first.shape == second.shape else 0.0


def is_description(value: Any) -> bool:
    """Whether a value read from a file has the form of what `describe` returns, as far as it is compared."""
    try:
        size, cells = value['size'], value['cells']
        return (
            isinstance(value['sha256'], str)
            and len(size) == 2
            and all(isinstance(side, int) for side in size)
            and len(cells) == ROWS
            and all(len(bytes.fromhex(row)) == COLUMNS for row in cells)
        )
    except (KeyError, TypeError, ValueError):
        return False
