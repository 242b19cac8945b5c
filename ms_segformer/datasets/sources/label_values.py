"""The values in label maps, and which of them are class ids."""

import cv2
import numpy as np

from ...metainfo import IGNORE_INDEX

_REDUCE = np.concatenate([[255], np.arange(254), [255]]).astype(np.uint8)


def reduce_zero_label(label: np.ndarray) -> np.ndarray:
    """Return a uint8 label map with 0 turned into 255 and 1-254 moved down by one; 255 stays."""
    return cv2.LUT(label, _REDUCE)


def label_table(reduce: bool, ignore_index: int | None) -> np.ndarray | None:
    """Return 256 uint8 that turn stored values into class ids, None when they are the same."""
    identity = np.arange(256, dtype=np.uint8)
    table = _REDUCE.copy() if reduce else identity.copy()
    if ignore_index is not None:
        table[table == ignore_index] = IGNORE_INDEX
    return None if np.array_equal(table, identity) else table


def bad_values(label: np.ndarray, num_classes: int) -> dict[int, int]:
    """Return {value: pixels} of the values of a uint8 label map that are neither a class id nor 255."""
    if label.max(initial=0) < num_classes:
        return {}
    counts = np.bincount(label.ravel(), minlength=256)
    return {value: int(counts[value]) for value in range(num_classes, IGNORE_INDEX) if counts[value]}
