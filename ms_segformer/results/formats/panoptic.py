"""COCO panoptic: `panoptic.json` and `panoptic/NAME.png`."""

import io
import json
from typing import Any

import numpy as np
from PIL import Image

from .coco import categories
from .files import FormatFiles
from .images import SegmentedImages
from .options import FormatOptions
from .segmented import SegmentedImage, box_of

PATH = 'panoptic.json'
FOLDER = 'panoptic'


def write_panoptic(images: SegmentedImages, files: FormatFiles, options: FormatOptions) -> None:
    """Write every class of an image as one segment, whose id is the class id plus 1.

    A pixel of the PNG holds its segment's id as red + 256 green + 65536 blue; 0 is no segment. All categories are
    stuff (`isthing` 0): the network does not tell one person from the next.
    """
    listed: list[dict[str, Any]] = []
    with files.writing(PATH) as out:
        out.write('{"info": {"description": "Segmented by ms-segformer"},\n"annotations": [')
        for image in images:
            picture = np.zeros((image.height, image.width, 3), np.uint8)
            picture[..., 0] = image.label_map() + 1  # 255, no class, becomes 0
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, 'PNG')
            files.attempt(f'{FOLDER}/{image.base}.png', buffer.getvalue())
            out.write(',\n' if listed else '\n')
            listed.append(
                {'id': len(listed) + 1, 'file_name': image.name, 'width': image.width, 'height': image.height}
            )
            out.write(json.dumps(_annotation(image, len(listed))))
        kinds = [
            {**category, 'isthing': 0, 'color': options.palette[number].tolist()}
            for number, category in enumerate(categories(options))
        ]
        out.write(f'],\n"images": {json.dumps(listed)},\n"categories": {json.dumps(kinds)}}}\n')


def _annotation(image: SegmentedImage, number: int) -> dict[str, Any]:
    return {
        'image_id': number,
        'file_name': f'{image.base}.png',
        'segments_info': [
            {
                'id': segment['id'] + 1,
                'category_id': segment['id'] + 1,
                'area': segment['pixels'],
                'bbox': box_of(segment['mask']),
                'iscrowd': 0,
            }
            for segment in image.segments
        ],
    }
