"""The network as an ONNX file, for ONNX Runtime and for export."""

from __future__ import annotations

import copy
import inspect
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from .base import EngineError

if TYPE_CHECKING:
    from ..models.segformer import Segformer
    from ..preprocessors.shapes import ImageShapes

OPSET = 17
EXPORTABLE = tuple(map(int, torch.__version__.split('.')[:2])) >= (2, 1)  # 2.0 has attention, but not for ONNX


class _Network(torch.nn.Module):
    """What the file computes: the network, and behind it what the output asks for.

    Args:
        model: prepared for inference; it is left as it is.
        fp16: compute in half precision; what goes in and comes out is as before.
    """

    def __init__(self, model: Segformer, fp16: bool) -> None:
        super().__init__()
        head = model.prepare_inference().folding.folded()  # type: ignore[union-attr]  # it is there now
        self.fp16 = fp16
        self.align_corners = head.align_corners
        self.backbone, self.head = (copy.deepcopy(part).half() if fp16 else part for part in (model.backbone, head))

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        logits = self._logits(img)
        return logits.float() if self.fp16 else logits

    def _logits(self, img: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(img.half() if self.fp16 else img))


class _Classes(_Network):
    """The best class of every pixel, N×H×W uint8, in place of the logits.

    Args:
        shapes: of an image; without them the class map has the input's size.
    """

    def __init__(self, model: Segformer, fp16: bool, shapes: ImageShapes | None) -> None:
        super().__init__(model, fp16)
        self.shapes = shapes

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        logits = self._scaled(self._logits(img), img.shape[2:])
        if self.shapes is not None and self.shapes.original != self.shapes.padded:
            height, width = self.shapes.resized
            logits = self._scaled(logits[:, :, :height, :width], self.shapes.original)
        # TensorRT documents conversions to uint8 from floating point only, and wants them right before the output.
        return logits.argmax(1).float().to(torch.uint8)

    def _scaled(self, logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        return F.interpolate(logits, size=size, mode='bilinear', align_corners=self.align_corners)


def write_onnx(
    model: Segformer,
    path: str | os.PathLike,
    shape: Sequence[int] = (1, 3, 128, 160),
    dynamic: bool = True,
    opset: int = OPSET,
    output: str = 'logits',
    fp16: bool = False,
    shapes: ImageShapes | None = None,
) -> None:
    """Write a prepared `Segformer` as ONNX: `img` N×3×H×W float32 to one output.

    Args:
        model: on the CPU, in float32; it is put in evaluation mode.
        path: file to write.
        shape: of the input; without `dynamic` the only one that the file takes.
        dynamic: leave N, H and W open.
        opset: ONNX operator set.
        output: 'logits', N×C×ceil(H/4)×ceil(W/4) float32, or 'classes', N×H×W uint8: the class with the largest of the
            logits scaled to the input's size.
        fp16: weights and everything between input and output in half precision.
        shapes: with 'classes' and a fixed shape, of the image whose size the class map is to have: N×H_0×W_0, scaled
            in the pipeline's two steps.

    Raises:
        EngineError: this torch cannot.
    """
    if not EXPORTABLE:
        raise EngineError(
            f'ONNX needs torch 2.1 or later, which can write its attention; this is torch {torch.__version__}'
        )
    sides = {0: 'N', 2: 'H', 3: 'W'}
    open_sides = {0: 'N', 2: 'h', 3: 'w'} if output == 'logits' else {0: 'N', 1: 'H', 2: 'W'}
    axes = {'img': sides, output: open_sides} if dynamic else None
    network = _Network(model, fp16) if output == 'logits' else _Classes(model, fp16, shapes)
    options: dict[str, Any] = {'dynamo': False} if 'dynamo' in inspect.signature(torch.onnx.export).parameters else {}
    with warnings.catch_warnings(), torch.no_grad():
        # It warns of its own deprecation, and of sizes taken as Python numbers where they are none that change.
        warnings.simplefilter('ignore', DeprecationWarning)
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        try:
            torch.onnx.export(
                network.eval(),
                (torch.zeros(tuple(shape)),),
                str(path),
                input_names=['img'],
                output_names=[output],
                opset_version=opset,
                dynamic_axes=axes,
                **options,
            )
        except RuntimeError as error:
            if not (fp16 and "'Half'" in str(error)):
                raise
            raise EngineError(
                f'torch {torch.__version__} has no half precision on the CPU, which writing the network in it needs; '
                'install a later one, or leave fp16 out'
            ) from None
