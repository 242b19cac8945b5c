"""The network in OpenVINO, on the CPU."""

from __future__ import annotations

import logging
import warnings
from collections import Counter, deque
from typing import TYPE_CHECKING

import torch

from ..errors import one_line
from ..models.bfloat16 import fault_in_bfloat16
from ..models.folding import weights_version
from . import cache
from .base import Engine, EngineError, as_array, channels_last_output
from .int8 import Int8Network, command, read_int8
from .openvino_core import CORE
from .openvino_graph import build_graph
from .silent_import import import_openvino
from .torch_engine import TorchEngine

if TYPE_CHECKING:
    from openvino import CompiledModel, InferRequest, Model

    from ..models.segformer import Segformer

ov = import_openvino()
GRAPH = 4  # raise it when openvino_graph.py changes what is computed: cached networks of other numbers are not used
# Among the last WINDOW batches those of one shape after which a network compiled for just that shape pays for its
# compilation, or for its reading from the cache; and how many more than another one's it takes to take its place.
FREQUENT, CACHED = 8, 4
ANY = (-1, 3, -1, -1)  # shape
WINDOW = 256
# Such networks kept at a time, those of the most frequent shapes: with B0, and with others, where one takes 1 GiB (B5)
# instead of 0.2: 4:3 and 3:2, portrait and landscape.
KEPT_SMALL, KEPT = 8, 4
SMALL = 8_000_000  # parameters at most; B0 has 3.8 million
logger = logging.getLogger(__name__)


