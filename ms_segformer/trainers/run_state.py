"""What a run leaves on disk to go on from: pairs `<name>.pth` (weights) and `<name>_trainer_state.pth` (all else).

Both are written under temporary names and renamed, the state last, and the state says which weights it belongs to: a
process killed at any moment leaves the pairs before it untouched, and a pair that was damaged afterwards is noticed.
Everything in them is read without unpickling code.
"""

import math
import os
import random
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch

from ..errors import one_line, some_of
from ..models.checkpoint import CheckpointError, load_state, read_checkpoint, save_checkpoint
from ..models.torch_file import digest_of, read_torch_file, write_torch_file
from . import distributed
from .errors import TrainingError
from .optimizer import as_its_parameters, laid_out_as
from .protocol import Trainer

MODEL_SUFFIX = '.pth'
STATE_SUFFIX = '_trainer_state.pth'
VERSION = 2  # 1 had neither the run's identity nor the digest of the weights
KINDS = ('epoch', 'iter')


class RandomState(TypedDict):
    """The state of Python's, numpy's and torch's generators as plain values and tensors."""

    python: list[Any]
    numpy: list[Any]
    torch: torch.Tensor
    cuda: list[torch.Tensor]


class Circumstances(TypedDict):
    """What has to stay the same for a resumed run to equal an unbroken one."""

    seed: int
    world_size: int
    batch_size: int | None
    samples: int
    max_epochs: int


class _Required(Circumstances):
    """What every state has."""

    iteration: int  # in the run, as the next two, after the last one that is done
    epoch: int  # that it belongs to, from 0
    inner_iteration: int
    random: list[RandomState]  # by rank
    optimizer: dict[str, Any]
    hooks: dict[str, dict[str, Any]]  # by the hook's name


class TrainerState(_Required, total=False):
    """All that a run needs besides the weights; tensors, numbers, strings, lists and dicts only."""

    version: int
    weights: str  # digest of the file beside it
    run: str | None  # its identity
    epoch_done: bool
    lr_scheduler: dict[str, Any]
    scaler: dict[str, Any]
    ema_steps: int
    model: dict[str, torch.Tensor]  # what is trained, where the file beside it has the average
    gradients: dict[str, torch.Tensor]  # accumulated for the next step


REQUIRED = _Required.__required_keys__


@dataclass(frozen=True)
class Pair:
    """A moment of a run, read and found whole.

    Attributes:
        prefix: path without ending, such as `work_dir/epoch_3`.
        state: what `capture` returned.
        weights: tensors by name.
        classes: the names of the run's classes; None where the file of the weights does not say.
    """

    prefix: str
    state: TrainerState
    weights: dict[str, torch.Tensor]
    classes: list[str] | None = None

    @property
    def run(self) -> str | None:
        """Identity of the run that wrote it; None for the states of earlier versions, which had none."""
        return self.state.get('run')


def pair_of(prefix: str | Path) -> tuple[Path, Path]:
    """Return the two paths of a prefix such as `work_dir/epoch_3`."""
    return Path(f'{prefix}{MODEL_SUFFIX}'), Path(f'{prefix}{STATE_SUFFIX}')


# --- writing ---------------------------------------------------------------------------------------------------------


def save_pair(prefix: str | Path, model: torch.nn.Module, meta: dict[str, Any], state: TrainerState | None) -> Path:
    """Write the weights and the state of a moment.

    Args:
        prefix: path without ending, such as `work_dir/epoch_3`.
        model: the module whose weights are written.
        meta: what the weights' file says about itself (CLASSES, PALETTE, epoch, iter).
        state: what `capture` returned. None writes no state.

    Returns:
        Path of the weights' file.

    Raises:
        TrainingError: the disk is full or the folder cannot be written.
    """
    model_file, state_file = pair_of(prefix)
    try:
        state_file.unlink(missing_ok=True)  # a state never stands beside weights of another moment
        if model_file.is_symlink():  # not the run's: what it leads to stays
            model_file.unlink()
        digest = save_checkpoint(model_file, model, meta)
        if state is not None:
            write_torch_file(state_file, {'version': VERSION, 'weights': digest, **state})
    except (OSError, RuntimeError) as error:
        raise TrainingError(_write_failure(model_file, error, state)) from error
    return model_file


