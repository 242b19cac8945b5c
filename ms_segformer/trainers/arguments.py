"""What `build_trainer('easycv', {…})` was called with, and what that makes of the configuration."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..config import schema
from ..config.jsonplus import decode_jsonplus, plain
from ..config.reader import read_model_section
from ..download import without_userinfo
from ..metainfo import RUN_LOGGER
from . import checks, configuration, confinement, pretrained, starts

logger = logging.getLogger(RUN_LOGGER)
DECAY = 0.9998  # of the weights' average, where it is only asked for


@dataclass(frozen=True)
class Arguments:
    """The arguments of `EasyCVTrainer` that the configuration is completed with; see there.

    Attributes:
        train_data, eval_data: whether such data sets were passed.
        resume: `checkpoint_path`, or `resume`.
        amp: `fp16` where `use_fp16` was passed.
    """

    classes: configuration.Classes | None = None
    data_root: str | os.PathLike | None = None
    cfg_file: str | None = None
    cfg_options: dict[str, Any] | None = None
    load_from: Any = None
    resume: str | Path | bool | None = None
    amp: str | None = None
    ema: float | bool | None = None
    work_dir: str | os.PathLike | None = None
    keep_checkpoints: int | None = None
    max_epochs: int | None = None
    train_data: bool = False
    eval_data: bool = False


@dataclass(frozen=True)
class Completed:
    """A configuration as the run follows it.

    Attributes:
        raw: its content.
        load_from: what training starts from, see `pretrained`.
        new_classes: the class list differs from the one that the configuration's weights were made for.
        unnamed: the folder whose label maps are taken to hold ids of the configuration's classes; None where their
            classes are known.
        precision: the type that the network computes in; None for float32.
        decay: of the weights' moving average; None for none.
    """

    raw: dict[str, Any]
    load_from: Any
    new_classes: bool
    unnamed: str | os.PathLike | None
    precision: torch.dtype | None
    decay: float | None


def complete(
    given: Arguments,
    used: Mapping[str, Any],
    written: dict[str, Any],
    file: str | None,
    model_dir: str | None,
    optimizers: Sequence[Any],
    device: torch.device,
) -> Completed:
    """Apply `cfg_options`, then the class list and the data folder, and refuse what a run cannot use.

    Args:
        given: the arguments.
        used: the configuration after `cfg_modify_fn`.
        written: the configuration as it was read.
        file: it was read from; None for one that comes from none.
        model_dir: of the model that was named; None where a configuration was.
        optimizers: optimizer and scheduler that were passed, or None.
        device: where the run computes.

    Raises:
        TrainingError, ConfigurationError, DatasetError: see `configuration` and `checks`.
    """
    name = file or 'configuration'
    raw = schema.merged(decode_jsonplus(plain(used, name)), given.cfg_options or {})
    raw = {key: value for key, value in raw.items() if value is not None}
    schema.check_sections(raw, name)
    load_from = given.load_from or _configured_start(raw.get('load_from'), written.get('load_from'), model_dir)
    if isinstance(load_from, (str, os.PathLike)):
        raw['load_from'] = without_userinfo(os.fspath(load_from))  # into the configuration of this run
    configuration.locate_class_files(raw, written, file)
    prepared = configuration.prepare(raw, given.classes, given.data_root, written, given.cfg_options)
    if not given.eval_data and (raw.get('dataset') or {}).get('val') is None:
        _leave_out_evaluations(raw['evaluation'])
    schema.check_sections(raw, name)  # with the hooks where they belong
    train = raw.setdefault('train', {})
    train['work_dir'] = str(given.work_dir or train.get('work_dir') or './work_dir')
    confinement.confine(raw, written, None if given.work_dir else os.getcwd(), given.cfg_options)
    configuration.limit_checkpoints(raw, given.keep_checkpoints)
    read_model_section(raw['model'], name)
    optimizer, scheduler = optimizers
    checks.check_sections(raw, optimizer, scheduler, given.max_epochs)
    amp, ema = _of_hooks(train['hooks'])
    amp, ema = _first(given.amp, amp, train.get('amp')), _first(given.ema, ema, train.get('ema'))
    precision = checks.precision(amp, device.type)
    checks.require_decay(ema)
    checks.require_writable(train['work_dir'])
    return Completed(
        raw,
        load_from,
        prepared.new_classes,
        prepared.unnamed,
        precision,
        (ema if isinstance(ema, float) else DECAY) if ema else None,
    )


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _configured_start(load_from: Any, written: Any, model_dir: str | None) -> Any:
    """The configuration's `load_from`, unless it only records where the weights of the model directory came from.

    EasyCV leaves it, a path or a URL, in the configuration that it exports beside the trained weights.
    """
    if load_from in starts.STARTS:
        return load_from
    if load_from and load_from == written and model_dir is not None and pretrained.has_checkpoint(model_dir):
        logger.info(
            'load_from in the configuration of %s is left out: the checkpoint beside it is the starting point',
            model_dir,
        )
        return None
    return load_from


def _leave_out_evaluations(section: dict[str, Any]) -> None:
    if section.get('period') is not None:
        section['period'] = None
        logger.info('there is no evaluation data: this run is trained without evaluations')


def _of_hooks(sections: Sequence[Mapping[str, Any]]) -> tuple[str | None, float | None]:
    """`amp` and `ema` as hooks of EasyCV and mmcv, which the trainer stands in for, ask for them."""
    amp, ema = None, None
    for section in sections:
        if section.get('type') == 'EMAHook':
            ema = _first(ema, section.get('decay', DECAY))
        elif section.get('type') in ('TorchAMPOptimizerHook', 'AMPFP16OptimizerHook'):
            amp = 'fp16'
    return amp, ema
