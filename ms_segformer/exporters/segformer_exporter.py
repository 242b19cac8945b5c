"""Writes a SegFormer as ONNX or OpenVINO IR, for programs that have neither PyTorch nor this package.

    from modelscope.exporters import Exporter
    Exporter.from_model(model_dir).export_onnx('exported')

Both take `img`, N×3×H×W float32: the RGB image, scaled, minus the configuration's mean, over its std; and give
`logits`, N×C×ceil(H/4)×ceil(W/4) float32. `postprocess.segment` says how label maps come from them.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from modelscope.exporters.base import Exporter
from modelscope.exporters.builder import EXPORTERS

from ..config.limits import SMALLEST_SIDE, WHOLE_PIXELS
from ..engines.onnx_graph import OPSET, write_onnx
from ..engines.silent_import import import_onnxruntime, import_openvino
from ..errors import SegformerError, one_line
from ..files import atomic_write
from ..metainfo import MODEL, ONNX_OPSETS, TASK

if TYPE_CHECKING:
    from openvino import Model

    from ..models.segformer import Segformer

TOLERANCE = 1e-3  # of float32 logits, whose own rounding is about 1e-5


class ExportError(SegformerError, ValueError):
    """A file that could not be written, or whose results differ from the model's; the message says what to do."""


@EXPORTERS.register_module(group_key=TASK, module_name=MODEL, force=True)
class SegformerExporter(Exporter):
    """Exports a `Segformer`; `Exporter.from_model` makes it from a model, a model directory or a hub id."""

    def export_onnx(
        self,
        output_dir: str | os.PathLike,
        opset: int = OPSET,
        shape: Sequence[int] | None = None,
        validate: bool = True,
        **_: Any,
    ) -> dict[str, str]:
        """Write `model.onnx`.

        Args:
            output_dir: folder; made when missing.
            opset: ONNX operator set, one of `metainfo.ONNX_OPSETS`.
            shape: (N, 3, H, W), the only input the file then takes; None for any N, H and W.
            validate: run the file with ONNX Runtime, when that is installed, and compare with the model.

        Returns:
            `{'model': path}`.

        Raises:
            ExportError: operator set or shape cannot be exported, or the file gives other results.
        """
        if opset not in ONNX_OPSETS:
            raise ExportError(
                f'opset {opset}: the network can be written in the ONNX operator sets {ONNX_OPSETS[0]} '
                f'to {ONNX_OPSETS[-1]}; leave it out for {OPSET}'
            )
        path = Path(output_dir, 'model.onnx')
        model = self._prepared()
        with atomic_write(path) as temporary:
            write_onnx(model, temporary, _checked(shape) or (1, 3, 128, 160), dynamic=shape is None, opset=opset)
            if validate:
                self._compare(temporary, shape, _run_onnx)
        return {'model': os.fspath(path)}

    def export_openvino(
        self,
        output_dir: str | os.PathLike,
        shape: Sequence[int] | None = None,
        compress_to_fp16: bool = False,
        validate: bool = True,
        **_: Any,
    ) -> dict[str, str]:
        """Write `model.xml` and `model.bin`, OpenVINO's IR.

        Args:
            output_dir, shape, validate: as in `export_onnx`.
            compress_to_fp16: store weights in half precision: half the size, results differ by about 1e-3.

        Returns:
            `{'model': path of the .xml, 'weights': path of the .bin}`.

        Raises:
            ExportError: OpenVINO is not installed, or as in `export_onnx`.
        """
        try:
            import_openvino()
        except ImportError as error:
            raise ExportError(f'OpenVINO is needed to write its format ({error}); pip install openvino') from None
        from ..engines.openvino_graph import build_graph  # optional

        graph = build_graph(self._prepared(), _checked(shape) or (-1, 3, -1, -1), channels_last=False)
        path = Path(output_dir, 'model.xml')
        with atomic_write(path.with_suffix('.bin')) as weights, atomic_write(path) as temporary:
            own = temporary.with_suffix('.bin')  # where save_model puts it
            try:
                save_openvino(graph, temporary, compress_to_fp16)
                if validate and not compress_to_fp16:
                    self._compare(temporary, shape, _run_openvino)
                os.replace(own, weights)
            finally:
                own.unlink(missing_ok=True)
        return {'model': os.fspath(path), 'weights': os.fspath(path.with_suffix('.bin'))}

    def _prepared(self) -> Segformer:
        return self.model.cpu().float().prepare_inference()

    def _compare(
        self, path: Path, shape: Sequence[int] | None, run: Callable[[Path, np.ndarray], np.ndarray | None]
    ) -> None:
        image = torch.randn(_checked(shape) or (2, 3, 96, 133), generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = self.model.logits(image).numpy()
        found = run(path, image.numpy())
        if found is None:
            return
        difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else float('inf')
        if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise ExportError(
                f'the exported network differs from the model by {difference:.2g} in its logits; nothing '
                'was written. Please report it with the versions of torch and the runtime'
            )


def save_openvino(graph: Model, path: Path, compress_to_fp16: bool = False) -> None:
    """Write an OpenVINO graph as `path`, ending in `.xml`, and a `.bin` beside it.

    Raises:
        ExportError: it cannot be written.
    """
    try:
        import_openvino().save_model(graph, os.fspath(path), compress_to_fp16=compress_to_fp16)
    except RuntimeError as error:  # OpenVINO's form of an OSError, without its reason
        free = shutil.disk_usage(path.parent).free
        raise ExportError(
            f'OpenVINO could not write to {path.parent} ({one_line(error)}; {free >> 20} MiB '
            'free). Nothing was written; make room or choose another folder'
        ) from None


def _checked(shape: Sequence[int] | None) -> tuple[int, ...] | None:
    if shape is None:
        return None
    if len(shape) != 4 or shape[1] != 3 or shape[0] < 1 or min(shape[2:]) < SMALLEST_SIDE:
        raise ExportError(
            f'shape {tuple(shape)}; expected (N, 3, H, W) with sides of at least {SMALLEST_SIDE} pixels, '
            'or None for any N, H and W'
        )
    if math.prod(shape) > 3 * WHOLE_PIXELS:
        raise ExportError(f'shape {tuple(shape)}; accepted: up to {WHOLE_PIXELS:,} pixels in a batch')
    return tuple(shape)


def _run_onnx(path: Path, image: np.ndarray) -> np.ndarray | None:
    """Logits by ONNX Runtime, or None when it is not installed."""
    try:
        onnxruntime = import_onnxruntime()
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(os.fspath(path), providers=['CPUExecutionProvider'])
    return session.run(['logits'], {'img': image})[0]


def _run_openvino(path: Path, image: np.ndarray) -> np.ndarray:
    from ..engines.openvino_core import CORE  # optional

    compiled = CORE.compile_model(os.fspath(path), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    return compiled({'img': image})['logits']
