"""The network in ONNX Runtime, on the CPU."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..models.folding import weights_version
from . import cache
from .base import Engine, as_array
from .int8 import Int8Network, read_int8
from .onnx_graph import OPSET, write_onnx
from .silent_import import import_onnxruntime

if TYPE_CHECKING:
    from ..models.segformer import Segformer

onnxruntime = import_onnxruntime()


class ONNXRuntimeEngine(Engine):
    """Runs an ONNX export of the model that takes any shape; the export is kept in `cache.cache_dir()`.

    Threads are those of torch; a change of their number, or of the model's weights, takes effect at the next batch.

    Args:
        model: a prepared `Segformer`.
        precision: 'float32'; for 'bf16' it warns and is float32. 'int8' runs the int8 network of the model's directory.

    Raises:
        EngineError: there is no int8 network, or not for these weights; by a later batch, where they have changed.
    """

    name = 'onnxruntime'

    def __init__(self, model: Segformer, precision: str) -> None:
        if precision == 'bf16':
            warnings.warn('ONNX Runtime has no bfloat16 on the CPU; it runs in float32', RuntimeWarning, stacklevel=4)
        super().__init__('int8' if precision == 'int8' else 'float32')
        self._model = model
        self._built_for: tuple | None = None  # threads and version of the weights
        self._int8: Int8Network | None = None
        self._start()

    def _start(self) -> None:
        current = torch.get_num_threads(), weights_version(self._model)
        if current == self._built_for:
            return
        if self.precision == 'int8' and (self._built_for is None or self._built_for[1] != current[1]):
            self._int8 = read_int8(self._model, 'onnxruntime')
        self._model.prepare_inference()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(self._content(), options, providers=['CPUExecutionProvider'])
        self._built_for = torch.get_num_threads(), weights_version(self._model)

    def _content(self) -> bytes:
        if self._int8 is not None:
            return self._int8.content[0]
        name = f'{cache.key_of(self._model, opset=OPSET, torch=torch.__version__)}.onnx-cached'
        content = cache.read(name)
        if content is None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, 'network.onnx')
                write_onnx(self._model, path)
                content = path.read_bytes()
            cache.write(name, content)
        return content

    def _run(self, batch: torch.Tensor) -> torch.Tensor:
        self._start()
        return torch.from_numpy(self._session.run(None, {'img': as_array(batch)})[0])
