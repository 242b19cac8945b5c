"""`SegSourceLabelStudio`: regions of an export of Label Studio."""

import os
import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..brush import decode_brush
from ..errors import DatasetError
from ..regions import check_size, ring_of
from .annotated import OUTLINE, Annotated, AnnotationSource, expect, read_json

BRUSH = 'brush'
_UPLOADED = re.compile(r'^[0-9a-f]{8}-(?=.)')  # before the name of an image that was uploaded


class SegSourceLabelStudio(AnnotationSource):
    """Images, and an export of Label Studio as JSON (`label_root`): brush masks, polygons and rectangles.

    Of each task the last annotation that was not cancelled counts; tasks without one are left out, and so are
    predictions, which nobody has looked at. Later regions lie over earlier ones.

    Args: as for `AnnotationSource`. Without `classes` they are the labels that occur, in alphabetical order.
    """

    @classmethod
    def read_all(cls, path: str) -> Iterator[Annotated]:
        """One `Annotated` a task with an annotation, in order."""
        tasks = expect(read_json(path), list, path, 'an export of Label Studio: a list of tasks')
        labeled = 0
        for number, task in enumerate(tasks):
            where = f'{path}, task {number}'
            results = _results(expect(task, dict, where, 'it'), where)
            if not results:
                continue
            labeled += 1
            sizes = {check_size([each.get('original_height'), each.get('original_width')], where) for each in results}
            if len(sizes) > 1 or any(each.get('image_rotation') for each in results):
                raise DatasetError(f'{where}: an image of two sizes, or a rotated one; label it upright')
            size = list(sizes.pop())
            regions = [_region(each, size, where) for each in results]
            yield Annotated(_image(task, where), size, regions, path)
        if not labeled:
            raise DatasetError(
                f'{path}: none of the {len(tasks)} tasks has an annotation; predictions count once somebody has '
                'submitted them in Label Studio'
            )

    def paint(self, label: np.ndarray, number: int, kind: str, content: Any, where: str) -> None:
        """Like `AnnotationSource.paint`, and brush masks."""
        if kind == BRUSH:
            label[decode_brush(content, label.shape[0], label.shape[1], where) > 0] = number
        else:
            super().paint(label, number, kind, content, where)


def _results(task: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """The regions of the annotation of a task that counts, those without a place (choices, texts) left out."""
    if 'annotations' not in task and 'data' not in task:
        raise DatasetError(f'{where} has no "annotations"; export as JSON, not as JSON-MIN or another format')
    annotations = [
        each
        for each in expect(task.get('annotations', []), list, where, '"annotations"')
        if not expect(each, dict, where, 'an annotation').get('was_cancelled')
    ]
    if not annotations:
        return []
    results = expect(annotations[-1].get('result'), list, where, '"result" of an annotation')
    return [each for each in results if 'original_width' in expect(each, dict, where, 'a region')]


def _region(result: dict[str, Any], size: list[int], where: str) -> tuple[str, str, Any]:
    kind, value = str(result.get('type'))[:40], expect(result.get('value'), dict, where, 'value of a region')
    labels = value.get(kind)
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
        raise DatasetError(f'{where}: a region of the type {kind} without a label, or with several; give it one')
    if kind == 'brushlabels':
        return labels[0], BRUSH, expect(value.get('rle'), list, where, 'rle of a brush')
    if kind == 'polygonlabels':
        points = ring_of(value.get('points'), where)
    elif kind == 'rectanglelabels' and not value.get('rotation'):
        x, y, width, height = (
            float(expect(value.get(key), (int, float), where, key)) for key in ('x', 'y', 'width', 'height')
        )
        points = np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)])
    else:
        raise DatasetError(f'{where}: a region of the type {kind}, or a rotated one; draw it as a brush or a polygon')
    return labels[0], OUTLINE, [(points / 100 * [size[1], size[0]]).tolist()]


def _image(task: dict[str, Any], where: str) -> str:
    """The image's path as far as Label Studio's address of it tells: of local files, of uploads, or of a URL."""
    data = expect(task.get('data'), dict, where, '"data"')
    location = next((value for key, value in data.items() if isinstance(value, str) and key in ('image', 'img')), None)
    location = location or next((value for value in data.values() if isinstance(value, str)), None)
    text = expect(location, str, where, 'the image')
    try:
        parts = urllib.parse.urlsplit(text)
    except ValueError:
        raise DatasetError(f'{where}: its image is no path or URL; got {text[:80]}') from None
    local = urllib.parse.parse_qs(parts.query, errors='surrogateescape').get('d')  # a name may be no text
    path = local[0] if local else urllib.parse.unquote(parts.path, errors='surrogateescape')
    folder, name = os.path.split(path)
    return _UPLOADED.sub('', name) if '/upload/' in f'{folder}/' else path
