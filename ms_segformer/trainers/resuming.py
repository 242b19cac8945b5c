"""Where a run begins: at the beginning, with the newest whole pair of the newest run, or with a pair that is named.

A fresh run, and one that begins with another run's pair, gets an identity of its own and moves aside what stands in its
folders; one that goes on keeps the identity and what is there.
"""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..config.jsonplus import encode_jsonplus
from ..files import atomic_write
from . import confinement, distributed, run_state, work_dir
from .checkpoint_hooks import BestCkptSaverHook, CheckpointHook
from .errors import TrainingError
from .protocol import Trainer


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes:
        run: its identity.
        prefix: pair that it goes on from; None begins at the beginning.
        goes_on: what stands in its folder is its own and stays.
        aside: prefixes that are not the run's, or damaged, and newer than the one it goes on from.
        messages: what the user has to know, by level ('info' or 'warning').
    """

    run: str
    prefix: str | None = None
    goes_on: bool = False
    aside: tuple[str, ...] = ()
    messages: tuple[tuple[str, str], ...] = ()


def choose_start(where: str | Path | bool | None, folder: str | Path, home: str | Path) -> Start:
    """Decide where a run begins; changes nothing on disk.

    Args:
        where: None or False for a fresh run; True or 'auto' for the newest run in `folder`; or a path: a pair's prefix
            or one of its files, or a folder, whose newest run is meant.
        folder: where the run will write its checkpoints.
        home: its work directory, whose record says which run is the newest; often the same.

    Raises:
        TrainingError: the pair that `where` names is damaged or missing.
    """
    if where is None or where is False:
        return Start(uuid.uuid4().hex)
    record = work_dir.read_record(home)
    if (
        where is True
        or where == 'auto'
        or _same(where, home)
        or (_same(where, folder) and record == (work_dir.read_record(folder)))
    ):
        return _newest_run(Path(folder), Path(home))
    prefix = prefix_of(where)
    pair = run_state.read_pair(prefix)
    if _same(os.path.dirname(prefix) or '.', folder) and _may_go_on(folder, home):
        newest, skipped = run_state.newest_pair(folder, _run_of(record))
        if newest is not None and os.path.basename(newest.prefix) == os.path.basename(prefix):
            return _going_on(pair, record, skipped)
    return Start(uuid.uuid4().hex, prefix, messages=_of_earlier_version(pair))


def _newest_run(folder: Path, home: Path) -> Start:
    record = work_dir.read_record(home)
    pair, skipped = run_state.newest_pair(folder, _run_of(record)) if _may_go_on(folder, home) else (None, {})
    if pair is None and record is not None and record.resumed_from:
        pair = _pair_begun_with(home, record.resumed_from)
    if pair is not None:
        return _going_on(pair, record, skipped)
    messages = [('warning', f'skipped: {reason}') for reason in skipped.values()]
    if not _may_go_on(folder, home):
        messages.append(
            (
                'warning',
                f'the checkpoints in {folder} are of another run than the one in {home}; to go on '
                'with that one, use its work_dir. Training starts at the beginning',
            )
        )
    elif skipped:
        messages.append(('warning', f'no checkpoint in {folder} can be gone on from; training starts at the beginning'))
    elif record is None:
        messages.append(('info', f'nothing to resume in {folder}; training starts at the beginning'))
    else:
        earlier = folder / work_dir.PREVIOUS
        hint = (
            f'. Earlier runs lie in {earlier}; to go on with one of them, use its folder as work_dir with resume=True'
            if earlier.is_dir()
            else ''
        )
        messages.append(
            (
                'warning',
                f'the newest run in {home} has no checkpoint to go on from in {folder}; training '
                f'starts at the beginning{hint}',
            )
        )
    if record is not None and not record.saved and not skipped and _may_go_on(folder, home):
        return Start(record.run, goes_on=True, messages=tuple(messages))  # half a checkpoint is written again
    return Start(uuid.uuid4().hex, messages=tuple(messages))


def _may_go_on(folder: str | Path, home: str | Path) -> bool:
    """Whether the checkpoints of a folder may be of the run of a work directory: the records do not contradict."""
    here, record = work_dir.read_record(folder), work_dir.read_record(home)
    return here is None or (record is not None and record.run == here.run)


def _pair_begun_with(home: Path, prefix: str) -> run_state.Pair:
    try:
        return run_state.read_pair(prefix)
    except TrainingError as error:
        raise TrainingError(
            f'the run in {home} has no checkpoint of its own, and the one it began with (so '
            f'{work_dir.RECORD} there says) cannot be gone on from: {error}. Without resume it starts '
            'anew'
        ) from None


def _going_on(pair: run_state.Pair, record: work_dir.Record | None, skipped: dict[str, str]) -> Start:
    messages = [('warning', f'skipped: {reason}') for reason in skipped.values()]
    if skipped:
        messages.append(('warning', f'{pair.prefix} is the newest pair that can be gone on from'))
    run = record.run if record is not None else pair.run or uuid.uuid4().hex
    return Start(run, pair.prefix, True, tuple(skipped), (*messages, *_of_earlier_version(pair)))


def _of_earlier_version(pair: run_state.Pair) -> tuple[tuple[str, str], ...]:
    if pair.state['version'] == run_state.VERSION:
        return ()
    return (
        (
            'warning',
            f'{pair.prefix}{run_state.STATE_SUFFIX} was written by an earlier version, without a digest of '
            'the weights: whether they are undamaged cannot be told',
        ),
    )


def _run_of(record: work_dir.Record | None) -> str | None:
    return None if record is None else record.run


def is_resumable(path: str | Path) -> bool:
    """Whether a checkpoint path names a run to go on with, rather than a file with nothing but weights."""
    return not Path(path).is_file() or run_state.pair_of(prefix_of(path))[1].is_file()


def prefix_of(path: str | Path) -> str:
    """Return the prefix that a user means: a work directory (its newest pair), a prefix, or one file of a pair.

    Raises:
        TrainingError: there is nothing to resume from.
    """
    path = Path(path)
    if path.is_dir():
        record = work_dir.read_record(path)
        found, skipped = run_state.newest_pair(path, _run_of(record))
        if found is None:
            reasons = f' (skipped: {"; ".join(skipped.values())})' if skipped else ''
            raise TrainingError(
                f'{path}: nothing to resume from; expected files such as '
                f'epoch_1{run_state.MODEL_SUFFIX} and epoch_1{run_state.STATE_SUFFIX}{reasons}'
            )
        return found.prefix
    text = str(path)
    for suffix in (run_state.STATE_SUFFIX, run_state.MODEL_SUFFIX):
        if text.endswith(suffix):
            return text[: -len(suffix)]
    return text


# --- for a trainer ---------------------------------------------------------------------------------------------------


@contextmanager
def alone(trainer: Trainer) -> Iterator[None]:
    """Keep every other run out of the folders of a trainer. Every process of a distributed run has to call it.

    Raises:
        TrainingError: another run is writing to one of them.
    """

    def lock() -> None:
        for folder in {os.path.realpath(path) for path in folders_of(trainer)}:
            try:
                held.enter_context(work_dir.locked(folder))
            except OSError as error:
                raise TrainingError(f'{folder} cannot be written ({error}); choose another') from None

    with ExitStack() as held:
        distributed.decided_by_first(lock)
        yield


def begin(trainer: Trainer, where: str | Path | bool | None) -> None:
    """Load what a run begins with, and make its folders its own. Every process of a distributed run has to call it.

    Args:
        trainer: an `EasyCVTrainer` whose optimizer and hooks exist.
        where: as for `choose_start`.

    Raises:
        TrainingError, CheckpointError: what is named cannot be gone on from, or does not fit.
    """
    if trainer.run is not None and not where:
        return  # trained before: the same run
    folder = checkpoint_folder(trainer)
    start = distributed.decided_by_first(lambda: _choose(trainer, where, folder))
    for level, message in start.messages if trainer.rank == 0 else ():
        getattr(trainer.logger, level)(message)
    own = False
    if start.prefix is not None:
        own = start.goes_on and _same(os.path.dirname(start.prefix) or '.', folder)
        run_state.restore(trainer, run_state.read_pair(start.prefix), own)
        trainer.logger.info(
            f'resumed from {start.prefix}: epoch {trainer.epoch + 1}, {trainer.iter} of '
            f'{trainer.max_iters} iterations done'
        )
    distributed.decided_by_first(lambda: _take_folders(trainer, start))
    trainer.run, trainer.resumed_from = start.run, None
    if own and start.prefix is not None:
        trainer.resumed_from = os.path.join(folder, os.path.basename(start.prefix))


def safe_checkpoint(trainer: Trainer) -> str:
    """Return a sentence that names the newest whole checkpoint of a trainer's run, or of what stands in its folder."""
    folder = checkpoint_folder(trainer)
    record = work_dir.read_record(trainer.work_dir)
    found, _ = run_state.newest_pair(folder, trainer.run or _run_of(record))
    if found is None:
        return 'No checkpoint was written yet'
    return f'The last checkpoint, {found.prefix}{run_state.MODEL_SUFFIX}, is safe: resume=True goes on from it'


