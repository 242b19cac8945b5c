"""What hooks, the state of a run and EasyCV's hooks use of the trainer, in one place."""

import logging
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from ..integrations.easycv.bridge import HookedTrainer
from .ema import ModelEma
from .schedules import Schedule


class Trainer(HookedTrainer, Protocol):
    """The part of `EasyCVTrainer`, and of ModelScope's trainer below it, that others build on.

    What foreign hooks use is in `HookedTrainer`, as integrations stand below the trainers.

    Attributes:
        cfg: ModelScope's configuration.
        bare_model: the network, which `model` is or wraps for several processes.
        rank, world_size: this process and their number.
        run: identity of the run; None before it began.
        resumed_from: prefix of the pair that the run goes on from.
        starting_point: path of the weights that training starts from.
        input_model_id: the model that was named; None where a configuration was.
        cumulative_iters: iterations whose gradients are added up before a step.
        evaluated_at: the moment of the newest evaluation, ('epoch' or 'iter', number from 0); (None, None) before one.
        metric_values: what it found.
        gradients_restored: the gradients of an accumulation were restored.
    """

    cfg: Any
    logger: logging.Logger
    log_buffer: Any
    device: torch.device
    work_dir: str
    model_dir: str
    timestamp: str
    bare_model: torch.nn.Module
    ema: ModelEma | None
    scaler: Any
    schedule: Schedule | None
    lr_scheduler: Any
    train_dataset: Any
    train_dataloader: DataLoader
    rank: int
    world_size: int
    run: str | None
    resumed_from: str | None
    starting_point: str | None
    input_model_id: str | None
    cumulative_iters: int
    evaluated_at: tuple[str | None, int | None]
    gradients_restored: bool

    @property
    def inner_iter(self) -> int:
        """Number of the iteration in its epoch, from 0."""

    @property
    def iters_per_train_epoch(self) -> int:
        """Iterations of an epoch of training."""

    @property
    def metric_values(self) -> dict[str, float] | None:
        """What the newest evaluation found."""

    @property
    def seed(self) -> int:
        """The seed of the run."""

    @property
    def configuration_file(self) -> str:
        """The file that the configuration was read from."""

    @property
    def model_to_save(self) -> torch.nn.Module:
        """The model whose weights go into checkpoints: the average where there is one."""

    def completes_a_step(self) -> bool:
        """Whether the optimizer steps after the current iteration (gradients may be accumulated)."""

    def evaluate(self) -> dict[str, float]:
        """Evaluate on the evaluation data; returns the values by metric."""

    def is_resumed_moment(self) -> bool:
        """Whether the run stands where it was resumed from, before any new iteration."""

    def load_weights(self, path: str | Path) -> None:
        """Load a checkpoint of any dialect into all that is trained, evaluated and saved."""

    def require_finite_weights(self) -> None:
        """Stop the run rather than write weights that are of no use."""

    def set_position(self, epoch: int, iteration: int, inner_iteration: int, gradients_restored: bool) -> None:
        """Go on after `iteration` iterations, `inner_iteration` of them in this epoch (from 0)."""

    def set_weights(self, weights: dict[str, torch.Tensor], source: str) -> None:
        """Load weights by their names here into all that is trained, evaluated and saved; `source` names them."""

    def take_evaluation(self, values: dict[str, float]) -> None:
        """Go on as after an evaluation that found these values."""
