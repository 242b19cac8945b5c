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
import errno
import json
import math
import os
from collections.abc import Callable
from contextlib import closing, contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from modelscope.metrics import build_metric
from modelscope.trainers.builder import TRAINERS
from modelscope.trainers.hooks.checkpoint.checkpoint_hook import BestCkptSaverHook as MODELSCOPE_S_BEST
from modelscope.trainers.hooks.lr_scheduler_hook import LrSchedulerHook
from modelscope.trainers.trainer import EpochBasedTrainer
from modelscope.utils.constant import ModeKeys
from modelscope.utils.torch_utils import is_master
from torch.utils.data import DataLoader

from ..config import schema
from ..config.jsonplus import decode_jsonplus, encode_jsonplus, plain
from ..config.limits import EPOCHS
from ..config.reader import read_model_section
from ..datasets.errors import DatasetError
from ..datasets.layout import say_that_ids_are_taken_as_they_are
from ..datasets.loader import Loader
from ..datasets.seg_dataset import SegDataset, collate, raise_construction_error
from ..datasets.sources import say_if_255_looks_like_a_class, share_ids
from ..download import without_userinfo
from ..errors import one_line
from ..files import atomic_write
from ..integrations.modelscope import hub
from ..integrations.modelscope.shared_names import own_names
from ..metainfo import TRAINER
from ..metrics.segmentation import EasyCVMetric
from ..models.checkpoint import load_state
from ..postprocess.segmentation import LogitsError
from ..progress import screen
from . import checks, configuration, continuing, distributed, hooks, log_file, pretrained, resuming, run_state, work_dir
from .ema import WeightAverage
from .errors import TrainingError
from .evaluation import Evaluator
from .memory import keep_freed_memory
from .optimizer import build_optimizer
from .sampler import EpochSampler, ShareSampler
from .schedules import build_schedule, policy_name

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EXDEV, errno.EISDIR,
              errno.ENOTDIR, errno.EFBIG)
