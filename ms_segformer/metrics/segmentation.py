"""The numbers and key names that the published configurations' evaluator reports, rounded as it rounds."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from modelscope.metrics.base import Metric
from modelscope.metrics.builder import METRICS

from ..config.limits import as_list
from ..metainfo import IGNORE_INDEX, METRIC
from .confusion import ClassIds, ConfusionMatrix, MetricError, mean_of_known

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

METRIC_NAMES = ('mIoU', 'mDice', 'mFscore')
# Per-class values that a metric name brings, in the original's order.
_REPORTED = {'mIoU': ('IoU', 'Acc'), 'mDice': ('Dice', 'Acc'), 'mFscore': ('Fscore', 'Precision', 'Recall')}


class SegmentationEvaluator:
    """The report of the published configurations' evaluator: same keys, same values, same rounding.

    Args:
        classes: class names by id.
        metric_names: some of mIoU, mDice, mFscore (a name or a list).
        nan_to_num: value for a class that is neither labeled nor predicted, before means are taken; None keeps NaN,
            which the means leave out.
        ignore_index, dataset_name: as in the configuration.
    """

    def __init__(
        self,
        classes: Iterable[str],
        metric_names: str | Sequence[str] = ('mIoU',),
        ignore_index: int | None = None,
        dataset_name: str | None = None,
        nan_to_num: float | None = None,
    ) -> None:
        self.classes = [str(name) for name in classes]
        self.metric_names = [metric_names] if isinstance(metric_names, str) else list(metric_names)
        self.ignore_index = ignore_index
        self.dataset_name = dataset_name
        self.nan_to_num = nan_to_num
        unknown = set(self.metric_names) - set(METRIC_NAMES)
        if unknown or not self.metric_names:
            raise MetricError(f'metric_names are some of {", ".join(METRIC_NAMES)}; got {self.metric_names}')

    def evaluate(self, matrix: ConfusionMatrix) -> dict[str, float]:
        """Return the report on a `ConfusionMatrix`.

        Returns:
            Ordered dict of floats in [0, 1], rounded to 0.01 %: `SegmentationEvaluator_<metric>` per metric name,
            `aAcc`, the means (`mIoU`, `mAcc`, …), and `IoU.<class>`, `Acc.<class>`, … per class.
        """
        if matrix.num_classes != len(self.classes):
            raise MetricError(f'the matrix has {matrix.num_classes} classes and the evaluator {len(self.classes)}')
        computed: Mapping[str, Any] = matrix.compute()
        names = list(OrderedDict.fromkeys(name for metric in self.metric_names for name in _REPORTED[metric]))
        values = {name: self._filled(computed[name]) for name in names}
        means = {'aAcc': float(_rounded(self._filled(computed['aAcc'])))}
        means.update((f'm{name}', float(_rounded(mean_of_known(value)))) for name, value in values.items())
        report = OrderedDict((f'{type(self).__name__}_{metric}', means[metric]) for metric in self.metric_names)
        report.update(means)
        for name, value in values.items():
            report.update(zip((f'{name}.{cls}' for cls in self.classes), map(float, _rounded(value)), strict=True))
        return report

    def _filled(self, values: np.ndarray | float) -> np.ndarray:
        return np.asarray(values if self.nan_to_num is None else np.nan_to_num(values, nan=self.nan_to_num))


def _rounded(values: np.ndarray | float) -> np.ndarray:
    """Round to two decimals of a percentage, as the original does; keeps what is left of binary representation."""
    return np.round(np.asarray(values) * 100, 2) / 100.0


@METRICS.register_module(module_name=METRIC, force=True)
class EasyCVMetric(Metric):
    """The metric of the published configurations, on ModelScope's interface.

    Args:
        trainer: not used; ModelScope may pass it.
        evaluators: section `{'type': 'SegmentationEvaluator', 'classes': […], 'metric_names': […]}`, or a list of them.
        ignore_index: label value whose pixels do not count; one that an evaluator's section names comes on top.
        nan_to_num: see `SegmentationEvaluator`.

    Attributes:
        confusion: the `ConfusionMatrix`.

    Under `torch.distributed`, either ModelScope gathers the metrics of all processes and calls `merge`, or every
    process calls `all_reduce` and then `evaluate`. `evaluate` itself does not communicate: ModelScope calls it on one
    process only.
    """

    def __init__(
        self,
        trainer: object = None,
        evaluators: Mapping[str, Any] | SegmentationEvaluator | Sequence | None = None,
        ignore_index: int | None = IGNORE_INDEX,
        nan_to_num: float | None = None,
        **_: object,
    ) -> None:
        self.evaluators = [_build_evaluator(section, nan_to_num) for section in as_list(evaluators)]
        sizes = {len(evaluator.classes) for evaluator in self.evaluators}
        if len(sizes) != 1:
            raise MetricError(
                f'{METRIC} needs one or more evaluators with the same classes, e.g. '
                '{"type": "SegmentationEvaluator", "classes": […], "metric_names": ["mIoU"]}; '
                f'got {len(self.evaluators)} with {sorted(sizes)} classes'
            )
        named = {ignore_index, *(evaluator.ignore_index for evaluator in self.evaluators)}
        self.confusion = ConfusionMatrix(sizes.pop(), sorted(index for index in named if index is not None))

    def add(self, outputs: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
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

    def update(self, prediction: ClassIds, label: ClassIds) -> None:
        """Count one pair of H×W class ids."""
        self.confusion.update(prediction, label)

    def evaluate(self) -> dict[str, float]:
        """Return the report of all evaluators, see `SegmentationEvaluator.evaluate`."""
        report: dict[str, float] = OrderedDict()
        for evaluator in self.evaluators:
            report.update(evaluator.evaluate(self.confusion))
        return report

    compute = evaluate

    def reset(self) -> None:
        """Forget everything counted."""
        self.confusion.reset()

    def merge(self, other: 'EasyCVMetric') -> None:
        """Add what another `EasyCVMetric` counted."""
        self.confusion.merge(other.confusion)

    def all_reduce(self, group: 'ProcessGroup | None' = None) -> None:
        """Add up what all processes counted, see `ConfusionMatrix.all_reduce`."""
        self.confusion.all_reduce(group)


def _build_evaluator(section: Any, nan_to_num: float | None) -> SegmentationEvaluator:
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
        raise MetricError(
            f'SegmentationEvaluator takes classes, metric_names, ignore_index, dataset_name and nan_to_num: {error}'
        ) from error


def _maps(batch: Mapping[str, Any], keys: tuple[str, ...], what: str) -> list:
    """Return the H×W maps of a batch as a list."""
    maps = next((batch[key] for key in keys if isinstance(batch, dict) and key in batch), None)
    if maps is None:
        raise MetricError(f"{what} have none of the keys {', '.join(keys)}: pass class ids at the image's own size")
    if isinstance(maps, (list, tuple)):
        return list(maps)
    if maps.ndim == 4:  # N×1×H×W
        maps = maps[:, 0]
    return list(maps) if maps.ndim == 3 else [maps]
