"""`load`: a model by its short name, hub id or directory to the pipeline that segments with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..config.reader import read_configuration
from ..errors import SegformerError
from ..integrations.modelscope.autoload import DISABLE_VARIABLE, active
from ..integrations.modelscope.hub import model_directory
from ..metainfo import DEMO, TASK

if TYPE_CHECKING:
    from .image_segmentation import SegformerPipeline


class NotActiveError(SegformerError, RuntimeError):
    """ModelScope does not resolve SegFormer models to this package."""


def load(
    model: str | os.PathLike[str] = DEMO,
    *,
    revision: str | None = None,
    device: str = 'gpu',
    engine: str = 'auto',
    precision: str = 'float32',
) -> SegformerPipeline:
    """Open a SegFormer model for segmentation.

    Args:
        model: `'demo'`, the street-scene model in this package, which needs no network; `'b0'` … `'b5'` for the
            published models; an id of ModelScope's hub; or a model directory. What is not on this machine yet is
            downloaded; while the hub cannot be reached, the cached copy is taken.
        revision: branch, tag or commit of a hub id; default: `master`.
        device: `'cpu'`, `'gpu'`, `'cuda:0'`, …; the default takes the CPU where there is no GPU.
        engine: what runs the network: `'torch'`, `'openvino'`, `'onnxruntime'`, …, or `'auto'`, the fastest of those
            installed whose float32 label maps are the same.
        precision: `'float32'`; `'bf16'`, which is faster where the machine has instructions for it; or `'int8'`, faster
            still, of a model directory that `ms_segformer.quantize` made.

    Returns:
        The pipeline: `load('demo')('photo.jpg')['labels']`. Its `classes`, `id2label`, `palette` and `variant` say
        what the model is; `help(ms_segformer.SegformerPipeline.__call__)` what it takes and gives.

    Raises:
        FileNotFoundError: the model is none of these.
        ConnectionError: it cannot be downloaded; the message says what to try.
        ConfigurationError: the directory is no SegFormer's.
        NotActiveError: this package is not active, see `ms_segformer.activate`.
    """
    if not active():
        raise NotActiveError(
            'ms-segformer is not active, so ModelScope would not find its classes: call '
            f'ms_segformer.activate(), and unset {DISABLE_VARIABLE} where it is set'
        )
    folder = model_directory(model, revision)
    read_configuration(folder)  # its errors are clearer than what ModelScope makes of a directory it does not know
    from modelscope.pipelines import pipeline  # imported late: it takes seconds, and a mistyped name is told at once

    return pipeline(TASK, folder, device=device, engine=engine, precision=precision)
