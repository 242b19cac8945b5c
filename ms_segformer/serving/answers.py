"""The forms of an answer: JSON, label map and overlay; and the choice among them by the request's `Accept`."""

import json
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from ..results.formats.regions import SIMPLIFY, encode_rle, polygons
from ..results.result import SegmentationResult
from ..results.visualization import encoded, label_map_image
from .problems import Problem

JSON, PNG, JPEG = 'application/json', 'image/png', 'image/jpeg'
MEDIA_TYPES = (JSON, PNG, JPEG)  # the first answers where any does
JPEG_SIDE = 65_500  # pixels, the limit of libjpeg
QUALITY = 92  # of JPEG
COMPRESSION = 4  # of PNG, 0 to 9: half the time of the usual 6, files 2 % larger
MOST_CLASSES = 256  # that a request may name


class SegmentOptions(BaseModel):
    """The query of `/v1/segment`."""

    model_config = ConfigDict(extra='forbid')

    model: str | None = Field(
        None, description='Name of a model, see /v1/models; by default the first.', max_length=500
    )
    mode: Literal['whole', 'slide'] | None = Field(
        None, description="One piece or overlapping windows; by default the model's own."
    )
    full_size: bool = Field(False, description="Do not scale the image to the network's usual size first.")
    classes: list[str] | None = Field(
        None, description='Keep these classes only, by name.', max_length=MOST_CLASSES, examples=[['person', 'car']]
    )
    min_share: float = Field(0, description='Leave out classes that cover less of the image.', ge=0, le=1)
    masks: Literal['rle', 'polygons', 'none'] = Field(
        'rle', description="In JSON: each segment's mask as COCO's compressed run lengths, as polygons, or not at all."
    )
    simplify: float = Field(
        SIMPLIFY, description='How far the outline of a polygon may move, in pixels.', ge=0, le=1000
    )
    legend: bool = Field(True, description='A panel with names, shares and scores at the right of the overlay.')


class RunLengths(BaseModel):
    """A mask as COCO writes it."""

    size: list[int] = Field(description='[height, width]')
    counts: str = Field(description='compressed run lengths, column by column')


class Segment(BaseModel):
    """The pixels of one class."""

    id: int = Field(description='of the class')
    label: str
    score: float = Field(description='mean softmax probability over the pixels, 0 to 1')
    pixels: int
    share: float = Field(description='of the image, 0 to 1')
    box: list[int] = Field(description='[left, top, width, height] in pixels, around all parts')
    color: str = Field(description='in pictures, #rrggbb')
    mask: RunLengths | None = Field(None, description='with masks=rle')
    polygons: list[list[float]] | None = Field(
        None, description='with masks=polygons: x, y, x, y, … of each part, holes joined to the outline by an edge'
    )


class Segmentation(BaseModel):
    """The segments of an image, largest first."""

    model: str
    height: int = Field(description='of the upright image, in pixels')
    width: int
    segments: list[Segment]


def negotiate(accept: str | None) -> str:
    """The media type of the answer.

    Args:
        accept: the header, None where there is none.

    Raises:
        Problem: not-acceptable.
    """
    if accept is None or not accept.strip():
        return JSON
    wanted = [_range(part) for part in accept.split(',') if part.strip()]

    def quality(media_type: str) -> float:
        ours = {media_type: 2, media_type.partition('/')[0] + '/*': 1, '*/*': 0}
        fitting = [(ours[name], value) for name, value in wanted if name in ours]
        return max(fitting)[1] if fitting else 0.0  # the most precise one counts

    best = max(MEDIA_TYPES, key=quality)
    if quality(best) <= 0:
        raise Problem(
            'not-acceptable', f'Accept is {accept[:200]!r}; there are {", ".join(MEDIA_TYPES)}', accepted=MEDIA_TYPES
        )
    return best


def _range(part: str) -> tuple[str, float]:
    """A media range of `Accept` and its quality, 0 to 1."""
    name, *parameters = (piece.strip().lower() for piece in part.split(';'))
    for parameter in parameters:
        key, _, value = parameter.partition('=')
        if key.strip() == 'q':
            try:
                quality = float(value)
            except ValueError:
                return name, 0.0
            return name, quality if 0 <= quality <= 1 else 0.0
    return name, 1.0


def encode(
    result: SegmentationResult, media_type: str, model: str, options: SegmentOptions, check: Callable[[], None]
) -> bytes:
    """The body of an answer.

    Args:
        result: of the pipeline, with `image` for an overlay.
        media_type: one of `MEDIA_TYPES`.
        model: its name in the API.
        options: of the request.
        check: called now and then; what it raises ends the work.

    Raises:
        ArgumentError: the model has no such class.
        Problem: the form cannot hold an image of this size.
    """
    kept = _kept(result, options)
    if media_type == PNG:
        return encoded(label_map_image(kept['seg_map'], kept.palette), 'PNG', compress_level=COMPRESSION)
    if media_type == JPEG:
        drawn = kept.plot(legend=options.legend) if max(kept['seg_map'].shape) <= JPEG_SIDE else kept['seg_map']
        if max(drawn.shape[:2]) > JPEG_SIDE:  # before the legend or with it
            raise Problem('not-acceptable', f'a JPEG has {JPEG_SIDE:,} pixels a side at most; ask for {PNG} or {JSON}')
        return encoded(Image.fromarray(drawn), 'JPEG', quality=QUALITY)
    segments: list[dict[str, Any]] = []
    seg_map = kept['seg_map']
    by_columns = np.asfortranarray(seg_map)  # as run lengths go
    for row in kept.to_dicts():
        check()
        found: dict[str, Any] = {**row, 'color': color_of(kept.palette[row['id']])}
        if options.masks == 'rle':
            found['mask'] = encode_rle(by_columns == row['id'])
        elif options.masks == 'polygons':
            found['polygons'] = []
            for part in polygons(seg_map == row['id'], options.simplify):
                check()
                found['polygons'].append(part.ring().ravel().tolist())
        segments.append(found)
    height, width = seg_map.shape
    content = {'model': model, 'height': height, 'width': width, 'segments': segments}
    return json.dumps(content, ensure_ascii=False, separators=(',', ':')).encode()


def _kept(result: SegmentationResult, options: SegmentOptions) -> SegmentationResult:
    """The classes that were asked for."""
    if options.classes is None and options.min_share == 0:
        return result
    labels = result['labels'] if options.classes is None else options.classes
    result = result.only(*labels)
    if options.min_share == 0:
        return result
    return result.only(*(row['label'] for row in result.to_dicts() if row['share'] >= options.min_share))


def color_of(rgb: Any) -> str:
    """Three numbers of 0 to 255 as #rrggbb."""
    return '#{:02x}{:02x}{:02x}'.format(*(int(value) for value in rgb))
