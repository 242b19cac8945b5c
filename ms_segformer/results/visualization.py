"""Pictures of segmentation results: label maps, overlays and legends."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..datasets.class_names import names_in
from ..errors import ArgumentError, one_line
from ..fonts import Font, font_of, writable
from .output import Row

SMALLEST_SHARE = 0.001  # of the image, for a line in the legend
SMALLEST_NAMED = 0.01  # of the image, for a name on a segment
LEAST_TEXT, MOST_TEXT = 10, 60  # pixels, of a name on a segment
WIDE = 0.9  # of the greatest distance from the segment's edge: places as good, of which the middle one is taken


def shown_names(classes: Sequence[str], language: str = 'en') -> list[str]:
    """Class names as pictures have them.

    Args:
        classes: class names by id.
        language: `en`, as they are, or `zh`, Chinese for those of COCO-Stuff.

    Returns:
        As many; where no font of this system shows one, the name in `classes`, or `class 7` after its id where none
        shows that either. A warning says so.

    Raises:
        ArgumentError: another language.
    """
    plain = [f'class {index}' if not name.isascii() else name for index, name in enumerate(classes)]
    return writable(names_in(language, classes), plain)


def label_map_image(seg_map: np.ndarray, palette: np.ndarray) -> Image.Image:
    """H×W uint8 class ids to a PIL image of mode P: the pixel values are the ids, `palette` (256×3) their colors."""
    seg_map = np.ascontiguousarray(seg_map, np.uint8)
    image = Image.frombytes('P', (seg_map.shape[1], seg_map.shape[0]), seg_map.tobytes())
    image.putpalette(np.asarray(palette, np.uint8).ravel().tolist())
    return image


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    """A PIL image as the content of a file.

    Args:
        image: in a mode that the format has.
        format: Pillow's name of it, such as `'PNG'`.
        options: of Pillow's writer.

    Raises:
        ArgumentError: the format cannot hold an image of this size.
    """
    buffer = io.BytesIO()
    try:
        image.save(buffer, format, **options)
    except (OSError, ValueError) as error:  # JPEG ends at 65,535 pixels a side, WebP at 16,383
        raise ArgumentError(
            f'a picture of {image.width}×{image.height} pixels cannot be written as {format} ({one_line(error)}); '
            'write PNG, or draw it smaller (max_side=…)'
        ) from None
    return buffer.getvalue()


def overlay(
    image: np.ndarray,
    seg_map: np.ndarray,
    palette: np.ndarray,
    opacity: float = 0.55,
    outline: bool = True,
    shown: Iterable[int] | None = None,
) -> np.ndarray:
    """Color an image by its class ids.

    Args:
        image: H×W×3 uint8 RGB.
        seg_map: H×W uint8 class ids.
        palette: 256×3 uint8.
        opacity: of the colors, 0 to 1.
        outline: draw a thin light line between segments.
        shown: ids that are colored, all by default; the rest of the image stays as it is.

    Returns:
        H×W×3 uint8 RGB.
    """
    colors = np.asarray(palette, np.uint8)[seg_map]
    mixed = cv2.addWeighted(np.ascontiguousarray(image), 1 - opacity, colors, opacity, 0)
    if shown is not None:
        number = np.zeros(256, np.uint16)  # 0 for all that are not shown, so that no line is drawn between them
        for position, class_id in enumerate(sorted(set(shown)), 1):
            number[class_id] = position
        seg_map = number[seg_map]
        mixed = np.where((seg_map > 0)[..., None], mixed, image)
    if outline:
        edges = np.zeros(seg_map.shape, bool)
        edges[:, 1:] |= seg_map[:, 1:] != seg_map[:, :-1]
        edges[1:] |= seg_map[1:] != seg_map[:-1]
        mixed[edges] = (mixed[edges] * 0.4 + 255 * 0.6).astype(np.uint8)
    return mixed


def draw_result(
    image: np.ndarray,
    seg_map: np.ndarray,
    rows: Sequence[Row],
    palette: np.ndarray,
    max_side: int | None = 2048,
    opacity: float = 0.55,
    outline: bool = True,
    legend: bool = True,
    shown: Iterable[int] | None = None,
    names: bool = False,
    class_names: Sequence[str] | None = None,
) -> np.ndarray:
    """The overlay with a legend at its right.

    Args:
        image: H×W×3 uint8 RGB.
        seg_map: H×W uint8 class ids.
        rows: in the legend's order; those below a thousandth of the image are only counted.
        palette: 256×3 uint8.
        max_side: a larger image is drawn this long, None: as it is; the legend's text keeps its proportion.
        opacity, outline, shown: see `overlay`.
        legend: False leaves it out.
        names: write them on the segments too, where there is room.
        class_names: by class id, the names to write, `shown_names`'s; None: the rows' labels.

    Returns:
        uint8 RGB array.
    """
    scale = max_side / max(seg_map.shape) if max_side else 1
    if scale < 1:
        size = max(1, round(seg_map.shape[1] * scale)), max(1, round(seg_map.shape[0] * scale))
        image = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)
        seg_map = cv2.resize(seg_map, size, interpolation=cv2.INTER_NEAREST)
    picture = overlay(image, seg_map, palette, opacity, outline, shown)
    written = _written(rows, class_names) if legend or names else []
    if names:
        picture = draw_names(picture, seg_map, {row['id']: text for row, text in zip(rows, written, strict=True)})
    return _beside(picture, _legend(rows, written, palette, picture.shape[0])) if legend else picture


def _beside(picture: np.ndarray, panel: np.ndarray) -> np.ndarray:
    """A panel at the right of a picture, white below the shorter of them."""
    height = max(picture.shape[0], panel.shape[0])
    canvas = np.full((height, picture.shape[1] + panel.shape[1], 3), 255, np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    canvas[: panel.shape[0], picture.shape[1] :] = panel
    return canvas


def _written(rows: Sequence[Row], class_names: Sequence[str] | None) -> list[str]:
    """The name of each row as pictures have it."""
    if class_names is not None:
        return [class_names[row['id']] for row in rows]
    return writable([row['label'] for row in rows], [f'class {row["id"]}' for row in rows])


def _legend(rows: Sequence[Row], names: Sequence[str], palette: np.ndarray, height: int) -> np.ndarray:
    """A white panel with a swatch, the name, the share and the score of each row; as high as it needs to be."""
    line = int(np.clip(height / 24, 18, 60))
    listed = [(row, name) for row, name in zip(rows, names, strict=True) if row['share'] >= SMALLEST_SHARE]
    texts = [f'{name}  {row["share"]:.1%}  ({row["score"]:.2f})' for row, name in listed]
    if len(listed) < len(rows) or not rows:
        texts.append(f'{len(rows) - len(listed)} smaller' if rows else 'no segment')
    font = font_of(line * 0.68, texts)
    width = max(font.getbbox(text)[2] for text in texts)
    panel = Image.new('RGB', (int(width + 2.5 * line), int(line * (len(texts) + 1))), 'white')
    draw = ImageDraw.Draw(panel)
    _, above, _, below = font.getbbox('Ag')
    for i, text in enumerate(texts):
        top = int((i + 0.5) * line)
        if i < len(listed):
            color = tuple(int(c) for c in palette[listed[i][0]['id']])
            draw.rectangle(
                (line // 2, top + line // 8, line // 2 + line, top + line - line // 8), fill=color, outline=(90, 90, 90)
            )
        draw.text((2 * line, round(top + line / 2 - (above + below) / 2)), text, font=font, fill=(20, 20, 20))
    return np.asarray(panel)


class _Place(NamedTuple):
    """Where a name stands: the middle of the text, in pixels of the picture, and its font."""

    x: int
    y: int
    font: Font


def draw_names(
    picture: np.ndarray, seg_map: np.ndarray, names: Mapping[int, str], least_share: float = SMALLEST_NAMED
) -> np.ndarray:
    """Write the names of classes on their large segments, white with a dark edge, readable on any color.

    Each stands wholly inside its segment, about where that is widest, in as large letters as fit up to a twentieth of
    the picture's height; a segment without room for letters of 10 pixels has none.

    Args:
        picture: H×W×3 uint8 RGB.
        seg_map: H×W uint8 class ids.
        names: by class id.
        least_share: of the picture, that a connected piece of a class has at least to be named.

    Returns:
        A copy of the picture with the names.
    """
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    largest = int(np.clip(picture.shape[0] / 20, LEAST_TEXT, MOST_TEXT))
    for index in np.unique(seg_map).tolist():
        if index not in names:
            continue
        count, pieces, measures, _ = cv2.connectedComponentsWithStats((seg_map == index).astype(np.uint8))
        for piece in range(1, count):
            left, top, width, height, area = measures[piece].tolist()
            if area < least_share * seg_map.size:
                continue
            mask = pieces[top : top + height, left : left + width] == piece
            place = _most_interior(mask, names[index], largest)
            if place is not None:
                _draw_name(draw, place._replace(x=place.x + left, y=place.y + top), names[index])
    return np.array(image)


def _most_interior(mask: np.ndarray, text: str, largest: int) -> _Place | None:
    """Where in an H×W boolean mask a text fits in the largest letters, and of those places the farthest from edges."""
    padded = np.pad(mask, 1).astype(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)
    size = float(largest)
    while size >= LEAST_TEXT:
        font = font_of(size, [text])
        left, top, right, bottom = font.getbbox(text)
        width, height = int(right - left + 2 * _edge(font) + 2) | 1, int(bottom - top + 2 * _edge(font) + 2) | 1
        if width <= mask.shape[1] and height <= mask.shape[0]:
            room = cv2.erode(padded, np.ones((height, width), np.uint8), borderValue=0)
            if room.any():
                depth = np.where(room, depth, 0)
                ys, xs = np.nonzero(depth >= WIDE * depth.max())
                near = int((np.square(ys - np.median(ys)) + np.square(xs - np.median(xs))).argmin())
                return _Place(int(xs[near]) - 1, int(ys[near]) - 1, font)
        if isinstance(font, ImageFont.ImageFont):  # of one size
            break
        size *= 0.8
    return None


def _edge(font: Font) -> int:
    """How wide the dark edge around letters is, in pixels."""
    return max(1, round(getattr(font, 'size', LEAST_TEXT) / 10))


def _draw_name(draw: ImageDraw.ImageDraw, place: _Place, text: str) -> None:
    left, top, right, bottom = place.font.getbbox(text)
    corner = round(place.x - (left + right) / 2), round(place.y - (top + bottom) / 2)
    draw.text(corner, text, 'white', place.font, stroke_width=_edge(place.font), stroke_fill=(20, 20, 20))
