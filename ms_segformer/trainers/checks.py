"""What training refuses before a model is loaded or anything is written: values that nothing else reads so early."""

import math
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import torch

from ..config.limits import EPOCHS, LARGEST_SEED, SMALLEST_SIDE
from ..config.messages import shown
from ..datasets.errors import DatasetError
from ..datasets.sources import make_palette
from ..models.bfloat16 import fault_in_bfloat16
from .errors import TrainingError
from .optimizer import require_known_optimizer, require_rate
from .protocol import Trainer
from .resuming import safe_checkpoint
from .schedules import require_known_policy

PRECISIONS = {'bf16': torch.bfloat16, 'bfloat16': torch.bfloat16, 'fp16': torch.float16, 'float16': torch.float16}


def require_seed(seed: Any) -> None:
    """Refuse what numpy's and torch's generators do not both take."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= LARGEST_SEED:
        raise TrainingError(f'seed is {seed!r}; expected an integer from 0 to {LARGEST_SEED}')


def check_sections(raw: dict, optimizer: Any = None, scheduler: Any = None, max_epochs: int | None = None) -> None:
    """Refuse what a prepared configuration says of the run itself.

    Args:
        raw: the configuration as plain dicts and lists.
        optimizer, scheduler, max_epochs: what is used in place of what the configuration says.

    Raises:
        TrainingError: no number of epochs, NaN, no or an unknown optimizer, no rate, an unknown policy, loader options
            without loading processes, or crops that are too small for the network.
        DatasetError: a pipeline that is no list, or a palette that is none for the classes.
    """
    train = raw.get('train') or {}
    for path, value in _numbers(train, 'train'):
        if math.isnan(value):
            raise TrainingError(f'{path} is NaN; expected a number')
    if max_epochs is None and train.get('max_epochs') is None:
        raise TrainingError(
            'train.max_epochs is missing; expected the number of epochs (also --epochs N, or max_epochs=N in code)'
        )
    if optimizer is None and not train.get('optimizer'):
        raise TrainingError(
            'train.optimizer is missing; expected an optimizer with its rate, such as {"type": '
            '"AdamW", "lr": 6e-5, "weight_decay": 0.01}'
        )
    if optimizer is None:
        require_known_optimizer(train['optimizer'].get('type', 'AdamW'))
        require_rate(train['optimizer'].get('lr'))
    for section in ('train', 'evaluation'):
        _require_processes((raw.get(section) or {}).get('dataloader') or {}, f'{section}.dataloader')
    if scheduler is None and train.get('lr_scheduler'):
        require_known_policy(train['lr_scheduler'])
    if raw.get('PALETTE') is not None:
        _require_palette(raw['PALETTE'], raw['CLASSES'])
    for index, step in enumerate(_pipeline(raw, 'train')):
        if isinstance(step, dict) and step.get('type') == 'SegRandomCrop':
            _require_large_enough(step.get('crop_size'), f'dataset.train.pipeline[{index}].crop_size')


def _require_processes(loader: dict, path: str) -> None:
    """Refuse options of a loader that torch takes with loading processes only; an evaluation's are never kept."""
    options = ['timeout', 'prefetch_factor', 'multiprocessing_context']
    options += ['persistent_workers'] if path.startswith('train.') else []
    for key in options if not loader.get('workers_per_gpu') else ():
        if loader.get(key):
            raise TrainingError(
                f'{path}.{key} is {loader[key]!r}, which needs loading processes; set '
                f'workers_per_gpu to at least 1, or {key} to null'
            )


def _pipeline(raw: dict, split: str) -> list:
    section = (raw.get('dataset') or {}).get(split) or {}
    pipeline = section.get('pipeline') or []
    if not isinstance(pipeline, (list, tuple)):
        raise DatasetError(f'dataset.{split}.pipeline is {shown(pipeline)}; expected a list of transforms')
    return list(pipeline)