REMEDIES = ('Lower train.optimizer.lr, set train.optimizer.options.grad_clip to {"max_norm": 1.0}, train in float32 if '
            'train.amp is set, or check the data with "ms-segformer check-data"')


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

    def __init__(self, model=None, cfg_file=None, cfg_modify_fn=None, train_dataset=None, eval_dataset=None,
                 classes=None, data_root=None, load_from=None, checkpoint_path=None, resume=None, work_dir=None,
                 seed=42, device=None, launcher=None, amp=None, ema=None, cfg_options=None, use_fp16=False,
                 keep_checkpoints=None, **kwargs):
        self.rank, self.world_size = distributed.start(launcher, device)
        self._device_choice = distributed.choose_device(device, self.world_size)
        self._classes, self._data_root = classes, data_root
        self._cfg_options, self._load_from = cfg_options, load_from
        self._resume = checkpoint_path if checkpoint_path is not None else resume
        self._amp, self._ema_decay = 'fp16' if use_fp16 and amp is None else amp, ema
        self._work_dir, self._keep_checkpoints = work_dir, keep_checkpoints
        self._train_data_given, self._eval_data_given = train_dataset is not None, eval_dataset is not None
        self._cfg_file = cfg_file
        if kwargs.get('max_epochs', 0) is None:
            del kwargs['max_epochs']  # ModelScope would take it for the number
        self._epochs_given = kwargs.get('max_epochs')
        self.run = self.resumed_from = None
        self.ema = self.scaler = self.optimizer = self.lr_scheduler = None
        self.gradients_restored = False
        self.evaluated_at = (None, None)
        self._resumed_moment = None
        self._prepared = False
        checks.require_seed(seed)
        if model is None and cfg_file is None:
            raise TrainingError('neither model nor cfg_file given; pass model=<hub id or directory> to start from its '
                                'weights, or cfg_file=<configuration.json> to train from scratch')
        if cfg_file is not None:
            schema.check_file(cfg_file)
        with own_names():
            super().__init__(model=model, cfg_file=cfg_file, cfg_modify_fn=cfg_modify_fn, train_dataset=train_dataset,
                             eval_dataset=eval_dataset, seed=seed, device='cpu', **kwargs)
        self._finish_construction(seed)

    def _finish_construction(self, seed):
        self.device = self._device_choice
        self._dist = self.world_size > 1
        self.bare_model = self.unwrap_module(self.model)
        self.bare_model.to(self.device)
        if self.train_dataset is not None and hasattr(self.train_dataset, 'set_seed'):
            self.train_dataset.set_seed(seed)
        self._share_ids()
        say_if_255_looks_like_a_class(getattr(self.train_dataset, 'source', None))
        if self._unnamed is not None and not self._train_data_given and is_master():
            say_that_ids_are_taken_as_they_are(self.train_dataset.source, self._unnamed)
        if self._dist:  # the same start everywhere, other draws of dropout in every process
            torch.manual_seed(seed + self.rank)

    # --- what ModelScope's constructor asks for -----------------------------------------------------------------

    def get_or_download_model_dir(self, model, model_revision=None, third_party=None):
        """Return a local model directory without asking the hub whether it is the latest."""
        if os.path.exists(model):
            folder = model if os.path.isdir(model) else os.path.dirname(model)
        else:
            from modelscope.hub.snapshot_download import snapshot_download
            folder = snapshot_download(model, revision=model_revision)
        if self._cfg_file is None:
            schema.check_file(os.path.join(folder, 'configuration.json'))
        return folder

    def rebuild_config(self, cfg):
        """Apply `cfg_modify_fn` and `cfg_options`, then the class list and the data folder."""
        written = deepcopy(cfg._cfg_dict.to_dict())
        cfg = super().rebuild_config(cfg)
        if cfg is None:
            raise TrainingError('cfg_modify_fn returned None; it has to return the configuration')
        name = getattr(cfg, 'filename', None) or 'configuration'
        raw = decode_jsonplus(plain(cfg._cfg_dict.to_dict(), name))
        raw = schema.merged(raw, self._cfg_options or {})
        raw = {key: value for key, value in raw.items() if value is not None}
        schema.check_sections(raw, name)
        self._load_from = self._load_from or self._configured_start(raw.get('load_from'), written.get('load_from'))
        if isinstance(self._load_from, (str, os.PathLike)):
            raw['load_from'] = without_userinfo(os.fspath(self._load_from))  # into the configuration of this run
        configuration.locate_class_files(raw, written, getattr(cfg, 'filename', None))
        prepared = configuration.prepare(raw, self._classes, self._data_root, written, self._cfg_options)
        self.new_classes, self._unnamed = prepared.new_classes, prepared.unnamed
        if not self._eval_data_given and (raw.get('dataset') or {}).get('val') is None:
            self._leave_out_evaluations(raw['evaluation'])
        schema.check_sections(raw, name)  # with the hooks where they belong
        train = raw.setdefault('train', {})
        train['work_dir'] = str(self._work_dir or train.get('work_dir') or './work_dir')
        configuration.confine(raw, written, None if self._work_dir else os.getcwd(), self._cfg_options)
        configuration.limit_checkpoints(raw, self._keep_checkpoints)
        read_model_section(raw['model'], name)
        checks.check_sections(raw, *self.optimizers, self._epochs_given)
        for section in train['hooks']:
            self._take_options(section)
        self.precision = checks.precision(self._amp if self._amp is not None else train.get('amp'),
                                          self._device_choice.type)
        checks.require_decay(self._ema_decay if self._ema_decay is not None else train.get('ema'))
        checks.require_writable(train['work_dir'])
        return type(cfg)(raw, filename=getattr(cfg, '_filename', None))

    @staticmethod
    def _leave_out_evaluations(section: dict) -> None:
        if section.get('period') is not None:
            section['period'] = None
            configuration.logger.info('there is no evaluation data: this run is trained without evaluations')

    def _configured_start(self, load_from, written):
        """The configuration's `load_from`, unless it only records where the weights of the model directory came from.

        EasyCV leaves it, a path or a URL, in the configuration that it exports beside the trained weights.
        """
        if load_from in hub.STARTS:
            return load_from
        named = self.input_model_id is not None and pretrained.has_checkpoint(self.model_dir)
        if load_from and load_from == written and named:
            pretrained.logger.info('load_from in the configuration of %s is left out: the checkpoint beside it is '
                                       'the starting point', self.model_dir)
            return None
        return load_from

    def build_model(self):
        """Build the network and load its starting point."""
        from ..models.segformer import Segformer
        section = {key: value for key, value in self.cfg.model.to_dict().items() if key != 'type'}
        model = Segformer(self.model_dir, **section)
        self.starting_point = pretrained.load(
            model, model_dir=self.model_dir if self.input_model_id is not None else None,
            load_from=self._load_from, pretrained=self.cfg.model.get('pretrained'), new_classes=self.new_classes,
            classes=self.cfg.CLASSES)
        return model

    def get_preprocessors(self, preprocessor):
        """The data set's own pipeline prepares the samples."""
        return None, None

    def build_dataset(self, datasets, model_cfg, mode, preprocessor=None, **kwargs):
        """Return the data set of a mode; its errors reach the user (ModelScope's own method prints and swallows them).

        Raises:
            DatasetError: the data cannot be used.
        """
        split = 'train' if mode == ModeKeys.TRAIN else 'val'
        if mode != ModeKeys.TRAIN and datasets is None and not self._evaluates():
            return None
        try:
            dataset = _build_dataset(datasets, model_cfg, split, mode)
            if isinstance(dataset, SegDataset):
                dataset.require_labels()
            return dataset
        except DatasetError as error:
            if mode == ModeKeys.TRAIN:
                raise
            raise DatasetError(f'{error} (this is the evaluation data; to train without evaluating, set '
                               'evaluation.period to null)') from None

    def _share_ids(self):
        share_ids(getattr(dataset, 'source', None) for dataset in (self.train_dataset, self.eval_dataset))

    def _evaluates(self):
        return (self.cfg.safe_get('evaluation.period') is not None
                and self.cfg.safe_get('dataset.val') is not None)

    def get_data_collator(self, data_collator, remove_unused_data=False):
        return super().get_data_collator(data_collator or collate, remove_unused_data)

    def register_hook_from_cfg(self, hook_cfg):
        """Build hooks by their names: this package's, ModelScope's, or EasyCV's and mmcv's where installed."""
        built = []
        for section in hook_cfg:
            if section.get('type') in hooks.DONE_BY_THE_TRAINER:
                continue
            hook = hooks.build_hook(section)
            self.register_hook(hook)
            built.append(hook)
        return built

    def _take_options(self, section):
        if section.get('type') == 'EMAHook' and self._ema_decay is None:
            self._ema_decay = section.get('decay', 0.9998)
        elif section.get('type') in ('TorchAMPOptimizerHook', 'AMPFP16OptimizerHook') and self._amp is None:
            self._amp = 'fp16'

    def print_cfg(self):
        """ModelScope prints the configuration; `train` writes it to `<work_dir>/configuration.json`."""

    def print_hook_info(self):
        """ModelScope prints the stages of every hook; the configuration file has them already."""

    # --- training ------------------------------------------------------------------------------------------------

    @property
    def iters_per_epoch(self):
        """Iterations of an epoch, or of an evaluation while one is being logged."""
        if self.mode == ModeKeys.TRAIN:
            return self.iters_per_train_epoch
        return self._eval_iters_per_epoch or len(self.eval_dataloader or self.get_eval_data_loader())

    @property
    def max_iters(self):
        """Iterations of the whole run."""
        return self._max_epochs * self.iters_per_train_epoch

    @property
    def iters_per_train_epoch(self) -> int:
        """Iterations of an epoch of training."""
        return self._train_iters_per_epoch or len(self.train_dataloader)

    def train(self, checkpoint_path=None, load_all_state=True, *args, **kwargs):
        """Train to the last epoch.

        Args:
            checkpoint_path: go on from this checkpoint of this trainer. A file with no trainer state beside it, of
                EasyCV or mmcv, is gone on from when its `meta` names an epoch, as far as it reaches (see `continuing`);
                one without is the starting point for a new run.
            load_all_state: False starts a new run from the weights of any checkpoint.

        Raises:
            TrainingError: there is nothing to train on or to resume from, the loss or the weights are not finite, a
                checkpoint cannot be written, a loader's process died; the message says which checkpoint is safe.
        """
        self.prepare()
        with own_names():
            with resuming.alone(self), closing(self._progress), self._explained_failures():
                self._begin(checkpoint_path, load_all_state)
                self.train_loop(self.train_dataloader)

    def prepare(self) -> None:
        """Make everything that training needs besides its starting point and its folders: loader, optimizer, hooks.

        Raises:
            TrainingError: there is nothing to train on, or a setting cannot be used.
        """
        self._check_training_data()
        self._mode = ModeKeys.TRAIN
        with own_names():
            self._prepare_training()

    def _begin(self, checkpoint_path: str | Path | None, load_all_state: bool) -> None:
        if checkpoint_path is None or (load_all_state and resuming.is_resumable(checkpoint_path)):
            resuming.begin(self, checkpoint_path if checkpoint_path is not None else self._resume)
            return
        progress = continuing.progress_of(checkpoint_path, self._max_epochs) if load_all_state else None
        self.load_weights(checkpoint_path)
        self.starting_point = str(checkpoint_path)
        resuming.begin(self, None)
        if progress is not None:
            continuing.go_on(self, checkpoint_path, progress)
        else:
            why = ', for its meta names no epoch' if load_all_state else ''
            self.logger.info(f'{checkpoint_path}: its weights are the start of a new run{why}')

    def _check_training_data(self):
        if self.train_dataset is None:
            raise TrainingError('no training data: pass train_dataset, data_root, or a configuration with '
                                'dataset.train')
        if len(self.train_dataset) == 0:
            raise TrainingError('the training split is empty: no image was found for it. Check dataset.train '
                                '(img_root, img_suffix, split) with "ms-segformer check-data"')
        if self.eval_dataset is not None and len(self.eval_dataset) == 0:
            raise TrainingError('the evaluation split is empty. Check dataset.val, or set evaluation.period to null')

    def _check_length(self) -> None:
        if not isinstance(self._max_epochs, int) or self._max_epochs > EPOCHS:
            raise TrainingError(f'max_epochs is {self._max_epochs!r}; expected an integer from 1 to {EPOCHS}')
        if self.max_iters > 0:
            return
        loader = self.train_dataloader
        why = (f'max_epochs is {self._max_epochs}' if self._max_epochs < 1 else
               f'an epoch has no iteration: {len(self.train_dataset)} samples in batches of {loader.batch_size}'
               f'{" without the last, smaller one (drop_last)" if loader.drop_last else ""}')
        raise TrainingError(f'there is nothing to train: {why}. Nothing was written. {self._safe()}')

    def _prepare_training(self):
        if self._prepared:
            return
        if self.device.type == 'cpu':
            keep_freed_memory()
        self.train_dataloader = self.data_loader = self.get_train_dataloader()
        self._check_length()
        if len([hook for hook in self._hooks if isinstance(hook, MODELSCOPE_S_BEST)]) > 1:
            raise TrainingError('there is more than one BestCkptSaverHook (in train.hooks, train.checkpoint.best or '
                                'callbacks); keep one')
        self._check_best_key()
        self.bare_model.loss_at_logits_size = bool(self.cfg.safe_get('train.loss_at_logits_size'))
        self.model = self.to_parallel(self.bare_model) if self._dist else self.bare_model
        decay = self._ema_decay if self._ema_decay is not None else self.cfg.safe_get('train.ema')
        if decay:
            self.ema = WeightAverage(self.bare_model, decay if isinstance(decay, float) else 0.9998)
        self.register_optimizers_hook()
        self._warn_of_short_run()
        self._say_how_it_normalises()
        self._progress = hooks.ProgressHook()
        self.register_hook(self._progress)
        self.register_processors()
        self._prepared = True

    def _build_metrics(self) -> list[Any]:
        try:
            return [build_metric(metric) for metric in self.metrics]
        except (KeyError, TypeError) as error:
            raise TrainingError(f'evaluation.metrics is {self.metrics}, which cannot be built ({error}); expected '
                                '{"type": "EasyCVMetric", "evaluators": […]} or a metric of ModelScope') from None

    def _check_best_key(self) -> None:
        metrics = self._build_metrics() if self.eval_dataset is not None else []
        if not metrics or not all(isinstance(metric, EasyCVMetric) for metric in metrics):
            return  # what another's metric reports is known after the first evaluation
        known = [name for metric in metrics for name in metric.evaluate()]
        for hook in resuming.savers(self):
            if isinstance(hook, hooks.BestCkptSaverHook) and hook.metric_key not in known:
                raise hooks.unknown_metric(hook.metric_key, known)

    def to_parallel(self, model):
        """Wrap the model for several processes; SyncBN where the configuration names it and GPUs are used."""
        on_gpu = self.device.type == 'cuda'
        if self.bare_model.settings.head.norm == 'SyncBN' and on_gpu:
            model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
            self.bare_model = model
        ids = [self.device.index] if on_gpu else None
        return torch.nn.parallel.DistributedDataParallel(model, device_ids=ids)

    def register_optimizers_hook(self):
        """Create the optimizer and the schedule, and register the hooks that drive them."""
        optimizer, scheduler = self.optimizers
        section = deepcopy(self.cfg.train.get('optimizer')) or {}
        options = dict(section.pop('options', None) or {})
        options.update({key: value for key, value in (self.cfg.train.get('optimizer_hook') or {}).items()
                        if key != 'type'})
        self.optimizer = optimizer or build_optimizer(_plain(section), self.bare_model, self.device.type)
        for group in self.optimizer.param_groups:
            group.setdefault('initial_lr', group['lr'])
        if self.precision == torch.float16:
            self.scaler = torch.cuda.amp.GradScaler(enabled=self.device.type == 'cuda')
        accepted = {key: options[key] for key in ('cumulative_iters', 'grad_clip', 'loss_keys') if key in options}
        self.register_hook(hooks.OptimizerHook(scaler=self.scaler, **accepted))
        self._register_schedule(scheduler)

    def _say_how_it_normalises(self) -> None:
        """Log, once, where batch norm does not see the images of a step together, as the published recipe's does."""
        hook = next(hook for hook in self.hooks if isinstance(hook, hooks.OptimizerHook))
        synchronised = any(isinstance(module, torch.nn.SyncBatchNorm) for module in self.bare_model.modules())
        together = self.train_dataloader.batch_size * (self.world_size if synchronised else 1)
        images = self.train_dataloader.batch_size * self.world_size * hook.cumulative_iters
        planned_only = self._dist != (self.world_size > 1)  # for processes that are not there
        if together == images or planned_only or not is_master():
            return
        whose = 'of those of the first process' if self._dist and not synchronised else 'of each of them'
        self.logger.info(f'a step takes {images} images, and batch norm normalises {together} at a time; its running '
                         f'statistics are made {whose}. Normalised together they are on GPUs with '
                         'model.decode_head.norm_cfg.type=SyncBN, or in one batch on one device')

    def _register_schedule(self, scheduler):
        section = _plain(self.cfg.train.get('lr_scheduler') or {'policy': 'fixed', 'by_epoch': False})
        self.schedule = None
        if scheduler is None:
            self.schedule = build_schedule(section, self.max_iters, self._max_epochs, self.iters_per_train_epoch)
        if self.schedule is not None:
            self.register_hook(hooks.ScheduleHook(self.schedule))
        elif scheduler is None and (section.get('policy') or policy_name(section)):
            from ..integrations.easycv.bridge import build_lr_hook
            self.register_hook(hooks.AddLrLogHook())
            self.register_hook(build_lr_hook({'policy': policy_name(section), **section}))
        else:
            options = section.pop('options', {})
            try:
                self.lr_scheduler = scheduler or self.build_lr_scheduler(section, {'optimizer': self.optimizer})
            except TypeError as error:
                raise TrainingError(f'train.lr_scheduler does not take these arguments: {section} ({error})') from None
            self.register_hook(LrSchedulerHook(**options))

    def _warn_of_short_run(self):
        schedule = self.schedule
        if schedule is not None and schedule.warmup and self.max_iters < schedule.warmup_iters and is_master():
            reached = schedule.rate(1.0, self.max_iters - 1, self._max_epochs - 1)
            self.logger.warning(
                f'this run has {self.max_iters} iterations, fewer than its warm-up of {schedule.warmup_iters}: the '
                f'learning rate ends at {100 * reached:.1f} % of the configured one. Set '
                'train.lr_scheduler.warmup_iters lower, or train.lr_scheduler.warmup to null')

    def train_loop(self, data_loader):
        """Train from the present position to the last epoch."""
        self.invoke_hook('before_run')
        self.bare_model.train()
        for _ in range(self._epoch, self._max_epochs):
            self._train_epoch(data_loader)
            if self._stop_training:
                break
        self.require_finite_weights()
        self.invoke_hook('after_run')

    def _train_epoch(self, data_loader):
        per_epoch, start = self.iters_per_train_epoch, self._inner_iter
        if hasattr(self.train_dataset, 'set_epoch'):
            self.train_dataset.set_epoch(self._epoch)
        if isinstance(data_loader.sampler, EpochSampler):
            data_loader.sampler.set_position(self._epoch, start * data_loader.batch_size)
        self.invoke_hook('before_train_epoch')
        before = self._iter
        if start < per_epoch:
            for number, batch in zip(range(start, per_epoch), data_loader):  # noqa: B905 the shorter one ends the epoch
                self._inner_iter = number
                self.train_iteration(batch)
            if self._iter == before:
                raise TrainingError(f'the training data gave no batch in epoch {self._epoch + 1}. {self._safe()}')
        self.invoke_hook('after_train_epoch')
        self._inner_iter = 0
        self._epoch += 1
        self._resumed_moment = None

    def train_iteration(self, batch):
        """Train on one batch, with what the hooks do around it."""
        self._resumed_moment = None
        self.data_batch = batch
        self.invoke_hook('before_train_iter')
        self.train_step(self.model, batch)
        self.invoke_hook('after_train_iter')
        del self.data_batch, self.train_outputs
        self._iter += 1
        self._mode = ModeKeys.TRAIN

    def train_step(self, model, inputs):
        """Run the forward pass of one batch and log its loss.

        Raises:
            TrainingError: the loss is not finite.
        """
        model.train()
        self._mode = ModeKeys.TRAIN
        if self._dist:
            model.require_backward_grad_sync = self.completes_a_step()
        tensors = {key: value.to(self.device, non_blocking=True) for key, value in inputs.items()
                   if isinstance(value, torch.Tensor)}
        missing = [key for key in ('img', 'gt_semantic_seg') if key not in tensors]
        if missing:
            raise TrainingError(f'the training samples have no {" and no ".join(missing)}; end dataset.train.pipeline '
                                'with DefaultFormatBundle and Collect, whose keys are ["img", "gt_semantic_seg"]')
        with self._autocast():
            self.train_outputs = model(**tensors)
        logged = {key: value for key, value in self.train_outputs.items() if key != 'loss' and _is_scalar(value)}
        logged['loss'] = self.train_outputs['loss']
        values = torch.stack([value.detach().float() for value in logged.values()]).tolist()
        values = distributed.mean_over_processes(values, self.device)
        if not math.isfinite(values[-1]):
            raise TrainingError(self._not_finite(values[-1], inputs))
        self.log_buffer.update(dict(zip(logged, values, strict=True)))

    @contextmanager
    def only_hooks(self, *kinds: type):
        """Inside it no other hooks run than these kinds."""
        hooks_before = self._hooks
        self._hooks = [hook for hook in hooks_before if isinstance(hook, kinds)]
        try:
            yield
        finally:
            self._hooks = hooks_before

    def completes_a_step(self):
        """Whether the optimizer steps after the current iteration (gradients may be accumulated)."""
        count = getattr(self, 'cumulative_iters', 1)
        return (self._iter + 1) % count == 0 or self._iter + 1 == self.max_iters

    def _autocast(self):
        return nullcontext() if self.precision is None else torch.autocast(self.device.type, self.precision)

    def get_train_dataloader(self):
        """Return the loader of the training data; its order follows from the seed and the epoch alone."""
        options = self._loader_options('train')
        sampler = self._given_sampler('train')
        if sampler is None:
            sampler = EpochSampler(len(self.train_dataset), self._seed, self.rank, self.world_size,
                                   options.pop('shuffle', True))
        options.pop('shuffle', None)
        # Its own generator: the global one must not depend on how often a loader was started.
        return Loader(self.train_dataset, sampler=sampler, collate_fn=self.train_data_collator,
                      generator=torch.Generator().manual_seed(self._seed), **options)

    def get_eval_data_loader(self):
        """Return the loader of this process's share of the evaluation data."""
        options = self._loader_options('val')
        for key in ('shuffle', 'persistent_workers'):
            options.pop(key, None)
        sampler = self._given_sampler('val') or ShareSampler(len(self.eval_dataset), self.rank, self.world_size)
        return Loader(self.eval_dataset, sampler=sampler, collate_fn=self.eval_data_collator,
                      generator=torch.Generator().manual_seed(self._seed), **options)

    def _given_sampler(self, split):
        return self._samplers.get(split) if isinstance(self._samplers, dict) else self._samplers

    def _loader_options(self, split):
        section = _plain(self.cfg.safe_get('train.dataloader' if split == 'train' else 'evaluation.dataloader') or {})
        section = {key: value for key, value in section.items() if value is not None}
        batch, workers = section.pop('batch_size_per_gpu', 1), section.pop('workers_per_gpu', 0)
        if not isinstance(batch, int) or batch < 1:
            raise TrainingError(f'batch_size_per_gpu is {batch!r}; expected an integer of at least 1')
        options = {'batch_size': batch, 'num_workers': workers, 'pin_memory': self.device.type == 'cuda', **section}
        if workers and split == 'train':
            options.setdefault('persistent_workers', True)
        return options

    # --- what a run is resumed from ------------------------------------------------------------------------------

    @property
    def model_to_save(self):
        """The model whose weights go into checkpoints: the average where there is one."""
        return self.bare_model if self.ema is None else self.ema.model

    def checkpoint_meta(self, after_epoch):
        """What a checkpoint written after the current iteration (or epoch) says about itself, in EasyCV's layout."""
        palette = getattr(self.train_dataset, 'PALETTE', None)
        return {'CLASSES': list(self.cfg.CLASSES), 'PALETTE': [list(map(int, colour)) for colour in palette or []],
                'epoch': self._epoch + 1, 'iter': self._iter if after_epoch else self._iter + 1}

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self._seed

    @property
    def configuration_file(self) -> str:
        """The file that the configuration was read from."""
        return self._cfg_file or os.path.join(self.model_dir, 'configuration.json')

    def is_resumed_moment(self):
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

    # --- evaluation ----------------------------------------------------------------------------------------------

    def evaluate_during_training(self, moment):
        """Evaluate, unless this moment was evaluated before the run was interrupted; returns the values.

        Args:
            moment: ('epoch', number) or ('iter', number), from 0.
        """
        remembered = self._remembered_evaluation() if self.is_resumed_moment() else None
        if remembered is not None:
            self._metric_values = remembered
            self._mode = ModeKeys.EVAL
        else:
            self.evaluate()
            if is_master():
                hooks.write_results({'run': self.run, 'iteration': self._iter, **self._metric_values}, self.work_dir,
                                    work_dir.EVALUATION)
        self.evaluated_at, by_epoch = moment, moment[0] == 'epoch'
        for hook in resuming.savers(self) if is_master() else ():
            if not isinstance(hook, hooks.BestCkptSaverHook) and hook.published_at == self._iter and by_epoch:
                hooks.write_results(self._metric_values, hook.output_folder(self))
        return self._metric_values

    def _remembered_evaluation(self) -> dict[str, float] | None:
        """The values of this moment, where it was evaluated before the run was interrupted."""
        try:
            values = json.loads((Path(self.work_dir) / work_dir.EVALUATION).read_text())
        except (FileNotFoundError, ValueError):
            return None
        if not isinstance(values, dict) or values.pop('run', self.run) != self.run or values.pop(
                'iteration', None) != self._iter:
            return None
        return {key: math.nan if value is None else value for key, value in values.items()}

    def evaluate(self, checkpoint_path=None, saving_fn=None, **kwargs):
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
            self.eval_dataset = _build_dataset(None, self.cfg, 'val', ModeKeys.EVAL)
            self._share_ids()
        if self.eval_dataset is None:
            raise TrainingError('there is no evaluation data: pass eval_dataset, or a configuration with dataset.val')
        if len(self.eval_dataset) == 0:
            raise TrainingError('the evaluation split is empty. Check dataset.val (img_root, img_suffix, split)')
        model = self.model_to_save
        if checkpoint_path is not None:
            model = deepcopy(self.bare_model)
            pretrained.load(model, load_from=checkpoint_path, whole=True)
        elif self.starting_point_is_random() and not self._iter:
            self.logger.warning('evaluating random weights: no checkpoint was loaded and nothing was trained')
        self._mode = ModeKeys.EVAL
        self.eval_dataloader = self.get_eval_data_loader()
        with own_names(), self._explained_failures():
            metrics = self._build_metrics()
            self._metric_values = self.evaluation_loop(self.eval_dataloader, metrics, saving_fn, model)
        return self._metric_values

    def starting_point_is_random(self):
        """Whether the model has neither loaded weights nor was handed over built."""
        return getattr(self, 'starting_point', True) is None

    def evaluation_loop(self, data_loader: DataLoader, metric_classes: list[Any],
                        saving_fn: Callable[[dict, dict], None] | None = None,
                        model: torch.nn.Module | None = None) -> dict[str, float]:
        """Feed every process's share into the metrics and add them up."""
        self.invoke_hook('before_val')
        evaluator = Evaluator(self.model_to_save if model is None else model, self.device, dtype=self.precision)
        for number, batch in enumerate(_with_progress(data_loader)):
            if self._eval_iters_per_epoch is not None and number >= self._eval_iters_per_epoch:
                break
            outputs = {'seg_map': evaluator.predict(batch)}
            for metric in metric_classes:
                metric.add(outputs, batch)
            if saving_fn is not None:
                saving_fn(batch, outputs)
        values = {}
        for metric in metric_classes:
            if hasattr(metric, 'all_reduce'):
                metric.all_reduce()
            values.update(metric.evaluate())
        self.invoke_hook('after_val')
        return values

    # --- messages ------------------------------------------------------------------------------------------------

    def write_configuration(self, folder):
        """Write the configuration of the trained model directory."""
        raw = configuration.exported(self.cfg._cfg_dict.to_dict(), getattr(self.train_dataset, 'PALETTE', None))
        with atomic_write(Path(folder) / 'configuration.json') as temporary:
            # Tuples are written as EasyCV writes them: its transforms refuse lists.
            content = json.dumps(encode_jsonplus(raw), indent=2, default=str, ensure_ascii=False)
            temporary.write_text(content, encoding='utf-8')

    def _safe(self) -> str:
        return resuming.safe_checkpoint(self)

    def require_finite_weights(self) -> None:
        """Stop the run rather than write weights that are of no use.

        Raises:
            TrainingError: a weight is NaN or infinite.
        """
        models = {self.bare_model, self.model_to_save}
        trained = [item for model in models for item in model.state_dict().items()]
        gathered = run_state.gathered(self.optimizer.state_dict(), {} if self.scaler else run_state.gradients(self))
        for tensors in (trained, gathered):
            name = run_state.not_finite(tensors)
            if name is not None:
                raise TrainingError(
                    f'the weights ({name}) are not finite after epoch {self._epoch + 1}, iteration '
                    f'{self._inner_iter + 1}: the optimizer\'s steps diverged. They were not saved. {self._safe()}. '
                    f'{REMEDIES}')

    def _not_finite(self, loss, inputs):
        metas = inputs.get('img_metas') or []
        names = ', '.join(str(meta.get('ori_filename') or meta.get('filename')) for meta in metas
                          if isinstance(meta, dict))
        rate = self.optimizer.param_groups[0]['lr']
        return (f'the loss is {loss} at epoch {self._epoch + 1}, iteration {self._inner_iter + 1} (learning rate '
                f'{rate:.3g}{", images: " + names if names else ""}). {self._safe()}. {REMEDIES}')

    @contextmanager
    def _explained_failures(self):
        try:
            with log_file.unwritable_raises(self.logger, self.work_dir):
                yield
        except KeyboardInterrupt:
            self.logger.warning(f'interrupted at epoch {self._epoch + 1}, iteration {self._inner_iter + 1}. '
                                f'{self._safe()}')
            raise
        except LogitsError as error:
            raise TrainingError(f'{error} (evaluating at epoch {self._epoch + 1}). {self._safe()}. {REMEDIES}'
                                ) from error
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
            raise TrainingError(f'a file of the run could not be written ({error}). {self._safe()}. Make room or '
                                'choose another work_dir') from error
        except RuntimeError as error:
            text = str(error)
            if isinstance(error, TrainingError) or 'DataLoader worker' not in text:
                raise
            raise TrainingError(f'a data loading process died ({one_line(text)}). {self._safe()}. Usually memory ran '
                                'out: lower workers_per_gpu or batch_size_per_gpu; with workers_per_gpu=0 the error '
                                'shows itself') from error


