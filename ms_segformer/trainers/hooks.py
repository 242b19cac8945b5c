"""The hooks the published configurations name, on ModelScope's.

| configuration says | runs |
|-|-|
| CheckpointHook, BestCkptSaverHook (BestCkptSaver) | those below: whole pairs, atomically |
| EvaluationHook | `EvaluationHook` below |
| AddLrLogHook | `AddLrLogHook` below |
| TextLoggerHook | `TextLoggerHook` below |
| TensorboardHook, IterTimerHook and any other hook of ModelScope | ModelScope's |
| a hook that only EasyCV or mmcv has | that one, through `ms_segformer.integrations.easycv.bridge` |
"""
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from modelscope.metainfo import Hooks
from modelscope.trainers.hooks import builder, evaluation_hook
from modelscope.trainers.hooks.checkpoint import checkpoint_hook
from modelscope.trainers.hooks.hook import Hook
from modelscope.trainers.hooks.logger import text_logger_hook
from modelscope.trainers.hooks.optimizer import base as optimizer_base
from modelscope.trainers.hooks.priority import Priority
from modelscope.utils.registry import build_from_cfg
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..files import atomic_write, temporary_prefix
from ..integrations.easycv import bridge
from ..metainfo import LR_LOG_HOOK
from ..metrics.segmentation import EasyCVMetric
from ..progress import screen
from . import configuration, distributed, run_state, work_dir
from .errors import TrainingError
from .protocol import Trainer
from .schedules import Schedule


@builder.HOOKS.register_module(module_name=LR_LOG_HOOK, force=True)
class AddLrLogHook(Hook):
    """Puts the learning rate of the first parameter group into the log as `lr`; `ScheduleHook` does so already."""

    PRIORITY = Priority.LOW

    def after_train_iter(self, trainer: Trainer) -> None:
        trainer.log_buffer.output['lr'] = trainer.optimizer.param_groups[0]['lr']

    before_train_epoch = after_train_iter


class ScheduleHook(Hook):
    """Sets the learning rates before each iteration from a `schedules.Schedule`."""

    PRIORITY = Priority.VERY_HIGH

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def before_train_iter(self, trainer: Trainer) -> None:
        for group in trainer.optimizer.param_groups:
            group['lr'] = self.schedule.rate(group['initial_lr'], trainer.iter, trainer.epoch)

    def after_train_iter(self, trainer: Trainer) -> None:
        trainer.log_buffer.output['lr'] = trainer.optimizer.param_groups[0]['lr']


class OptimizerHook(optimizer_base.OptimizerHook):
    """Backward pass, accumulation, clipping and the optimizer's step.

    Args:
        cumulative_iters: iterations whose gradients are added up, each divided by their number, before a step.
        grad_clip: arguments of `torch.nn.utils.clip_grad_norm_`, or None.
        scaler: a gradient scaler for float16, or None.
    """

    def __init__(self, cumulative_iters: int = 1, grad_clip: dict[str, Any] | None = None, scaler: Any = None,
                 **kwargs: Any) -> None:
        super().__init__(cumulative_iters=cumulative_iters, grad_clip=grad_clip, **kwargs)
        self.scaler = scaler
        if grad_clip is not None:
            _check_clipping(grad_clip)

    def before_run(self, trainer: Trainer) -> None:
        trainer.cumulative_iters = self.cumulative_iters
        if not trainer.gradients_restored:
            trainer.optimizer.zero_grad(set_to_none=True)

    def before_train_iter(self, trainer: Trainer) -> None:
        pass

    def after_train_iter(self, trainer: Trainer) -> None:
        loss = sum(trainer.train_outputs[key] for key in self.loss_keys) / self.cumulative_iters
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        if not trainer.completes_a_step():
            return
        if self.grad_clip is not None:
            if self.scaler is not None:
                self.scaler.unscale_(trainer.optimizer)
            parameters = [p for p in trainer.model.parameters() if p.grad is not None]
            norm = torch.nn.utils.clip_grad_norm_(parameters, **self.grad_clip)
            trainer.log_buffer.update({'grad_norm': float(norm)})
        if self.scaler is None:
            trainer.optimizer.step()
        else:
            self.scaler.step(trainer.optimizer)
            self.scaler.update()
        trainer.optimizer.zero_grad(set_to_none=True)
        if trainer.ema is not None:
            trainer.ema.update(trainer.bare_model)


