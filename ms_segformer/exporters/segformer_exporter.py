"""Writes a SegFormer as ONNX or OpenVINO IR, for programs that have neither PyTorch nor this package.

    from modelscope.exporters import Exporter
    Exporter.from_model(model_dir).export_onnx('exported')

Both take `img`, N×3×H×W float32: the RGB image, scaled, minus the configuration's mean, over its std; and give
`logits`, N×C×ceil(H/4)×ceil(W/4) float32. `postprocess.segment` says how label maps come from them; ONNX files can also
give the label maps themselves.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from modelscope.exporters.base import Exporter
from modelscope.exporters.builder import EXPORTERS

from ..config.limits import SMALLEST_SIDE, WHOLE_PIXELS
from ..engines.onnx_graph import OPSET, write_onnx
from ..engines.silent_import import import_onnxruntime, import_openvino
from ..errors import SegformerError, one_line
from ..files import atomic_write
from ..metainfo import FIRST_FP16_OPSET, MODEL, ONNX_OPSETS, ONNX_OUTPUTS, TASK
from ..postprocess.resampling import ColumnStretch, stretch_rows
from ..postprocess.segmentation import bands, taps_to_original
from ..preprocessors.segformer import SegformerPreprocessor
from ..preprocessors.shapes import ImageShapes

if TYPE_CHECKING:
    from openvino import Model

    from ..models.segformer import Segformer

TOLERANCE = 1e-3  # of float32 logits, whose own rounding is about 1e-5
HALF_TOLERANCE = 5e-2  # of half precision's, in units of the largest: it overflows, or is far below


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
        output: str = 'logits',
        fp16: bool = False,
        image_shape: Sequence[int] | None = None,
        **_: Any,
    ) -> dict[str, str]:
        """Write `model.onnx`.

        Args:
            output_dir: folder; made when missing.
            opset: ONNX operator set, one of `metainfo.ONNX_OPSETS`.
            shape: (N, 3, H, W), the only input the file then takes; None for any N, H and W.
            validate: run the file with ONNX Runtime, when that is installed, and compare with the model.
            output: what the file gives: `'logits'`, N×C×ceil(H/4)×ceil(W/4) float32, or `'classes'`, N×H×W uint8 class
                ids at the input's size, VOID among them.
            fp16: weights and computation in half precision; input and output stay as they are.
            image_shape: (N, 3, H, W) of the photographs, with `'classes'` and in place of `shape`: they go in as the
                configuration has them scaled and padded, the only input the file then takes, and the class maps come
                out at the photographs' size, as `pipeline` has them in its mode `'whole'`.

        Returns:
            `{'model': path}`.

        Raises:
            ExportError: operator set, shape or output cannot be exported, or the file gives other results.
        """
        if opset not in ONNX_OPSETS:
            raise ExportError(
                f'opset {opset}: the network can be written in the ONNX operator sets {ONNX_OPSETS[0]} '
                f'to {ONNX_OPSETS[-1]}; leave it out for {OPSET}'
            )
        if output not in ONNX_OUTPUTS:
            raise ExportError(f'output {output!r}; accepted: {" or ".join(map(repr, ONNX_OUTPUTS))}')
        if fp16 and opset < FIRST_FP16_OPSET:
            raise ExportError(
                f'opset {opset} with fp16: layer norms written in it overflow half precision; accepted: '
                f'{FIRST_FP16_OPSET} or later'
            )
        shape, shapes = _checked(shape), None
        if image_shape is not None:
            if output != 'classes' or shape is not None:
                raise ExportError("image_shape goes with output='classes' and without shape, which follows from it")
            shape, shapes = self._of_photographs(_checked(image_shape))
        path = Path(output_dir, 'model.onnx')
        model = self._prepared()
        with atomic_write(path) as temporary:
            write_onnx(
                model,
                temporary,
                shape or (1, 3, 128, 160),
                dynamic=shape is None,
                opset=opset,
                output=output,
                fp16=fp16,
                shapes=shapes,
            )
            if validate:
                self._compare(temporary, shape, _run_onnx, output, fp16, shapes)
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

        shape = _checked(shape)
        graph = build_graph(self._prepared(), shape or (-1, 3, -1, -1), channels_last=False)
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

    def _of_photographs(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ImageShapes]:
        """The shape of the network's input for photographs of a shape, and the sizes on the way."""
        if self.model.settings.test.mode != 'whole':
            raise ExportError(
                'image_shape is for models that segment an image in one piece; the configuration of this one says '
                f'{self.model.settings.test.mode!r}. Export it with shape, of a window, and put the windows together '
                'yourself'
            )
        shapes = SegformerPreprocessor(self.model.model_dir).shapes(shape[2], shape[3])
        return _checked((*shape[:2], *shapes.padded)), shapes

    def _compare(
        self,
        path: Path,
        shape: Sequence[int] | None,
        run: Callable[[Path, np.ndarray], np.ndarray | None],
        output: str = 'logits',
        fp16: bool = False,
        shapes: ImageShapes | None = None,
    ) -> None:
        """Run a file and raise `ExportError` if its output is not the model's."""
        image = torch.randn(shape or (2, 3, 96, 133), generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            logits = self.model.logits(image)
        found = run(path, image.numpy())
        if found is None:
            return
        if output == 'logits':
            expected = logits.numpy()
            difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else math.inf
        else:
            height, width = image.shape[2:]
            shapes = shapes or ImageShapes((height, width), (height, width), (height, width))
            difference = _lost_to_the_best(logits, found, shapes, self.model.settings.head.align_corners)
        if not difference <= (HALF_TOLERANCE if fp16 else TOLERANCE) * max(1.0, float(logits.abs().max())):
            raise ExportError(
                f'the exported network differs from the model by {difference:.2g} in its logits; nothing was written. '
                + (
                    'Its numbers are too large for half precision: leave fp16 out'
                    if fp16
                    else 'Please report it with the versions of torch and the runtime'
                )
            )


def _lost_to_the_best(logits: torch.Tensor, found: np.ndarray, shapes: ImageShapes, align_corners: bool) -> float:
    """The most by which the logit of a class map's class is below the best one of the pixel.

    Unlike the number of different pixels, this is small whenever the map is right up to rounding.

    Args:
        logits: N×C×h×w float32.
        found: N×H×W uint8.
        shapes: the sizes on the way from the logits to H×W.
        align_corners: as in `torch.nn.functional.interpolate`.
    """
    count, classes = logits.shape[:2]
    if found.shape != (count, *shapes.original) or found.dtype != np.uint8 or int(found.max()) >= classes:
        return math.inf
    rows, cols = taps_to_original(logits[0], shapes, align_corners)
    columns = ColumnStretch(cols, logits.dtype, logits.device)
    lost = 0.0
    for pixels, labels in zip(logits.permute(0, 2, 3, 1), torch.from_numpy(found).long(), strict=True):
        for band in bands(*shapes.original, classes):
            read, down = rows.part(band)
            values = columns(stretch_rows(pixels[read.start : read.stop], down))  # rows×W×C
            chosen = values.gather(-1, labels[band, :, None])[..., 0]
            lost = max(lost, float((values.amax(-1) - chosen).max()))
    return lost


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


@overload
def _checked(shape: None) -> None: ...
@overload
def _checked(shape: Sequence[int]) -> tuple[int, ...]: ...
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
    """A file's output by ONNX Runtime, or None when it is not installed."""
    try:
        onnxruntime = import_onnxruntime()
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(os.fspath(path), providers=['CPUExecutionProvider'])
    return session.run(None, {'img': image})[0]


def _run_openvino(path: Path, image: np.ndarray) -> np.ndarray:
    from ..engines.openvino_core import CORE  # optional

    compiled = CORE.compile_model(os.fspath(path), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    return compiled({'img': image})['logits']
