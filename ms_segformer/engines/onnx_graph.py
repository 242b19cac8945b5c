"""The network as an ONNX file, for ONNX Runtime and for export."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from ..models.folding import FoldedHead
from .base import EngineError

if TYPE_CHECKING:
    from ..models.segformer import Segformer
    from ..models.segformer_head import SegformerHead
    from ..preprocessors.shapes import ImageShapes

OPSET = 17
EXPORTABLE = tuple(map(int, torch.__version__.split('.')[:2])) >= (2, 1)  # 2.0 has attention, but not for ONNX


class _Resize(torch.autograd.Function):
    """Bilinear scaling to a size that is a constant of the graph; torch's own asks for N and C when it runs."""

    @staticmethod
    def forward(_: Any, x: torch.Tensor, height: int, width: int, align_corners: bool) -> torch.Tensor:
        return F.interpolate(x, size=(height, width), mode='bilinear', align_corners=align_corners)

    @staticmethod
    def symbolic(g: Any, x: Any, height: int, width: int, align_corners: bool) -> Any:
        """What stands in the graph for `forward`."""
        sizes = [*x.type().sizes()[:2], height, width]
        left_out = g.op('prim::Constant')  # the region and the factors
        left_out.setType(torch._C.OptionalType.ofTensor())
        scaled = g.op(
            'Resize',
            x,
            left_out,
            left_out,
            g.op('Constant', value_t=torch.tensor(sizes)),
            mode_s='linear',
            coordinate_transformation_mode_s='align_corners' if align_corners else 'half_pixel',
        )
        scaled.setType(x.type().with_sizes(sizes))
        return scaled


class _Head(FoldedHead):
    """A folded head; with `static`, every size in it is a constant."""

    def __init__(self, head: SegformerHead, static: bool) -> None:
        super().__init__(head)
        self.static = static

    def scale(self, x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        return _Resize.apply(x, *map(int, size), self.align_corners) if self.static else super().scale(x, size)


class _Logits(torch.nn.Module):
    """The network; `static` says that its input has one shape only."""

    def __init__(self, model: Segformer, static: bool) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.head = _Head(model.decode_head, static)

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(img))


class _Classes(_Logits):
    """The best class of every pixel, N×H×W uint8, in place of the logits.

    Args:
        shapes: of an image; without them the class map has the input's size.
    """

    def __init__(self, model: Segformer, static: bool, shapes: ImageShapes | None) -> None:
        super().__init__(model, static)
        self.shapes = shapes

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        logits = self.head.scale(super().forward(img), img.shape[2:])
        if self.shapes is not None and not self.shapes.padded == self.shapes.resized == self.shapes.original:
            height, width = self.shapes.resized
            logits = self.head.scale(logits[:, :, :height, :width], self.shapes.original)
        # TensorRT documents conversions to uint8 from floating point only, and wants them right before the output.
        return logits.argmax(1).float().to(torch.uint8)


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
        EngineError: this torch cannot, or half precision needs a package that is not there.
    """
    if not EXPORTABLE:
        raise EngineError(
            f'ONNX needs torch 2.1 or later, which can write its attention; this is torch {torch.__version__}'
        )
    sides = {0: 'N', 2: 'H', 3: 'W'}
    open_sides = {0: 'N', 2: 'h', 3: 'w'} if output == 'logits' else {0: 'N', 1: 'H', 2: 'W'}
    axes = {'img': sides, output: open_sides} if dynamic else None
    model.eval()
    static = not dynamic
    network = _Logits(model, static) if output == 'logits' else _Classes(model, static, shapes)
    options: dict[str, Any] = {'dynamo': False} if 'dynamo' in inspect.signature(torch.onnx.export).parameters else {}
    with warnings.catch_warnings(), torch.no_grad():
        # It warns of its own deprecation, and of sizes taken as Python numbers where they are none that change.
        warnings.simplefilter('ignore', DeprecationWarning)
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
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
    if fp16:
        _halve(Path(path))


def _halve(path: Path) -> None:
    """Turn a file's weights and everything between its input and its output to half precision.

    Exporting the network in it would need a torch that has all of it on the CPU, and takes a run of the network there,
    which in half precision is slow.
    """
    try:
        import onnx  # optional
    except ImportError as error:
        raise EngineError(f'fp16 needs the package onnx ({error}); pip install onnx, or leave fp16 out') from None
    network = onnx.load_model_from_string(path.read_bytes())
    graph = network.graph
    single, half = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    kept = {name for node in graph.node if node.op_type == 'Resize' for name in node.input[1:3]}  # region and factors
    constants = [(node.output[0], node.attribute[0].t) for node in graph.node if node.op_type == 'Constant']
    for name, tensor in [*constants, *((tensor.name, tensor) for tensor in graph.initializer)]:
        if tensor.data_type == single and name not in kept:
            with np.errstate(over='ignore'):  # an infinity shows in what the file gives
                values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    del graph.value_info[:]  # which has the former types
    (entry,), (result,) = graph.input, graph.output
    floating = [end for end in (entry, result) if end.type.tensor_type.elem_type == single]
    inside = {end.name: f'{end.name}_half' for end in floating}
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [inside.get(name, name) for name in names]
    graph.node.insert(0, onnx.helper.make_node('Cast', [entry.name], [inside[entry.name]], to=half))
    if result in floating:
        graph.node.append(onnx.helper.make_node('Cast', [inside[result.name]], [result.name], to=single))
    path.write_bytes(network.SerializeToString())
