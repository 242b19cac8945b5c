"""Pictures of segmentation results: label maps, overlays and legends."""

import io
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import cv2
import numpy as np
from PIL import Image, ImageDraw

from ..datasets.coco_stuff import CLASSES, DISTINCT_PALETTE, distinct_palette
from ..errors import ArgumentError, one_line
from ..metrics.report import font_of
from .output import Row

Palette: TypeAlias = Sequence[Sequence[int]] | np.ndarray  # (red, green, blue) a class, each 0–255

VOID_COLOR = (0, 0, 0)
SMALLEST_SHARE = 0.001  # of the image, for a line in the legend


def palette_for(num_classes: int, palette: Palette | None = None) -> np.ndarray:
    """256×3 uint8 colors by class id; ids without a class are black.

    The given palette is used, with repeated colors told apart; without one, COCO-Stuff's for its 171 classes and
    evenly spread hues for any other number.
    """
    if palette is not None:
        colors = distinct_palette(palette)
    elif num_classes == len(CLASSES):
        colors = DISTINCT_PALETTE
    else:
        hues = (np.arange(num_classes) * 137.508 % 180).astype(np.uint8)  # the golden angle keeps neighbours apart
        lightness = np.array([200, 150, 230], np.uint8)[np.arange(num_classes) % 3]
        hsv = np.stack([hues, np.full_like(hues, 190), lightness], -1)[None]
        colors = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0] if num_classes else ()
    table = np.zeros((256, 3), np.uint8)
    table[:] = VOID_COLOR
    if len(colors):
        table[: len(colors)] = np.asarray(colors, np.uint8)[:256]
    return table


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

    Returns:
        uint8 RGB array.
    """
    scale = max_side / max(seg_map.shape) if max_side else 1
    if scale < 1:
        size = max(1, round(seg_map.shape[1] * scale)), max(1, round(seg_map.shape[0] * scale))
        image = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)
        seg_map = cv2.resize(seg_map, size, interpolation=cv2.INTER_NEAREST)
    picture = overlay(image, seg_map, palette, opacity, outline, shown)
    return _beside(picture, _legend(rows, palette, picture.shape[0])) if legend else picture


def _beside(picture: np.ndarray, panel: np.ndarray) -> np.ndarray:
    """A panel at the right of a picture, white below the shorter of them."""
    height = max(picture.shape[0], panel.shape[0])
    canvas = np.full((height, picture.shape[1] + panel.shape[1], 3), 255, np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    canvas[: panel.shape[0], picture.shape[1] :] = panel
    return canvas


def _legend(rows: Sequence[Row], palette: np.ndarray, height: int) -> np.ndarray:
    """A white panel with a swatch, the name, the share and the score of each row; as high as it needs to be."""
    line = int(np.clip(height / 24, 18, 60))
    font = font_of(line * 0.68)
    shown = [row for row in rows if row['share'] >= SMALLEST_SHARE]
    texts = [f'{row["label"]}  {row["share"]:.1%}  ({row["score"]:.2f})' for row in shown]
    if len(shown) < len(rows) or not rows:
        texts.append(f'{len(rows) - len(shown)} smaller' if rows else 'no segment')
    width = max(font.getbbox(text)[2] for text in texts)
    panel = Image.new('RGB', (int(width + 2.5 * line), int(line * (len(texts) + 1))), 'white')
    draw = ImageDraw.Draw(panel)
    for i, text in enumerate(texts):
        top = int((i + 0.5) * line)
        if i < len(shown):
            color = tuple(int(c) for c in palette[shown[i]['id']])
            draw.rectangle(
                (line // 2, top + line // 8, line // 2 + line, top + line - line // 8), fill=color, outline=(90, 90, 90)
            )
        draw.text((2 * line, top + line // 8), text, font=font, fill=(20, 20, 20))
    return np.asarray(panel)
