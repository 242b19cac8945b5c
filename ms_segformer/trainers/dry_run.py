"""What a run would be, without running it: its length and rates by the trainer's own code, and a few steps measured.

    plan = dry_run({'cfg_file': 'configuration.json', 'data_root': 'my_data'})
    print('\\n'.join(plan.lines()))

Nothing is written where the run would write, and no weights are loaded or fetched.
"""

import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, repeat
from statistics import median
from typing import Any

import torch
from modelscope.metainfo import Trainers
from modelscope.trainers import build_trainer

from .. import metainfo
from ..datasets.errors import DatasetError
from . import hooks, starts
from .easycv_trainer import EasyCVTrainer
from .errors import TrainingError

MEASURED = 3  # steps, after one that warms up
MOST_IMAGES = 10_000_000  # an epoch's order lies in memory


@dataclass(frozen=True)
class Plan:
    """What a run would be.

    Attributes:
        images: of the training data; `made_up` when they were not there and stood-in ones were trained on.
        processes: among which they are split.
        batch: images of a batch of one process.
        accumulated: batches of every process in a step of the optimizer.
        per_epoch, epochs: iterations of an epoch, and the number of epochs.
        rates: (name, iteration from 0, learning rate of each group of parameters) at some points of the run; empty when
            the schedule is not this package's.
        seconds: median of an iteration on `device`, with the reading of its data.
        memory: peak in bytes, of the GPU or of this process; None where it is not known.
        device: where the steps were measured.
    """

    images: int
    made_up: bool
    processes: int
    batch: int
    accumulated: int
    per_epoch: int
    epochs: int
    rates: tuple[tuple[str, int, tuple[float, ...]], ...]
    seconds: float
    memory: int | None
    device: str

    @property
    def iterations(self) -> int:
        """Iterations of the whole run."""
        return self.per_epoch * self.epochs

    @property
    def steps(self) -> int:
        """Steps of the optimizer."""
        return -(-self.iterations // self.accumulated)

    def lines(self) -> Iterator[str]:
        """The plan as text."""
        yield f'images            {self.images:,}' + (
            ' (not here: steps measured with random ones)' if self.made_up else ''
        )
        yield (
            f'step              {self.processes * self.batch * self.accumulated} images: {self.processes} × '
            f'{self.batch} (processes × batch)' + (f' × {self.accumulated} accumulated' * (self.accumulated > 1))
        )
        steps = f', {self.steps:,} steps' if self.accumulated > 1 else ''
        yield f'epochs            {self.epochs} of {self.per_epoch:,} iterations, {self.iterations:,} in all{steps}'
        for name, iteration, rates in self.rates:
            yield (
                f'learning rate     {name:<18} iteration {iteration + 1:>9,}: '
                + ', '.join(f'{rate:.3e}' for rate in rates)
            )
        if not self.rates:
            yield "learning rate     by a schedule that is not this package's"
        alone = ' of its own for each process' if self.processes > 1 else ''
        yield (
            f'time              {_duration(self.iterations * self.seconds)}: {self.seconds:.3f} s an iteration on '
            f'{self.device}{alone}, without evaluations and checkpoints'
        )
        if self.memory is not None:
            whose = 'of the GPU' if self.device.startswith('cuda') else 'of each process, without those that read data'
            yield f'memory            {self.memory / 2**30:.2f} GiB {whose}'


def dry_run(arguments: dict[str, Any], images: int | None = None, processes: int | None = None) -> Plan:
    """Plan a run.

    Args:
        arguments: those of `build_trainer('easycv', …)`.
        images: number of training images where the data are not on this machine; by default those of COCO-Stuff 164k
            for a model of its classes. With `data_root` the data have to be there.
        processes: plan for so many processes, of which only this one is there; default: those that are.

    Raises:
        TrainingError, DatasetError, ConfigurationError: what is wrong with the run.
    """
    if images is not None and not 1 <= images <= MOST_IMAGES:
        raise TrainingError(f'{images} images (--images): expected 1 to {MOST_IMAGES:,}')
    with _temporary_folder() as folder:
        trainer, made_up = _built(
            {**arguments, 'work_dir': folder, 'resume': None, 'load_from': starts.SCRATCH}, images
        )
        if processes is not None:
            if trainer.world_size > 1:
                raise TrainingError(f'this is one of {trainer.world_size} processes; leave processes={processes} out')
            trainer.world_size = processes
        trainer.prepare()
        rates = tuple(_rates(trainer))
        seconds, memory = _measure(trainer)
        return Plan(
            len(trainer.train_dataset),
            made_up,
            trainer.world_size,
            trainer.train_dataloader.batch_size or 1,
            trainer.cumulative_iters,
            trainer.iters_per_train_epoch,
            trainer.max_epochs,
            rates,
            seconds,
            memory,
            str(trainer.device),
        )


@contextmanager
def _temporary_folder() -> Iterator[str]:
    """A folder that is removed when the block ends, by SIGTERM too unless somebody else handles it."""
    with tempfile.TemporaryDirectory(prefix='ms-segformer-') as folder:
        if (
            threading.current_thread() is not threading.main_thread()
            or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        ):
            yield folder
            return
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        try:
            yield folder
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _built(arguments: dict[str, Any], images: int | None) -> tuple[EasyCVTrainer, bool]:
    """A trainer, and whether its data are made up."""
    if images is None:
        try:
            return build_trainer(Trainers.easycv, arguments), False
        except DatasetError:
            if arguments.get('data_root') is not None:
                raise
    data = _RandomImages(images or metainfo.COCO_STUFF_IMAGES)
    options = {**(arguments.get('cfg_options') or {}), 'evaluation.period': None}
    trainer = build_trainer(Trainers.easycv, {**arguments, 'train_dataset': data, 'cfg_options': options})
    outputs = trainer.bare_model.settings.head.num_classes
    if images is None and outputs != metainfo.NUM_OUTPUTS:
        raise TrainingError(
            'the training data are not here, and their number is not known: say where they are (--data)'
            ' or how many images they have (--images)'
        )
    data.size, data.classes = _crop(trainer.cfg), outputs
    return trainer, True


class _RandomImages(torch.utils.data.Dataset):
    """So many training samples of noise."""

    def __init__(self, count: int) -> None:
        self.count, self.size, self.classes = count, (512, 512), 1

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            'img': torch.randn(3, *self.size),
            'img_metas': {},
            'gt_semantic_seg': torch.randint(self.classes, (1, *self.size), dtype=torch.uint8),
        }


