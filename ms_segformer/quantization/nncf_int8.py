"""Has NNCF, OpenVINO's own quantizer, make int8 networks: post-training, from the ranges seen on photographs.

What stays in float, and why (`benchmarks.forward --int8` has the times):

- The convolution that embeds the image: with it in int8 a third more pixels change, and nothing is gained in time.
- The head's upsampling: in 8 bits it is no faster, and the sum behind it is in float in any case.
- Layer norms, softmax and sums, which NNCF leaves.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines.onnx_graph import write_onnx
from ..engines.silent_import import import_nncf, import_onnxruntime, import_openvino
from ..errors import SegformerError, one_line

if TYPE_CHECKING:
    from ..models.segformer import Segformer


class QuantizationError(SegformerError, RuntimeError):
    """An int8 network could not be made; the message says what to do."""


def require(engine: str) -> None:
    """Import what quantizing for an engine needs.

    Raises:
        QuantizationError: it is not installed.
    """
    extras = 'quantize' if engine == 'openvino' else 'quantize,onnx'
    needed = {
        'openvino': (import_nncf, import_openvino),
        'onnxruntime': (import_nncf, import_onnxruntime, _import_onnx),
    }
    try:
        for each in needed[engine]:
            with _silence():
                each()
    except ImportError as error:
        raise QuantizationError(
            f"quantizing needs a package that is not here ({one_line(error)}): pip install 'ms-segformer[{extras}]'"
        ) from None


def write_int8(engine: str, model: Segformer, inputs: Sequence[np.ndarray], folder: Path) -> None:
    """Quantize a network and write it.

    Args:
        engine: `'openvino'` or `'onnxruntime'`, which is to run it.
        model: in float32 on the CPU, with its weights.
        inputs: 1×3×H×W float32 each, of any size.
        folder: gets the files that `engines.int8.FILES` names.

    Raises:
        QuantizationError: NNCF, OpenVINO or ONNX Runtime failed.
    """
    model.prepare_inference()
    try:
        (_write_openvino if engine == 'openvino' else _write_onnx)(model, inputs, folder)
    except (SegformerError, OSError):
        raise
    except Exception as error:  # whatever a foreign program raises
        raise QuantizationError(
            f'the network could not be quantized ({type(error).__name__}: {one_line(error)}); please report it with '
            'the versions that `ms-segformer info` shows'
        ) from error


def _write_openvino(model: Segformer, inputs: Sequence[np.ndarray], folder: Path) -> None:
    from ..engines.openvino_graph import build_graph  # optional
    from ..exporters.segformer_exporter import save_openvino

    graph = build_graph(model, fold_norms=True)
    first = next(op for op in graph.get_ordered_ops() if op.get_type_name() == 'Convolution')
    quantized = _quantize(graph, inputs, first.get_friendly_name(), 'Interpolate')
    save_openvino(quantized, folder / 'network.xml')


def _write_onnx(model: Segformer, inputs: Sequence[np.ndarray], folder: Path) -> None:
    import onnx  # optional

    path = folder / 'network.onnx'
    write_onnx(model, path)
    network = _with_initializers(onnx.load(path))
    first = next(node for node in network.graph.node if node.op_type == 'Conv')
    # The input of a depthwise convolution would get a scale a channel, which NNCF 3.4 moves before the transposition of
    # these networks without turning its axis: it becomes one a row of the image, for one height only.
    one_scale = import_nncf().quantization.advanced_parameters.QuantizationParameters(per_channel=False)
    onnx.save(_quantize(network, inputs, first.name, 'Resize', activations_quantization_params=one_scale), path)


def _with_initializers(network: Any) -> Any:
    """Turn constant nodes into initializers, where NNCF looks for weights and biases."""
    graph = network.graph
    for node in [node for node in graph.node if node.op_type == 'Constant']:
        (value,) = (each.t for each in node.attribute if each.name == 'value')
        value.name = node.output[0]
        graph.initializer.append(value)
        graph.node.remove(node)
    return network


def _quantize(network: Any, inputs: Sequence[np.ndarray], in_float: str, upsampling: str, **advanced: Any) -> Any:
    """NNCF's post-training quantization, but for the operation of one name and those of one type."""
    with _silence():
        nncf = import_nncf()
        return nncf.quantize(
            network,
            nncf.Dataset(inputs, lambda image: {'img': image}),
            subset_size=len(inputs),
            preset=nncf.QuantizationPreset.MIXED,  # weights symmetric, activations not: ReLU's and GELU's are one-sided
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=[in_float], types=[upsampling]),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                # Smoothing multiplies before every product; here the norms' scales are in the weights already.
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=-1),
                **advanced,
            ),
        )


def _import_onnx() -> ModuleType:
    import onnx  # optional

    return onnx


@contextmanager
def _silence() -> Iterator[None]:
    """Hold back what NNCF prints: log lines to the standard output, and progress bars of its own there."""
    logger = logging.getLogger('nncf')
    output = sys.stdout
    with contextlib.redirect_stdout(io.StringIO()) as held:
        before = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(before)
            for handler in logger.handlers:  # made by the import
                if isinstance(handler, logging.StreamHandler) and handler.stream is held:
                    handler.setStream(output)
