"""LabelMe: `labelme/NAME.json`, one file an image."""

import json
import os
from typing import Any

from .files import FormatFiles
from .images import SegmentedImages
from .options import FormatOptions
from .regions import polygons
from .segmented import SegmentedImage

FOLDER = 'labelme'
VERSION = '5.5.0'  # of LabelMe, whose fields these are
# LabelMe fills by Pillow, which rounds down to pixels and takes in those that the outline runs through: it runs within
# the segment. So little in, a program that goes by the pixels' centers finds the same as without.
INSET = 0.02


def write_labelme(images: SegmentedImages, files: FormatFiles, options: FormatOptions) -> None:
    """Write the connected parts of all segments as polygons, the largest first, as LabelMe draws them over one another.

    A hole is joined to its outline by an edge walked both ways, since LabelMe's polygons have none.
    """
    for image in images:
        path = f'{FOLDER}/{image.base}.json'
        content: dict[str, Any] = {
            'version': VERSION,
            'flags': {},
            'shapes': _shapes(image, options),
            'imagePath': _image_path(image, os.path.dirname(os.path.abspath(files.folder / path))),
            'imageData': None,
            'imageHeight': image.height,
            'imageWidth': image.width,
        }
        files.attempt(path, (json.dumps(content) + '\n').encode())


def _shapes(image: SegmentedImage, options: FormatOptions) -> list[dict[str, Any]]:
    found = [
        (polygon.area, segment['label'], polygon.ring().tolist())
        for segment in image.segments
        for polygon in polygons(image.mask(segment), options.simplify, options.min_area, INSET)
    ]
    return [
        {
            'label': label,
            'points': points,
            'group_id': None,
            'description': '',
            'shape_type': 'polygon',
            'flags': {},
            'mask': None,
        }
        for _, label, points in sorted(found, key=lambda part: -part[0])
    ]


def _image_path(image: SegmentedImage, folder: str) -> str:
    """The image's path from the folder of its file, by which LabelMe finds it; of a URL its last part."""
    if not os.path.isabs(image.location):
        return image.base.rpartition('/')[2]
    try:
        return os.path.relpath(image.location, folder).replace(os.sep, '/')
    except ValueError:  # on another drive
        return image.location
