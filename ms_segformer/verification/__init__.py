"""Holds a model against what was published of it: files, network, known pixels, label maps, speed, and mIoU."""

from .checks import FAILED, PASSED, SKIPPED, Check
from .report import Report
from .score import Progress, ScoreError

__all__ = ['FAILED', 'PASSED', 'SKIPPED', 'Check', 'Progress', 'Report', 'ScoreError']