def _crop(cfg: Any) -> tuple[int, int]:
    """Height and width of what the training pipeline makes of an image."""
    for step in reversed(cfg.safe_get('dataset.train.pipeline') or []):
        size = step.get('size') if step['type'] in ('MMPad', 'Pad') else step.get('crop_size')
        if size is not None:
            return tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    raise TrainingError(
        'the training data are not here, and dataset.train.pipeline has no crop_size: say where they are (--data)'
    )


def _hook(trainer: EasyCVTrainer, kind: type) -> Any:
    return next((hook for hook in trainer.hooks if isinstance(hook, kind)), None)


def _rates(trainer: EasyCVTrainer) -> Iterator[tuple[str, int, tuple[float, ...]]]:
    """What the trainer's own hook sets at some points of the run."""
    schedule, total = _hook(trainer, hooks.ScheduleHook), trainer.max_iters
    if schedule is None:
        return
    points = {'start': 0, 'end': total - 1, **{f'{share} %': total * share // 100 for share in (25, 50, 75)}}
    if schedule.schedule.warmup and schedule.schedule.warmup_iters < total:
        points['after the warm-up'] = schedule.schedule.warmup_iters
    for name, iteration in sorted(points.items(), key=lambda point: point[1]):
        trainer.set_position(iteration // trainer.iters_per_train_epoch, iteration, 0, gradients_restored=False)
        schedule.before_train_iter(trainer)
        yield name, iteration, tuple(sorted({group['lr'] for group in trainer.optimizer.param_groups}))
    trainer.set_position(0, 0, 0, gradients_restored=False)


def _measure(trainer: EasyCVTrainer) -> tuple[float, int | None]:
    """Seconds of a step, and the peak of memory in bytes. The optimizer steps after every batch."""
    on_gpu = trainer.device.type == 'cuda'
    seconds = []
    batches = chain.from_iterable(repeat(trainer.train_dataloader))
    with trainer.only_hooks(hooks.OptimizerHook, hooks.ScheduleHook):
        for _ in range(1 + MEASURED):
            start = time.perf_counter()
            trainer.train_iteration(next(batches))
            if on_gpu:
                torch.cuda.synchronize(trainer.device)
            seconds.append(time.perf_counter() - start)
    return median(seconds[1:]), torch.cuda.max_memory_reserved(trainer.device) if on_gpu else _peak()


def _peak() -> int | None:
    """The most memory that this process has had, in bytes."""
    try:
        import resource  # optional: not on Windows
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f'{seconds:.0f} s'
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f'{days} d ' if days else '') + (f'{hours} h ' if days or hours else '') + f'{minutes} min'
