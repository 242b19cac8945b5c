"""From class logits to a label map with scores: of an image in one piece (`segment`), in windows (`slide_segment`), or
at several scales and mirrored (`label_versions`).
"""

from .augmentation import label_versions
from .segmentation import Confidence, LogitsError, Segmentation, masks, segment
from .sliding_window import slide_segment

__all__ = ['Confidence', 'LogitsError', 'Segmentation', 'label_versions', 'masks', 'segment', 'slide_segment']
