"""The sizes of an image on its way through the network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ImageShapes:
    """Three (height, width).

    Attributes:
        padded: of the network's input, padding included.
        resized: of its valid part, at the top left.
        original: of the photograph.
    """

    padded: tuple[int, int]
    resized: tuple[int, int]
    original: tuple[int, int]

    @classmethod
    def of(cls, image: Mapping[str, Any]) -> 'ImageShapes':
        """From EasyCV's names for them, `pad_shape`, `img_shape` and `ori_shape`; the first may be missing."""
        padded, resized, original = (
            tuple((image.get(name) or image['img_shape'])[:2]) for name in ('pad_shape', 'img_shape', 'ori_shape')
        )
        return cls(padded, resized, original)
