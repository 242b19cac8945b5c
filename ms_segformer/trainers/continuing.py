"""Goes on from a checkpoint of EasyCV or mmcv, whose `meta` says how far its run had come.

Those files have no trainer state beside them (see `run_state`): epochs are counted, and what the optimizer has gathered
is taken along where it fits. Random states, and what hooks know, are not in them.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..models.checkpoint import read_checkpoint, read_optimizer
from . import pretrained, resuming, run_state
from .errors import TrainingError
from .optimizer import as_its_parameters
from .protocol import Trainer


@dataclass(frozen=True)
class Progress:
    """How far a run had come: finished epochs, and iterations where the file names them."""

    epochs: int
    iterations: int | None = None


class _DoesNotFit(ValueError):
    """Why the optimizer of a file is not that of the run."""


def begin(trainer: Trainer, path: str | Path | None, load_all_state: bool, resume: str | Path | bool | None) -> None:
    """Put a trainer where its run begins. Every process of a distributed run has to call it.

    Args:
        trainer: whose optimizer and hooks exist.
        path, load_all_state: as for `EasyCVTrainer.train`.
        resume: what is gone on from where no path is given, see `resuming.choose_start`.

    Raises:
        TrainingError, CheckpointError: what is named cannot be gone on from, or does not fit.
    """
    if path is None or (load_all_state and resuming.is_resumable(path)):
        resuming.begin(trainer, path if path is not None else resume)
        return
    progress, why = None, ''
    if load_all_state:
        progress, why = progress_of(path, trainer.max_epochs, trainer.cfg.CLASSES)
    trainer.load_weights(path)
    trainer.starting_point = str(path)
    resuming.begin(trainer, None)
    if progress is not None:
        go_on(trainer, path, progress)
    else:
        trainer.logger.info(f'{path}: its weights are the start of a new run{why}')


def progress_of(path: str | Path, max_epochs: int, classes: Sequence[str]) -> tuple[Progress | None, str]:
    """Read from a checkpoint how far its run had come.

    Args:
        path: checkpoint file in any dialect.
        max_epochs, classes: of the run that is to go on from it.

    Returns:
        None, and the reason, when it is not to be gone on from: its `meta` names no epoch, or it is of other classes.

    Raises:
        TrainingError: no epoch is left.
        CheckpointError, FileNotFoundError: the file cannot be read.
    """
    meta = read_checkpoint(path)[1]
    if pretrained.are_others(classes, Path(path), meta):
        return None, ', for they are of other classes'
    epochs, iterations = (
        value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
        for value in (meta.get('epoch'), meta.get('iter'))
    )
    if epochs is None:
        return None, ', for its meta names no epoch'
    if epochs >= max_epochs:
        raise TrainingError(
            f'{path}: its meta says that epoch {epochs} is done, and this run has {max_epochs}: '
            'nothing is left to train. Raise train.max_epochs to go on from it, or start a new run '
            'from its weights with load_from, or train(checkpoint_path=…, load_all_state=False)'
        )
    return Progress(epochs, iterations), ''


def go_on(trainer: Trainer, path: str | Path, progress: Progress) -> None:
    """Put a trainer, which has the weights of a file, where the run of the file was.

    Args:
        trainer: an `EasyCVTrainer` whose optimizer exists.
        path: of the file.
        progress: from `progress_of`.
    """
    per_epoch = trainer.iters_per_train_epoch
    done = progress.epochs * per_epoch
    trainer.set_position(progress.epochs, done, 0, gradients_restored=False)
    try:
        _restore_optimizer(trainer, read_optimizer(path))
        optimizer = "the optimizer's state is taken from it"
    except _DoesNotFit as error:
        optimizer = f'the optimizer starts anew ({error})'
    counted = ''
    if progress.iterations not in (None, done):
        counted = (
            f' (there {progress.iterations}: its epochs had {progress.iterations / progress.epochs:g}, this '
            f"run's have {per_epoch}; epochs count)"
        )
    trainer.logger.info(
        f'{path}: its meta says that epoch {progress.epochs} is done; training goes on with epoch '
        f'{progress.epochs + 1} of {trainer.max_epochs}, {done} of {trainer.max_iters} iterations '
        f'done{counted}; {optimizer}'
    )
    if trainer.lr_scheduler is not None:
        trainer.logger.warning('a scheduler of torch keeps its own count: it starts at the beginning')


def _restore_optimizer(trainer: Trainer, saved: dict[str, Any] | None) -> None:
    """Take over what an optimizer has gathered; rates and decays are the configuration's.

    Raises:
        _DoesNotFit: there is none, or it is of another kind or of other parameters; nothing was changed.
    """
    optimizer = trainer.optimizer
    if not saved or not saved['state']:
        raise _DoesNotFit('the file has none')
    own = [parameter for group in optimizer.param_groups for parameter in group['params']]
    numbers = [number for group in saved['param_groups'] for number in group['params']]
    theirs = _in_their_order(saved['param_groups'], trainer)
    if len(numbers) != len(theirs):
        raise _DoesNotFit(f"the file's is of {len(numbers)} parameters, this run's of {len(theirs)}")
    expected, place = _what_it_gathers(optimizer), {parameter: number for number, parameter in enumerate(own)}
    state = {}
    for number, parameter in zip(numbers, theirs, strict=True):
        values = saved['state'].get(number)
        if not isinstance(values, dict) or values.keys() != expected:
            raise _DoesNotFit(f"the file's gathers other values than {type(optimizer).__name__}")
        if any(
            isinstance(value, torch.Tensor) and value.dim() and value.shape != parameter.shape
            for value in values.values()
        ):
            raise _DoesNotFit("the file's is of parameters of other shapes")
        state[place[parameter]] = values
    if run_state.not_finite(run_state.gathered({'state': state}, {})) is not None:
        raise _DoesNotFit("the file's is not finite")
    optimizer.load_state_dict({'state': state, 'param_groups': optimizer.state_dict()['param_groups']})
    as_its_parameters(optimizer)


def _in_their_order(groups: list[dict], trainer: Trainer) -> list[torch.nn.Parameter]:
    """The parameters as the optimizer of a file numbers them: by its groups, if those are ours, else as in the model.

    mmcv makes one group of all parameters, or one of each.
    """
    sizes = [len(group['params']) for group in groups]
    if sizes == [len(group['params']) for group in trainer.optimizer.param_groups]:
        return [parameter for group in trainer.optimizer.param_groups for parameter in group['params']]
    if len(sizes) > 1 and set(sizes) != {1}:
        raise _DoesNotFit("the file's groups its parameters in another way")
    return [parameter for parameter in trainer.bare_model.parameters() if parameter.requires_grad]


def _what_it_gathers(optimizer: torch.optim.Optimizer) -> set[str]:
    """The names of the values that an optimizer keeps of each parameter after a step."""
    parameter = torch.nn.Parameter(torch.zeros(1, device=optimizer.param_groups[0]['params'][0].device))
    parameter.grad = torch.zeros_like(parameter)
    accepted = inspect.signature(type(optimizer)).parameters
    try:
        probe = type(optimizer)(
            [parameter], **{key: value for key, value in optimizer.defaults.items() if key in accepted}
        )
        probe.step()
    except (TypeError, ValueError, RuntimeError) as error:  # another package's
        raise _DoesNotFit(f'what {type(optimizer).__name__} gathers cannot be told: {error}') from None
    return set(probe.state[parameter])
