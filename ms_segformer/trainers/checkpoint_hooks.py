"""The hooks that write checkpoints, the newest and the best, and the trained model directory beside each."""

import math
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from modelscope.trainers.hooks.checkpoint import checkpoint_hook
from modelscope.trainers.hooks.hook import Hook
from modelscope.trainers.hooks.priority import Priority

from ..files import temporary_prefix
from ..metrics.segmentation import EasyCVMetric
from . import configuration, distributed, run_state, work_dir
from .errors import TrainingError
from .protocol import Trainer


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
        model_file = run_state.save_pair(
            os.path.join(self.save_dir, prefix), trainer.model_to_save, _meta(trainer, self._after_epoch()), saved
        )
        work_dir.note_saved(trainer.work_dir)
        self._publish(model_file, trainer.iter + (not self._after_epoch()))
        if trainer.evaluated_at == self._moment(trainer):
            work_dir.write_results(trainer.metric_values or {}, self.output_dir)
        self._remove_obsolete_checkpoints(trainer)
        return prefix

    def after_evaluation(self, trainer: Trainer) -> None:
        """Put the results beside the weights in the model directory, where they are those that were evaluated."""
        if trainer.evaluated_at[0] == 'epoch' and self.published_at == trainer.iter:
            work_dir.write_results(trainer.metric_values or {}, self.output_folder(trainer))

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
            raise TrainingError(f'save_file_name is {name!r}; expected a file name without a folder (use save_dir)')
        self.PRIORITY = Priority.LOW
        self.processor = _SaveOnEveryRank()
        self.history_checkpoints = []
        self._epoch_end = True
        self._best_name: str | None = None

    def _is_its_own(self, name: Any) -> bool:
        return super()._is_its_own(name) or (name is not None and name == self.save_file_name)

    def names_of_its_own(self) -> list[str]:
        return [] if self.save_file_name is None else [path.name for path in run_state.pair_of(self.save_file_name)]

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
    return TrainingError(
        f'train.checkpoint.best.metric_key is "{key}", which is none of the evaluation\'s results '
        f'({", ".join(list(known)[:6])}, …); choose one of them'
    )


class _SaveOnEveryRank:
    """What ModelScope's checkpoint hooks ask: every rank takes part (the random states are gathered), one writes."""

    def should_save_on_rank(self, trainer: Trainer) -> bool:
        return True


def _meta(trainer: Trainer, after_epoch: bool) -> dict[str, Any]:
    """What a checkpoint written after the current iteration (or epoch) says about itself, in EasyCV's layout."""
    palette = getattr(trainer.train_dataset, 'PALETTE', None)
    return {
        'CLASSES': list(trainer.cfg.CLASSES),
        'PALETTE': [list(map(int, color)) for color in palette or []],
        'epoch': trainer.epoch + 1,
        'iter': trainer.iter if after_epoch else trainer.iter + 1,
    }


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
