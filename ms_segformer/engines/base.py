"""The one interface to every engine."""

import threading
from abc import ABC, abstractmethod

import numpy as np
import torch

from ..errors import SegformerError


class EngineError(SegformerError, ValueError):
    """A name, precision or device that no engine has, or an engine that cannot be used; the message says what can."""


class Engine(ABC):
    """Runs the network on a batch.

    Attributes:
        name: one of `metainfo.ENGINES`.
        precision: one of `metainfo.PRECISIONS`: the arithmetic in the network. Logits are always float32.
    """

    name: str

    def __init__(self, precision: str) -> None:
        self.precision = precision
        self._lock = threading.Lock()

    def __call__(self, batch: torch.Tensor | np.ndarray) -> torch.Tensor:
        """Run the network.

        Args:
            batch: N×3×H×W float32 tensor or array, normalized RGB.

        Returns:
            N×C×ceil(H/4)×ceil(W/4) float32 tensor in channels-last memory, on the engine's device; it belongs to the
            caller. Calls from several threads take turns.

        Raises:
            EngineError: a batch of another shape or type.
        """
        batch = batch if isinstance(batch, torch.Tensor) else torch.as_tensor(batch, device='cpu')
        if batch.dim() != 4 or batch.shape[1] != 3 or batch.dtype != torch.float32 or batch.numel() == 0:
            raise EngineError(f'a batch of shape {tuple(batch.shape)} and type {batch.dtype}; expected N×3×H×W float32')
        with self._lock, torch.inference_mode():
            return self._run(batch)

    @abstractmethod
    def _run(self, batch: torch.Tensor) -> torch.Tensor:
        """`__call__` on a checked tensor."""

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.name!r}, {self.precision!r})'


def channels_last_output(batch: torch.Tensor, classes: int) -> torch.Tensor:
    """Memory for the logits of a batch: N×ceil(H/4)×ceil(W/4)×C float32 tensor, not initialized."""
    n, _, height, width = batch.shape
    return torch.empty(n, -(-height // 4), -(-width // 4), classes, dtype=torch.float32, device='cpu')


def as_array(batch: torch.Tensor) -> np.ndarray:
    """The batch as a contiguous array, without a copy when it is one."""
    return np.ascontiguousarray(batch.detach().cpu().numpy())
