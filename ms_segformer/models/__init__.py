"""The network as the paper has it, its fast form for inference, its loss, and checkpoints in every known dialect.

ModelScope's class stands in `segformer`, which its registry imports by name.
"""

from .checkpoint import CheckpointError, LoadReport, load_checkpoint, read_checkpoint, save_checkpoint
from .mix_transformer import MixVisionTransformer
from .segformer_head import SegformerHead

__all__ = [
    'CheckpointError',
    'LoadReport',
    'MixVisionTransformer',
    'SegformerHead',
    'load_checkpoint',
    'read_checkpoint',
    'save_checkpoint',
]
