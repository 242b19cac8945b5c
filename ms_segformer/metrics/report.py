"""Confusion matrices for people: a table of text and a picture."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..files import atomic_write
from ..fonts import Font, font_of, writable
from .confusion import ConfusionMatrix

CELL_PIXELS = 1400  # the picture's matrix is about this wide, whatever the number of classes


def per_class_table(matrix: ConfusionMatrix, classes: Sequence[str], present_only: bool = True) -> str:
    """Return IoU and accuracy per class as lines of text, the means at the end.

    Args:
        matrix: `ConfusionMatrix`.
        classes: class names by id.
        present_only: leave out classes that are neither labeled nor predicted.
    """
    values = matrix.compute()
    labeled, predicted = matrix.counts.sum(1), matrix.matrix.sum(0)
    width = max([len('all classes'), *map(len, classes)])
    lines = [f'{"class":<{width}}  {"IoU %":>6}  {"Acc %":>6}  {"labeled px":>13}  {"predicted px":>13}']
    for index, name in enumerate(classes):
        if present_only and not labeled[index] and not predicted[index]:
            continue
        lines.append(
            f'{name:<{width}}  {_percent(values["IoU"][index])}  {_percent(values["Acc"][index])}  '
            f'{labeled[index]:>13,}  {predicted[index]:>13,}'
        )
    lines.append('-' * len(lines[0]))
    lines.append(
        f'{"all classes":<{width}}  {_percent(values["mIoU"])}  {_percent(values["mAcc"])}  '
        f'{labeled.sum():>13,}  {predicted.sum():>13,}'
    )
    lines.append(f'{"all pixels":<{width}}  {"":>6}  {_percent(values["aAcc"])}')
    return '\n'.join(lines)


def _percent(value: float) -> str:
    return f'{"-":>6}' if np.isnan(value) else f'{100 * value:6.2f}'


def draw_confusion(
    matrix: ConfusionMatrix, classes: Sequence[str], path: str | os.PathLike | None = None, present_only: bool = True
) -> np.ndarray:
    """Draw a confusion matrix: rows are labeled classes, columns predicted ones, darkness the share of the row.

    Args:
        matrix: `ConfusionMatrix`.
        classes: class names by id.
        path: where to write a PNG; None: nowhere.
        present_only: leave out classes that are neither labeled nor predicted.

    Returns:
        H×W×3 uint8 RGB array.
    """
    counts = matrix.counts
    keep = np.arange(len(classes))
    if present_only:
        keep = np.flatnonzero((counts.sum(1) + counts[:, :-1].sum(0)) > 0)
    columns = np.append(keep, len(classes)) if counts[:, -1].any() else keep
    shares = counts[np.ix_(keep, columns)] / np.maximum(counts[keep].sum(1, keepdims=True), 1)
    names = [*writable(classes, [f'class {index}' for index in range(len(classes))]), 'no class']
    cell = int(np.clip(CELL_PIXELS // max(len(columns), 1), 7, 40))
    font = font_of(min(cell, 14), names)
    margin = int(max([font.getlength(names[index]) for index in columns], default=0)) + 12
    title = f'rows: labeled, columns: predicted, dark: share of the row    {_summary(matrix)}'
    width = max(margin + cell * len(columns), int(font_of(14).getlength(title))) + 12
    image = Image.new('RGB', (width, 28 + margin + cell * len(keep) + 12), 'white')
    draw = ImageDraw.Draw(image)
    draw.text((6, 6), title, 'black', font_of(14))
    _draw_cells(image, draw, shares, (margin, 28 + margin), cell, font_of(min(cell // 3, 12)))
    for row, index in enumerate(keep):
        _write(draw, (margin - 6, 28 + margin + row * cell + cell / 2), names[index], 'black', font, align=1)
    for column, index in enumerate(columns):
        _draw_vertical(image, names[index], (margin + column * cell + cell // 2, 28 + margin - 6), font)
    if path is not None:
        with atomic_write(path) as temporary:
            image.save(temporary, 'PNG')
    return np.asarray(image)


def _summary(matrix: ConfusionMatrix) -> str:
    values = matrix.compute()
    return f'mIoU {_percent(values["mIoU"]).strip()} %, aAcc {_percent(values["aAcc"]).strip()} %'


def _write(
    draw: ImageDraw.ImageDraw, position: tuple[float, float], text: str, color: str | int, font: Font, align: float
) -> None:
    """Write `text` with its line centered on `position`, which is its left end (0), middle (0.5) or right end (1)."""
    left, _, right, _ = font.getbbox(text)
    _, top, _, bottom = font.getbbox('Ag')
    x, y = position[0] - left - align * (right - left), position[1] - (top + bottom) / 2
    draw.text((round(x), round(y)), text, color, font)  # between pixels, Pillow cuts an edge off the letters


def _draw_cells(
    image: Image.Image, draw: ImageDraw.ImageDraw, shares: np.ndarray, origin: tuple[int, int], cell: int, font: Font
) -> None:
    """Paint the matrix, with the percentage in each cell where there is room."""
    white, dark = np.array([255, 255, 255]), np.array([8, 48, 107])
    colors = white + np.sqrt(shares)[..., None] * (dark - white)  # the root shows small confusions too
    block = np.kron(colors.round().astype(np.uint8), np.ones((cell, cell, 1), np.uint8))
    if block.size:
        block[::cell] = block[:, ::cell] = 225
        image.paste(Image.fromarray(block), origin)
    if cell < 24:
        return
    for row, column in np.argwhere(shares >= 0.005):
        share = shares[row, column]
        _write(
            draw,
            (origin[0] + column * cell + cell / 2, origin[1] + row * cell + cell / 2),
            f'{100 * share:.0f}',
            'white' if share > 0.25 else 'black',
            font,
            align=0.5,
        )


def _draw_vertical(image: Image.Image, text: str, bottom_center: tuple[int, int], font: Font) -> None:
    length = int(font.getlength(text)) + 6
    strip = Image.new('L', (length, 20), 0)
    _write(ImageDraw.Draw(strip), (3, 10), text, 255, font, align=0)
    strip = strip.rotate(90, expand=True)
    image.paste('black', (bottom_center[0] - 10, bottom_center[1] - length), strip)
