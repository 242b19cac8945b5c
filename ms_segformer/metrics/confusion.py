"""A confusion matrix of label maps, filled image by image, and the metrics that follow from it.

    matrix = ConfusionMatrix(num_classes=171)
    for predicted, labeled in pairs:          # H×W class ids each, any sizes
        matrix.update(predicted, labeled)
    matrix.compute()['mIoU']                   # 0.4123…

Memory is O(C²), whatever the number of images.
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypedDict, TypeGuard

import numpy as np

from ..errors import SegformerError
from ..metainfo import IGNORE_INDEX

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroup

MOST_CLASSES = 256


class MetricError(SegformerError, ValueError):
    """Predictions, labels or arguments that a metric cannot be computed from."""


ClassIds: TypeAlias = 'np.ndarray | torch.Tensor | Sequence'  # what holds class ids as whole numbers of any type


class MatrixState(TypedDict):
    """What a `ConfusionMatrix` has counted, C×(C+1) int64, and the label values that it leaves out."""

    counts: np.ndarray
    ignored: tuple[int, ...]


class MetricValues(TypedDict):
    """Metrics in [0, 1], unrounded: `aAcc` is the accuracy over all pixels, the arrays hold C float64, one a class,
    NaN for one that is neither labeled nor predicted, and the means are over the classes that have a value."""

    aAcc: float
    mIoU: float
    mAcc: float
    mDice: float
    mFscore: float
    mPrecision: float
    mRecall: float
    IoU: np.ndarray
    Acc: np.ndarray
    Dice: np.ndarray
    Fscore: np.ndarray
    Precision: np.ndarray
    Recall: np.ndarray


class ConfusionMatrix:
    """Counts of pixels by labeled and predicted class.

    Args:
        num_classes: C, at most 256.
        ignore_index: label value whose pixels do not count, or several; None: every pixel counts.

    Attributes:
        counts: C×(C+1) int64, rows labeled class, columns predicted class; the last column holds predictions that
            are no class at all (such as VOID, id 171 of the published models): wrong, but no class's false positive.
    """

    def __init__(self, num_classes: int, ignore_index: int | Iterable[int] | None = IGNORE_INDEX) -> None:
        if not 1 <= num_classes <= MOST_CLASSES:
            raise MetricError(f'num_classes is 1-{MOST_CLASSES}, got {num_classes}')
        self.num_classes = int(num_classes)
        self.ignored: tuple[int, ...] = (
            () if ignore_index is None else tuple(np.atleast_1d(np.asarray(ignore_index)).tolist())
        )
        self.counts = np.zeros((self.num_classes, self.num_classes + 1), np.int64)

    @property
    def matrix(self) -> np.ndarray:
        """C×C int64: rows labeled class, columns predicted class."""
        return self.counts[:, :-1]

    def update(self, prediction: ClassIds, label: ClassIds) -> None:
        """Count one label map or a batch of them.

        Args:
            prediction, label: arrays or tensors of equal shape and any integer type, class ids.

        Raises:
            MetricError: shapes differ, the types are not integers, or the label holds values that are neither a class
                id nor ignored.
        """
        prediction, label = _integers(prediction, 'prediction'), _integers(label, 'label')
        if prediction.shape != label.shape:
            raise MetricError(
                f'prediction has the shape {tuple(prediction.shape)} and label {tuple(label.shape)}; '
                "both are class ids at the image's own size"
            )
        joint = _joint_counts(prediction, label)
        self.counts += self._select(joint)

    def _select(self, joint: np.ndarray) -> np.ndarray:
        """Return the C×(C+1) part of 257×257 joint counts; row and column 256 hold values outside 0-255."""
        count = self.num_classes
        for value in self.ignored:
            joint[value if 0 <= value < 256 else 256] = 0
        outside = joint[count:].sum(1)
        if outside.any():
            values = [str(count + i) if count + i < 256 else 'others' for i in np.flatnonzero(outside)]
            raise MetricError(
                f'the label holds the values {", ".join(values)} ({outside.sum()} pixels), the '
                f'{count} classes are 0-{count - 1}, ignored is {list(self.ignored)}; check the data '
                'with "ms-segformer check-data"'
            )
        return np.concatenate([joint[:count, :count], joint[:count, count:].sum(1, keepdims=True)], 1)

    def compute(self) -> MetricValues:
        """Return the metrics, unrounded."""
        hit = np.diagonal(self.matrix).astype(np.float64)
        labeled = self.counts.sum(1).astype(np.float64)
        predicted = self.matrix.sum(0).astype(np.float64)
        with np.errstate(divide='ignore', invalid='ignore'):
            accuracy, precision = hit / labeled, hit / predicted
            overlap = hit / (predicted + labeled - hit)
            dice = 2 * hit / (predicted + labeled)
            fscore = 2 * precision * accuracy / (precision + accuracy)
            overall = float(hit.sum() / labeled.sum())
        return MetricValues(
            aAcc=overall,
            mIoU=mean_of_known(overlap),
            mAcc=mean_of_known(accuracy),
            mDice=mean_of_known(dice),
            mFscore=mean_of_known(fscore),
            mPrecision=mean_of_known(precision),
            mRecall=mean_of_known(accuracy),
            IoU=overlap,
            Acc=accuracy,
            Dice=dice,
            Fscore=fscore,
            Precision=precision,
            Recall=accuracy,
        )

    def reset(self) -> None:
        """Forget everything counted."""
        self.counts[:] = 0

    def merge(self, other: 'ConfusionMatrix') -> None:
        """Add the counts of another matrix of as many classes."""
        if other.num_classes != self.num_classes:
            raise MetricError(f'cannot merge a matrix of {other.num_classes} classes into one of {self.num_classes}')
        self.counts += other.counts

    def all_reduce(self, group: 'ProcessGroup | None' = None) -> None:
        """Replace the counts by their sum over all processes of `torch.distributed`; nothing without a process group.

        Every process has to call it, once, after its last update.
        """
        import torch.distributed as dist  # imported late: only processes that count together have it

        if not dist.is_available() or not dist.is_initialized() or dist.get_world_size(group) == 1:
            return
        import torch  # with it

        device = 'cuda' if dist.get_backend(group) == 'nccl' else 'cpu'
        counts = torch.from_numpy(self.counts).to(device)
        dist.all_reduce(counts, group=group)
        self.counts = counts.cpu().numpy()

    def state_dict(self) -> MatrixState:
        """Return what `load_state_dict` takes; the counts are a copy."""
        return {'counts': self.counts.copy(), 'ignored': self.ignored}

    def load_state_dict(self, state: MatrixState) -> None:
        """Continue from a `state_dict` of a matrix of as many classes."""
        counts = np.asarray(state['counts'], np.int64)
        if counts.shape != self.counts.shape:
            raise MetricError(f'the state is of {counts.shape[0]} classes, this matrix has {self.num_classes}')
        self.counts, self.ignored = counts.copy(), tuple(state['ignored'])


def mean_of_known(values: np.ndarray) -> float:
    """The mean over what is no NaN; NaN where all are."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # "Mean of empty slice": no class has a value
        return float(np.nanmean(values))


