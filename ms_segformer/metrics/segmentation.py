"""Semantic segmentation metrics from a confusion matrix that is filled image by image.

    matrix = ConfusionMatrix(num_classes=171)
    for predicted, labelled in pairs:          # H×W class ids each, any sizes
        matrix.update(predicted, labelled)
    matrix.compute()['mIoU']                   # 0.4123…

Memory is O(C²), whatever the number of images. `SegmentationEvaluator` turns a matrix into the numbers and key names
that the published configurations' evaluator reports, rounded as it rounds.
"""
import warnings
from collections import OrderedDict

import numpy as np
from modelscope.metrics.base import Metric
from modelscope.metrics.builder import METRICS

from ms_segformer import metainfo
from ms_segformer.metainfo import IGNORE_INDEX

from ..errors import SegformerError

METRIC_NAMES = ('mIoU', 'mDice', 'mFscore')
_MAX_CLASSES = 256


class MetricError(SegformerError, ValueError):
    """Predictions, labels or arguments that a metric cannot be computed from."""


class ConfusionMatrix:
    """Counts of pixels by labelled and predicted class.

    Args:
        num_classes: C, at most 256.
        ignore_index: label value whose pixels do not count, or several; None: every pixel counts.

    Attributes:
        counts: C×(C+1) int64, rows labelled class, columns predicted class; the last column holds predictions that
            are no class at all (such as VOID, id 171 of the published models): wrong, but no class's false positive.
    """

    def __init__(self, num_classes, ignore_index=IGNORE_INDEX):
        if not 1 <= num_classes <= _MAX_CLASSES:
            raise MetricError(f'num_classes is 1-{_MAX_CLASSES}, got {num_classes}')
        self.num_classes = int(num_classes)
        self.ignored = () if ignore_index is None else tuple(np.atleast_1d(ignore_index).tolist())
        self.counts = np.zeros((self.num_classes, self.num_classes + 1), np.int64)

    @property
    def matrix(self):
        """C×C int64: rows labelled class, columns predicted class."""
        return self.counts[:, :-1]

    def update(self, prediction, label):
        """Count one label map or a batch of them.

        Args:
            prediction, label: arrays or tensors of equal shape and any integer type, class ids.

        Raises:
            MetricError: shapes differ, the types are not integers, or the label holds values that are neither a class
                id nor ignored.
        """
        prediction, label = _integers(prediction, 'prediction'), _integers(label, 'label')
        if prediction.shape != label.shape:
            raise MetricError(f'prediction has the shape {tuple(prediction.shape)} and label {tuple(label.shape)}; '
                              'both are class ids at the image\'s own size')
        joint = _joint_counts(prediction, label)
        self.counts += self._select(joint)

    def _select(self, joint):
        """Return the C×(C+1) part of 257×257 joint counts; row and column 256 hold values outside 0-255."""
        count = self.num_classes
        for value in self.ignored:
            joint[value if 0 <= value < 256 else 256] = 0
        outside = joint[count:].sum(1)
        if outside.any():
            values = [str(count + i) if count + i < 256 else 'others' for i in np.flatnonzero(outside)]
            raise MetricError(f'the label holds the values {", ".join(values)} ({outside.sum()} pixels), the '
                              f'{count} classes are 0-{count - 1}, ignored is {list(self.ignored)}; check the data '
                              'with "ms-segformer check-data"')
        return np.concatenate([joint[:count, :count], joint[:count, count:].sum(1, keepdims=True)], 1)

    def compute(self):
        """Return the metrics, unrounded.

        Returns:
            Dict of floats in [0, 1] `aAcc` (accuracy over all pixels), `mIoU`, `mAcc`, `mDice`, `mFscore`,
            `mPrecision`, `mRecall` (means over the classes that have a value), and of arrays of C float64 `IoU`, `Acc`,
            `Dice`, `Fscore`, `Precision`, `Recall`. A class that is neither labelled nor predicted is NaN.
        """
        hit = np.diagonal(self.matrix).astype(np.float64)
        labelled = self.counts.sum(1).astype(np.float64)
        predicted = self.matrix.sum(0).astype(np.float64)
        with np.errstate(divide='ignore', invalid='ignore'):
            accuracy, precision = hit / labelled, hit / predicted
            classes = {
                'IoU': hit / (predicted + labelled - hit),
                'Acc': accuracy,
                'Dice': 2 * hit / (predicted + labelled),
                'Fscore': 2 * precision * accuracy / (precision + accuracy),
                'Precision': precision,
                'Recall': accuracy,
            }
            overall = float(hit.sum() / labelled.sum())
        return {'aAcc': overall, **{f'm{name}': _nanmean(values) for name, values in classes.items()}, **classes}

    def reset(self):
        """Forget everything counted."""
        self.counts[:] = 0

    def merge(self, other):
        """Add the counts of another matrix of as many classes."""
        if other.num_classes != self.num_classes:
            raise MetricError(f'cannot merge a matrix of {other.num_classes} classes into one of {self.num_classes}')
        self.counts += other.counts

    def all_reduce(self, group=None):
        """Replace the counts by their sum over all processes of `torch.distributed`; nothing without a process group.

        Every process has to call it, once, after its last update.
        """
        import torch.distributed as dist
        if not dist.is_available() or not dist.is_initialized() or dist.get_world_size(group) == 1:
            return
        import torch
        device = 'cuda' if dist.get_backend(group) == 'nccl' else 'cpu'
        counts = torch.from_numpy(self.counts).to(device)
        dist.all_reduce(counts, group=group)
        self.counts = counts.cpu().numpy()

    def state_dict(self):
        """Return what `load_state_dict` takes: `counts` (a copy) and `ignored`."""
        return {'counts': self.counts.copy(), 'ignored': self.ignored}

    def load_state_dict(self, state):
        """Continue from a `state_dict` of a matrix of as many classes."""
        counts = np.asarray(state['counts'], np.int64)
        if counts.shape != self.counts.shape:
            raise MetricError(f'the state is of {counts.shape[0]} classes, this matrix has {self.num_classes}')
        self.counts, self.ignored = counts.copy(), tuple(state['ignored'])


