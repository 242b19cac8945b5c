"""The demonstration model's classes, in the order of its outputs, and how the training data's labels become them.

The names are COCO-Stuff's. CamVid's signs are left out: they are traffic signs of every kind, for which COCO-Stuff has
no word, and too few pixels to be learned.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CLASSES = (
    'sky-other',
    'building-other',
    'structural-other',
    'road',
    'pavement',
    'tree',
    'fence',
    'car',
    'person',
    'bicycle',
)
IGNORE = 255
# The class of each id of the usual 11-class CamVid; None is ignored (signs, and what is not labeled).
CAMVID: tuple[str | None, ...] = (*CLASSES[:6], None, *CLASSES[6:], None)


def lookup_table(names: Sequence[str | None]) -> NDArray[np.uint8]:
    """256 entries: the output for each id of a data set whose classes are `names`, `IGNORE` where there is none."""
    table = np.full(256, IGNORE, np.uint8)
    for old_id, name in enumerate(names):
        if name in CLASSES:
            table[old_id] = CLASSES.index(name)
    return table
