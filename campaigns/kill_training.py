"""Trainings killed at random moments: each has to resume to what an unbroken run leaves, bit for bit.

    python -m campaigns.kill_training --seed 1 --cases 100

A run of a few seconds of the tiny model: a checkpoint every epoch and every 3 iterations, the 2 newest of each kept, an
evaluation every epoch, the best checkpoint kept; in every other run an average of the weights (EMA). It is killed
(SIGKILL, from outside) at a moment uniform over an unbroken run's duration (one that had ended by then is not counted,
and made again), and resumed with `resume=True`; in every third run the resumed one is killed as well. Then everything
the run left is compared with what an unbroken run left: which files there are, the weights of every checkpoint and of
`output/` and `output_best/`, the trainer states, the evaluation. Exit code 1 when anything differs.
"""

import argparse
import json
import math
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from modelscope.trainers import build_trainer
from tiny_run import CLASSES, make_data, shrink

from campaigns import frame
from ms_segformer.models.torch_file import read_torch_file
from ms_segformer.trainers import checkpoint_hooks, run_state, work_dir
from ms_segformer.trainers.easycv_trainer import EasyCVTrainer

PHASES = ('construction', 'training', 'writing a checkpoint', 'publishing', 'evaluating', 'removing old ones')
phase = mmap.mmap(-1, 1)  # what the child is doing, seen by the parent


def main() -> int:
    parser = frame.arguments(__doc__, cases=100)
    parser.add_argument('--epochs', type=int, default=12)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix='kill-training-') as folder:
        return campaign(Path(folder), args)


def campaign(folder: Path, args: argparse.Namespace) -> int:
    begun = time.monotonic()
    data = make_data(folder / 'data')
    unbroken = {}
    for ema in (False, True):
        started = time.monotonic()
        code = wait(fork(data, folder / f'unbroken_{ema}', ema, args.epochs, False))
        unbroken[ema] = contents(folder / f'unbroken_{ema}'), time.monotonic() - started
        if code:
            raise SystemExit((folder / f'unbroken_{ema}.txt').read_text())
    seconds = ', '.join(f'{duration:.1f} s' for _, duration in unbroken.values())
    print(f'unbroken: {seconds}; {len(unbroken[False][0])} files', flush=True)
    tally = frame.Tally()
    for number in range(args.first, args.first + args.cases):
        if number > args.first and time.monotonic() - begun > args.seconds:
            break
        draw = random.Random(f'{args.seed} {number}')
        ema = bool(number % 2)
        expected, duration = unbroken[ema]
        target = folder / f'run_{number}'
        found = None
        while found is None:
            shutil.rmtree(target, ignore_errors=True)
            found = killed_and_resumed(data, target, ema, args.epochs, duration, draw, 1 + (number % 3 == 2))
        differences = [found] if isinstance(found, str) and found not in PHASES else compare(expected, contents(target))
        where = found if found in PHASES else 'resuming'
        kind = f'killed while {where}{", with EMA" if ema else ""}'
        tally.add(kind, 'anything else' if differences else 'results')
        if differences:
            print(f'case {number} ({kind}): {"; ".join(differences[:5])}', flush=True)
        shutil.rmtree(target, ignore_errors=True)
    return frame.finish('training, killed', tally, args, time.monotonic() - begun)


def killed_and_resumed(
    data: Path, target: Path, ema: bool, epochs: int, duration: float, draw: random.Random, kills: int
) -> str | None:
    """Return what the run was doing when it was first killed, or what went wrong; None when it had ended before."""
    first = None
    for attempt in range(kills):
        process = fork(data, target, ema, epochs, attempt > 0)
        time.sleep(draw.uniform(0, duration))
        os.kill(process, signal.SIGKILL)
        if wait(process) != -signal.SIGKILL and first is None:
            return None
        first = PHASES[phase[0]] if first is None else first
    code = wait(fork(data, target, ema, epochs, True))
    return f'resuming ended with {code}: {target.with_suffix(".txt").read_text()[-1500:]}' if code else first


def wait(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def fork(data: Path, target: Path, ema: bool, epochs: int, resume: bool) -> int:
    """Train in a child of this warm process; returns its id. Its output goes beside the target."""
    phase[0] = 0
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        descriptor = os.open(target.with_suffix('.txt'), os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        train(data, target, ema, epochs, resume)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def train(data: Path, target: Path, ema: bool, epochs: int, resume: bool) -> None:
    for owner, name, number in (
        (EasyCVTrainer, 'train', 1),
        (run_state, 'save_pair', 2),
        (checkpoint_hooks, 'publish', 3),
        (EasyCVTrainer, 'evaluate', 4),
        (run_state, 'remove_pair', 5),
    ):
        setattr(owner, name, noted(getattr(owner, name), number))

    def modify(cfg: Any) -> Any:
        shrink(cfg)
        cfg.merge_from_dict(
            {
                'train.checkpoint.period': {'interval': 1, 'max_checkpoint_num': 2},
                'train.checkpoint.best': {'metric_key': 'mIoU'},
            }
        )
        return cfg

    build_trainer(
        'easycv',
        {
            'model': str(frame.TINY_MODEL),
            'data_root': str(data),
            'classes': CLASSES,
            'seed': 3,
            'max_epochs': epochs,
            'device': 'cpu',
            'work_dir': str(target),
            'cfg_modify_fn': modify,
            'resume': resume,
            'ema': 0.9 if ema else None,
            'callbacks': [checkpoint_hooks.CheckpointHook(save_strategy='by_step', interval=3, max_checkpoint_num=2)],
        },
    ).train()


def noted(function: Any, number: int) -> Any:
    def call(*args, **kwargs):
        before, phase[0] = phase[0], number
        try:
            return function(*args, **kwargs)
        finally:
            phase[0] = before

    return call


def contents(folder: Path) -> dict[str, Any]:
    """What a run left, by path; logs, which differ by their clock, are left out, and so is the run's identity.

    Reading a file compares it with the digest in it.
    """
    result = {}
    for path in sorted(folder.rglob('*')):
        name = str(path.relative_to(folder))
        if path.is_dir() or '.log' in path.suffixes or name == work_dir.RECORD:
            continue
        if path.suffix in ('.pth', '.pt'):
            content = read_torch_file(path).content
            for key in ('run', 'weights'):  # the digest of the weights' file, which has the name it was written under
                content.pop(key, None)
        else:
            content = path.read_text().replace(str(folder), 'FOLDER')
            if name == work_dir.EVALUATION:
                content = {key: value for key, value in json.loads(content).items() if key != 'run'}
        result[name] = content
    return result


def compare(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    names = [f'missing: {name}' for name in expected if name not in found]
    names += [f'too many: {name}' for name in found if name not in expected]
    return names + [f'differs: {name}' for name in expected if name in found and not same(expected[name], found[name])]


def same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return (
            isinstance(right, dict) and left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
        )
    if isinstance(left, (list, tuple)):
        return isinstance(right, type(left)) and len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and math.isnan(left):
        return isinstance(right, float) and math.isnan(right)
    return left == right


if __name__ == '__main__':
    sys.exit(main())