def _nanmean(values):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # "Mean of empty slice": no class has a value
        return float(np.nanmean(values))


def _integers(values, what):
    """Return a numpy array of integers, or a tensor on an accelerator as it is."""
    if hasattr(values, 'detach'):
        values = values.detach()
        if values.is_floating_point():
            raise MetricError(f'{what} is a tensor of {values.dtype}: pass class ids (argmax over the logits)')
        return values if values.device.type != 'cpu' else values.numpy()
    values = np.asarray(values)
    if values.dtype.kind not in 'iub':
        raise MetricError(f'{what} is an array of {values.dtype}: pass class ids as integers')
    return values


def _joint_counts(prediction, label):
    """Return 257×257 int64 counts of (label, prediction); 256 stands for every value outside 0-255."""
    joint = np.zeros((257, 257), np.int64)
    if hasattr(prediction, 'detach') or hasattr(label, 'detach'):
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


def _fold(values):
    values = values.astype(np.int64)
    return np.where((values < 0) | (values > 255), 256, values)


def _joint_counts_on_device(prediction, label, joint):
    import torch
    device = next(value.device for value in (prediction, label) if hasattr(value, 'device') and hasattr(value, 'to'))
    folded = []
    for value in (label, prediction):
        value = torch.as_tensor(value).to(device, torch.int64)
        folded.append(torch.where((value < 0) | (value > 255), 256, value))
    index = (folded[0] * 257 + folded[1]).flatten()
    joint[:] = torch.bincount(index, minlength=257 * 257).cpu().numpy().reshape(257, 257)
    return joint


# Per-class values that a metric name brings, in the original's order.
_REPORTED = {'mIoU': ('IoU', 'Acc'), 'mDice': ('Dice', 'Acc'), 'mFscore': ('Fscore', 'Precision', 'Recall')}


class SegmentationEvaluator:
    """The report of the published configurations' evaluator: same keys, same values, same rounding.

    Args:
        classes: class names by id.
        metric_names: some of mIoU, mDice, mFscore (a name or a list).
        nan_to_num: value for a class that is neither labelled nor predicted, before means are taken; None keeps NaN,
            which the means leave out.
        ignore_index, dataset_name: as in the configuration.
    """

    def __init__(self, classes, metric_names=('mIoU',), ignore_index=None, dataset_name=None, nan_to_num=None):
        self.classes = [str(name) for name in classes]
        self.metric_names = [metric_names] if isinstance(metric_names, str) else list(metric_names)
        self.ignore_index = ignore_index
        self.dataset_name = dataset_name
        self.nan_to_num = nan_to_num
        unknown = set(self.metric_names) - set(METRIC_NAMES)
        if unknown or not self.metric_names:
            raise MetricError(f'metric_names are some of {", ".join(METRIC_NAMES)}; got {self.metric_names}')

    def evaluate(self, matrix):
        """Return the report on a `ConfusionMatrix`.

        Returns:
            Ordered dict of floats in [0, 1], rounded to 0.01 %: `SegmentationEvaluator_<metric>` per metric name,
            `aAcc`, the means (`mIoU`, `mAcc`, …), and `IoU.<class>`, `Acc.<class>`, … per class.
        """
        if matrix.num_classes != len(self.classes):
            raise MetricError(f'the matrix has {matrix.num_classes} classes and the evaluator {len(self.classes)}')
        computed = matrix.compute()
        names = list(OrderedDict.fromkeys(name for metric in self.metric_names for name in _REPORTED[metric]))
        values = {name: self._filled(computed[name]) for name in names}
        means = {'aAcc': _rounded(self._filled(computed['aAcc']))}
        means.update((f'm{name}', _rounded(np.float64(_nanmean(value)))) for name, value in values.items())
        report = OrderedDict((f'{type(self).__name__}_{metric}', means[metric]) for metric in self.metric_names)
        report.update(means)
        for name, value in values.items():
            report.update(zip((f'{name}.{cls}' for cls in self.classes), map(float, _rounded(value)), strict=True))
        return report

    def _filled(self, values):
        return values if self.nan_to_num is None else np.nan_to_num(values, nan=self.nan_to_num)


