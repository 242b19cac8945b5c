"""What runs leave in a working directory: the record of the newest one, and the earlier ones, moved aside.

`trainer_run.json` names the run that the folder belongs to. A fresh run in a used folder first moves what the trainer
wrote there before into `previous/<number>/`: it deletes nothing and leaves alone what is not named as the trainer names
its files. The record lists what is to be moved before the first file is, so that a process killed in between leaves a
folder that the next one sets right.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .. import files
from ..files import TEMPORARY, atomic_write, read_json
from .errors import TrainingError

RECORD = 'trainer_run.json'
PREVIOUS = 'previous'
EVALUATION = 'last_evaluation.json'
CONFIGURATION = 'configuration.json'
WEIGHTS = 'pytorch_model.pt'
RESULTS = 'eval_result.txt'
MODEL_DIRECTORY = (WEIGHTS, CONFIGURATION, RESULTS)  # what a run writes into one
OUTPUTS = ('output', 'output_best')
_PREFIX = re.compile(r'(epoch|iter)_\d+|best_(epoch|iter)\d+_[^/\0]+')
_CHECKPOINT = re.compile(rf'({_PREFIX.pattern}?)(_trainer_state)?\.pth')
_NUMBERED = re.compile(rf'{PREVIOUS}/\d+')
_LOG = re.compile(r'\d{8}_\d{6}\.log(\.json)?')


@dataclass(frozen=True)
class Record:
    """The run that a folder belongs to.

    Attributes:
        run: its identity, 32 hexadecimal digits.
        resumed_from: prefix of the pair it began with, when that is another run's.
        moving_to: folder that what earlier runs left is being moved to; None when that is done.
        moving: the names to move.
        earlier: the record of the run they are of, where there was one.
        saved: False until it has completed a checkpoint.
    """

    run: str
    resumed_from: str | None = None
    moving_to: str | None = None
    moving: tuple[str, ...] = ()
    earlier: 'Record | None' = None
    saved: bool = True


def read_record(folder: str | Path) -> Record | None:
    """Return the record of a folder; None where there is none (or one that this trainer did not write)."""
    try:
        record = _checked(read_json(Path(folder) / RECORD))
        return replace(record, earlier=record.earlier and _checked(record.earlier))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, TypeError):
        return None


def _checked(content: Any) -> Record:
    """A record from a file, which may say anything: what it names is moved, so it stays in its folder."""
    record = Record(**content)
    if (
        not isinstance(record.run, str)
        or not isinstance(record.resumed_from, str | None)
        or not isinstance(record.saved, bool)
    ):
        raise TypeError('run and resumed_from are texts, saved is true or false')
    if record.moving_to is not None and not _NUMBERED.fullmatch(record.moving_to):
        raise ValueError('moves to another place than the one for earlier runs')
    if not isinstance(record.moving, list | tuple) or not all(map(_is_below, record.moving)):
        raise ValueError('moves what is outside the folder')
    return replace(record, moving=tuple(record.moving))


def _is_below(name: Any) -> bool:
    """Whether a relative path of a record stays in its folder."""
    return (
        isinstance(name, str)
        and bool(name)
        and '\0' not in name
        and not os.path.isabs(name)
        and '..' not in Path(name).parts
    )


def is_checkpoint(name: str) -> bool:
    """Whether a file is named as the trainer names one of a checkpoint."""
    return _CHECKPOINT.fullmatch(name) is not None


def is_checkpoint_name(name: Any) -> bool:
    """Whether a value read from a file is the name, without ending, of a checkpoint as the hooks name them."""
    return isinstance(name, str) and _PREFIX.fullmatch(name) is not None


def write_results(values: Mapping[str, Any], folder: str | Path, name: str = RESULTS) -> None:
    """Write an evaluation's values as JSON; a class without a value is null."""
    with atomic_write(Path(folder) / name) as temporary:
        temporary.write_text(
            json.dumps(
                {
                    key: value if not isinstance(value, float) or math.isfinite(value) else None
                    for key, value in values.items()
                }
            )
        )


def remembered_evaluation(folder: str | Path, run: str | None, iteration: int) -> dict[str, float] | None:
    """The values of the newest evaluation in a work directory, if it was of this run after so many iterations."""
    try:
        values = read_json(Path(folder) / EVALUATION)
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(values, dict) or values.pop('run', run) != run or values.pop('iteration', None) != iteration:
        return None
    return {key: math.nan if value is None else value for key, value in values.items()}


