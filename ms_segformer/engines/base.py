"""The one interface to every engine, and the choice among them."""
import importlib.util
import threading
import warnings
from abc import ABC, abstractmethod

import numpy as np
import torch

from ..errors import SegformerError, one_line
from ..metainfo import ENGINES, PRECISIONS

# Engines of a CPU by their speed there, fastest first; the package that each needs beside torch.
CPU_ORDER = (('openvino', 'openvino'), ('torch', None))


class EngineError(SegformerError, ValueError):
    """A name, precision or device that no engine has, or an engine that cannot be used; the message says what can."""


class Engine(ABC):
    """Runs the network on a batch.

    Attributes:
        name: one of `ENGINES`.
        precision: 'float32' or 'bf16': the arithmetic in the network. Logits are always float32.
    """

    name = None

    def __init__(self, precision):
        self.precision = precision
        self._lock = threading.Lock()

    def __call__(self, batch):
        """Run the network.

        Args:
            batch: N×3×H×W float32 tensor or array, normalised RGB.

        Returns:
            N×C×ceil(H/4)×ceil(W/4) float32 tensor in channels-last memory; it belongs to the caller. Calls from
            several threads take turns.

        Raises:
            EngineError: a batch of another shape or type.
        """
        batch = batch if isinstance(batch, torch.Tensor) else torch.as_tensor(batch, device='cpu')
        if batch.dim() != 4 or batch.shape[1] != 3 or batch.dtype != torch.float32 or batch.numel() == 0:
            raise EngineError(f'a batch of shape {tuple(batch.shape)} and type {batch.dtype}; expected N×3×H×W float32')
        with self._lock, torch.inference_mode():
            return self._run(batch)

    @abstractmethod
    def _run(self, batch):
        """`__call__` on a checked tensor."""

    def __repr__(self):
        return f'{type(self).__name__}({self.name!r}, {self.precision!r})'


def create_engine(model, name='auto', precision='float32', device='cpu'):
    """Prepare a model for inference and return the engine that runs it.

    Args:
        model: a `Segformer` with its weights loaded; it is put in evaluation mode. Weights that change later change
            the engine's results at the next batch, if PyTorch counts the change: `load_state_dict`, a step of an
            optimizer, writing in place (under `torch.no_grad()`), and a parameter or its `.data` replaced by another
            tensor. Values written through `.data` or `.numpy()` are not counted, and results may be those of before.
        name: one of `ENGINES`, or 'auto': the fastest installed one for the device.
        precision: 'float32' reproduces the plain network's label maps; 'bf16' is faster where the processor has it and
            may change pixels near a boundary.
        device: 'cpu', or a device of torch; OpenVINO and ONNX Runtime run on the CPU only.

    Returns:
        `Engine`. One that cannot be loaded is replaced by the torch engine, with a warning that says why.

    Raises:
        EngineError: unknown name or precision, or a device that is not there or that the named engine does not have.
    """
    device = _checked_device(device)
    if name != 'auto' and name not in ENGINES:
        raise EngineError(f"unknown engine {name!r}; expected 'auto', {', '.join(map(repr, ENGINES))}")
    if precision not in PRECISIONS:
        raise EngineError(f'unknown precision {precision!r}; expected {" or ".join(map(repr, PRECISIONS))}')
    if device.type != 'cpu' and name in ('openvino', 'onnxruntime'):
        raise EngineError(f"engine {name!r} runs on the CPU, device is '{device}'; use device='cpu' or engine='torch'")
    model.prepare_inference()
    if name == 'auto':
        name = _fastest(device)
    try:
        return _make(name, model, precision, device)
    except Exception as error:  # whatever a foreign runtime raises while it loads
        if name == 'torch':
            raise
        warnings.warn(f'engine {name!r} cannot be used ({type(error).__name__}: {error}); using torch instead',
                      RuntimeWarning, stacklevel=2)
        return _make('torch', model, precision, device)


def _checked_device(device):
    try:
        device = torch.device(device)
        if device.type != 'cpu':
            torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = one_line(error)
        raise EngineError(
            f"device '{device}' cannot be used ({reason}); use 'cpu' or a device of this machine") from None
    return device


def _fastest(device):
    if device.type != 'cpu':
        return 'torch'
    return next(name for name, package in CPU_ORDER if package is None or importlib.util.find_spec(package))


def _make(name, model, precision, device):
    if name == 'openvino':
        from .openvino_engine import OpenVINOEngine
        return OpenVINOEngine(model, precision)
    if name == 'onnxruntime':
        from .onnx_engine import ONNXRuntimeEngine
        return ONNXRuntimeEngine(model, precision)
    from .torch_engine import TorchEngine
    return TorchEngine(model, precision, device, compiled=name == 'torch-compile')


def channels_last_output(batch, classes):
    """Memory for the logits of a batch: N×ceil(H/4)×ceil(W/4)×C float32 tensor, not initialised."""
    n, _, height, width = batch.shape
    return torch.empty(n, -(-height // 4), -(-width // 4), classes, dtype=torch.float32, device='cpu')


def as_array(batch):
    """The batch as a contiguous array, without a copy when it is one."""
    return np.ascontiguousarray(batch.detach().cpu().numpy())
