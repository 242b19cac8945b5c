"""Random inputs of `ms_segformer.postprocess.segmentation`, and what the plain torch form says to them.

Used by `test_segmentation.py` for a few seconds and by `campaigns/kernel_fuzz.py` for as long as one likes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from ms_segformer.postprocess.resampling import Taps
from ms_segformer.postprocess.segmentation import LogitsError, label_pixels, segment
from ms_segformer.preprocessors.shapes import ImageShapes

LARGEST = float(np.finfo(np.float32).max)
UNDERFLOW = 1e-42  # some hundred steps of float32's smallest numbers, which round to 0
KINDS = ('ordinary', 'huge finite', 'not finite', 'own weights', 'wrong maps')
SPECIAL = (1e31, -1e31, -1e30, 1e29, -1e29, 1.0001e29, LARGEST, -LARGEST, 3.4e38, 1e38, -2e30)


@dataclass
class Case:
    """One input.

    Attributes:
        kind: one of `KINDS`.
        logits: C×h×w float32 tensor in any memory layout.
        shapes: network input, valid part, photograph; None where `rows` and `cols` are given instead.
        rows, cols: for `label_pixels`.
        align_corners: for `segment`.
        threads: of torch.
        refused: whether the maps are wrong, which is a ValueError.
    """

    kind: str
    logits: torch.Tensor
    shapes: ImageShapes | None = None
    rows: Taps | None = None
    cols: Taps | None = None
    align_corners: bool = False
    threads: int = 1
    refused: bool = False
    excused: int = field(default=0, repr=False)  # pixels of the last run that near ties leave open
    pixels: int = field(default=0, repr=False)

    def __str__(self):
        size = self.shapes or f'maps of {[(m[1].shape, m[1].dtype) for m in (self.rows, self.cols)]}'
        return (
            f'{self.kind}: logits {tuple(self.logits.shape)} strides {self.logits.stride()}, {size}, '
            f'align_corners={self.align_corners}, threads={self.threads}'
        )


def make_case(seed: int, number: int, kind: str | None = None, budget: int = 1_500_000) -> Case:
    """The case of that number; the same for the same arguments.

    Args:
        seed, number: identify the case.
        kind: one of `KINDS`; None draws one.
        budget: values of the largest tensor of the plain form.
    """
    random = np.random.default_rng([seed, number])
    kind = kind or str(random.choice(KINDS))
    classes, sides = _sizes(random, budget)
    logits = _ordinary(random, classes, sides[0])
    if kind == 'huge finite':
        _scatter(random, logits, random.choice(SPECIAL, random.integers(1, 4)))
    elif kind == 'not finite':
        _scatter(random, logits, random.choice([np.nan, np.inf, -np.inf], random.integers(1, 3)))
    case = Case(
        kind,
        _laid_out(random, logits),
        align_corners=bool(random.random() < 0.3),
        threads=int(random.choice([1, 1, 2, 3])),
    )
    if kind in ('own weights', 'wrong maps'):
        case.rows, case.cols = (_own_map(random, size, final) for size, final in zip(sides[0], sides[3], strict=True))
        if kind == 'wrong maps':
            case.refused = True
            axis = 'rows' if random.random() < 0.5 else 'cols'
            setattr(case, axis, Taps(*_spoilt(random, getattr(case, axis))))
    else:
        case.shapes = ImageShapes(*sides[1:])
    return case


def judge(case: Case, use: Callable[[str], None], names: Sequence[str]) -> str:
    """Compare each kernel with the plain form.

    Args:
        case: the input.
        use: switches to the kernel of that name.
        names: the kernels to run.

    Returns:
        'equal', 'clear error' where there is no label map, or a sentence on what is wrong.
    """
    nan, infinite = bool(case.logits.isnan().any()), bool(case.logits.isinf().any())
    reference = None if nan or infinite or case.refused else _Reference(case)
    for name in names:
        use(name)
        try:
            found = _run(case)
        except ValueError as error:
            wrong = _wrong_error(case, error, nan, infinite)
        else:
            wrong = 'no error' if reference is None else reference.differs(*found)
        if wrong:
            return f'{name}: {wrong}'
    if reference is None:
        return 'clear error'
    case.excused, case.pixels = reference.excused, reference.top.numel()
    return 'equal'


def plain(
    logits: torch.Tensor, pad_shape: tuple, img_shape: tuple, ori_shape: tuple, align_corners: bool = False
) -> torch.Tensor:
    """The definition: two resizes of all classes. Returns C×H×W logits in float64."""
    x = F.interpolate(logits[None].double(), pad_shape, mode='bilinear', align_corners=align_corners)
    x = x[:, :, : img_shape[0], : img_shape[1]]
    return F.interpolate(x, ori_shape, mode='bilinear', align_corners=align_corners)[0]


def _sizes(random: np.random.Generator, budget: int) -> tuple[int, tuple]:
    """Classes, and (height, width) of logits, network input, valid part and photograph, within a number of values."""
    while True:
        classes = int(random.choice([1, 2, 15, 16, 17, 24, 25, 172, 255, 256, random.integers(1, 257)]))
        logits, pad, final = ([_side(random) for _ in range(2)] for _ in range(3))
        if classes * max(math.prod(logits), math.prod(pad), math.prod(final)) <= budget:
            valid = [int(random.integers(1, side + 1)) if random.random() < 0.5 else side for side in pad]
            return classes, (tuple(logits), tuple(pad), tuple(valid), tuple(final))


def _side(random: np.random.Generator) -> int:
    return int(random.integers(1, 301)) if random.random() < 0.3 else int(300 ** random.random())


def _ordinary(random: np.random.Generator, classes: int, size: tuple) -> torch.Tensor:
    """C×h×w without special values: noise, regions as of a trained network, constants, denormals, both zeros."""
    shape = classes, *size
    kind = random.integers(7)
    if kind == 0:
        return torch.zeros(shape) if random.random() < 0.5 else torch.full(shape, float(random.normal()))
    values = torch.from_numpy(random.standard_normal(shape).astype(np.float32))
    if kind == 1:  # regions
        coarse = torch.from_numpy(random.standard_normal((1, classes, 3, 3)).astype(np.float32))
        values = F.interpolate(coarse * 6, size, mode='bicubic')[0] + values * 0.3
        values[1::3] -= 20
    elif kind == 2:
        values = values * 1e-40
    elif kind == 3:
        values = torch.where(values > 0, 0.0, -0.0)
    elif kind == 4:
        values = values.round()  # ties
    elif kind == 5:
        values = values * float(10 ** random.uniform(-3, 28))
    return values


def _scatter(random: np.random.Generator, logits: torch.Tensor, values: np.ndarray) -> None:
    """Put special values in places: everywhere, whole classes, whole columns, single samples."""
    for value in values:
        where = random.integers(5)
        if where == 0:
            logits[:] = float(value)
        elif where == 1:
            logits[random.random(len(logits)) < random.random()] = float(value)
        elif where == 2:
            logits[..., int(random.integers(logits.shape[2]))] = float(value)
        elif where == 3:
            logits[torch.from_numpy(random.random(tuple(logits.shape)) < random.random() ** 3)] = float(value)
        index = tuple(int(random.integers(side)) for side in logits.shape)
        logits[index] = float(value)


def _laid_out(random: np.random.Generator, logits: torch.Tensor) -> torch.Tensor:
    """The same values in another memory layout; what lies between them is NaN or huge."""
    kind = random.integers(4)
    if kind == 0:
        return logits
    if kind == 1:
        return logits.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    classes, height, width = logits.shape
    if kind == 2:
        pitch = classes + int(random.integers(1, 40))
        buffer = torch.full((height, width, pitch), float(random.choice([np.nan, 1e38])))
        buffer[..., :classes] = logits.permute(1, 2, 0)
        return buffer[..., :classes].permute(2, 0, 1)
    buffer = torch.full((classes, height + 2, width + 3), float('nan'))
    buffer[:, 1:-1, 2:-1] = logits
    return buffer[:, 1:-1, 2:-1]


def _own_map(random: np.random.Generator, size: int, final: int) -> Taps:
    taps = int(random.integers(1, 1 + min(size, 90 if random.random() < 0.3 else 4)))
    first = np.sort(random.integers(0, size - taps + 1, final)).astype(np.int32)
    kind = random.integers(4)
    if kind == 0:  # one of them has it all
        weights = np.eye(taps)[random.integers(0, taps, final)]
    elif kind == 1:  # and the others next to nothing
        weights = np.full((final, taps), 1e-40)
        weights[np.arange(final), random.integers(0, taps, final)] = 1
    else:
        weights = random.random((final, taps)) ** 4 + 1e-9
        weights[:, 1:-1] *= random.random() < 0.5
    return Taps(first, (weights / weights.sum(1, keepdims=True)).astype(np.float32))


def _spoilt(random: np.random.Generator, axis: Taps) -> tuple:
    """A map with one mistake."""
    first, weights = axis[0].copy(), axis[1].copy()
    i, t = random.integers(len(first)), random.integers(weights.shape[1])
    kind = random.integers(10)
    if kind == 0:
        first[-1] = 2**31 - 1 if random.random() < 0.5 else first[-1] + 301
    elif kind == 1:
        first[0] = -1 if random.random() < 0.5 else -(2**31)
    elif kind == 2 and len(first) > 1 and first[-1] > 0:
        first = np.roll(first, 1)
        first[0], first[1] = max(1, first[0]), 0
    elif kind == 3:
        weights[i, t] = random.choice([np.nan, np.inf, 3e38])
    elif kind == 4:
        weights[i, t] += random.choice([-2, 1e-3])
    elif kind == 5:
        return first.astype(np.int64), weights
    elif kind == 6:
        return first, weights.astype(np.float64)
    elif kind == 7:
        return first[:-1], weights
    elif kind == 8:
        return first, weights[:, :0]
    else:
        return first, np.concatenate([weights, np.zeros((len(weights), 301), np.float32)], 1)
    return first, weights


def _run(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    threads = torch.get_num_threads()
    torch.set_num_threads(case.threads)
    try:
        if case.shapes is None:
            return label_pixels(case.logits.permute(1, 2, 0), case.rows, case.cols, 'models/seven')
        found = segment(case.logits, case.shapes, len(case.logits), case.align_corners, 'models/seven')
    finally:
        torch.set_num_threads(threads)
    sums, counts = np.zeros(len(case.logits)), np.zeros(len(case.logits), np.int64)
    counts[found.class_ids] = found.counts
    sums[found.class_ids] = np.multiply(found.scores, found.counts)
    for score in found.scores:
        assert 0 < score <= 1, score
    return found.seg_map, sums, counts


def _wrong_error(case: Case, error: ValueError, nan: bool, infinite: bool) -> str:
    """What is wrong with an error, or ''."""
    if not isinstance(error, LogitsError):
        return '' if case.refused else f'{type(error).__name__}: {error}'
    message = str(error)
    right = not case.refused and (nan or infinite) and 'models/seven' in message
    return '' if right and ('NaN' in message, 'infinite' in message) == (nan, infinite) else f'LogitsError: {error}'


class _Reference:
    """Labels and probabilities of the plain form, and how far float32 may be from them.

    A stretched logit is a weighted mean; rounding, and in `segment` float32 positions, move it by a small share of the
    magnitudes that it is the mean of and, for positions, of their neighbors. So far two classes may stand apart and
    still be a tie.
    """

    def __init__(self, case: Case):
        self.case, self.excused = case, 0
        magnitudes = case.logits.abs()
        if case.shapes is None:
            down, across = (
                _dense(*axis, size) for axis, size in zip((case.rows, case.cols), case.logits.shape[1:], strict=True)
            )
            self.values, error = (down @ x.double() @ across.T for x in (case.logits, magnitudes))
            self.error = error * 1e-5 + UNDERFLOW
        else:
            coarser = max(1, *(a / b for a, b in zip(case.logits.shape[1:], case.shapes.padded, strict=True)))
            sizes = case.shapes.padded, case.shapes.resized, case.shapes.original
            self.values = plain(case.logits, *sizes, case.align_corners)
            self.error = _reached(magnitudes, *sizes, case.align_corners) * (1e-4 * coarser)
            self.error += UNDERFLOW
        self.top, self.best = self.values.max(0)

    def differs(self, seg_map: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> str:
        """What is wrong with a result, or ''."""
        classes = len(self.values)
        if seg_map.shape != tuple(self.top.shape) or seg_map.dtype != np.uint8:
            return f'a label map {seg_map.dtype} {seg_map.shape}'
        if seg_map.max() >= classes:
            return f'id {seg_map.max()} of {classes}'
        if not np.array_equal(np.bincount(seg_map.ravel(), minlength=classes), counts):
            return 'counts that are not those of the label map'
        if not ((sums[counts > 0] > 0) & (sums[counts > 0] <= counts[counts > 0] * (1 + 1e-12))).all():
            return f'scores {(sums / np.maximum(counts, 1)).min()} to {(sums / np.maximum(counts, 1)).max()}'
        chosen = torch.from_numpy(seg_map).long()[None]
        lost = self.top - self.values.gather(0, chosen)[0]
        allowed = self.error.gather(0, chosen)[0] + self.error.gather(0, self.best[None])[0]
        self.excused = int((lost > 0).sum())
        if bool((lost > allowed).any()):
            return f'{int((lost > allowed).sum())} of {lost.numel()} pixels with a class that is not the best'
        return self._wrong_scores(chosen, sums, counts)

    def _wrong_scores(self, chosen: torch.Tensor, sums: np.ndarray, counts: np.ndarray) -> str:
        tolerance = 1e-5 + float(self.error.max())
        if tolerance > 0.1:
            return ''
        probability = self.values.softmax(0).gather(0, chosen)[0].numpy().ravel()
        expected = np.bincount(chosen.numpy().ravel(), probability, len(counts))
        wrong = np.abs(sums - expected) > tolerance * counts
        return f'scores off by {np.abs(sums - expected)[wrong] / counts[wrong]}' if wrong.any() else ''


def _reached(
    magnitudes: torch.Tensor, pad_shape: tuple, img_shape: tuple, ori_shape: tuple, align_corners: bool
) -> torch.Tensor:
    """The largest magnitudes that a slightly other position would read."""
    x = F.max_pool2d(magnitudes[None].double(), 3, 1, 1)
    x = F.max_pool2d(F.interpolate(x, pad_shape, mode='bilinear', align_corners=align_corners), 3, 1, 1)
    x = x[:, :, : img_shape[0], : img_shape[1]]
    return F.interpolate(x, ori_shape, mode='bilinear', align_corners=align_corners)[0]


def _dense(first: np.ndarray, weights: np.ndarray, size: int) -> torch.Tensor:
    matrix = np.zeros((len(first), size))
    np.put_along_axis(matrix, first[:, None] + np.arange(weights.shape[1]), weights.astype(np.float64), 1)
    return torch.from_numpy(matrix)
