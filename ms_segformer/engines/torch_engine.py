"""The network in PyTorch, as it is or compiled."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING

import torch

from .base import Engine

if TYPE_CHECKING:
    from ..models.segformer import Segformer

logger = logging.getLogger(__name__)


class TorchEngine(Engine):
    """Runs the model's own modules, on any device of torch.

    Args:
        model: a prepared `Segformer`. In float32 it is run itself; bf16 runs a converted copy.
        precision: 'float32' or 'bf16'.
        device: where to run.
        compiled: go through `torch.compile`; the first batch of a shape then takes long, and a C++ compiler is needed.
    """

    def __init__(self, model: Segformer, precision: str, device: torch.device, compiled: bool = False) -> None:
        super().__init__(precision)
        self.name = 'torch-compile' if compiled else 'torch'
        self.device = device
        self.dtype = torch.bfloat16 if precision == 'bf16' else torch.float32
        if self.dtype != torch.float32 or next(model.parameters()).device != device:
            model = copy.deepcopy(model).to(device, self.dtype).prepare_inference()
        self.model = model
        self._logits = model.logits
        if compiled:
            logger.warning('torch.compile is at work on the network; that may take minutes')
            self._logits = torch.compile(model.logits, dynamic=True)
            self(torch.zeros(1, 3, 64, 64))  # what cannot be compiled shows here, not at the first photograph

    def _run(self, batch: torch.Tensor) -> torch.Tensor:
        folding = self.model.folding
        if self.model.training or self.model.decode_head.training or folding is None:
            self.model.prepare_inference()
        else:
            folding.folded()  # at no cost unless weights have changed
        return self._logits(batch.to(self.device, self.dtype)).float().cpu()
