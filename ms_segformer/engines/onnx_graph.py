"""The network as an ONNX file, for ONNX Runtime and for export."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from .base import EngineError

if TYPE_CHECKING:
    from ..models.segformer import Segformer

OPSET = 17
EXPORTABLE = tuple(map(int, torch.__version__.split('.')[:2])) >= (2, 1)  # 2.0 has attention, but not for ONNX


class _Logits(torch.nn.Module):
    def __init__(self, model: Segformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return self.model.logits(img)


def write_onnx(
    model: Segformer,
    path: str | os.PathLike,
    shape: Sequence[int] = (1, 3, 128, 160),
    dynamic: bool = True,
    opset: int = OPSET,
) -> None:
    """Write a prepared `Segformer` as ONNX: `img` N×3×H×W float32 to `logits` N×C×ceil(H/4)×ceil(W/4).

    Args:
        model: on the CPU, in float32; it is put in evaluation mode.
        path: file to write.
        shape: of the input; without `dynamic` the only one that the file takes.
        dynamic: leave N, H and W open.
        opset: ONNX operator set.

    Raises:
        EngineError: this torch cannot.
    """
    if not EXPORTABLE:
        raise EngineError(
            f'ONNX needs torch 2.1 or later, which can write its attention; this is torch {torch.__version__}'
        )
    model.prepare_inference()
    axes = {'img': {0: 'N', 2: 'H', 3: 'W'}, 'logits': {0: 'N', 2: 'h', 3: 'w'}} if dynamic else None
    options: dict[str, Any] = {'dynamo': False} if 'dynamo' in inspect.signature(torch.onnx.export).parameters else {}
    with warnings.catch_warnings(), torch.no_grad():
        # It warns of its own deprecation, and of sizes taken as Python numbers where they are none that change.
        warnings.simplefilter('ignore', DeprecationWarning)
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        torch.onnx.export(
            _Logits(model).eval(),
            (torch.zeros(tuple(shape)),),
            str(path),
            input_names=['img'],
            output_names=['logits'],
            opset_version=opset,
            dynamic_axes=axes,
            **options,
        )