def _integers(values: ClassIds, what: str) -> 'np.ndarray | torch.Tensor':
    """Return a numpy array of integers, or a tensor on an accelerator as it is."""
    if _is_tensor(values):
        values = values.detach()
        if values.is_floating_point():
            raise MetricError(f'{what} is a tensor of {values.dtype}: pass class ids (argmax over the logits)')
        return values if values.device.type != 'cpu' else values.numpy()
    array = np.asarray(values)
    if array.dtype.kind not in 'iub':
        raise MetricError(f'{what} is an array of {array.dtype}: pass class ids as integers')
    return array


def _is_tensor(values: ClassIds) -> 'TypeGuard[torch.Tensor]':
    """Asked without torch, which whoever counts arrays need not have imported."""
    return hasattr(values, 'detach')


def _joint_counts(prediction: 'np.ndarray | torch.Tensor', label: 'np.ndarray | torch.Tensor') -> np.ndarray:
    """Return 257×257 int64 counts of (label, prediction); 256 stands for every value outside 0-255."""
    joint = np.zeros((257, 257), np.int64)
    if not (isinstance(prediction, np.ndarray) and isinstance(label, np.ndarray)):
        return _joint_counts_on_device(prediction, label, joint)
    if prediction.dtype == label.dtype == np.uint8:
        index = label.astype(np.uint16)
        index <<= 8
        index |= prediction
        joint[:256, :256] = np.bincount(index.ravel(), minlength=65536).reshape(256, 256)
        return joint
    index = _fold(label) * 257 + _fold(prediction)
    joint[:] = np.bincount(index.ravel(), minlength=257 * 257).reshape(257, 257)
    return joint


def _fold(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.int64)
    return np.where((values < 0) | (values > 255), 256, values)


def _joint_counts_on_device(
    prediction: 'np.ndarray | torch.Tensor', label: 'np.ndarray | torch.Tensor', joint: np.ndarray
) -> np.ndarray:
    import torch  # imported late: not for arrays

    device = next(value.device for value in (prediction, label) if _is_tensor(value))
    folded = []
    for each in (label, prediction):
        value = torch.as_tensor(each).to(device, torch.int64)
        folded.append(torch.where((value < 0) | (value > 255), 256, value))
    index = (folded[0] * 257 + folded[1]).flatten()
    joint[:] = torch.bincount(index, minlength=257 * 257).cpu().numpy().reshape(257, 257)
    return joint
