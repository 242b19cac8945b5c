"""The weights a training run starts from: `load_from`, on the command line `--from`.

| `load_from` | start |
|-|-|
| not given, or `model` | the checkpoint of the model that was named; without one what `model.pretrained` names |
| `imagenet` | the backbone of what the configuration's `model.pretrained` names; the head starts anew |
| `scratch` | random weights |
| a file, a model directory, a URL, a ModelScope id, `hf:OWNER/NAME` | these, a whole model or a backbone |

A URL or an id is fetched because `load_from` says so, never otherwise.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..config.messages import ConfigurationError
from ..config.reader import read_configuration
from ..metainfo import RUN_LOGGER, WEIGHTS_OF_TRANSFORMERS
from ..models.checkpoint import CheckpointError, SeveralCheckpointsError, find_checkpoint, load_state, read_checkpoint
from . import distributed, start_weights, starts
from .errors import TrainingError

logger = logging.getLogger(RUN_LOGGER)
IMAGENET_CLASSIFIER = ('head.', 'classifier.', 'fc.')


def load(
    model: torch.nn.Module,
    model_dir: str | os.PathLike | None = None,
    load_from: object = None,
    pretrained: object = None,
    new_classes: bool = False,
    whole: bool = False,
    classes: Sequence[str] | None = None,
) -> str | None:
    """Load the starting point into a model. Every process of a distributed run has to call it where it is fetched.

    Args:
        model: a `Segformer`.
        model_dir: model directory, or None.
        load_from: see the module; None is `model`.
        pretrained: the configuration's `model.pretrained`: URL, path, or None/False.
        new_classes: the classifier may have another number of outputs than the checkpoint's.
        whole: a `load_from` with the backbone's weights only is an error.
        classes: names of the model's classes: where those of the weights are known (from the configuration beside them,
            or the `meta` in them) and are others, the classifier starts anew. None: not looked at.

    Returns:
        Path of what was loaded; None when the weights stay random.

    Raises:
        TrainingError, CheckpointError, FileNotFoundError: what was named cannot be had or does not fit.
    """
    if load_from is not None and not isinstance(load_from, (str, os.PathLike)):
        raise TrainingError(f'load_from is {load_from!r}; expected {", ".join(starts.STARTS)}, a path, a URL or an id')
    pretrained = pretrained if isinstance(pretrained, str) and pretrained else None
    if load_from == starts.SCRATCH:
        _say('random weights')
        return None
    if load_from == starts.IMAGENET:
        return _load_imagenet(model, pretrained)
    if load_from and load_from != starts.MODEL:
        path = _file(load_from)
        _load_file(model, path, new_classes, whole, classes, os.path.isdir(load_from))
        return str(path)
    if model_dir is not None and has_checkpoint(model_dir):
        path = find_checkpoint(Path(model_dir))
        _load_file(model, path, new_classes, classes=classes, of_a_directory=True)
        return str(path)
    if load_from == starts.MODEL:
        raise TrainingError(
            'load_from is "model", and there are no weights of a model: name a model directory or a '
            f'hub id, or start from {starts.IMAGENET}, {starts.SCRATCH} or a checkpoint'
        )
    if pretrained is None:
        logger.warning(
            'training starts from random weights: there is neither a model directory with a checkpoint, '
            'nor load_from, nor model.pretrained in the configuration'
        )
        return None
    if not os.path.exists(pretrained):
        raise TrainingError(
            f'what to start from is not said, and model.pretrained, {pretrained}, is not on this '
            f'machine: choose load_from="{starts.IMAGENET}" (--from {starts.IMAGENET}), which fetches '
            f'it, "{starts.SCRATCH}" for random weights, or a file'
        )
    _load_file(model, _file(pretrained), new_classes, classes=classes)
    return pretrained


def has_checkpoint(model_dir: str | os.PathLike) -> bool:
    """Whether a model directory holds a checkpoint; raises SeveralCheckpointsError when it holds several."""
    try:
        find_checkpoint(Path(model_dir))
    except SeveralCheckpointsError:
        raise
    except CheckpointError:
        return False
    return True


def _file(source: str | os.PathLike) -> Path:
    """The checkpoint file that a path, a URL or an id means; fetched once a machine."""
    try:
        if not os.path.exists(source):
            distributed.first_on_each_machine(lambda: start_weights.weights(source))
        path = start_weights.weights(source)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise TrainingError(str(error)) from None
    if not path.is_dir():
        return path
    theirs = [path / name for name in WEIGHTS_OF_TRANSFORMERS if (path / name).is_file()]
    return theirs[0] if theirs and (path / 'config.json').is_file() else find_checkpoint(path)


def _load_imagenet(model: torch.nn.Module, pretrained: str | None) -> str:
    if pretrained is None:
        raise TrainingError(
            'load_from is "imagenet", and the configuration\'s model.pretrained names nothing; set it '
            'to a URL or a path (--options model.pretrained=…), or name the file itself as load_from'
        )
    path = _file(pretrained)
    content, _ = read_checkpoint(path)
    _load_backbone(model, content, path)
    return str(path)


def _load_file(
    model: torch.nn.Module,
    path: Path,
    new_classes: bool,
    whole: bool = False,
    classes: Sequence[str] | None = None,
    of_a_directory: bool = False,
) -> None:
    content, meta = read_checkpoint(path)
    state = {key: value for key, value in content.items() if not key.startswith(IMAGENET_CLASSIFIER)}
    if any(key.startswith('decode_head.') for key in state):
        others = classes is not None and are_others(classes, path, meta, of_a_directory)
        load_state(model, state, str(path), new_classifier=new_classes, other_classes=others)
        _say(str(path))
    elif whole:
        raise CheckpointError(f'{path}: no weights of a whole model (none of the head, decode_head.*)')
    else:
        _load_backbone(model, content, path)


def are_others(classes: Sequence[str], path: Path, meta: dict[str, Any], of_a_directory: bool = False) -> bool:
    """Whether weights are known to be made for other classes than these.

    Args:
        classes: names.
        path, meta: of the weights, see `read_checkpoint`.
        of_a_directory: they belong to the configuration beside them.
    """
    theirs = _classes_of(path, meta, of_a_directory)
    return theirs is not None and theirs != list(classes)


def _classes_of(path: Path, meta: dict[str, Any], of_a_directory: bool) -> list[str] | None:
    """The class names that weights were made for, None where nothing says; a model directory's are its configuration's.

    A file that was named by itself may lie beside a configuration that was not written for it: what it says itself
    comes first.
    """
    said = meta.get('CLASSES')
    said = list(map(str, said)) if isinstance(said, Sequence) and not isinstance(said, str) and said else None
    if said is not None and not of_a_directory:
        return said
    try:
        return list(read_configuration(path.parent).classes)
    except (FileNotFoundError, ConfigurationError):
        return said


def _load_backbone(model: torch.nn.Module, content: dict[str, torch.Tensor], path: Path) -> None:
    """Load the tensors of the backbone, all of them and as many: that of a deeper model holds those of another."""
    theirs = {key: value for key, value in content.items() if key.startswith('backbone.')}
    if not theirs:
        raise CheckpointError(
            f'{path}: no weights of a whole model nor of its backbone ({len(content)} tensors: '
            f'{", ".join(sorted(content)[:3])} …)'
        )
    head = {key: value for key, value in model.state_dict().items() if not key.startswith('backbone.')}
    load_state(model, {**head, **theirs}, str(path))
    dropped = sorted(set(content) - set(theirs))
    more = f' and {len(dropped) - 5} more' if len(dropped) > 5 else ''
    _say(
        f'the backbone of {path}, {len(theirs)} tensors; the head starts anew'
        + (f'; dropped: {", ".join(dropped[:5])}{more}' if dropped else '')
    )


def _say(start: str) -> None:
    if distributed.is_first():
        logger.info(f'start: {start}')
