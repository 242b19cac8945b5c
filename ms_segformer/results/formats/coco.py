"""COCO: `coco.json`, one file for all images of a run."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pycocotools import mask as coco_mask

from .files import FormatFiles
from .options import FormatOptions
from .regions import RunLengths, encode_rle, polygons, without_small_parts
from .segmented import SegmentedImage, box_of

if TYPE_CHECKING:
    from .images import SegmentedImages

PATH = 'coco.json'


def write_coco(images: 'SegmentedImages', files: FormatFiles, options: FormatOptions) -> None:
    """Write the segments of all images as COCO's instances.

    With run lengths there is one annotation a class and image, marked as a crowd (`iscrowd` 1, which in COCO goes with
    run lengths); with polygons one a connected part. `category_id` is the class id plus 1; `score` is the mean
    probability of the class over its pixels.
    """
    listed: list[dict[str, Any]] = []
    number = 0
    with files.writing(PATH) as out:
        out.write('{"info": {"description": "Segmented by ms-segformer"},\n"annotations": [')
        for image in images:
            listed.append(_image(image, len(listed) + 1))
            for annotation in _annotations(image, options):
                number += 1
                out.write(',\n' if number > 1 else '\n')
                out.write(json.dumps({'id': number, 'image_id': len(listed), **annotation}))
        out.write(f'],\n"images": {json.dumps(listed)},\n"categories": {json.dumps(categories(options))}}}\n')


def coco_document(images: Iterable[SegmentedImage], options: FormatOptions) -> dict[str, Any]:
    """What `write_coco` writes of these images, in memory."""
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        listed.append(_image(image, number))
        for annotation in _annotations(image, options):
            annotations.append({'id': len(annotations) + 1, 'image_id': number, **annotation})
    return {'images': listed, 'annotations': annotations, 'categories': categories(options)}


def _image(image: SegmentedImage, number: int) -> dict[str, Any]:
    return {'id': number, 'file_name': image.name, 'width': image.width, 'height': image.height}


def categories(options: FormatOptions) -> list[dict[str, Any]]:
    """The classes as COCO lists them, ids from 1."""
    return [{'id': number + 1, 'name': name, 'supercategory': ''} for number, name in enumerate(options.classes)]


def _annotations(image: SegmentedImage, options: FormatOptions) -> list[dict[str, Any]]:
    found = []
    for segment in image.segments:
        common = {'category_id': segment['id'] + 1, 'score': segment['score']}
        if options.regions == 'rle':
            mask = segment['mask']
            if options.min_area > 1:
                mask = encode_rle(without_small_parts(image.mask(segment), options.min_area))
            if area := area_of(mask):
                found.append({**common, 'segmentation': mask, 'area': area, 'bbox': box_of(mask), 'iscrowd': 1})
            continue
        for polygon in polygons(image.mask(segment), options.simplify, options.min_area):
            low, high = polygon.outer.min(0), polygon.outer.max(0)
            found.append(
                {
                    **common,
                    'segmentation': [polygon.ring().ravel().tolist()],
                    'area': polygon.area,
                    'bbox': [*low.tolist(), *(high - low).tolist()],
                    'iscrowd': 0,
                }
            )
    return found


def area_of(mask: RunLengths) -> int:
    """The pixels of a mask."""
    return int(coco_mask.area(mask))
