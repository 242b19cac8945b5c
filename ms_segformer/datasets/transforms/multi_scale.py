"""The test pipeline: versions of an image at several scales, and mirrored."""

from ..errors import DatasetError
from ..sample import Sample
from .arguments import Scales, scales
from .compose import Compose
from .registry import Fallback, register


@register
class MMMultiScaleFlipAug:
    """Run transforms once per scale and flip.

    Args:
        transforms: configuration entries, applied to each version.
        img_scale: (long, short) or a list of them.
        scale_factor: factor or list of factors instead of `img_scale`.
        flip: also run flipped versions.
        flip_direction: direction or list of directions of the flipped versions.
        fallback: see `build`.
    """

    def __init__(
        self,
        transforms: list,
        img_scale: Scales | None = None,
        scale_factor: float | list[float] | tuple[float, ...] | None = None,
        flip: bool = False,
        flip_direction: str | list[str] = 'horizontal',
        fallback: Fallback | None = None,
    ) -> None:
        self._scales: list[Sample]
        if img_scale is not None and scale_factor is None:
            self._scales = [{'scale': scale} for scale in scales(img_scale, 'MMMultiScaleFlipAug: img_scale')]
        elif scale_factor is not None and img_scale is None:
            factors = scale_factor if isinstance(scale_factor, (list, tuple)) else [scale_factor]
            self._scales = [{'scale_factor': float(factor)} for factor in factors]
        else:
            raise DatasetError(
                f'MMMultiScaleFlipAug takes either img_scale or scale_factor; '
                f'got img_scale={img_scale}, scale_factor={scale_factor}'
            )
        self.transforms = Compose(transforms, fallback)
        directions = [flip_direction] if isinstance(flip_direction, str) else list(flip_direction)
        self._flips: list[Sample] = [{'flip': False, 'flip_direction': None}]
        self._flips += [{'flip': True, 'flip_direction': direction} for direction in directions if flip]

    def __call__(self, results: Sample) -> dict[str, list]:
        """Return a dict of lists with one entry per version, scales outermost, the unflipped one first."""
        versions = [self.transforms({**results, **scale, **flip}) for scale in self._scales for flip in self._flips]
        return {key: [version[key] for version in versions] for key in versions[0]}
