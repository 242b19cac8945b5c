"""`SegSourceCoco`: regions of a COCO file, polygons and run lengths."""

from collections.abc import Iterator
from typing import Any

from ..errors import DatasetError
from .annotated import OUTLINE, RUN_LENGTHS, Annotated, AnnotationSource, expect, read_json

_RENUMBER = 'number them anew, with what refers to them, so that annotations say which one they mean'


class SegSourceCoco(AnnotationSource):
    """Images, and one COCO file of instances (`label_root`). Of regions that overlap the smaller lies above.

    Args: as for `AnnotationSource`. Without `classes` they are the file's categories, in the order of their ids.
    """

    @classmethod
    def read_all(cls, path: str) -> Iterator[Annotated]:
        """One `Annotated` an image of the file, in order; see `AnnotationSource`."""
        content = _content(path)
        names = _categories(content, path)
        found: dict[Any, list[dict[str, Any]]] = {}
        for image in content['images']:
            key = expect(expect(image, dict, path, 'an image').get('id'), (int, str), path, 'id of an image')
            if key in found:
                raise DatasetError(f'{path}: two images have the id {str(key)[:80]}; {_RENUMBER}')
            found[key] = []
        for number, annotation in enumerate(content['annotations']):
            where = f'{path}, annotation {number}'
            key = expect(expect(annotation, dict, where, 'it').get('image_id'), (int, str), where, 'image_id')
            if key not in found or expect(annotation.get('category_id'), int, where, 'category_id') not in names:
                raise DatasetError(f'{where}: its image_id or category_id is not in the file')
            found[key].append(annotation)
        for image in content['images']:
            name = expect(image.get('file_name'), str, path, 'file_name of an image')
            size = [image.get('height'), image.get('width')]
            regions = sorted(found.pop(image['id']), key=lambda each: -_area(each))
            yield Annotated(name, size, [_region(each, names, path) for each in regions], path)

    @classmethod
    def class_names(cls, path: str) -> list[str]:
        """The names of the file's categories, in the order of their ids."""
        names = _categories(_content(path), path)
        return [names[number] for number in sorted(names)]


def _content(path: str) -> dict[str, Any]:
    content = expect(read_json(path), dict, path, 'a COCO file')
    for key in ('images', 'annotations', 'categories'):
        expect(content.get(key), list, path, f'"{key}" of a COCO file')
    return content


def _categories(content: dict[str, Any], path: str) -> dict[int, str]:
    names = {}
    for category in content['categories']:
        number = expect(expect(category, dict, path, 'a category').get('id'), int, path, 'id of a category')
        if number in names:
            raise DatasetError(f'{path}: two categories have the id {str(number)[:80]}; {_RENUMBER}')
        names[number] = expect(category.get('name'), str, path, 'name of a category')
    return names


def _area(annotation: dict[str, Any]) -> float:
    area = annotation.get('area')
    return float(area) if isinstance(area, (int, float)) and abs(area) < 2**53 else 0.0


def _region(annotation: dict[str, Any], names: dict[int, str], path: str) -> tuple[str, str, Any]:
    shape = annotation.get('segmentation')
    where = f'{path}, annotation {annotation.get("id")}'
    if not shape:
        raise DatasetError(f'{where} has a box and no segmentation; draw its outline, or remove it')
    kind = RUN_LENGTHS if isinstance(shape, dict) else OUTLINE
    return names[annotation['category_id']], kind, expect(shape, (dict, list), where, 'segmentation')