def begin(
    folder: str | Path,
    run: str,
    goes_on: bool,
    resumed_from: str | None = None,
    own: Iterable[str] = (),
    kept: Iterable[str] = (),
    aside: Iterable[str] = (),
) -> Path | None:
    """Make a folder that of a run, moving aside what earlier runs left there.

    Args:
        folder: working directory, or another folder that checkpoints are written to.
        run: identity of the run that begins.
        goes_on: the run goes on with what stands in the folder, which then stays, unless it is another run's.
        resumed_from: prefix of another run's pair that the run began with.
        own: relative paths of files, and of model directories (`.` is the folder itself), that the run writes besides
            the usual ones.
        kept: names that stay: the log that is being written, the configuration that was read.
        aside: names to move although the run goes on: checkpoints that are not its own, or damaged.

    Returns:
        Where it was moved to, or None when there was nothing to move.

    Raises:
        TrainingError: something could not be moved; then all is as it was.
    """
    folder = Path(folder)
    record = read_record(folder)
    new = Record(run, resumed_from, saved=False)
    if record is not None and record.run == run:
        new, names = record, []
    elif record is not None or not goes_on:
        names = _left_by_earlier_runs(folder, record, {*OUTPUTS, *own}, set(kept))
    else:
        names = []
    names += [name for name in aside if name not in names and os.path.lexists(folder / name)]
    if not names:
        if new != record:
            _write_record(folder, new)
        return None
    target = folder / PREVIOUS / str(_next_number(folder))
    if resumed_from is not None and os.path.realpath(Path(resumed_from).parent) == os.path.realpath(folder):
        new = replace(new, resumed_from=str(target / Path(resumed_from).name))
    _write_record(folder, replace(new, moving_to=str(target.relative_to(folder)), moving=tuple(names), earlier=record))
    finish_moving(folder)
    return target


def finish_moving(folder: str | Path) -> None:
    """Move what a process that was killed in the middle of `begin` did not get to.

    Raises:
        TrainingError: something could not be moved.
    """
    folder = Path(folder)
    record = read_record(folder)
    if record is None or record.moving_to is None:
        return
    target = folder / record.moving_to
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in record.moving:
            if os.path.lexists(folder / name) and not os.path.lexists(target / name):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                os.rename(folder / name, target / name)
        if record.earlier is not None and record.earlier.run != record.run:
            _write_record(target, record.earlier)
    except OSError as error:
        _move_back(folder, target, record)
        raise TrainingError(
            f'what an earlier run left in {folder} could not be moved to {target} ({error}); it was '
            'left as it is. Choose another work_dir'
        ) from None
    _write_record(folder, replace(record, moving_to=None, moving=(), earlier=None))


def note_saved(folder: str | Path) -> None:
    """Note in the record of a work directory that its run has completed a checkpoint."""
    record = read_record(folder)
    if record is not None and not record.saved:
        _write_record(Path(folder), replace(record, saved=True))


def _move_back(folder: Path, target: Path, record: Record) -> None:
    """Undo a move that cannot be finished: the folder is the earlier run's again."""
    for name in record.moving:
        if os.path.lexists(target / name) and not os.path.lexists(folder / name):
            os.rename(target / name, folder / name)
    if record.earlier is not None:
        _write_record(folder, record.earlier)
    else:
        (folder / RECORD).unlink(missing_ok=True)


def _write_record(folder: Path, record: Record) -> None:
    with atomic_write(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(asdict(record)), encoding='utf-8')


def _left_by_earlier_runs(folder: Path, record: Record | None, own: set[str], kept: set[str]) -> list[str]:
    """Names of what earlier runs wrote, when there is more of it than logs."""
    names = sorted(path.name for path in folder.iterdir() if path.name not in kept) if folder.is_dir() else []
    worth = [
        name
        for name in names
        if is_checkpoint(name) or name == EVALUATION or (name == CONFIGURATION and record is None)
    ]  # with a record it is that of a run that wrote nothing else
    models = (WEIGHTS,) if record is not None else MODEL_DIRECTORY  # with a record the others are an attempt's
    for name in own:
        if not (folder / name).is_dir():
            worth += [name] if os.path.lexists(folder / name) else []
        elif any(os.path.lexists(folder / name / file) for file in models):
            worth += [name] if name != '.' else [file for file in MODEL_DIRECTORY if file in names]
    if not worth:
        return []
    beside = [name for name in names if name in (CONFIGURATION, 'tensorboard_output') or _LOG.fullmatch(name)]
    return sorted({*worth, *beside})


def _next_number(folder: Path) -> int:
    earlier = folder / PREVIOUS
    if earlier.exists() and not earlier.is_dir():
        raise TrainingError(
            f'{folder} holds an earlier run, which would be moved to {earlier}, but that is a file; '
            'rename it, or choose another work_dir'
        )
    numbers = [int(path.name) for path in earlier.iterdir() if path.name.isdigit()] if earlier.is_dir() else []
    return max(numbers, default=0) + 1


def remove_unfinished(folders: Iterable[str | Path]) -> None:
    """Delete the temporary files that a killed process left in folders of a run."""
    for folder in map(Path, folders):
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name.startswith(TEMPORARY) and path.is_file():
                path.unlink(missing_ok=True)


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Keep every other run out of a folder; the system drops the lock when the process ends, however it does.

    Where the system or the file system has no locks, nothing is kept out.

    Args:
        folder: created when missing.

    Raises:
        TrainingError: another run is writing there.
        OSError: it cannot be created.
    """
    refusal = TrainingError(
        f'{folder}: another run is writing there; wait until it has ended, or choose another '
        'folder (work_dir, save_dir, output_dir)'
    )
    with files.locked(folder, refusal):
        yield
