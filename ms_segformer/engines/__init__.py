"""Engines that run the network: PyTorch, OpenVINO, ONNX Runtime.

    engine = create_engine(model)            # the fastest installed engine for the device
    logits = engine(batch)                   # N×3×H×W float32 -> N×C×ceil(H/4)×ceil(W/4) float32

The optional packages are imported when an engine that needs them is made.
"""

from ..metainfo import ENGINES
from .base import Engine, EngineError
from .factory import create_engine

__all__ = ['ENGINES', 'Engine', 'EngineError', 'create_engine']
