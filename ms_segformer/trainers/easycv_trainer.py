"""The `easycv` trainer: SegFormer training and evaluation from a configuration of the published kind.

    from modelscope.metainfo import Trainers
    from modelscope.trainers import build_trainer
    trainer = build_trainer(Trainers.easycv, dict(
        model='damo/cv_segformer-b0_image_semantic-segmentation_coco-stuff164k',
        classes=['road', 'sky'], data_root='my_data', work_dir='run'))
    trainer.train()

The same under `torchrun --nproc_per_node N script.py` trains on N GPUs (or N processes of a CPU). The trained model
directory is `<work_dir>/output`.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import torch
from modelscope.hub.snapshot_download import snapshot_download
from modelscope.metrics import build_metric
from modelscope.trainers.builder import TRAINERS
from modelscope.trainers.hooks.checkpoint.checkpoint_hook import BestCkptSaverHook as MODELSCOPE_S_BEST
from modelscope.trainers.hooks.lr_scheduler_hook import LrSchedulerHook
from modelscope.trainers.trainer import EpochBasedTrainer
from modelscope.utils.constant import ModeKeys
from torch.utils.data import DataLoader, Dataset, Sampler

from ..config import schema
from ..config.jsonplus import plain
from ..config.schema import policy_name
from ..datasets.errors import DatasetError
from ..datasets.layout import say_that_ids_are_taken_as_they_are
from ..datasets.sample import Batch
from ..datasets.seg_dataset import SegDataset, collate
from ..datasets.sources import say_if_255_looks_like_a_class, share_ids
from ..integrations.easycv import bridge
from ..integrations.modelscope.shared_names import own_names
from ..metainfo import TRAINER
from ..models.checkpoint import load_state
from ..models.segformer import Segformer
from . import (
    advice,
    checkpoint_hooks,
    checks,
    configuration,
    continuing,
    data_loading,
    distributed,
    failures,
    hooks,
    pretrained,
    resuming,
)
from .arguments import Arguments, Completed, complete
from .determinism import deterministic
from .ema import ModelEma
from .errors import TrainingError
from .evaluation import Evaluator, measure, with_progress
from .memory import keep_freed_memory
from .optimizer import build_optimizer, loss_scaler
from .schedules import Schedule, build_schedule


@TRAINERS.register_module(module_name=TRAINER, force=True)
class EasyCVTrainer(EpochBasedTrainer):
    """Trains SegFormer; the arguments are keys of `build_trainer('easycv', {…})`.

    Args:
        model: hub id, model directory, or a built model (then with `cfg_file`). Its weights are the starting point.
        cfg_file: configuration to train from scratch with (or instead of the model directory's).
        classes: class names, or a text file with one a line, when they differ from the configuration's.
        data_root: folder of the data, see `datasets.layout.find_data_sources`; or what `${data_root}` stands for.
        train_dataset, eval_dataset: `MsDataset`, `SegDataset`, a table of pairs, or any torch data set with the same
            samples; by default what the configuration's `dataset` section describes.
        cfg_modify_fn: function that takes the configuration and returns the changed one.
        cfg_options: `{'train.max_epochs': 3, …}`, merged into the configuration after `cfg_modify_fn`.
        load_from: what to start from, in place of the model's weights: `imagenet`, `scratch`, a file (any dialect), a
            model directory, a URL or an id, see `pretrained`; also `load_from` in the configuration.
        checkpoint_path: same as `resume`, for the path of a checkpoint of this trainer.
        resume: True goes on with the newest run in `work_dir`, from its newest whole checkpoint, if there is one; or
            the path of a checkpoint or of another run's folder.
        work_dir: folder for checkpoints, logs and the trained model; default `train.work_dir`, else `./work_dir`. A run
            that does not go on with what is there moves it into `previous/<number>/` first.
        keep_checkpoints: how many of the newest checkpoints stay, and the one with the best mIoU, where the
            configuration says neither (`train.checkpoint.period.max_checkpoint_num`, `train.checkpoint.best`); None
            keeps all, as the original does.
        seed: decides the weights' start, the order and the random draws of the samples.
        max_epochs: overrides `train.max_epochs`.
        device: `cpu`, `gpu`, `cuda:1`, …; default a GPU where there is one.
        launcher: `pytorch` (torchrun, found by itself), `slurm` or `mpi`.
        amp: `bf16` or `fp16`; also `train.amp` in the configuration. `use_fp16` is the same as `fp16`.
        ema: decay of the weights' moving average, which is then evaluated and saved; also `train.ema`.
        callbacks, optimizers, data_collator, samplers, compile: as for ModelScope's `EpochBasedTrainer`.

    Raises:
        TrainingError, ConfigurationError, CheckpointError, DatasetError: before any work is lost.
    """

    bare_model: Any  # what `model` is, or holds where there are several processes
    train_dataset: Any
    eval_dataset: Any
    completed: Completed
    schedule: Schedule | None
    scaler: Any
    lr_scheduler: Any
    _hooks: list[Any]
    _inner_iter: int

    def __init__(
        self,
        model: str | os.PathLike | Segformer | None = None,
        cfg_file: str | None = None,
        cfg_modify_fn: Callable[[Any], Any] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        classes: configuration.Classes | None = None,
        data_root: str | os.PathLike | None = None,
        load_from: str | os.PathLike | None = None,
        checkpoint_path: str | Path | None = None,
        resume: str | Path | bool | None = None,
        work_dir: str | os.PathLike | None = None,
        seed: int = 42,
        device: torch.device | str | None = None,
        launcher: str | None = None,
        amp: str | None = None,
        ema: float | bool | None = None,
        cfg_options: dict[str, Any] | None = None,
        use_fp16: bool = False,
        keep_checkpoints: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.rank, self.world_size = distributed.start(launcher, device)
        self._device_choice = distributed.choose_device(device, self.world_size)
        if kwargs.get('max_epochs', 0) is None:
            del kwargs['max_epochs']  # ModelScope would take it for the number
        self.given = Arguments(
            classes=classes,
            data_root=data_root,
            cfg_file=cfg_file,
            cfg_options=cfg_options,
            load_from=load_from,
            resume=resume if checkpoint_path is None else checkpoint_path,
            ema=ema,
            work_dir=work_dir,
            amp='fp16' if use_fp16 and amp is None else amp,
            keep_checkpoints=keep_checkpoints,
            max_epochs=kwargs.get('max_epochs'),
            train_data=train_dataset is not None,
            eval_data=eval_dataset is not None,
        )
        self.seed = seed
        self.run: str | None = None
        self.resumed_from: str | None = None
        self.starting_point: str | None = None
        self.ema: ModelEma | None = None
        self.scaler = self.lr_scheduler = None
        self.optimizer = cast(torch.optim.Optimizer, None)  # until training is prepared
        self.cumulative_iters = 1
        self.gradients_restored = False
        self.evaluated_at: tuple[str | None, int | None] = (None, None)
        self._random_weights = False
        self._resumed_moment: int | None = None
        self._progress: hooks.ProgressHook | None = None
        checks.require_seed(seed)
        if model is None and cfg_file is None:
            raise TrainingError(
                'neither model nor cfg_file given; pass model=<hub id or directory> to start from its '
                'weights, or cfg_file=<configuration.json> to train from scratch'
            )
        if cfg_file is not None:
            schema.check_file(cfg_file)
        with own_names():
            super().__init__(
                model=model,
                cfg_file=cfg_file,
                cfg_modify_fn=cfg_modify_fn,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                seed=seed,
                device='cpu',
                **kwargs,
            )
        self.device = self._device_choice
        self._dist = self.world_size > 1
        self.bare_model = self.unwrap_module(self.model)
        self.bare_model.to(self.device)
        if self.device.type == 'cuda':  # where convolutions are fastest so; the maps between them are so already
            self.bare_model.to(memory_format=torch.channels_last)
        self._start_data(seed)
        if self._dist:  # the same start everywhere, other draws of dropout in every process
            torch.manual_seed(seed + self.rank)

    def _start_data(self, seed: int) -> None:
        if hasattr(self.train_dataset, 'set_seed'):
            self.train_dataset.set_seed(seed)
        self._share_ids()
        say_if_255_looks_like_a_class(getattr(self.train_dataset, 'source', None))
        unnamed = self.completed.unnamed
        if unnamed is not None and not self.given.train_data and distributed.is_first():
            say_that_ids_are_taken_as_they_are(self.train_dataset.source, unnamed)

    # --- what ModelScope's constructor asks for -----------------------------------------------------------------

    def get_or_download_model_dir(self, model: str, model_revision: str | None = None, third_party: Any = None) -> str:
        """Return a local model directory without asking the hub whether it is the latest."""
        if os.path.exists(model):
            folder = model if os.path.isdir(model) else os.path.dirname(model)
        else:
            folder = snapshot_download(model, revision=model_revision)
        if self.given.cfg_file is None:
            schema.check_file(os.path.join(folder, 'configuration.json'))
        return folder

    def rebuild_config(self, cfg: Any) -> Any:
        """Apply `cfg_modify_fn` and `cfg_options`, then the class list and the data folder."""
        written = deepcopy(cfg._cfg_dict.to_dict())
        cfg = super().rebuild_config(cfg)
        if cfg is None:
            raise TrainingError('cfg_modify_fn returned None; it has to return the configuration')
        self.configuration_file = self.given.cfg_file or os.path.join(self.model_dir, 'configuration.json')
        self.completed = complete(
            self.given,
            cfg._cfg_dict.to_dict(),
            written,
            getattr(cfg, 'filename', None),
            self.model_dir if self.input_model_id is not None else None,
            self.optimizers,
            self._device_choice,
        )
        return type(cfg)(self.completed.raw, filename=getattr(cfg, '_filename', None))

    def build_model(self) -> Segformer:
        """Build the network and load its starting point."""
        section = {key: value for key, value in self.cfg.model.to_dict().items() if key != 'type'}
        model = Segformer(self.model_dir, **section)
        checks.require_precision(model, self.completed.precision, self._device_choice.type)
        self.starting_point = pretrained.load(
            model,
            model_dir=self.model_dir if self.input_model_id is not None else None,
            load_from=self.completed.load_from,
            pretrained=self.cfg.model.get('pretrained'),
            new_classes=self.completed.new_classes,
            classes=self.cfg.CLASSES,
        )
        self._random_weights = self.starting_point is None
        return model

    def get_preprocessors(self, preprocessor: Any) -> tuple[None, None]:
        """The data set's own pipeline prepares the samples."""
        return None, None

    def build_dataset(
        self, datasets: Any, model_cfg: Any, mode: str, preprocessor: Any = None, **kwargs: Any
    ) -> Dataset | None:
        """Return the data set of a mode; its errors reach the user (ModelScope's own method prints and swallows them).

        Raises:
            DatasetError: the data cannot be used.
        """
        training = mode == ModeKeys.TRAIN
        evaluates = self.cfg.safe_get('evaluation.period') is not None and self.cfg.safe_get('dataset.val') is not None
        if not training and datasets is None and not evaluates:
            return None
        try:
            dataset = data_loading.build_dataset(datasets, model_cfg, 'train' if training else 'val', mode)
            if isinstance(dataset, SegDataset):
                dataset.require_labels()
            return dataset
        except DatasetError as error:
            if training:
                raise
            raise DatasetError(
                f'{error} (this is the evaluation data; to train without evaluating, set evaluation.period to null)'
            ) from None

    def _share_ids(self) -> None:
        share_ids(getattr(dataset, 'source', None) for dataset in (self.train_dataset, self.eval_dataset))

    def get_data_collator(self, data_collator: Any, remove_unused_data: bool = False) -> Any:
        """Join samples as this package's data sets need it, unless told otherwise."""
        return super().get_data_collator(data_collator or collate, remove_unused_data)

    def register_hook_from_cfg(self, hook_cfg: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Build hooks by their names: this package's, ModelScope's, or EasyCV's and mmcv's where installed."""
        built = []
        for section in hook_cfg:
            if section.get('type') in hooks.DONE_BY_THE_TRAINER:
                continue
            hook = hooks.build_hook(section)
            self.register_hook(hook)
            built.append(hook)
        return built

    def print_cfg(self) -> None:
        """ModelScope prints the configuration; `train` writes it to `<work_dir>/configuration.json`."""

    def print_hook_info(self) -> None:
        """ModelScope prints the stages of every hook; the configuration file has them already."""

    # --- training ------------------------------------------------------------------------------------------------

    @property
    def iters_per_epoch(self) -> int:
        """Iterations of an epoch, or of an evaluation while one is being logged."""
        if self.mode == ModeKeys.TRAIN:
            return self.iters_per_train_epoch
        return self._eval_iters_per_epoch or len(self.eval_dataloader or self.get_eval_data_loader())

    @property
    def max_iters(self) -> int:
        """Iterations of the whole run."""
        return self._max_epochs * self.iters_per_train_epoch

    @property
    def iters_per_train_epoch(self) -> int:
        """Iterations of an epoch of training."""
        return self._train_iters_per_epoch or len(self.train_dataloader)

    def train(
        self, checkpoint_path: str | Path | None = None, load_all_state: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """Train to the last epoch.

        Args:
            checkpoint_path: go on from this checkpoint of this trainer. A file with no trainer state beside it, of
                EasyCV or mmcv, is gone on from when its `meta` names an epoch, as far as it reaches (see `continuing`);
                one without, or of other classes, is the starting point for a new run.
            load_all_state: False starts a new run from the weights of any checkpoint.

        Raises:
            TrainingError: there is nothing to train on or to resume from, the loss or the weights are not finite, a
                checkpoint cannot be written, a loader's process died; the message says which checkpoint is safe.
        """
        progress = self.prepare()
        wanted = bool(self.cfg.safe_get('train.deterministic'))
        with own_names(), deterministic(wanted, self.device.type == 'cuda'):
            with resuming.alone(self), closing(progress), failures.explained(self):
                continuing.begin(self, checkpoint_path, load_all_state, self.given.resume)
                self.train_loop(self.train_dataloader)

    def prepare(self) -> hooks.ProgressHook:
        """Make everything that training needs besides its starting point and its folders: loader, optimizer, hooks.

        Returns:
            The hook of the live line, to be closed at the end.

        Raises:
            TrainingError: there is nothing to train on, or a setting cannot be used.
        """
        checks.require_data(self.train_dataset, self.eval_dataset)
        self._mode = ModeKeys.TRAIN
        if self._progress is not None:
            return self._progress
        if self.device.type == 'cpu':
            keep_freed_memory()
        with own_names():
            self.train_dataloader = self.data_loader = self.get_train_dataloader()
            checks.require_iterations(self)
            if len([hook for hook in self._hooks if isinstance(hook, MODELSCOPE_S_BEST)]) > 1:
                raise TrainingError(
                    'there is more than one BestCkptSaverHook (in train.hooks, train.checkpoint.best '
                    'or callbacks); keep one'
                )
            checkpoint_hooks.check_best_key(self.hooks, self._build_metrics() if self.eval_dataset is not None else [])
            self.bare_model.loss_at_logits_size = bool(self.cfg.safe_get('train.loss_at_logits_size'))
            self.model = self.to_parallel(self.bare_model) if self._dist else self.bare_model
            if self.completed.decay is not None:
                self.ema = ModelEma(self.bare_model, self.completed.decay)
            self.register_optimizers_hook()
            advice.warn_of_short_run(self)
            advice.say_how_it_normalizes(self)
            progress = hooks.ProgressHook()
            self.register_hook(progress)
            self.register_processors()
        self._progress = progress
        return progress

    def _build_metrics(self) -> list[Any]:
        try:
            return [build_metric(metric) for metric in self.metrics]
        except (KeyError, TypeError) as error:
            raise TrainingError(
                f'evaluation.metrics is {self.metrics}, which cannot be built ({error}); expected '
                '{"type": "EasyCVMetric", "evaluators": […]} or a metric of ModelScope'
            ) from None

    def to_parallel(self, model: torch.nn.Module) -> torch.nn.Module:
        """Wrap the model for several processes; SyncBN where the configuration names it and GPUs are used."""
        on_gpu = self.device.type == 'cuda'
        if self.bare_model.settings.head.norm == 'SyncBN' and on_gpu:
            model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
            self.bare_model = model
        ids = [self.device.index] if on_gpu else None
        return torch.nn.parallel.DistributedDataParallel(model, device_ids=ids)

    def register_optimizers_hook(self) -> None:
        """Create the optimizer and the schedule, and register the hooks that drive them."""
        optimizer, scheduler = self.optimizers
        section = deepcopy(self.cfg.train.get('optimizer')) or {}
        options = dict(section.pop('options', None) or {})
        options.update(
            {key: value for key, value in (self.cfg.train.get('optimizer_hook') or {}).items() if key != 'type'}
        )
        self.optimizer = optimizer or build_optimizer(
            plain(section, 'configuration'), self.bare_model, self.device.type
        )
        for group in self.optimizer.param_groups:
            group.setdefault('initial_lr', group['lr'])
        if self.completed.precision == torch.float16:
            self.scaler = loss_scaler(self.device.type)
        accepted = {key: options[key] for key in ('cumulative_iters', 'grad_clip', 'loss_keys') if key in options}
        step = hooks.OptimizerHook(scaler=self.scaler, **accepted)
        self.cumulative_iters = step.cumulative_iters
        self.register_hook(step)
        self._register_schedule(scheduler)

    def _register_schedule(self, scheduler: Any) -> None:
        section = plain(self.cfg.train.get('lr_scheduler') or {'policy': 'fixed', 'by_epoch': False}, 'configuration')
        self.schedule = None
        if scheduler is None:
            self.schedule = build_schedule(section, self.max_iters, self._max_epochs, self.iters_per_train_epoch)
        if self.schedule is not None:
            self.register_hook(hooks.ScheduleHook(self.schedule))
        elif scheduler is None and (section.get('policy') or policy_name(section)):
            self.register_hook(hooks.AddLrLogHook())
            self.register_hook(bridge.build_lr_hook({'policy': policy_name(section), **section}))
        else:
            options = section.pop('options', {})
            try:
                self.lr_scheduler = scheduler or self.build_lr_scheduler(section, {'optimizer': self.optimizer})
            except TypeError as error:
                raise TrainingError(f'train.lr_scheduler does not take these arguments: {section} ({error})') from None
            self.register_hook(LrSchedulerHook(**options))

    def train_loop(self, data_loader: DataLoader) -> None:
        """Train from the present position to the last epoch."""
        self.invoke_hook('before_run')
        self.bare_model.train()
        for _ in range(self._epoch, self._max_epochs):
            self._train_epoch(data_loader)
            if self._stop_training:
                break
        self.require_finite_weights()
        self.invoke_hook('after_run')

    def _train_epoch(self, data_loader: DataLoader) -> None:
        per_epoch, start = self.iters_per_train_epoch, self._inner_iter
        if hasattr(self.train_dataset, 'set_epoch'):
            self.train_dataset.set_epoch(self._epoch)
        if isinstance(data_loader.sampler, data_loading.EpochSampler):
            data_loader.sampler.set_position(self._epoch, start * (data_loader.batch_size or 1))
        self.invoke_hook('before_train_epoch')
        before = self._iter
        if start < per_epoch:
            for number, batch in zip(range(start, per_epoch), data_loader):  # noqa: B905 the shorter one ends the epoch
                self._inner_iter = number
                self.train_iteration(batch)
            if self._iter == before:
                raise TrainingError(
                    f'the training data gave no batch in epoch {self._epoch + 1}. {resuming.safe_checkpoint(self)}'
                )
        self.invoke_hook('after_train_epoch')
        self._inner_iter = 0
        self._epoch += 1
        self._resumed_moment = None

    def train_iteration(self, batch: Batch) -> None:
        """Train on one batch, with what the hooks do around it."""
        self._resumed_moment = None
        self.data_batch = batch
        self.invoke_hook('before_train_iter')
        self.train_step(self.model, batch)
        self.invoke_hook('after_train_iter')
        del self.data_batch, self.train_outputs
        self._iter += 1
        self._mode = ModeKeys.TRAIN

    def train_step(self, model: torch.nn.Module, inputs: Batch) -> None:
        """Run the forward pass of one batch and log its loss.

        Raises:
            TrainingError: the loss is not finite.
        """
        model.train()
        self._mode = ModeKeys.TRAIN
        if isinstance(model, torch.nn.parallel.DistributedDataParallel):
            model.require_backward_grad_sync = self.completes_a_step()
        tensors = {
            key: value.to(self.device, non_blocking=True)
            for key, value in inputs.items()
            if isinstance(value, torch.Tensor)
        }
        missing = [key for key in ('img', 'gt_semantic_seg') if key not in tensors]
        if missing:
            raise TrainingError(
                f'the training samples have no {" and no ".join(missing)}; end dataset.train.pipeline '
                'with DefaultFormatBundle and Collect, whose keys are ["img", "gt_semantic_seg"]'
            )
        precision = self.completed.precision
        with nullcontext() if precision is None else torch.autocast(self.device.type, precision):
            self.train_outputs = model(**tensors)
        logged = {
            key: value
            for key, value in self.train_outputs.items()
            if key != 'loss' and isinstance(value, torch.Tensor) and value.dim() == 0
        }
        logged['loss'] = self.train_outputs['loss']
        values = torch.stack([value.detach().float() for value in logged.values()]).tolist()
        values = distributed.mean_over_processes(values, self.device)
        if not math.isfinite(values[-1]):
            raise failures.loss_not_finite(self, values[-1], inputs)
        self.log_buffer.update(dict(zip(logged, values, strict=True)))

    @contextmanager
    def only_hooks(self, *kinds: type) -> Iterator[None]:
        """Inside it no other hooks run than these kinds."""
        hooks_before = self._hooks
        self._hooks = [hook for hook in hooks_before if isinstance(hook, kinds)]
        try:
            yield
        finally:
            self._hooks = hooks_before

    def get_train_dataloader(self) -> DataLoader:
        """Return the loader of the training data; its order follows from the seed and the epoch alone."""
        return data_loading.training_loader(
            self.train_dataset,
            self.cfg.safe_get('train.dataloader'),
            self._given_sampler('train'),
            self.train_data_collator,
            self.seed,
            self.rank,
            self.world_size,
            self.device.type == 'cuda',
        )

    def get_eval_data_loader(self) -> DataLoader:
        """Return the loader of this process's share of the evaluation data."""
        return data_loading.evaluation_loader(
            self.eval_dataset,
            self.cfg.safe_get('evaluation.dataloader'),
            self._given_sampler('val'),
            self.eval_data_collator,
            self.seed,
            self.rank,
            self.world_size,
            self.device.type == 'cuda',
        )

    def _given_sampler(self, split: str) -> Sampler | None:
        return self._samplers.get(split) if isinstance(self._samplers, dict) else self._samplers

    # --- what `protocol.Trainer` promises ------------------------------------------------------------------------

    @property
    def model_to_save(self) -> torch.nn.Module:
        """The model whose weights go into checkpoints: the average where there is one."""
        return self.bare_model if self.ema is None else self.ema.model

    def completes_a_step(self) -> bool:
        """Whether the optimizer steps after the current iteration (gradients may be accumulated)."""
        return (self._iter + 1) % self.cumulative_iters == 0 or self._iter + 1 == self.max_iters

    def is_resumed_moment(self) -> bool:
        """Whether the run stands where it was resumed from, before any new iteration."""
        return self._resumed_moment is not None and self._resumed_moment == self._iter

    def set_position(self, epoch: int, iteration: int, inner_iteration: int, gradients_restored: bool) -> None:
        """Go on after `iteration` iterations, `inner_iteration` of them in this epoch (from 0)."""
        self._epoch, self._iter, self._inner_iter = epoch, iteration, inner_iteration
        self._resumed_moment, self.gradients_restored = iteration, gradients_restored

    def load_weights(self, path: str | Path) -> None:
        """Load a checkpoint of any dialect into all that is trained, evaluated and saved."""
        pretrained.load(self.bare_model, load_from=path, classes=self.cfg.CLASSES)
        if self.ema is not None:
            self.ema.restart(self.bare_model)

    def set_weights(self, weights: dict[str, torch.Tensor], source: str) -> None:
        """Load weights by their names here into all that is trained, evaluated and saved; `source` names them."""
        load_state(self.bare_model, weights, source)
        if self.ema is not None:
            self.ema.restart(self.bare_model)

    def require_finite_weights(self) -> None:
        """Stop the run rather than write weights that are of no use; see `failures`."""
        failures.require_finite_weights(self)

    def take_evaluation(self, values: dict[str, float]) -> None:
        """Go on as after an evaluation that found these values."""
        self._metric_values, self._mode = values, ModeKeys.EVAL

    # --- evaluation ----------------------------------------------------------------------------------------------

    def evaluate(
        self,
        checkpoint_path: str | Path | None = None,
        saving_fn: Callable[[Batch, dict[str, Any]], None] | None = None,
        **kwargs: Any,
    ) -> dict[str, float]:
        """Evaluate on the evaluation data.

        Args:
            checkpoint_path: weights to evaluate in place of the present ones (any dialect). They are loaded into a copy
                of the model: the trainer's own weights, and a run in progress, stay as they are.
            saving_fn: called as `saving_fn(inputs, outputs)` with every batch and `{'seg_map': […]}`.

        Returns:
            Dict of metric values, the same on every process.

        Raises:
            TrainingError: there is no evaluation data, or what the model computes is not finite.
        """
        if self.eval_dataset is None:
            self.eval_dataset = data_loading.build_dataset(None, self.cfg, 'val', ModeKeys.EVAL)
            self._share_ids()
        if self.eval_dataset is None:
            raise TrainingError('there is no evaluation data: pass eval_dataset, or a configuration with dataset.val')
        if len(self.eval_dataset) == 0:
            raise TrainingError('the evaluation split is empty. Check dataset.val (img_root, img_suffix, split)')
        model = self.model_to_save
        if checkpoint_path is not None:
            model = deepcopy(self.bare_model)
            pretrained.load(model, load_from=checkpoint_path, whole=True)
        elif self._random_weights and self.starting_point is None and not self._iter:
            self.logger.warning('evaluating random weights: no checkpoint was loaded and nothing was trained')
        self._mode = ModeKeys.EVAL
        self.eval_dataloader = self.get_eval_data_loader()
        with own_names(), failures.explained(self):
            self.take_evaluation(self.evaluation_loop(self.eval_dataloader, self._build_metrics(), saving_fn, model))
        return self._metric_values

    def evaluation_loop(
        self,
        data_loader: DataLoader,
        metric_classes: list[Any],
        saving_fn: Callable[[Batch, dict[str, Any]], None] | None = None,
        model: torch.nn.Module | None = None,
    ) -> dict[str, float]:
        """Feed every process's share into the metrics and add them up."""
        self.invoke_hook('before_val')
        evaluator = Evaluator(
            self.model_to_save if model is None else model, self.device, dtype=self.completed.precision
        )
        values = measure(metric_classes, evaluator, with_progress(data_loader), self._eval_iters_per_epoch, saving_fn)
        self.invoke_hook('after_val')
        return values