def _require_palette(palette: Any, classes: list[str]) -> None:
    make_palette(palette[: len(classes)] if isinstance(palette, (list, tuple)) else palette, classes)


def precision(name: Any, device_type: str) -> torch.dtype | None:
    """The type that a run computes in; None for float32.

    Args:
        name: `amp` or `train.amp`.
        device_type: `cpu` or `cuda`.

    Raises:
        TrainingError: the name is none, or the device cannot do it.
    """
    if not name:
        return None
    if not isinstance(name, str) or name not in PRECISIONS:
        raise TrainingError(f'train.amp is {name!r}; accepted: bf16, fp16, or null for float32')
    if PRECISIONS[name] == torch.float16 and device_type == 'cpu':
        raise TrainingError('train.amp is fp16, which needs a GPU; use bf16 or null on a CPU')
    return PRECISIONS[name]


def require_precision(model: torch.nn.Module, precision: torch.dtype | None, device_type: str) -> None:
    """Refuse bfloat16 where the processor computes the network wrong in it.

    Raises:
        TrainingError: it does.
    """
    if precision == torch.bfloat16 and device_type == 'cpu' and (fault := fault_in_bfloat16(model)):
        raise TrainingError(f'train.amp is bf16: {fault}')


def require_decay(decay: Any) -> None:
    """Refuse what is no decay of the weights' moving average (`ema` or `train.ema`)."""
    number = isinstance(decay, (int, float)) and not isinstance(decay, bool)
    if decay not in (None, False, True) and not (number and 0 < decay < 1) or number and decay == 1:
        raise TrainingError(f'train.ema is {decay!r}; expected a decay between 0 and 1, true for 0.9998, or null')


def require_writable(folder: str) -> None:
    """Make the work directory.

    Raises:
        TrainingError: it is a file, or cannot be written.
    """
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise TrainingError(f'work_dir {folder} is a file; choose a folder, which need not exist')
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TrainingError(f'work_dir {folder} cannot be written ({error}); choose another with work_dir=…') from None


def require_data(training: Any, evaluation: Any) -> None:
    """Refuse to train on nothing, or to evaluate on an empty data set.

    Args:
        training, evaluation: data sets, or None.
    """
    if training is None:
        raise TrainingError('no training data: pass train_dataset, data_root, or a configuration with dataset.train')
    if len(training) == 0:
        raise TrainingError(
            'the training split is empty: no image was found for it. Check dataset.train (img_root, '
            'img_suffix, split) with "ms-segformer check-data"'
        )
    if evaluation is not None and len(evaluation) == 0:
        raise TrainingError('the evaluation split is empty. Check dataset.val, or set evaluation.period to null')


def require_iterations(trainer: Trainer) -> None:
    """Refuse a number of epochs that is none, or epochs without an iteration.

    Raises:
        TrainingError: there is nothing to train.
    """
    epochs, loader = trainer.max_epochs, trainer.train_dataloader
    if not isinstance(epochs, int) or epochs > EPOCHS:
        raise TrainingError(f'max_epochs is {epochs!r}; expected an integer from 1 to {EPOCHS}')
    if trainer.max_iters > 0:
        return
    why = (
        f'max_epochs is {epochs}'
        if epochs < 1
        else f'an epoch has no iteration: {len(trainer.train_dataset)} samples in batches of {loader.batch_size}'
        f'{" without the last, smaller one (drop_last)" if loader.drop_last else ""}'
    )
    raise TrainingError(f'there is nothing to train: {why}. Nothing was written. {safe_checkpoint(trainer)}')


def _require_large_enough(size: Any, path: str) -> None:
    sides = list(size) if isinstance(size, (list, tuple)) else [size]
    if any(isinstance(side, (int, float)) and side < SMALLEST_SIDE for side in sides):
        raise TrainingError(
            f'{path} is {sides}; accepted: sides of at least {SMALLEST_SIDE} pixels, the least that the network takes'
        )


def _numbers(value: Any, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, item in items:
        yield from _numbers(item, f'{path}.{key}')