def _check_clipping(options: dict[str, Any]) -> None:
    """Refuse now what `clip_grad_norm_` would refuse after the first backward pass."""
    try:
        torch.nn.utils.clip_grad_norm_([], **options)
        fits = isinstance(options['max_norm'], (int, float)) and options['max_norm'] > 0
    except (TypeError, ValueError, KeyError):
        fits = False
    if not fits:
        raise TrainingError(f'train.optimizer.options.grad_clip is {options}; expected max_norm, a number above 0, and '
                            'other arguments of torch.nn.utils.clip_grad_norm_')


class EvaluationHook(evaluation_hook.EvaluationHook):
    """Evaluates every `interval` epochs (or iterations)."""

    def after_train_iter(self, trainer: Trainer) -> None:
        self._moment = ('iter', trainer.iter)
        super().after_train_iter(trainer)

    def after_train_epoch(self, trainer: Trainer) -> None:
        self._moment = ('epoch', trainer.epoch)
        super().after_train_epoch(trainer)

    def do_evaluate(self, trainer: Trainer) -> None:
        for name, value in self._evaluated(trainer).items():
            trainer.log_buffer.output[f'evaluation/{name}'] = value
        trainer.log_buffer.ready = True

    def _evaluated(self, trainer: Trainer) -> dict[str, float]:
        """The values of this moment, which may have been evaluated before the run was interrupted."""
        values = None
        if trainer.is_resumed_moment():
            values = work_dir.remembered_evaluation(trainer.work_dir, trainer.run, trainer.iter)
        if values is not None:
            trainer.take_evaluation(values)
        else:
            values = trainer.evaluate()
            if distributed.is_first():
                write_results({'run': trainer.run, 'iteration': trainer.iter, **values}, trainer.work_dir,
                              work_dir.EVALUATION)
        trainer.evaluated_at = self._moment
        for hook in trainer.hooks if distributed.is_first() else ():
            if isinstance(hook, CheckpointHook):
                hook.after_evaluation(trainer)
        return values


