"""What a run leaves on disk to go on from: pairs `<name>.pth` (weights) and `<name>_trainer_state.pth` (all else).

Both are written under temporary names and renamed, the state last, so a pair that is complete is whole: a process
killed at any moment leaves the pairs before it untouched. Everything in them loads without unpickling code.
"""
import os
import random
import shutil
from pathlib import Path

import numpy as np
import torch

from ..files import atomic_write
from ..models.checkpoint import save_checkpoint
from .errors import TrainingError

MODEL_SUFFIX = '.pth'
STATE_SUFFIX = '_trainer_state.pth'
VERSION = 1


def save_pair(prefix, model, meta, state):
    """Write the weights and the state of a moment.

    Args:
        prefix: path without ending, such as `work_dir/epoch_3`.
        model: the module whose weights are written.
        meta: what the weights' file says about itself (CLASSES, PALETTE, epoch, iter).
        state: the run's state; tensors, numbers, strings, lists and dicts only. None writes no state.

    Returns:
        Path of the weights' file.

    Raises:
        TrainingError: the disk is full or the folder cannot be written.
    """
    model_file, state_file = pair_of(prefix)
    try:
        if state is not None:
            state_file.unlink(missing_ok=True)  # a state never stands beside weights of another moment
        save_checkpoint(model_file, model, meta)
        if state is not None:
            with atomic_write(state_file) as temporary:
                torch.save({'version': VERSION, **state}, temporary)
    except (OSError, RuntimeError) as error:
        raise TrainingError(_write_failure(model_file, error)) from error
    return model_file


def pair_of(prefix):
    """Return the two paths of a prefix such as `work_dir/epoch_3`."""
    return Path(f'{prefix}{MODEL_SUFFIX}'), Path(f'{prefix}{STATE_SUFFIX}')


def _write_failure(path, error):
    try:
        free = f'{shutil.disk_usage(path.parent).free / 2**20:.0f} MiB free'
    except OSError:
        free = 'free space unknown'
    first = (str(error).splitlines() or [type(error).__name__])[0]
    last = latest(path.parent)
    safe = f'{last}{MODEL_SUFFIX} is safe' if last else 'nothing was saved before'
    return (f'could not write {path} ({first}; {free}). {safe}. Make room or choose another work_dir, then go on '
            'with resume=True')


def load_state(path):
    """Read a state file.

    Raises:
        TrainingError: it is missing, damaged, or was not written by this trainer.
    """
    path = Path(path)
    if not path.is_file():
        raise TrainingError(f'{path}: no such file; a run can be resumed from a pair NAME{MODEL_SUFFIX} and '
                            f'NAME{STATE_SUFFIX}. To start from weights alone pass them as load_from')
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch reports damage with many types
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise TrainingError(f'{path}: cannot be read as a trainer state ({first}). Only states that this trainer wrote '
                            'can be resumed; pass the weights as load_from to start from them') from None
    if not isinstance(state, dict) or state.get('version') != VERSION:
        raise TrainingError(f'{path}: not a trainer state of this version; pass the weights as load_from')
    return state


def latest(work_dir):
    """Return the prefix of the pair with the most iterations in a folder, or None when there is no complete pair."""
    best = None
    for state_file in Path(work_dir).glob(f'*{STATE_SUFFIX}'):
        prefix = str(state_file)[:-len(STATE_SUFFIX)]
        name = Path(prefix).name
        if state_file.name.startswith('.') or not pair_of(prefix)[0].is_file():
            continue
        kind, _, number = name.rpartition('_')
        if kind not in ('epoch', 'iter') or not number.isdigit():
            continue
        moment = (load_state(state_file)['iteration'], kind == 'epoch')
        if best is None or moment > best[0]:
            best = (moment, prefix)
    return None if best is None else best[1]


def is_resumable(path):
    """Whether a checkpoint path names a run to go on with, rather than a file with nothing but weights."""
    return not Path(path).is_file() or pair_of(prefix_of(path))[1].is_file()


def prefix_of(path):
    """Return the prefix that a user means: a work directory (its latest pair), a prefix, or one file of a pair.

    Raises:
        TrainingError: there is nothing to resume from.
    """
    path = Path(path)
    if path.is_dir():
        found = latest(path)
        if found is None:
            raise TrainingError(f'{path}: nothing to resume from; expected files such as epoch_1{MODEL_SUFFIX} and '
                                f'epoch_1{STATE_SUFFIX}')
        return found
    text = str(path)
    for suffix in (STATE_SUFFIX, MODEL_SUFFIX):
        if text.endswith(suffix):
            return text[:-len(suffix)]
    return text


def remove_pair(prefix):
    """Delete a pair, the state first."""
    model_file, state_file = pair_of(prefix)
    state_file.unlink(missing_ok=True)
    model_file.unlink(missing_ok=True)


def remove_unfinished(folder):
    """Delete the temporary files that a killed process left in a folder."""
    if os.path.isdir(folder):
        for name in os.listdir(folder):
            if name.startswith(('.epoch_', '.iter_', '.best_', '.pytorch_model.', '.configuration.', '.last_')):
                os.unlink(os.path.join(folder, name))


def random_state():
    """Return the state of Python's, numpy's and torch's generators as plain values and tensors."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        'python': [version, list(numbers), gauss],
        'numpy': [kind, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        'torch': torch.get_rng_state(),
        'cuda': torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state):
    """Set what `random_state` returned."""
    version, numbers, gauss = state['python']
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state['numpy']
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state['torch'])
    if torch.cuda.is_available() and len(state['cuda']) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state['cuda'])