def savers(trainer: Trainer) -> list[CheckpointHook]:
    """The hooks of a trainer that write checkpoints."""
    return [hook for hook in trainer.hooks if isinstance(hook, CheckpointHook)]


def model_directories(trainer: Trainer) -> list[str]:
    """The model directories of the newest weights that a trainer's run writes; empty when it writes no checkpoints."""
    return list(
        dict.fromkeys(
            hook.output_folder(trainer) for hook in savers(trainer) if not isinstance(hook, BestCkptSaverHook)
        )
    )


def checkpoint_folder(trainer: Trainer) -> str:
    """Where the checkpoints are from which a trainer's run goes on."""
    return next(
        (hook.folder(trainer) for hook in savers(trainer) if not isinstance(hook, BestCkptSaverHook)), trainer.work_dir
    )


def folders_of(trainer: Trainer) -> dict[str, set[str]]:
    """The folders that a run owns, and in each the relative paths of what it writes besides the usual names.

    Those are the folders of checkpoints, every model directory that is in none of them, and last the work directory,
    whose record is the run's identity. A model directory belongs to the nearest folder around it.
    """
    writers, home = savers(trainer), os.path.abspath(trainer.work_dir)
    folders: dict[str, set[str]] = {os.path.abspath(hook.folder(trainer)): set() for hook in writers}
    folders[home] = folders.pop(home, set())
    for hook in writers:
        folders[os.path.abspath(hook.folder(trainer))].update(hook.names_of_its_own())
    for output in sorted({os.path.abspath(hook.output_folder(trainer)) for hook in writers}):
        around = [folder for folder in folders if os.path.commonpath([folder, output]) == folder]
        if around:
            nearest = max(around, key=len)
            folders[nearest].add(os.path.relpath(output, nearest))
        else:
            folders = {output: {'.'}, **folders}
    return folders


