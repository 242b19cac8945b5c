"""What a run is told about itself before it starts: settings that are taken as they are, and may surprise."""

import torch

from . import distributed
from .protocol import Trainer


def warn_of_short_run(trainer: Trainer) -> None:
    """Warn where the run ends before its warm-up does."""
    schedule = trainer.schedule
    if (
        schedule is None
        or not schedule.warmup
        or trainer.max_iters >= schedule.warmup_iters
        or not distributed.is_first()
    ):
        return
    reached = schedule.rate(1.0, trainer.max_iters - 1, trainer.max_epochs - 1)
    trainer.logger.warning(
        f'this run has {trainer.max_iters} iterations, fewer than its warm-up of {schedule.warmup_iters}: the '
        f'learning rate ends at {100 * reached:.1f} % of the configured one. Set train.lr_scheduler.warmup_iters '
        'lower, or train.lr_scheduler.warmup to null'
    )


def say_how_it_normalizes(trainer: Trainer) -> None:
    """Log, once, where batch norm does not see the images of a step together, as the published recipe's does."""
    synchronized = any(isinstance(module, torch.nn.SyncBatchNorm) for module in trainer.bare_model.modules())
    batch = trainer.train_dataloader.batch_size or 1
    accumulated = trainer.cumulative_iters
    together = batch * (trainer.world_size if synchronized else 1)
    images = batch * trainer.world_size * accumulated
    planned_only = distributed.several() != (trainer.world_size > 1)  # for processes that are not there
    if together == images or planned_only or not distributed.is_first():
        return
    whose = 'of those of the first process' if trainer.world_size > 1 and not synchronized else 'of each of them'
    trainer.logger.info(
        f'a step takes {images} images, and batch norm normalizes {together} at a time; its running '
        f'statistics are made {whose}. Normalized together they are on GPUs with '
        'model.decode_head.norm_cfg.type=SyncBN, or in one batch on one device'
    )
