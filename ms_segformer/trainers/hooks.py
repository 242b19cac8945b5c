"""The hooks the published configurations name, on ModelScope's.

| configuration says | runs |
|-|-|
| CheckpointHook, BestCkptSaverHook (BestCkptSaver) | those of `checkpoint_hooks`: whole pairs, atomically |
| EvaluationHook | `EvaluationHook` below |
| AddLrLogHook | `AddLrLogHook` below |
| TextLoggerHook | `TextLoggerHook` below |
| TensorboardHook, IterTimerHook and any other hook of ModelScope | ModelScope's |
| a hook that only EasyCV or mmcv has | that one, through `ms_segformer.integrations.easycv.bridge` |
"""

import math
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import torch
from modelscope.metainfo import Hooks
from modelscope.trainers.hooks import builder, evaluation_hook
from modelscope.trainers.hooks.hook import Hook
from modelscope.trainers.hooks.logger import text_logger_hook
from modelscope.trainers.hooks.optimizer import base as optimizer_base
from modelscope.trainers.hooks.priority import Priority
from modelscope.utils.registry import build_from_cfg
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..integrations.easycv import bridge
from ..metainfo import LR_LOG_HOOK
from ..progress import LINE, screen
from . import distributed, work_dir
from .checkpoint_hooks import BestCkptSaverHook, CheckpointHook
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

    def __init__(
        self, cumulative_iters: int = 1, grad_clip: dict[str, Any] | None = None, scaler: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(cumulative_iters=cumulative_iters, grad_clip=grad_clip, **kwargs)
        self.scaler = scaler
        if grad_clip is not None:
            _check_clipping(grad_clip)

    def before_run(self, trainer: Trainer) -> None:
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
        raise TrainingError(
            f'train.optimizer.options.grad_clip is {options}; expected max_norm, a number above 0, and '
            'other arguments of torch.nn.utils.clip_grad_norm_'
        )


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
                work_dir.write_results(
                    {'run': trainer.run, 'iteration': trainer.iter, **values}, trainer.work_dir, work_dir.EVALUATION
                )
        trainer.evaluated_at = self._moment
        for hook in trainer.hooks if distributed.is_first() else ():
            if isinstance(hook, CheckpointHook):
                hook.after_evaluation(trainer)
        return values


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
        super()._dump_log(
            {
                key: None if isinstance(value, float) and not math.isfinite(value) else value
                for key, value in log_dict.items()
            }
        )


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
        self.bar = self._opened.enter_context(
            tqdm(total=trainer.max_iters, initial=trainer.iter, bar_format=LINE, **screen())
        )
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
        self.bar.set_description_str(
            f'{self._where(trainer, trainer.inner_iter + 1)}, loss {loss:.4f}, {rate:.1f} images/s, {left} left',
            refresh=False,
        )
        self.bar.update(1)

    @staticmethod
    def _where(trainer: Trainer, done: int) -> str:
        return f'epoch {trainer.epoch + 1}/{trainer.max_epochs}, iteration {done}/{trainer.iters_per_train_epoch}'

    def after_run(self, trainer: Trainer) -> None:
        self.close()

    def close(self) -> None:
        """Leave the line as it stands: what is written next begins below it."""
        if self.bar is not None:
            self._opened.close()
            self.bar = None


OURS: dict[str, type[Hook]] = {
    'AddLrLogHook': AddLrLogHook,
    'BestCkptSaver': BestCkptSaverHook,
    'BestCkptSaverHook': BestCkptSaverHook,
    'CheckpointHook': CheckpointHook,
    'EvaluationHook': EvaluationHook,
    'TextLoggerHook': TextLoggerHook,
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
        raise TrainingError(
            f'hook "{name}" is none of this package\'s ({", ".join(sorted(OURS))}) nor of ModelScope\'s: {error}'
        ) from None


def _registered() -> dict[str, Any]:
    return builder.HOOKS.modules.get('default', {})
