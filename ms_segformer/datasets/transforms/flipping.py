"""Mirrors image and label map."""

from collections.abc import Sequence

import cv2
import numpy as np

from ..errors import DatasetError
from ..sample import Sample, change, image_keys, label_keys
from .random_streams import stream
from .registry import register


@register
class MMRandomFlip:
    """Mirror image and label map.

    Args:
        flip_ratio: probability of flipping, or one probability per direction; None: only when `flip` is already set,
            as `MMMultiScaleFlipAug` does.
        direction: horizontal, vertical or diagonal (both), or a list of these of which one is drawn.
    """

    _CODES = {'horizontal': 1, 'vertical': 0, 'diagonal': -1}

    def __init__(
        self,
        flip_ratio: float | list[float] | tuple[float, ...] | None = None,
        direction: str | Sequence[str] = 'horizontal',
    ) -> None:
        self.directions = [direction] if isinstance(direction, str) else list(direction)
        unknown = set(self.directions) - set(self._CODES)
        if unknown:
            raise DatasetError(f'MMRandomFlip: direction is one of {", ".join(self._CODES)}; got {sorted(unknown)}')
        self.probabilities = self._probabilities(flip_ratio)

    def _probabilities(self, flip_ratio: float | list[float] | tuple[float, ...] | None) -> list[float] | None:
        if flip_ratio is None:
            return None
        if isinstance(flip_ratio, (list, tuple)):
            single = list(flip_ratio)
        else:
            single = [flip_ratio / len(self.directions)] * len(self.directions)
        if len(single) != len(self.directions) or min(single) < 0 or sum(single) > 1:
            raise DatasetError(
                f'MMRandomFlip: flip_ratio is a probability, or one per direction with a sum of at most '
                f'1; got {flip_ratio!r} for the directions {self.directions}'
            )
        return [*single, 1 - sum(single)]

    def __call__(self, results: Sample) -> Sample:
        """Flip or not; set `flip` and `flip_direction`."""
        if 'flip' not in results:
            results['flip_direction'] = self._draw(stream(results))
            results['flip'] = results['flip_direction'] is not None
        if results['flip']:
            code = self._CODES[results.get('flip_direction') or self.directions[0]]
            change(results, [*image_keys(results), *label_keys(results)], lambda array: cv2.flip(array, code))
        return results

    def _draw(self, rng: np.random.RandomState) -> str | None:
        if self.probabilities is None:
            return None
        chosen = rng.choice(len(self.probabilities), p=self.probabilities)
        return self.directions[chosen] if chosen < len(self.directions) else None
