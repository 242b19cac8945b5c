"""From whatever a user calls an image to RGB pixels, and from those to the network's input.

`segformer`, which registers `SegformerPreprocessor` with ModelScope, is imported by name.
"""

from .image import DamagedImageError, ImageError, ImageSource, load_image

__all__ = ['DamagedImageError', 'ImageError', 'ImageSource', 'load_image']
