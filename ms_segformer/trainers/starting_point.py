"""The weights a training run starts from.

In this order: `load_from` (a checkpoint of any dialect, or a model directory); the checkpoint of the model directory
that was named; `model.pretrained` of the configuration (ImageNet weights of the backbone, a path or a URL), which is
fetched only when nothing else is there; random weights.
"""
import logging
import os
from pathlib import Path
from urllib.parse import urlparse

from ..models.checkpoint import CheckpointError, find_checkpoint, load_state, read_checkpoint
from .errors import TrainingError

logger = logging.getLogger('modelscope')
IMAGENET_CLASSIFIER = ('head.', 'classifier.', 'fc.')


def load(model, model_dir=None, load_from=None, pretrained=None, new_classes=False, whole=False):
    """Load the starting point into a model.

    Args:
        model: a `Segformer`.
        model_dir: model directory, or None.
        load_from: checkpoint file or model directory, or None.
        pretrained: the configuration's `model.pretrained`: URL, path, or None/False.
        new_classes: the classifier may have another number of outputs than the checkpoint's.
        whole: a `load_from` with the backbone's weights only is an error.

    Returns:
        Path or URL of what was loaded; None when the weights stay random.

    Raises:
        TrainingError, CheckpointError, FileNotFoundError: what was named cannot be had or does not fit.
    """
    if load_from:
        path = Path(load_from)
        path = find_checkpoint(path) if path.is_dir() else path
        _load_file(model, path, new_classes, whole)
        return str(path)
    if model_dir is not None and has_checkpoint(model_dir):
        path = find_checkpoint(model_dir)
        _load_file(model, path, new_classes)
        return str(path)
    if pretrained and isinstance(pretrained, str):
        path = _fetch(pretrained) if urlparse(pretrained).scheme in ('http', 'https') else Path(pretrained)
        _load_file(model, path, new_classes)
        return str(pretrained)
    logger.warning('training starts from random weights: there is neither a model directory with a checkpoint, nor '
                   'load_from, nor model.pretrained in the configuration')
    return None


def has_checkpoint(model_dir):
    """Whether a model directory holds a checkpoint; raises CheckpointError when it holds several."""
    try:
        find_checkpoint(model_dir)
    except CheckpointError as error:
        if 'more than one' in str(error):
            raise
        return False
    return True


def _load_file(model, path, new_classes, whole=False):
    content, _ = read_checkpoint(path)
    state = {key: value for key, value in content.items() if not key.startswith(IMAGENET_CLASSIFIER)}
    if any(key.startswith('decode_head.') for key in state):
        load_state(model, state, str(path), strict=True, new_classifier=new_classes)
        logger.info('start: %s', path)
        return
    if whole:
        raise CheckpointError(f'{path}: no weights of a whole model (none of the head, decode_head.*)')
    expected = {key for key in model.state_dict() if key.startswith('backbone.')}
    missing = sorted(expected - set(state))
    if missing:
        raise CheckpointError(f'{path}: no weights of a whole model nor of its backbone: {len(missing)} of '
                              f'{len(expected)} backbone keys are missing ({", ".join(missing[:5])} …)')
    load_state(model, state, str(path), strict=False, new_classifier=new_classes)
    unused = sorted(set(content) - expected)
    logger.info('start: the backbone of %s; the head starts anew%s', path,
                f'; not used: {", ".join(unused)}' if unused else '')


def _fetch(url):
    import torch
    target = Path(torch.hub.get_dir()) / 'checkpoints' / os.path.basename(urlparse(url).path)
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target), progress=False)
    except (OSError, RuntimeError) as error:
        raise TrainingError(
            f'the ImageNet weights {url} could not be fetched ({error}). Without a network: download the file '
            f'elsewhere and put it at {target}, or set model.pretrained to its path; or start from a model '
            'directory (model=DIR) or a checkpoint (load_from=FILE); or set model.pretrained to null to start from '
            'random weights') from None
    return target
