"""Makes files of the pipeline's results: label map, overlay, JSON."""

import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from ..files import atomic_write
from .output import Row, segments
from .palettes import Palette, palette_for
from .result import SegmentationResult
from .visualization import draw_result, encoded, label_map_image, shown_names

# What is saved of an image, and how the names of the files end.
KINDS = {'labels': '_labels.png', 'overlay': '_overlay.jpg', 'json': '.json'}
VIDEO_KINDS = {'overlay': '_overlay.mp4', 'json': '.jsonl'}  # of a video


class ResultWriter:
    """Makes and writes the files of one image after another.

    Args:
        folder: where to write; made when missing.
        classes: class names by id.
        palette: (red, green, blue) per class as the configuration has it; `palettes.palette_for` says which are drawn.
        language: of the names in pictures, `en` or `zh`.
        names: write them on large segments too.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        classes: Sequence[str],
        palette: Palette | None = None,
        language: str = 'en',
        names: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.classes = classes
        self.palette = palette_for(classes, palette)
        self.names = names
        self._language = language

    @cached_property
    def shown(self) -> list[str]:
        """The names in pictures by class id."""
        return shown_names(self.classes, self._language)

    def contents(
        self, kinds: Iterable[str], name: str | None, result: SegmentationResult
    ) -> tuple[dict[str, bytes], list[Row]]:
        """Make the files of an image.

        Args:
            kinds: which: `labels`, an 8-bit palette PNG of class ids; `overlay`, a JPEG with a legend; `json`.
            name: what the JSON calls the image.
            result: the pipeline's, with `image` (`with_image=True`) for the overlay.

        Returns:
            (content by kind, rows): the rows are the JSON's segments without their masks, largest first.
        """
        rows = segments(result, self.classes)
        make: dict[str, Callable[[str | None, SegmentationResult, list[Row]], bytes]] = {
            'labels': self._labels,
            'overlay': self._overlay,
            'json': _json,
        }
        return {kind: make[kind](name, result, rows) for kind in kinds}, rows

    def write(self, contents: dict[str, bytes]) -> None:
        """Write files, each complete or not at all.

        Args:
            contents: bytes by path, relative to the folder.

        Raises:
            OSError: one cannot be written; those before it are there.
        """
        for path, content in contents.items():
            with atomic_write(self.folder / path) as temporary:
                temporary.write_bytes(content)  # Pillow's own writing misses it when a full disk takes a part only

    def frame(self, result: SegmentationResult, rows: Sequence[Row]) -> np.ndarray:
        """The overlay of a frame of a video, without a legend: its lines would come and go with the classes.

        Args:
            result: the pipeline's, with `image`.
            rows: its segments, `output.segments`'s.

        Returns:
            H×W×3 uint8 RGB.
        """
        return draw_result(
            result['image'],
            result['seg_map'],
            rows,
            self.palette,
            max_side=None,
            legend=False,
            names=self.names,
            class_names=self.shown,
        )

    def _labels(self, name: str | None, result: SegmentationResult, rows: list[Row]) -> bytes:
        return encoded(label_map_image(result['seg_map'], self.palette), 'PNG')

    def _overlay(self, name: str | None, result: SegmentationResult, rows: list[Row]) -> bytes:
        image, seg_map = result['image'], result['seg_map']
        picture = draw_result(image, seg_map, rows, self.palette, names=self.names, class_names=self.shown)
        return encoded(Image.fromarray(picture), 'JPEG', quality=92)


def _json(name: str | None, result: SegmentationResult, rows: list[Row]) -> bytes:
    return result.to_json(name).encode()
