"""Label Studio: `labelstudio.json`, tasks with predictions, and the labeling interface for them."""

import json
import urllib.parse
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from ...datasets.brush import encode_brush
from .files import FormatFiles
from .images import SegmentedImages
from .options import FormatOptions
from .regions import polygons, without_small_parts
from .segmented import SegmentedImage

PATH = 'labelstudio.json'
CONFIG = 'labelstudio_config.xml'
_TAGS = {'rle': 'BrushLabels', 'polygons': 'PolygonLabels'}


def write_labelstudio(images: SegmentedImages, files: FormatFiles, options: FormatOptions) -> None:
    """Write a task with one prediction an image: brush masks, one a class, or polygons, one a connected part.

    An image is `image_prefix` and its name, as Label Studio's storage of local files finds it; a URL stays as it is.
    """
    with files.writing(PATH) as out:
        begun = False
        for image in images:
            task = {
                'data': {'image': _location(image, options.image_prefix)},
                'predictions': [{'model_version': 'ms-segformer', 'result': _regions(image, options)}],
            }
            out.write(',\n' if begun else '[\n')
            out.write(json.dumps(task))
            begun = True
        out.write('\n]\n' if begun else '[]\n')
    files.attempt(CONFIG, _config(options).encode())


def _location(image: SegmentedImage, prefix: str) -> str:
    return image.name if '://' in image.name else prefix + urllib.parse.quote(image.name, errors='surrogateescape')


def _regions(image: SegmentedImage, options: FormatOptions) -> list[dict[str, Any]]:
    found = []
    size = np.array([image.width, image.height])
    for segment in image.segments:
        mask = image.mask(segment) > 0
        if options.regions == 'rle':
            mask = without_small_parts(mask, options.min_area)
            if mask.any():
                value: dict[str, Any] = {'format': 'rle', 'rle': encode_brush(mask), 'brushlabels': [segment['label']]}
                found.append(_region(image, segment['score'], 'brushlabels', value))
            continue
        for polygon in polygons(mask, options.simplify, options.min_area):
            points = np.round(100 * polygon.ring() / size, 6).tolist()
            value = {'points': points, 'closed': True, 'polygonlabels': [segment['label']]}
            found.append(_region(image, segment['score'], 'polygonlabels', value))
    return [{'id': f'segment{number}', **region} for number, region in enumerate(found, 1)]


def _region(image: SegmentedImage, score: float, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    return {
        'type': kind,
        'from_name': 'label',
        'to_name': 'image',
        'original_width': image.width,
        'original_height': image.height,
        'image_rotation': 0,
        'score': score,
        'value': value,
    }


def _config(options: FormatOptions) -> str:
    tag = _TAGS[options.regions]
    labels = [
        f'    <Label value={quoteattr(name)} background="#{bytes(color.tolist()).hex()}"/>'
        for name, color in zip(options.classes, options.palette, strict=False)
    ]
    return '\n'.join(
        [
            '<View>',
            '  <Image name="image" value="$image" zoom="true"/>',
            f'  <{tag} name="label" toName="image">',
            *labels,
            f'  </{tag}>',
            '</View>',
            '',
        ]
    )
