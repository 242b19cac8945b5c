"""What ModelScope's `pipeline()` returns for a SegFormer, and `load`, the short way to it.

Exports `load` alone: `image_segmentation` brings torch, and ModelScope imports it by name.
"""

from .loading import load

__all__ = ['load']