class OpenVINOEngine(Engine):
    """Runs networks compiled for one shape each, and one for all the others; torch where OpenVINO cannot compile them.

    The first shape, and any that comes often, gets a network of its own: faster, in half the memory. So a
    folder of photographs of many shapes costs no more than a few compilations.

    Compiled networks are kept in `cache.cache_dir()`. Threads are those of torch (`OMP_NUM_THREADS`,
    `torch.set_num_threads`); a change of their number, or of the model's weights, takes effect at the next batch.

    Args:
        model: a prepared `Segformer`.
        precision: 'float32' or 'bf16'; on a processor without bfloat16 arithmetic the latter warns and is float32.
            'int8' runs the int8 network of the model's directory, and what that leaves out in bfloat16 where the
            processor has it.

    Raises:
        EngineError: there is no int8 network, or not for these weights; by a later batch, where they have changed.
    """

    name = 'openvino'

    def __init__(self, model: Segformer, precision: str) -> None:
        super().__init__(precision)
        has_bf16 = 'BF16' in CORE.get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
        if precision == 'bf16' and not has_bf16:
            warnings.warn(
                'this processor has no bfloat16 arithmetic; OpenVINO runs in float32', RuntimeWarning, stacklevel=4
            )
            self.precision = 'float32'
        self._hint = 'bf16' if self.precision == 'bf16' else 'f32'
        if precision == 'int8' and has_bf16 and not fault_in_bfloat16(model):
            self._hint = 'bf16'
        self._model = model
        self._classes = model.settings.head.num_classes
        self._kept = KEPT_SMALL if sum(p.numel() for p in model.parameters()) <= SMALL else KEPT
        self._built_for: tuple | None = None  # threads and version of the weights
        self._instead: TorchEngine | None = None
        self._int8: Int8Network | None = None
        self._start()

    def _start(self) -> None:
        """Compile anew when the number of threads or a weight has changed since the last time."""
        current = torch.get_num_threads(), weights_version(self._model)
        if current == self._built_for:
            return
        self._model.prepare_inference()
        if self.precision == 'int8' and (self._built_for is None or self._built_for[1] != current[1]):
            self._int8 = read_int8(self._model, 'openvino')
        self._threads = current[0]
        self._key = cache.key_of(
            self._model,
            graph=GRAPH,
            openvino=ov.get_version(),
            precision=self.precision,
            **({'files': sorted(self._int8.record.files.items()), 'others': self._hint} if self._int8 else {}),
            threads=self._threads,
            processor=[CORE.get_property('CPU', name) for name in ('FULL_DEVICE_NAME', 'OPTIMIZATION_CAPABILITIES')],
        )
        self._recent: deque[tuple[int, ...]] = deque()  # shapes
        self._seen: Counter[tuple[int, ...]] = Counter()  # how often each is among them
        self._special: dict[tuple[int, ...], InferRequest] = {}
        self._general: InferRequest | None = None
        self._built_for = torch.get_num_threads(), weights_version(self._model)

    def _run(self, batch: torch.Tensor) -> torch.Tensor:
        if self._instead is None:
            self._start()
            try:
                request = self._request(tuple(batch.shape))
            except Exception as error:  # whatever OpenVINO raises while it builds or compiles
                if self._int8 is not None:
                    raise EngineError(
                        f'OpenVINO {ov.get_version()} cannot compile the int8 network ({one_line(error)}); make it '
                        f'anew with this version ({command(self._model.model_dir, "openvino")}), or use float32'
                    ) from error
                warnings.warn(
                    f'OpenVINO cannot compile the network ({type(error).__name__}: {error}); using torch instead',
                    RuntimeWarning,
                    stacklevel=3,
                )
                self._instead, self.name = TorchEngine(self._model, self.precision, torch.device('cpu')), 'torch'
        if self._instead is not None:
            return self._instead(batch)
        image = as_array(batch)  # the request does not keep it alive
        logits = channels_last_output(batch, self._classes)
        request.set_input_tensor(ov.Tensor(image, shared_memory=True))
        request.set_output_tensor(ov.Tensor(logits.numpy(), shared_memory=True))
        request.infer()
        return logits.permute(0, 3, 1, 2)

    def _request(self, shape: tuple[int, ...]) -> InferRequest:
        """The inference request of the network for a shape; compiles what is missing."""
        self._recent.append(shape)
        self._seen[shape] += 1
        if len(self._recent) > WINDOW:
            self._seen.subtract([self._recent.popleft()])
            self._seen = +self._seen  # without those that come no more
        if shape in self._special:
            return self._special[shape]
        if self._special and not self._pays(shape):
            self._general = self._general or self._compile(ANY)
            return self._general
        if len(self._special) >= self._kept:
            del self._special[self._rarest()]
        self._special[shape] = self._compile(shape)
        return self._special[shape]

    def _pays(self, shape: tuple[int, ...]) -> bool:
        """Whether a shape is so frequent that a network of its own pays, in another one's place where all are taken."""
        seen = self._seen[shape]
        if len(self._special) >= self._kept:
            return seen >= self._seen[self._rarest()] + FREQUENT
        return seen >= FREQUENT or (seen >= CACHED and cache.has(self._name(shape)))

    def _rarest(self) -> tuple[int, ...]:
        """Of the shapes with a network of their own the one that comes least."""
        return min(self._special, key=lambda shape: self._seen[shape])

    def _name(self, shape: tuple[int, ...]) -> str:
        """Of a network in the cache."""
        return f'{self._key}-{"x".join(map(str, shape))}.openvino'

    def _compile(self, shape: tuple[int, ...]) -> InferRequest:
        settings = {
            'INFERENCE_PRECISION_HINT': self._hint,
            'INFERENCE_NUM_THREADS': self._threads,
            'NUM_STREAMS': 1,
            'ENABLE_CPU_PINNING': False,  # each process would pin its threads to the same, the first, cores
        }
        name = self._name(shape)
        content = cache.read(name)
        if content is not None:
            try:
                return CORE.import_model(content, 'CPU', settings).create_infer_request()
            except RuntimeError as error:
                logger.warning(
                    '%s in %s is of no use to OpenVINO %s (%s); compiling anew',
                    name,
                    cache.cache_dir(),
                    ov.get_version(),
                    one_line(error),
                )
        compiled = CORE.compile_model(self._graph(shape), 'CPU', settings)
        cache.write(name, _exported(compiled))
        return compiled.create_infer_request()

    def _graph(self, shape: tuple[int, ...]) -> Model:
        if self._int8 is None:
            return build_graph(self._model, shape)
        description, weights = self._int8.content
        graph = CORE.read_model(description, weights)
        graph.reshape({'img': list(shape)})
        return graph


def _exported(compiled: CompiledModel) -> bytes:
    content = compiled.export_model()
    return content if isinstance(content, bytes) else content.getvalue()
