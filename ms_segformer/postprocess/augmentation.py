"""One label map from several versions of an image: at several scales, mirrored, whole or in windows.

Every version's logits are scaled to the photograph as `segment` does it, its class probabilities are mirrored back, and
the mean of them decides. That goes band by band, so that no C×H×W tensor ever exists.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from ..preprocessors.shapes import ImageShapes
from .float32 import exact_float32
from .resampling import ColumnStretch, stretch_rows
from .segmentation import bands, exact_type, taps_to_original
from .sliding_window import Mosaic, taps_from_padded


class Version(Protocol):
    """Logits of an image.

    Attributes:
        classes: their number.
        device: where they are.
    """

    classes: int
    device: torch.device

    def band(self, rows: slice) -> torch.Tensor:
        """rows×W×C logits of some rows of the photograph, finite in their type."""


class Whole:
    """A `Version` from C×h×w logits of the image in one piece, on any device; the rest as in `segment`.

    Raises:
        LogitsError: the logits hold NaN or infinity.
    """

    def __init__(
        self,
        logits: torch.Tensor,
        shapes: ImageShapes,
        align_corners: bool = False,
        model: str | os.PathLike | None = None,
    ) -> None:
        self.classes, self.device = len(logits), logits.device
        self._pixels = logits.detach().permute(1, 2, 0).to(exact_type(logits, model))
        self._rows, cols = taps_to_original(logits, shapes, align_corners)
        self._columns = ColumnStretch(cols, self._pixels.dtype, self._pixels.device)

    def band(self, rows: slice) -> torch.Tensor:
        read, down = self._rows.part(rows)
        return self._columns(stretch_rows(self._pixels[read.start : read.stop], down))


class Windows:
    """A `Version` from a mosaic of windows, filled and with nothing forgotten."""

    def __init__(self, mosaic: Mosaic, shapes: ImageShapes) -> None:
        self.classes, self.device, self._mosaic = mosaic.classes, mosaic.device, mosaic
        self._rows, cols = taps_from_padded(shapes, mosaic.align_corners)
        self._read_columns = range(shapes.resized[1])
        self._columns = ColumnStretch(cols, mosaic.dtype, mosaic.device)

    def band(self, rows: slice) -> torch.Tensor:
        read, down = self._rows.part(rows)
        pixels = self._mosaic.average(read, self._read_columns).to(self._mosaic.dtype)
        return self._columns(stretch_rows(pixels, down))


@dataclass(frozen=True)
class Mirrored:
    """A version and how its image was mirrored.

    Attributes:
        version: the logits.
        axis: None, or the axis of H×W that was turned around.
    """

    version: Version
    axis: int | None = None

    def band(self, rows: slice, height: int) -> torch.Tensor:
        """As `Version.band`, of the image as it was before."""
        if self.axis == 0:
            return self.version.band(slice(height - rows.stop, height - rows.start)).flip(0)
        band = self.version.band(rows)
        return band if self.axis is None else band.flip(1)


def label_versions(versions: Sequence[Mirrored], size: tuple[int, int]) -> np.ndarray:
    """The best class of every pixel: that of one version's logits, or of the mean probability of several.

    Args:
        versions: of one photograph.
        size: its (height, width).

    Returns:
        H×W uint8 class ids.
    """
    first, device = versions[0].version, versions[0].version.device
    label_map = torch.empty(size, dtype=torch.uint8, device=device)
    with exact_float32(device):
        for rows in bands(*size, first.classes, device):
            total = versions[0].band(rows, size[0])
            if len(versions) > 1:
                total = total.softmax(-1)
                for version in versions[1:]:
                    total = total + version.band(rows, size[0]).softmax(-1)
            label_map[rows] = total.argmax(-1)
    return label_map.cpu().numpy()
