"""From class logits to a label map with scores (`segment`), and images in windows (`sliding_window`).

`_segment.c` is the fast form of what `segmentation.py` also does in torch.
"""
from .segmentation import LogitsError, Segmentation, segment

__all__ = ['LogitsError', 'Segmentation', 'segment']
