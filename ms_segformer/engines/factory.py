"""The choice among the engines."""

from __future__ import annotations

import importlib.util
import warnings
from typing import TYPE_CHECKING

import torch

from ..errors import one_line
from ..metainfo import ENGINES, PRECISIONS
from ..models.bfloat16 import fault_in_bfloat16
from .base import Engine, EngineError
from .int8 import FOLDERS, engines_with_int8, read_int8
from .torch_engine import TorchEngine

if TYPE_CHECKING:
    from ..models.segformer import Segformer

# Engines of a CPU by their speed there, fastest first; the package that each needs beside torch.
CPU_ORDER = (('openvino', 'openvino'), ('torch', None))
EXTRAS = {'openvino': 'openvino', 'onnxruntime': 'onnx'}  # of this package, that bring an engine


def create_engine(
    model: Segformer, name: str = 'auto', precision: str = 'float32', device: str | torch.device = 'cpu'
) -> Engine:
    """Prepare a model for inference and return the engine that runs it.

    Args:
        model: a `Segformer` with its weights loaded; it is put in evaluation mode. Weights that change later change
            the engine's results at the next batch, if PyTorch counts the change: `load_state_dict`, a step of an
            optimizer, writing in place (under `torch.no_grad()`), and a parameter or its `.data` replaced by another
            tensor. Values written through `.data` or `.numpy()` are not counted, and results may be those of before.
        name: one of `ENGINES`, or 'auto': the fastest installed one for the device.
        precision: 'float32' reproduces the plain network's label maps; 'bf16' is faster where the processor has it and
            may change pixels near a boundary; so does 'fp16', on a GPU; 'int8' is still faster on a CPU, changes more
            of them, and needs the int8 network that `ms-segformer quantize` puts into a model directory.
        device: 'cpu', or a device of torch; OpenVINO and ONNX Runtime run on the CPU only.

    Returns:
        `Engine`. One that cannot be loaded is replaced by the torch engine, with a warning that says why; not so for
        'int8', which torch does not have.

    Raises:
        EngineError: unknown name or precision; a device that is not there or that the named engine does not have; bf16
            where the processor computes a convolution of this network wrong; fp16 on a CPU; int8 without an int8
            network that fits the weights, or without a package that runs it.
    """
    device = _checked_device(device)
    if name != 'auto' and name not in ENGINES:
        raise EngineError(f"unknown engine {name!r}; expected 'auto', {', '.join(map(repr, ENGINES))}")
    if precision not in PRECISIONS:
        raise EngineError(f'unknown precision {precision!r}; expected {" or ".join(map(repr, PRECISIONS))}')
    if device.type != 'cpu' and name in ('openvino', 'onnxruntime'):
        raise EngineError(f"engine {name!r} runs on the CPU, device is '{device}'; use device='cpu' or engine='torch'")
    if precision == 'fp16' and device.type == 'cpu':
        raise EngineError("precision fp16 runs on a GPU, device is 'cpu'; on a CPU use 'bf16' or 'float32'")
    if precision == 'int8':
        name = _engine_for_int8(model, name, device)
    model.prepare_inference()
    if name == 'auto':
        name = _fastest(device)
    if precision == 'bf16' and device.type == 'cpu' and name != 'onnxruntime' and (fault := fault_in_bfloat16(model)):
        raise EngineError(f'precision bf16: {fault}')
    try:
        return _make(name, model, precision, device)
    except Exception as error:  # whatever a foreign runtime raises while it loads
        if name == 'torch' or (precision == 'int8' and isinstance(error, EngineError)):
            raise
        if precision == 'int8':
            raise EngineError(
                f'engine {name!r}, which runs int8, cannot be used ({type(error).__name__}: {one_line(error)}); '
                f"pip install 'ms-segformer[{EXTRAS[name]}]', or use precision 'float32'"
            ) from error
        warnings.warn(
            f'engine {name!r} cannot be used ({type(error).__name__}: {error}); using torch instead',
            RuntimeWarning,
            stacklevel=2,
        )
        return _make('torch', model, precision, device)


def _checked_device(device: str | torch.device) -> torch.device:
    try:
        device = torch.device(device)
        if device.type != 'cpu':
            device = torch.empty(1, device=device).device  # with its number
    except (RuntimeError, AssertionError) as error:
        reason = one_line(error)
        raise EngineError(
            f"device '{device}' cannot be used ({reason}); use 'cpu' or a device of this machine"
        ) from None
    return device


def _fastest(device: torch.device) -> str:
    if device.type != 'cpu':
        return 'torch'
    return next(name for name, package in CPU_ORDER if package is None or importlib.util.find_spec(package))


def _engine_for_int8(model: Segformer, name: str, device: torch.device) -> str:
    """The engine that runs a model's int8 network; with 'auto' the first that it has one for."""
    if device.type != 'cpu':
        raise EngineError(
            f"precision int8 runs on the CPU, device is '{device}'; use device='cpu' or another precision"
        )
    if name not in ('auto', *FOLDERS):
        raise EngineError(f"engine {name!r} has no int8; use engine='auto', {' or '.join(map(repr, FOLDERS))}")
    if name != 'auto':
        return name
    there = engines_with_int8(model.model_dir) if model.model_dir else []
    if not there:
        read_int8(model, 'openvino')  # says that there is none, and how to make it
    return next((engine for engine in there if importlib.util.find_spec(engine)), there[0])


def _make(name: str, model: Segformer, precision: str, device: torch.device) -> Engine:
    if name == 'openvino':
        from .openvino_engine import OpenVINOEngine  # optional

        return OpenVINOEngine(model, precision)
    if name == 'onnxruntime':
        from .onnx_engine import ONNXRuntimeEngine  # optional

        return ONNXRuntimeEngine(model, precision)
    return TorchEngine(model, precision, device, compiled=name == 'torch-compile')
