"""Metrics of semantic segmentation: a streaming confusion matrix, the reports made of it, and pictures for people.

`segmentation`, which registers `EasyCVMetric` with ModelScope, is imported by name.
"""

from .confusion import ConfusionMatrix, MatrixState, MetricError, MetricValues
from .report import draw_confusion, per_class_table

__all__ = ['ConfusionMatrix', 'MatrixState', 'MetricError', 'MetricValues', 'draw_confusion', 'per_class_table']