def _build_dataset(datasets, cfg, split, mode):
    from modelscope.msdatasets.ms_dataset import MsDataset
    section = _plain(cfg.safe_get(f'dataset.{split}') or {})
    if isinstance(datasets, MsDataset):
        if not datasets.is_custom:
            datasets.to_custom_dataset(custom_cfg=cfg, preprocessor=None, mode=mode)
        datasets = datasets.ds_instance
    if datasets is None:
        if not section:
            return None
        return SegDataset(**_arguments(section, split, mode))
    raise_construction_error(datasets)
    if isinstance(datasets, SegDataset):
        return datasets
    if isinstance(datasets, torch.utils.data.Dataset) and not _is_table(datasets):
        return datasets
    return SegDataset(datasets=datasets, **_arguments(section, split, mode))


def _is_table(datasets):
    return type(datasets).__module__.split('.')[0] == 'datasets'


def _arguments(section, split, mode):
    if not section.get('pipeline'):
        raise DatasetError(f'dataset.{split} has no pipeline: a list of transforms, as in the published configurations')
    arguments = {key: value for key, value in section.items() if key not in ('type', 'mode', 'preprocessor')}
    if isinstance(arguments.get('data_source'), dict) and list(arguments['data_source']) == ['classes']:
        arguments['data_source'] = {'classes': arguments['data_source']['classes']}
    return {**arguments, 'mode': mode, 'fallback': _foreign_transform}


def _foreign_transform(name):
    from ..integrations.easycv.bridge import transform
    return transform(name)


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _is_scalar(value):
    return isinstance(value, torch.Tensor) and value.dim() == 0


def _with_progress(loader):
    import sys
    if not (sys.stderr.isatty() and is_master()):
        return loader
    from tqdm import tqdm
    return tqdm(loader, desc='evaluating', leave=False, **screen())