def _write_failure(path: Path, error: Exception, state: TrainerState | None) -> str:
    try:
        free = f'{shutil.disk_usage(path.parent).free / 2**20:.0f} MiB free'
    except OSError:
        free = 'free space unknown'
    last, _ = newest_pair(path.parent, state.get('run') if state is not None else None)
    safe = f'{last.prefix}{MODEL_SUFFIX} is safe' if last else 'nothing was saved before'
    return (
        f'could not write {path} ({one_line(error)}; {free}). {safe}. Make room or choose another work_dir, '
        'then go on with resume=True'
    )


def remove_pair(prefix: str | Path) -> None:
    """Delete a pair, the state first."""
    model_file, state_file = pair_of(prefix)
    state_file.unlink(missing_ok=True)
    model_file.unlink(missing_ok=True)


# --- reading ---------------------------------------------------------------------------------------------------------


def read_pair(prefix: str | Path, run: str | None = None) -> Pair:
    """Read a pair and make sure that it is whole: undamaged, of one moment, and of finite weights.

    Args:
        prefix: path without ending, such as `work_dir/epoch_3`.
        run: a pair of any other run is refused.

    Raises:
        TrainingError: it is not; the message says what is wrong with which file.
    """
    model_file, state_file = pair_of(prefix)
    state = read_state(state_file)
    if run is not None and state.get('run') not in (None, run):
        raise TrainingError(f'{state_file}: of another run')
    try:
        weights, meta = read_checkpoint(model_file)
        if state['version'] > 1 and digest_of(model_file) != state['weights']:
            raise TrainingError(
                f'{model_file}: not the weights that {state_file.name} was saved with: damaged or replaced'
            )
    except (CheckpointError, OSError) as error:
        raise TrainingError(str(error)) from None
    accumulated = {} if 'scaler' in state else state.get('gradients', {})  # a scaler skips steps that are not finite
    for file, tensors in (
        (model_file, weights.items()),
        (state_file, state.get('model', {}).items()),
        (state_file, gathered(state['optimizer'], accumulated)),
    ):
        name = not_finite(tensors)
        if name is not None:
            raise TrainingError(f'{file}: {name} is not finite')
    return Pair(str(prefix), state, weights, meta.get('CLASSES'))


def read_state(path: str | Path) -> TrainerState:
    """Read a state file.

    Raises:
        TrainingError: it is missing, damaged, or was not written by this trainer.
    """
    path = Path(path)
    if not path.is_file():
        raise TrainingError(
            f'{path}: no such file; a run can be resumed from a pair NAME{MODEL_SUFFIX} and '
            f'NAME{STATE_SUFFIX}. To start from weights alone pass them as load_from'
        )
    try:
        file = read_torch_file(path)
    except (CheckpointError, OSError) as error:
        raise TrainingError(
            f'{path}: cannot be read as a trainer state ({one_line(error)}). Only states that this '
            'trainer wrote can be resumed; pass the weights as load_from to start from them'
        ) from None
    state = file.content
    known = isinstance(state, dict) and state.get('version') in (1, VERSION) and state.keys() >= REQUIRED
    if file.set_aside or not known:
        raise TrainingError(f'{path}: not a trainer state that this version reads; pass the weights as load_from')
    if state['version'] > 1 and file.digest is None:
        raise TrainingError(
            f'{path}: cannot be read as a trainer state (its digest is gone, so it is damaged); pass '
            'the weights as load_from to start from them'
        )
    return state


def newest_pair(folder: str | Path, run: str | None = None) -> tuple[Pair | None, dict[str, str]]:
    """Find the whole pair with the most iterations; `best_*` ones do not count.

    The number in a name grows with the iterations, so that no more files are read than it takes.

    Args:
        folder: where the pairs are.
        run: only those of this run count; None takes all.

    Returns:
        (the pair or None, why each newer one was skipped, by its prefix).
    """
    waiting = {kind: sorted(_numbers(folder, kind)) for kind in KINDS}
    skipped: dict[str, str] = {}
    while any(waiting.values()):
        newest = {kind: os.path.join(folder, f'{kind}_{numbers[-1]}') for kind, numbers in waiting.items() if numbers}
        kind = max(newest, key=lambda kind: _progress_in(newest[kind])) if len(newest) > 1 else next(iter(newest))
        waiting[kind].pop()
        try:
            return read_pair(newest[kind], run), skipped
        except TrainingError as error:
            skipped[newest[kind]] = str(error)
    return None, skipped


def _progress_in(prefix: str) -> tuple[float, int]:
    """How far the run of a pair had come; a damaged one is as far as can be, for it is to be looked at first."""
    try:
        epochs, iterations = _progress(read_torch_file(pair_of(prefix)[1], values_only=True).content)
        return int(epochs), int(iterations)
    except Exception:  # damaged, or whatever else a file may hold
        return math.inf, 0