def _rounded(value):
    """Round to two decimals of a percentage, as the original does; keeps what is left of binary representation."""
    result = np.round(value * 100, 2) / 100.0
    return result if isinstance(result, np.ndarray) else float(result)


@METRICS.register_module(module_name=metainfo.METRIC, force=True)
class EasyCVMetric(Metric):
    """The metric of the published configurations, on ModelScope's interface.

    Args:
        trainer: not used; ModelScope may pass it.
        evaluators: section `{'type': 'SegmentationEvaluator', 'classes': […], 'metric_names': […]}`, or a list of them.
        ignore_index: label value whose pixels do not count; one that an evaluator's section names comes on top.
        nan_to_num: see `SegmentationEvaluator`.

    Attributes:
        confusion: the `ConfusionMatrix`.

    Under `torch.distributed`, either ModelScope gathers the metrics of all processes and `merge`s them, or every
    process calls `all_reduce` and then `evaluate`. `evaluate` itself does not communicate: ModelScope calls it on one
    process only.
    """

    def __init__(self, trainer=None, evaluators=None, ignore_index=IGNORE_INDEX, nan_to_num=None, **ignored):
        self.evaluators = [_build_evaluator(section, nan_to_num) for section in _as_list(evaluators)]
        sizes = {len(evaluator.classes) for evaluator in self.evaluators}
        if len(sizes) != 1:
            raise MetricError(f'{metainfo.METRIC} needs one or more evaluators with the same classes, e.g. '
                              '{"type": "SegmentationEvaluator", "classes": […], "metric_names": ["mIoU"]}; '
                              f'got {len(self.evaluators)} with {sorted(sizes)} classes')
        ignored = {ignore_index, *(evaluator.ignore_index for evaluator in self.evaluators)} - {None}
        self.confusion = ConfusionMatrix(sizes.pop(), sorted(ignored))

    def add(self, outputs, inputs):
        """Count a batch.

        Args:
            outputs: dict with the predicted class ids under `seg_pred` (or `seg_map`): one H×W array or a list of them.
            inputs: dict with the labels under `label`: as many H×W arrays of the same sizes.
        """
        predictions = _maps(outputs, ('seg_pred', 'seg_map'), 'outputs')
        labels = _maps(inputs, ('label', 'gt_semantic_seg'), 'inputs')
        if len(predictions) != len(labels):
            raise MetricError(f'{len(predictions)} predictions and {len(labels)} labels in one batch')
        for prediction, label in zip(predictions, labels, strict=True):
            self.update(prediction, label)

    def update(self, prediction, label):
        """Count one pair of H×W class ids."""
        self.confusion.update(prediction, label)

    def evaluate(self):
        """Return the report of all evaluators, see `SegmentationEvaluator.evaluate`."""
        report = OrderedDict()
        for evaluator in self.evaluators:
            report.update(evaluator.evaluate(self.confusion))
        return report

    compute = evaluate

    def reset(self):
        """Forget everything counted."""
        self.confusion.reset()

    def merge(self, other):
        """Add what another `EasyCVMetric` counted."""
        self.confusion.merge(other.confusion)

    def all_reduce(self, group=None):
        """Add up what all processes counted, see `ConfusionMatrix.all_reduce`."""
        self.confusion.all_reduce(group)


def _as_list(value):
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _build_evaluator(section, nan_to_num):
    if isinstance(section, SegmentationEvaluator):
        return section
    if not isinstance(section, dict) or section.get('type', 'SegmentationEvaluator') != 'SegmentationEvaluator':
        raise MetricError(f'an evaluator is {{"type": "SegmentationEvaluator", "classes": […]}}, got {section!r}')
    arguments = {key: value for key, value in section.items() if key != 'type'}
    if not arguments.get('classes'):
        raise MetricError('the evaluator section names no classes; give the list of class names')
    try:
        return SegmentationEvaluator(**{'nan_to_num': nan_to_num, **arguments})
    except TypeError as error:
        raise MetricError(f'SegmentationEvaluator takes classes, metric_names, ignore_index, dataset_name and '
                          f'nan_to_num: {error}') from error


def _maps(batch, keys, what):
    """Return the H×W maps of a batch as a list."""
    maps = next((batch[key] for key in keys if isinstance(batch, dict) and key in batch), None)
    if maps is None:
        raise MetricError(f'{what} have none of the keys {", ".join(keys)}: pass class ids at the image\'s own size')
    if isinstance(maps, (list, tuple)):
        return list(maps)
    if maps.ndim == 4:  # N×1×H×W
        maps = maps[:, 0]
    return list(maps) if maps.ndim == 3 else [maps]
