"""`SegSourceLabelMe`: regions of LabelMe's files, one an image."""

import base64
import binascii
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import DatasetError
from ..label_file import decode_label
from ..regions import ring_of
from .annotated import OUTLINE, Annotated, AnnotationSource, expect, read_json
from .pairing import walk

MASK = 'mask'
_CIRCLE = 64  # corners that stand for a circle


class SegSourceLabelMe(AnnotationSource):
    """Images, and a folder of LabelMe's JSON files (`label_root`); shapes lie over one another as LabelMe draws them.

    Polygons, rectangles, circles and masks are read; points and lines, which have no area, are refused.

    Args: as for `AnnotationSource`. Without `classes` they are the labels that occur, in alphabetical order.
    """

    @classmethod
    def read_all(cls, path: str) -> Iterator[Annotated]:
        """One `Annotated` a file below the folder, by name; JSON files of other programs are refused."""
        for name in walk(path):
            if not name.lower().endswith('.json') or os.path.basename(name).startswith('_'):
                continue
            file = os.path.join(path, name)
            content = expect(read_json(file), dict, file, 'a LabelMe file')
            shapes = expect(content.get('shapes'), list, file, '"shapes" of a LabelMe file')
            image = expect(content.get('imagePath'), str, file, 'imagePath').replace('\\', '/')
            folder = os.path.dirname(name).replace(os.sep, '/')
            within = os.path.join(folder, os.path.basename(image))  # images lie in sub-folders as their files do
            size = [content.get('imageHeight'), content.get('imageWidth')]
            yield Annotated(within, size, [_region(shape, file) for shape in shapes], file)

    def paint(self, label: np.ndarray, number: int, kind: str, content: Any, where: str) -> None:
        """Like `AnnotationSource.paint`, and masks: (left, top, PNG in base64)."""
        if kind != MASK:
            super().paint(label, number, kind, content, where)
            return
        left, top, encoded = content
        try:
            data = np.frombuffer(base64.b64decode(encoded, validate=True), np.uint8)
        except (binascii.Error, ValueError):
            data = np.zeros(0, np.uint8)
        if not data.size:
            raise DatasetError(f'{where}: the mask of a shape is not base64; save the file again in LabelMe')
        mask = decode_label(data, where)
        height, width = mask.shape
        if left < 0 or top < 0 or top + height > label.shape[0] or left + width > label.shape[1]:
            raise DatasetError(f'{where}: the mask of a shape reaches outside of the image')
        label[top : top + height, left : left + width][mask > 0] = number


def _region(shape: Any, file: str) -> tuple[str, str, Any]:
    name = expect(expect(shape, dict, file, 'a shape').get('label'), str, file, 'label of a shape')
    kind, where = shape.get('shape_type') or 'polygon', f'{file}, shape "{name[:80]}"'
    points = ring_of(shape.get('points'), where)
    if kind == 'polygon':
        return name, OUTLINE, [points.tolist()]
    if len(points) != 2 or not np.isfinite(points).all() or np.abs(points).max() > 2**30:
        raise DatasetError(f'{where}: a {str(kind)[:40]} with no area, or not of two points; redraw or remove it')
    (x, y), (u, v) = points.tolist()
    if kind == 'rectangle':
        return name, OUTLINE, [[(x, y), (u, y), (u, v), (x, v)]]
    if kind == 'circle':
        radius, turns = math.hypot(u - x, v - y), np.arange(_CIRCLE) * 2 * np.pi / _CIRCLE
        return name, OUTLINE, [np.stack([x + radius * np.cos(turns), y + radius * np.sin(turns)], 1).tolist()]
    if kind == MASK:
        return name, MASK, (int(x), int(y), expect(shape.get('mask'), str, where, 'mask'))
    raise DatasetError(f'{where} is a {str(kind)[:40]}, which has no area; redraw it as a polygon, or remove it')