def _progress(state: TrainerState) -> tuple[int, int]:
    """How far a run has come, in epochs and iterations of the next one: batch sizes may have changed in between."""
    return (state['epoch'] + 1, 0) if state.get('epoch_done') else (state['epoch'], state['inner_iteration'])


def _numbers(folder: str | Path, kind: str) -> list[int]:
    """The numbers of a kind's pairs: of states, without which weights cannot be gone on with."""
    names = [path.name[len(kind) + 1 : -len(STATE_SUFFIX)] for path in Path(folder).glob(f'{kind}_*{STATE_SUFFIX}')]
    return [int(name) for name in names if name.isdigit() and name == str(int(name))]


def not_finite(tensors: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """Return the name of the first tensor with a NaN or an infinity, or None."""
    floats = [(name, value) for name, value in tensors if value.is_floating_point()]
    if not floats or torch.stack([value.isfinite().all().to(floats[0][1].device) for _, value in floats]).all():
        return None
    return next(name for name, value in floats if not value.isfinite().all())


# --- between a trainer and a state -----------------------------------------------------------------------------------


def capture(trainer: Trainer, after_epoch: bool) -> TrainerState:
    """Return all that a run needs besides the weights, after the current iteration (or epoch).

    Every process of a distributed run has to call it.
    """
    model = trainer.bare_model
    result: TrainerState = {
        'run': trainer.run,
        'iteration': trainer.iter if after_epoch else trainer.iter + 1,
        'epoch': trainer.epoch,
        'inner_iteration': trainer.iters_per_train_epoch if after_epoch else trainer.inner_iter + 1,
        'epoch_done': after_epoch,
        'random': distributed.from_every_process(random_state()),
        **_circumstances(trainer),
        'optimizer': trainer.optimizer.state_dict(),
        'hooks': {key: hook.state_dict() for key, hook in _hooks_with_state(trainer)},
    }
    if trainer.lr_scheduler is not None:
        result['lr_scheduler'] = trainer.lr_scheduler.state_dict()
    if trainer.scaler is not None:
        result['scaler'] = trainer.scaler.state_dict()
    if trainer.ema is not None:
        result['ema_steps'] = trainer.ema.steps
        result['model'] = {key: value.cpu() for key, value in model.state_dict().items()}
    if gradients(trainer):  # in the middle of an accumulation
        result['gradients'] = gradients(trainer)
    return result


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    """What has been accumulated for the next step, by parameter."""
    return {name: p.grad for name, p in trainer.bare_model.named_parameters() if p.grad is not None}


def gathered(optimizer: Mapping[str, Any], accumulated: Mapping[str, torch.Tensor]) -> list[tuple[str, torch.Tensor]]:
    """(name, tensor) of what makes the next weights: the optimizer's averages and the accumulated gradients."""
    result = [(f'gradient of {name}', value) for name, value in accumulated.items()]
    for number, values in (optimizer.get('state') or {}).items():
        result += [
            (f"the optimizer's {name} of parameter {number}", value)
            for name, value in values.items()
            if isinstance(value, torch.Tensor)
        ]
    return result


def restore(trainer: Trainer, pair: Pair, same_run: bool = True) -> None:
    """Put a trainer where a pair was captured.

    Args:
        trainer: an `EasyCVTrainer` whose optimizer and hooks exist.
        pair: from `read_pair`.
        same_run: False for a run that only begins with another's pair: what hooks know of their files is then not
            restored.

    Raises:
        TrainingError, CheckpointError: the pair does not fit the run.
    """
    saved, model_file = pair.state, f'{pair.prefix}{MODEL_SUFFIX}'
    _check_classes(pair, list(trainer.cfg.CLASSES))
    _check_circumstances(trainer, saved)
    trainer.set_weights(saved.get('model', pair.weights), model_file)  # the file's are the average's where there is one
    if trainer.ema is not None and 'model' in saved:
        load_state(trainer.ema.model, pair.weights, model_file)
        trainer.ema.steps = saved['ema_steps']
    _restore_optimizer(trainer, saved['optimizer'])
    if trainer.lr_scheduler is not None and 'lr_scheduler' in saved:
        trainer.lr_scheduler.load_state_dict(saved['lr_scheduler'])
    if trainer.scaler is not None and 'scaler' in saved:
        trainer.scaler.load_state_dict(saved['scaler'])
    for key, hook in _hooks_with_state(trainer):
        if key in saved['hooks'] and hasattr(hook, 'load_state_dict') and (same_run or not _knows_files(hook)):
            hook.load_state_dict(saved['hooks'][key])
    parameters = dict(trainer.bare_model.named_parameters())
    for name, gradient in saved.get('gradients', {}).items():
        parameters[name].grad = laid_out_as(parameters[name], gradient)
    iteration, inner_iteration = saved['iteration'], saved['inner_iteration']
    if saved.get('epoch_done'):  # which had another number of iterations, if the batch size or the data has changed
        inner_iteration = trainer.iters_per_train_epoch
        iteration = (saved['epoch'] + 1) * inner_iteration
    trainer.set_position(saved['epoch'], iteration, inner_iteration, 'gradients' in saved)
    if trainer.rank < len(saved['random']):
        set_random_state(saved['random'][trainer.rank])


def _check_classes(pair: Pair, given: list[str]) -> None:
    """Refuse to go on with other names: what was learned about the one would be called the other."""
    if pair.classes is not None and list(pair.classes) != given:
        raise TrainingError(
            f'{pair.prefix}: the run has the {len(pair.classes)} classes {some_of(pair.classes, 4)}, '
            f'and given are the {len(given)} classes {some_of(given, 4)}. Go on with those of the run; '
            f'for others start a new run from its weights (load_from, --from '
            f'{pair.prefix}{MODEL_SUFFIX})'
        )


def _restore_optimizer(trainer: Trainer, saved: dict[str, Any]) -> None:
    """Restore what the optimizer has gathered; rates and decays are the present configuration's, if changed.

    Not with a schedule of torch's or mmcv's: those keep the rate in the optimizer.
    """
    configured = [
        {key: value for key, value in group.items() if key not in ('params', 'lr')}
        for group in trainer.optimizer.param_groups
    ]
    try:
        trainer.optimizer.load_state_dict(saved)
    except ValueError as error:
        raise TrainingError(
            f'the optimizer is another than the one of the checkpoint ({error}); resume with the '
            'configuration it was made with, or pass the weights as load_from'
        ) from None
    for group, options in zip(trainer.optimizer.param_groups, configured, strict=True):
        group.update(options if trainer.schedule is not None else {})
    as_its_parameters(trainer.optimizer)


def _knows_files(hook: Any) -> bool:
    """Whether the state of a hook is about the files of its run."""
    return getattr(hook, 'STATE_OF_FILES', False)


def _hooks_with_state(trainer: Trainer) -> list[tuple[str, Any]]:
    """(name, hook) of the hooks that have a state; a second one of a class is `<name>-2`."""
    result: list[tuple[str, Any]] = []
    count: dict[str, int] = {}
    for hook in trainer.hooks:
        if hasattr(hook, 'state_dict'):
            name = type(hook).__name__
            count[name] = count.get(name, 0) + 1
            result.append((name if count[name] == 1 else f'{name}-{count[name]}', hook))
    return result


def _circumstances(trainer: Trainer) -> Circumstances:
    return {
        'seed': trainer.seed,
        'world_size': trainer.world_size,
        'batch_size': trainer.train_dataloader.batch_size,
        'samples': len(trainer.train_dataset),
        'max_epochs': trainer.max_epochs,
    }


def _check_circumstances(trainer: Trainer, saved: TrainerState) -> None:
    before = dict(saved)
    changed = [
        f'{key} {before[key]} -> {value}' for key, value in _circumstances(trainer).items() if before[key] != value
    ]
    if changed and trainer.rank == 0:
        trainer.logger.warning(
            f'the resumed run differs from the one that was saved ({", ".join(changed)}); it will '
            'not give the weights an unbroken run gives'
        )
    if not saved.get('epoch_done') and saved['inner_iteration'] > trainer.iters_per_train_epoch:
        raise TrainingError(
            f'the checkpoint is {saved["inner_iteration"]} iterations into its epoch, which has only '
            f'{trainer.iters_per_train_epoch} now; resume with the batch size, processes and data it '
            'was made with'
        )


def random_state() -> RandomState:
    """Return the state of Python's, numpy's and torch's generators as plain values and tensors."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        'python': [version, list(numbers), gauss],
        'numpy': [kind, torch.from_numpy(np.asarray(keys, np.int64)), int(position), int(has_gauss), float(cached)],
        'torch': torch.get_rng_state(),
        'cuda': torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: RandomState) -> None:
    """Set what `random_state` returned."""
    version, numbers, gauss = state['python']
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state['numpy']
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state['torch'])
    if torch.cuda.is_available() and len(state['cuda']) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state['cuda'])