class CheckpointHook(checkpoint_hook.CheckpointHook):
    """Saves the run every `interval` epochs (or iterations), and the trained model directory `output/`.

    An epoch's checkpoint is written before its evaluation, so that a process killed while evaluating loses nothing;
    resuming from it evaluates that epoch first. One of an iteration is written after its evaluation and after the best
    one, which its state knows of. `max_checkpoint_num` counts the checkpoints of this run only, and of these only what
    was written under such a limit: a limit that comes later removes nothing that was to be kept. Arguments are those of
    ModelScope's hook.
    """

    STATE_OF_FILES = True
    published_at: int | None = None  # iterations after which the weights in the model directory stood

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.PRIORITY = Priority.HIGH if self._by_epoch() else Priority.VERY_LOW
        self.processor = _SaveOnEveryRank()
        self.history_checkpoints: list[str] = []  # names of those that may be removed: this run's, oldest first

    def _by_epoch(self) -> bool:
        return self.save_strategy == checkpoint_hook.CheckpointStrategy.by_epoch

    def folder(self, trainer: Trainer) -> str:
        """Where the checkpoints of a trainer go."""
        return self.save_dir or trainer.work_dir

    def output_folder(self, trainer: Trainer) -> str:
        """Where the trained model directory of a trainer goes."""
        return self.output_dir or os.path.join(self.folder(trainer), self.output_sub_dir or 'output')

    def names_of_its_own(self) -> list[str]:
        """Names of checkpoint files, beside `epoch_*`, `iter_*` and `best_*`, that it writes."""
        return []

    def _is_its_own(self, name: Any) -> bool:
        """Whether a value that a file holds names a checkpoint this hook may have written: it may be removed."""
        return work_dir.is_checkpoint_name(name)

    def before_run(self, trainer: Trainer) -> None:
        self.tag = -1
        self.logger = trainer.logger
        self.output_dir, self.save_dir = self.output_folder(trainer), self.folder(trainer)
        if not distributed.is_first():
            return
        os.makedirs(self.output_dir, exist_ok=True)
        configuration.write_exported(trainer.cfg, trainer.train_dataset, self.output_dir)
        self._finish_interrupted_save(trainer)

    def _finish_interrupted_save(self, trainer: Trainer) -> None:
        """Do what a process killed right after writing the pair did not get to."""
        if trainer.resumed_from is not None:
            self._publish(run_state.pair_of(trainer.resumed_from)[0], trainer.iter)
            self._remove_obsolete_checkpoints(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the names of this run's checkpoints that `max_checkpoint_num` counts."""
        return {'checkpoints': list(self.history_checkpoints)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what `state_dict` returned."""
        self.history_checkpoints = list(filter(self._is_its_own, state_dict.get('checkpoints') or []))

    def _should_save(self, trainer: Trainer) -> bool:
        last = trainer.epoch + 1 == trainer.max_epochs if self._by_epoch() else trainer.iter + 1 == trainer.max_iters
        number = trainer.epoch + 1 if self._by_epoch() else trainer.iter + 1
        path = os.path.join(self.save_dir, self.generate_prefix(trainer, self.save_strategy))
        if trainer.is_resumed_moment() and trainer.resumed_from == path:
            return False  # the run was resumed from this very checkpoint
        return bool(self.interval and number % self.interval == 0) or (self.save_last and last)

    def _save_checkpoint(self, trainer: Trainer, prefix: str) -> str:
        trainer.require_finite_weights()
        if self.max_checkpoint_num is not None and prefix not in self.history_checkpoints:
            self.history_checkpoints.append(prefix)
        saved = run_state.capture(trainer, self._after_epoch()) if self.save_trainer_state else None
        if not distributed.is_first():
            return prefix
        model_file = run_state.save_pair(os.path.join(self.save_dir, prefix), trainer.model_to_save,
                                         _meta(trainer, self._after_epoch()), saved)
        work_dir.note_saved(trainer.work_dir)
        self._publish(model_file, trainer.iter + (not self._after_epoch()))
        if trainer.evaluated_at == self._moment(trainer):
            write_results(trainer.metric_values or {}, self.output_dir)
        self._remove_obsolete_checkpoints(trainer)
        return prefix

    def after_evaluation(self, trainer: Trainer) -> None:
        """Put the results beside the weights in the model directory, where they are those that were evaluated."""
        if trainer.evaluated_at[0] == 'epoch' and self.published_at == trainer.iter:
            write_results(trainer.metric_values or {}, self.output_folder(trainer))

    def _publish(self, model_file: Path, iterations: int) -> None:
        """Put weights into the model directory; results that stand there are of others."""
        (Path(self.output_dir) / work_dir.RESULTS).unlink(missing_ok=True)
        publish(model_file, self.output_dir)
        self.published_at = iterations

    def _moment(self, trainer: Trainer) -> tuple[str, int]:
        return ('epoch', trainer.epoch) if self._after_epoch() else ('iter', trainer.iter)

    def _remove_obsolete_checkpoints(self, trainer: Trainer) -> None:
        while self.max_checkpoint_num is not None and len(self.history_checkpoints) > self.max_checkpoint_num:
            run_state.remove_pair(os.path.join(self.save_dir, self.history_checkpoints.pop(0)))

    def _after_epoch(self) -> bool:
        return self._by_epoch()

    def after_run(self, trainer: Trainer) -> None:
        if self.push_to_hub:
            super().after_run(trainer)


class BestCkptSaverHook(CheckpointHook, checkpoint_hook.BestCkptSaverHook):
    """Keeps the checkpoint with the best value of `metric_key` of this run; arguments are those of ModelScope's hook.

    The model directory is `output_best/` unless `output_sub_dir` or `output_dir` says otherwise.
    """

    _best_ckpt_file: str | None

    def __init__(self, metric_key: str, *args: Any, **kwargs: Any) -> None:
        checkpoint_hook.BestCkptSaverHook.__init__(self, metric_key, *args, **kwargs)
        name = self.save_file_name
        if name is not None and (name in ('', '.', '..') or name != os.path.basename(name)):
            raise TrainingError(f'save_file_name is {name!r}; expected a file name without a folder (use '
                                'save_dir)')
        self.PRIORITY = Priority.LOW
        self.processor = _SaveOnEveryRank()
        self.history_checkpoints = []
        self._epoch_end = True
        self._best_name: str | None = None

    def _is_its_own(self, name: Any) -> bool:
        return super()._is_its_own(name) or (name is not None and name == self.save_file_name)

    def names_of_its_own(self) -> list[str]:
        return [] if self.save_file_name is None else [
            path.name for path in run_state.pair_of(self.save_file_name)]

    def after_train_epoch(self, trainer: Trainer) -> None:
        self._save_if_best(trainer, 'epoch')

    def after_train_iter(self, trainer: Trainer) -> None:
        self._save_if_best(trainer, 'iter')

    def after_evaluation(self, trainer: Trainer) -> None:
        """Nothing: results are written with the best weights."""

    def _save_if_best(self, trainer: Trainer, moment: str) -> None:
        if trainer.evaluated_at != (moment, trainer.epoch if moment == 'epoch' else trainer.iter):
            return
        value = (trainer.metric_values or {}).get(self.metric_key)
        if self.save_best and (value is None or not math.isfinite(value)):
            if value is None:
                raise unknown_metric(self.metric_key, trainer.metric_values or {})
            return
        if self.save_best and self._is_best_metric(trainer.metric_values):
            self._epoch_end = moment == 'epoch'
            self._do_save(trainer, 'by_epoch' if moment == 'epoch' else 'by_step')

    def _finish_interrupted_save(self, trainer: Trainer) -> None:
        """Nothing: the evaluation after which the process was killed is looked at again."""

    def state_dict(self) -> dict[str, Any]:
        best = None if self._best_ckpt_file is None else os.path.basename(self._best_ckpt_file)
        return {**super().state_dict(), 'best_metric': self._best_metric, 'best_checkpoint': best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        name = state_dict.get('best_checkpoint')
        if self._is_its_own(name):
            self._best_metric, self._best_name = state_dict.get('best_metric'), name

    def before_run(self, trainer: Trainer) -> None:
        super().before_run(trainer)
        if self._best_ckpt_file is None and self._best_name is not None:
            self._best_ckpt_file = os.path.join(self.save_dir, self._best_name)
            if not run_state.pair_of(self._best_ckpt_file)[0].is_file():  # a value without its weights is no best
                self._best_ckpt_file = self._best_metric = None

    def _after_epoch(self) -> bool:
        return self._epoch_end

    def _remove_obsolete_checkpoints(self, trainer: Trainer) -> None:
        best = self._best_ckpt_file and os.path.basename(self._best_ckpt_file)
        self.history_checkpoints.sort(key=lambda name: (name == best, self._value_in(name)))
        super()._remove_obsolete_checkpoints(trainer)

    def _value_in(self, name: str) -> float:
        try:
            value = float(name.rpartition(self._key_in_names())[2])
        except ValueError:
            return 0.0
        return value if self.rule == 'max' else -value

    def _key_in_names(self) -> str:
        return self.metric_key.replace('/', '_')  # IoU.<class>, whatever a class is called

    def _save_checkpoint(self, trainer: Trainer, prefix: str) -> str:
        self._best_ckpt_file = os.path.join(self.save_dir, self.save_file_name or prefix)
        return super()._save_checkpoint(trainer, self.save_file_name or prefix)

    def generate_prefix(self, trainer: Trainer, save_strategy: str) -> str:
        number = f'epoch{trainer.epoch + 1}' if save_strategy == 'by_epoch' else f'iter{trainer.iter + 1}'
        return f'best_{number}_{self._key_in_names()}{self._best_metric}'

    def after_run(self, trainer: Trainer) -> None:
        if self.restore_best and self._best_ckpt_file:
            distributed.wait()  # for the process that writes it
            trainer.load_weights(f'{self._best_ckpt_file}.pth')


def check_best_key(all_hooks: Iterable[Hook], metrics: Sequence[Any]) -> None:
    """Refuse a best saver that watches what no evaluation reports.

    Args:
        all_hooks: of the trainer.
        metrics: of its evaluations. What another package's metric reports is known after the first evaluation only.

    Raises:
        TrainingError: the message has some of the results.
    """
    if not metrics or not all(isinstance(metric, EasyCVMetric) for metric in metrics):
        return
    known = [name for metric in metrics for name in metric.evaluate()]
    for hook in all_hooks:
        if isinstance(hook, BestCkptSaverHook) and hook.metric_key not in known:
            raise unknown_metric(hook.metric_key, known)


def unknown_metric(key: str, known: Iterable[str]) -> TrainingError:
    """The error for a best saver that watches what no evaluation reports."""
    return TrainingError(f'train.checkpoint.best.metric_key is "{key}", which is none of the evaluation\'s results '
                         f'({", ".join(list(known)[:6])}, …); choose one of them')


class _SaveOnEveryRank:
    """What ModelScope's checkpoint hooks ask: every rank takes part (the random states are gathered), one writes."""

    def should_save_on_rank(self, trainer: Trainer) -> bool:
        return True


class TextLoggerHook(text_logger_hook.TextLoggerHook):
    """Log lines and `<time>.log.json`, one JSON object a line.

    Differs from ModelScope's in that the last iterations of an epoch are logged too (an epoch shorter than the
    interval would never be), an evaluation is one line instead of one word per class, and a class without a value is
    `null` in the JSON.
    """

    def __init__(self, *args: Any, ignore_last: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, ignore_last=ignore_last, **kwargs)
        self._logged_iterations = 0

    def _log_info(self, log_dict: dict[str, Any], trainer: Trainer) -> None:
        if log_dict['mode'] != 'train':
            log_dict = {key: value for key, value in log_dict.items() if '.' not in key}
        elif 'iter_time' in log_dict:
            # ModelScope counts a whole interval for every line: its ETA is too late where an epoch's last is shorter.
            done = trainer.iter - self.start_iter + 1
            since = done - self._logged_iterations
            self.time_sec_tot += log_dict['iter_time'] * (since - self.interval)
            self._logged_iterations = done
        super()._log_info(log_dict, trainer)

    def _dump_log(self, log_dict: dict[str, Any]) -> None:
        super()._dump_log({key: None if isinstance(value, float) and not math.isfinite(value) else value
                           for key, value in log_dict.items()})


class ProgressHook(Hook):
    """One live line: `epoch 1/30, iteration 12/4000, loss 1.2345, 3.2 images/s, 0:12:40 left`.

    Shown when the standard error stream is a terminal; log files and pipes get `TextLoggerHook`'s lines only. The rate
    is the mean of the last dozen iterations, of all processes together; the time left is without evaluations.
    """

    PRIORITY = Priority.LOWEST
    SMOOTHING = 0.15  # share of the newest iteration in the mean

    def __init__(self, show: bool | None = None) -> None:
        self.show = show
        self.bar: tqdm | None = None
        self._seconds: float | None = None  # of an iteration
        self._since: float | None = None

    def before_run(self, trainer: Trainer) -> None:
        show = sys.stderr.isatty() if self.show is None else self.show
        if not (show and distributed.is_first()):
            return
        self._seconds = self._since = None
        self._opened = ExitStack()  # log lines go above the live one
        self._opened.enter_context(logging_redirect_tqdm([trainer.logger]))
        self.bar = self._opened.enter_context(tqdm(total=trainer.max_iters, initial=trainer.iter, bar_format='{desc}',
                                                   **screen()))
        self.bar.set_description_str(self._where(trainer, trainer.inner_iter))

    def before_train_epoch(self, trainer: Trainer) -> None:
        self._since = time.monotonic()

    def before_val(self, trainer: Trainer) -> None:
        self._paused = time.monotonic()

    def after_val(self, trainer: Trainer) -> None:
        if self.bar is not None and self._since is not None:
            self._since += time.monotonic() - self._paused

    def after_train_iter(self, trainer: Trainer) -> None:
        if self.bar is None:
            return
        now = time.monotonic()
        took = max(now - (now if self._since is None else self._since), 1e-9)
        self._since = now
        before = took if self._seconds is None else self._seconds
        self._seconds = before + self.SMOOTHING * (took - before)
        loss = (trainer.log_buffer.val_history.get('loss') or [math.nan])[-1]
        rate = (trainer.train_dataloader.batch_size or 1) * trainer.world_size / self._seconds
        left = timedelta(seconds=round(self._seconds * (trainer.max_iters - trainer.iter - 1)))
        self.bar.set_description_str(f'{self._where(trainer, trainer.inner_iter + 1)}, loss {loss:.4f}, '
                                     f'{rate:.1f} images/s, {left} left', refresh=False)
        self.bar.update(1)

    @staticmethod
    def _where(trainer: Trainer, done: int) -> str:
        return (f'epoch {trainer.epoch + 1}/{trainer.max_epochs}, '
                f'iteration {done}/{trainer.iters_per_train_epoch}')

    def after_run(self, trainer: Trainer) -> None:
        self.close()

    def close(self) -> None:
        """Leave the line as it stands: what is written next begins below it."""
        if self.bar is not None:
            self._opened.close()
            self.bar = None


def _meta(trainer: Trainer, after_epoch: bool) -> dict[str, Any]:
    """What a checkpoint written after the current iteration (or epoch) says about itself, in EasyCV's layout."""
    palette = getattr(trainer.train_dataset, 'PALETTE', None)
    return {'CLASSES': list(trainer.cfg.CLASSES), 'PALETTE': [list(map(int, color)) for color in palette or []],
            'epoch': trainer.epoch + 1, 'iter': trainer.iter if after_epoch else trainer.iter + 1}


def publish(model_file: Path, output_dir: str | Path) -> None:
    """Make a checkpoint the weights of a model directory, at once: a reader sees the old file or the new one."""
    os.makedirs(output_dir, exist_ok=True)
    target = Path(output_dir) / 'pytorch_model.pt'
    temporary = target.with_name(f'{temporary_prefix(target.name)}{os.getpid()}{target.suffix}')
    try:
        temporary.unlink(missing_ok=True)
        try:
            os.link(model_file, temporary)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(model_file, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_results(values: Mapping[str, Any], folder: str | Path, name: str = work_dir.RESULTS) -> None:
    """Write an evaluation's values as JSON; a class without a value is null."""
    with atomic_write(Path(folder) / name) as temporary:
        temporary.write_text(json.dumps({key: value if not isinstance(value, float) or math.isfinite(value) else None
                                         for key, value in values.items()}))


OURS: dict[str, type[Hook]] = {
    'AddLrLogHook': AddLrLogHook, 'BestCkptSaver': BestCkptSaverHook, 'BestCkptSaverHook': BestCkptSaverHook,
    'CheckpointHook': CheckpointHook, 'EvaluationHook': EvaluationHook, 'TextLoggerHook': TextLoggerHook,
    'ProgressHook': ProgressHook,
}
DONE_BY_THE_TRAINER = ('DDPHook', 'EMAHook', 'OptimizerHook', 'TorchAMPOptimizerHook', 'AMPFP16OptimizerHook')


def build_hook(section: Mapping[str, Any]) -> Hook:
    """Build a hook from its section `{'type': …, **arguments}`.

    Raises:
        TrainingError: the type is known nowhere, or does not take these arguments.
    """
    options = dict(section)
    name: Any = options.pop('type', None)
    cls = OURS.get(name)
    try:
        if cls is not None:
            return cls(**options)
        if name in {value for key, value in vars(Hooks).items() if not key.startswith('_')} | set(_registered()):
            return build_from_cfg({'type': name, **options}, builder.HOOKS)
    except TrainingError:
        raise
    except (TypeError, ValueError, AssertionError) as error:
        raise TrainingError(f'hook {name} does not take these arguments: {options} ({error})') from None
    try:
        return bridge.build_hook({'type': name, **options})
    except bridge.BridgeError as error:
        raise TrainingError(f'hook "{name}" is none of this package\'s ({", ".join(sorted(OURS))}) nor of '
                            f'ModelScope\'s: {error}') from None


def _registered() -> dict[str, Any]:
    return builder.HOOKS.modules.get('default', {})
