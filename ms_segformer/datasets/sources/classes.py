"""The classes of a data set: their names, and a color of each."""

import os
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from ...config.class_file import ClassFileError, read_class_file
from ...config.messages import shown
from .. import coco_stuff
from ..errors import DatasetError

MAX_CLASSES = 255  # ids 0-254 in a uint8 label map, 255 is "not labeled"
ClassNames: TypeAlias = str | os.PathLike | Sequence[str] | None  # a text file with one name per line, or the names
Colors: TypeAlias = Sequence[Sequence[int]] | None  # one (red, green, blue) of 0-255 per class


def read_classes(classes: ClassNames) -> list[str]:
    """Return class names as a list.

    Args:
        classes: list of names, or the path of a text file with one name per line.

    Raises:
        DatasetError: no regular text file of at most 1 MiB there, no names, a name twice, or more than 255.
    """
    if isinstance(classes, (str, os.PathLike)):
        try:
            classes = read_class_file(classes)
        except FileNotFoundError as error:
            raise DatasetError(
                f'classes names a file that does not exist ({error}); give its path, or the class names as a list'
            ) from None
        except ClassFileError as error:
            raise DatasetError(str(error)) from None
    if not isinstance(classes, (list, tuple)) or not classes:
        raise DatasetError(
            f'classes is a list of names or the path of a text file with one name per line; got {classes!r}'
        )
    names = [str(name) for name in classes]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DatasetError(f'classes holds {repeated} more than once; every class needs its own name')
    if len(names) > MAX_CLASSES:
        raise DatasetError(f'{len(names)} classes: label maps are uint8, with room for {MAX_CLASSES}; merge some')
    return names


def make_palette(palette: Colors, classes: Sequence[str]) -> list[list[int]]:
    """Return one [red, green, blue] per class.

    Args:
        palette: colors 0-255, one per class; None: COCO-Stuff's for its classes, random ones otherwise (always the
            same, those that EasyCV draws).
        classes: list of class names.
    """
    if palette is None and list(classes) == list(coco_stuff.CLASSES):
        palette = coco_stuff.PALETTE
    try:
        colors = (
            np.asarray(palette)
            if palette is not None
            else np.random.RandomState(42).randint(0, 255, size=(len(classes), 3))
        )
    except ValueError:  # lists of different lengths
        colors = np.empty(0)
    if (
        colors.shape != (len(classes), 3)
        or colors.dtype.kind not in 'iuf'
        or not ((colors >= 0) & (colors <= 255)).all()
    ):
        raise DatasetError(
            f'palette holds one (red, green, blue) of 0-255 for each of the {len(classes)} classes; '
            f'got {shown(palette)}'
        )
    return colors.astype(int).tolist()