def _choose(trainer: Trainer, where: str | Path | bool | None, folder: str) -> Start:
    for path in folders_of(trainer):
        work_dir.finish_moving(path)
    start = choose_start(where, folder, trainer.work_dir)
    if not start.goes_on:
        _check_starting_point(trainer)
    return start


def _check_starting_point(trainer: Trainer) -> None:
    """Refuse to move aside, and then to write over, what the run itself starts from."""
    outputs = [hook.output_folder(trainer) for hook in savers(trainer)]
    model = trainer.model_dir if trainer.input_model_id is not None else None
    if model is not None and any(_same(output, model) for output in outputs):
        raise TrainingError(
            f'the model {model} is where this run would write its own; choose another work_dir, or go '
            'on with the run that made it with resume=True'
        )
    start = trainer.starting_point
    if not start or not os.path.isfile(start):
        return
    folder, name = os.path.split(os.path.realpath(start))
    written = any(_same(folder, output) for output in outputs) and name in work_dir.MODEL_DIRECTORY
    if written or any(
        _same(folder, path) and (work_dir.is_checkpoint(name) or name in names)
        for path, names in folders_of(trainer).items()
    ):
        raise TrainingError(
            f'{start}, which this run starts from, lies where it would write its own; choose another '
            'work_dir, or go on with the run that made it with resume=True'
        )


def _take_folders(trainer: Trainer, start: Start) -> None:
    """In the first process: move aside what earlier runs left, and write the configuration of this one."""
    folders, target = folders_of(trainer), Path(trainer.work_dir) / work_dir.CONFIGURATION
    outputs = {os.path.abspath(hook.output_folder(trainer)) for hook in savers(trainer)}
    was_read = _same(target, trainer.configuration_file)  # then it stays as it is
    kept = {f'{trainer.timestamp}.log', f'{trainer.timestamp}.log.json', *([target.name] if was_read else [])}
    resumed_from = None if start.goes_on or start.prefix is None else os.path.abspath(start.prefix)
    for folder, own in folders.items():
        aside = [
            path.name
            for prefix in start.aside
            if _same(os.path.dirname(prefix), folder)
            for path in run_state.pair_of(prefix)
        ]
        moved = work_dir.begin(folder, start.run, start.goes_on, resumed_from, own, kept, aside)
        if moved is not None and resumed_from is not None and _same(os.path.dirname(resumed_from), folder):
            resumed_from = str(moved / os.path.basename(resumed_from))
        if moved is not None:
            trainer.logger.warning(
                f'{folder} holds {"what is not of this run" if aside else "an earlier run"}, which '
                f'was moved to {moved}; nothing was deleted. To go on with that one, use its folder '
                'as work_dir with resume=True'
            )
    work_dir.remove_unfinished({*folders, *outputs})
    if not was_read:
        with atomic_write(target) as temporary:
            content = encode_jsonplus(confinement.relocatable(trainer.cfg._cfg_dict.to_dict()))
            temporary.write_text(json.dumps(content, indent=2, default=str))
        trainer.logger.info(f'the configuration of this run: {target}')


def _same(left: str | Path, right: str | Path) -> bool:
    return os.path.realpath(left) == os.path.realpath(right)
