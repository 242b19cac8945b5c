"""The network in PyTorch, as it is or compiled."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING

import torch

from ..postprocess.float32 import exact_float32
from .base import Engine

if TYPE_CHECKING:
    from ..models.segformer import Segformer

TYPES = {'float32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
logger = logging.getLogger(__name__)


class TorchEngine(Engine):
    """Runs the model's own modules, on any device of torch.

    Args:
        model: a prepared `Segformer`. In float32 on its own device it is run itself, else a converted copy.
        precision: 'float32', 'bf16' or 'fp16'. On a GPU float32 is not TF32.
        device: where to run. On a GPU convolutions have their weights channels-last, like the images.
        compiled: go through `torch.compile`; the first batch of a shape then takes long, and a C++ compiler is needed.
    """

    def __init__(self, model: Segformer, precision: str, device: torch.device, compiled: bool = False) -> None:
        super().__init__(precision)
        self.name = 'torch-compile' if compiled else 'torch'
        self.device = device
        self.dtype = TYPES[precision]
        if self.dtype != torch.float32 or next(model.parameters()).device != device:
            model = _converted(model, device, self.dtype)
        if device.type != 'cpu':
            model.to(memory_format=torch.channels_last)
        model.prepare_inference()
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
        with exact_float32(self.device):
            return self._logits(self._on_device(batch)).float()

    def _on_device(self, batch: torch.Tensor) -> torch.Tensor:
        if self.device.type == 'cpu':
            return batch.to(self.device, self.dtype)
        if self.device.type == 'cuda' and batch.device.type == 'cpu':
            batch = batch.pin_memory()  # so that the copy does not wait for what runs before it
        batch = batch.to(self.device, non_blocking=True)
        return batch.to(self.dtype, memory_format=torch.channels_last)


def _converted(model: Segformer, device: torch.device, dtype: torch.dtype) -> Segformer:
    """A copy of another type, whose batch norms, which are not run but folded, stay as they are."""
    result = copy.deepcopy(model).to(device, dtype)
    for module, own in zip(result.modules(), model.modules(), strict=True):
        if isinstance(module, torch.nn.BatchNorm2d):
            module.to(torch.float32).load_state_dict(own.state_dict())
    return result
