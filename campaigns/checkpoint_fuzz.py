"""Mutated checkpoints: each has to give tensors or a `CheckpointError`, in bounded time and memory, running nothing.

    python campaigns/checkpoint_fuzz.py --seed 1 --cases 3000 [--files DIR]

Bases: the tiny model as EasyCV exports it, in zip and legacy form; a file with numpy numbers, dates, paths, a class
that is not installed and a shell command in its pickle, in both forms; a file of this package; more from --files.
Mutations: bits flipped, bytes overwritten, pieces cut out or copied from another place, ends cut off; and for zip files
the same in the pickle or the numbers alone, under checksums made right again.

Counted apart: files whose bytes a checksum covers and that gave other tensors than they were made of (there must be
none), and those with right checksums or none, where that is no fault. Exit code 1 when there is anything but results
and clear errors.
"""
import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
SECONDS = 10  # a case may take
MEBIBYTES = 1024  # a case may add to the process
BATCH = 200  # cases of one process
GOOD = ('as it was', 'other tensors, no checksum against it', 'clear error')


def bases(folder: Path, extra: Path | None) -> list[Path]:
    """Write the files to mutate."""
    sys.path.insert(0, str(ROOT / 'tests'))
    import torch
    from exported import save_exported
    from models.test_torch_file import foreign, save

    from ms_segformer.models.checkpoint import read_checkpoint
    from ms_segformer.models.torch_file import write_torch_file
    tiny = ROOT / 'tests' / 'data' / 'tiny_model' / 'pytorch_model.pt'
    state, _ = read_checkpoint(tiny)
    found = [tiny]
    save_exported(folder / 'exported_legacy.pt', state, legacy=True)
    for legacy in (False, True):
        save({'state_dict': state, 'meta': foreign(f'touch {folder}/ran'), 'optimizer': {'step': torch.tensor(1.0)}},
             folder / f'foreign_{legacy}.pt', legacy=legacy)
    write_torch_file(folder / 'ours.pt', {'state_dict': state, 'meta': {'epoch': 3}})
    found += sorted(folder.glob('*.pt'))
    return found + (sorted(extra.glob('*.pt*')) if extra else [])


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """One to eight changes of one kind."""
    data, kind = bytearray(content), random.integers(5)
    for _ in range(random.integers(1, 9)):
        at = int(random.integers(max(len(data), 1)))
        length = int(random.integers(1, 64))
        if kind == 0 and data:
            data[at] ^= 1 << int(random.integers(8))
        elif kind == 1:
            data[at:at + length] = random.bytes(length)
        elif kind == 2:
            del data[at:at + length]
        elif kind == 3:
            source = int(random.integers(max(len(data), 1)))
            data[at:at] = data[source:source + length]
        elif kind == 4:
            return bytes(data[:at])
    return bytes(data)


def one_case(path: Path, random: np.random.Generator) -> tuple[bytes, bool]:
    """A mutated file, and whether a checksum covers the mutation."""
    content = path.read_bytes()
    if not content.startswith(b'PK') or random.random() < 0.4:
        return mutated(content, random), content.startswith(b'PK')
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    names = [name for name in entries if name.endswith('data.pkl')] if random.random() < 0.7 else list(entries)
    name = names[random.integers(len(names))]
    entries[name] = mutated(entries[name], random)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, part in entries.items():
            archive.writestr(name, part)
    return buffer.getvalue(), False


def work(folder: Path, files: list[Path], seed: int, start: int, stop: int) -> None:
    """Read mutated files in this process; print a line before and after each."""
    import encodings.cp437  # noqa: F401  (how zipfile reads names of old; imported before imports are watched)
    import resource
    import signal

    import torch

    from ms_segformer.config import read_configuration
    from ms_segformer.models.checkpoint import CheckpointError, load_state, read_checkpoint
    from ms_segformer.models.segformer import Segformer
    model = Segformer(**read_configuration(ROOT / 'tests' / 'data' / 'tiny_model').raw['model'])
    good = {path: read_checkpoint(path)[0] for path in files}
    noted: list[str] = []
    watched = ('import', 'os.system', 'exec', 'compile', 'subprocess.Popen', 'pickle.find_class', 'socket.connect')
    sys.addaudithook(lambda event, args: noted.append(f'{event} {args[0]}') if event in watched else None)
    target = folder / f'case_{os.getpid()}.pt'
    for number in range(start, stop):
        print(json.dumps([number, 'started']), flush=True)
        random = np.random.default_rng([seed, number])
        source = files[random.integers(len(files))]
        content, covered = one_case(source, random)
        target.write_bytes(content)
        noted.clear()
        signal.alarm(SECONDS)
        try:
            state, _ = read_checkpoint(target)
            load_state(model, state, str(target))
            same = state.keys() == good[source].keys() and all(
                torch.equal(value, good[source][key]) for key, value in state.items())
            outcome = 'as it was' if same else (
                'OTHER TENSORS under a checksum' if covered else 'other tensors, no checksum against it')
        except CheckpointError as error:
            outcome = 'clear error' if str(target) in str(error) else f'NO FILE NAMED: {error}'
        except Exception as error:
            outcome = f'{type(error).__name__}: {str(error)[:100]}'
        signal.alarm(0)
        if noted or (folder / 'ran').exists():
            outcome = f'RAN {noted[:3]}'
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(json.dumps([number, outcome, peak]), flush=True)
    target.unlink(missing_ok=True)


def campaign(args: argparse.Namespace) -> Counter:
    """Run all cases in processes of `BATCH`; a process that dies costs the case it was at."""
    outcomes: Counter = Counter()
    with tempfile.TemporaryDirectory() as folder:
        files = bases(Path(folder), args.files)
        number, started = 0, time.monotonic()
        while number < args.cases and time.monotonic() - started < args.seconds:
            stop = min(number + BATCH, args.cases)
            done = subprocess.run(
                [sys.executable, __file__, '--work', folder, '--seed', str(args.seed), '--range', str(number),
                 str(stop), '--bases', *map(str, files)], capture_output=True, text=True, check=False)
            lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('[')]
            finished = [line for line in lines if line[1] != 'started']
            first = finished[0][2] if finished else 0
            for _, outcome, peak in finished:
                outcomes[outcome if peak - first < MEBIBYTES else f'MEMORY {peak - first} MiB'] += 1
            number += len(finished)
            if number < stop:
                outcomes[f'PROCESS ENDED with {done.returncode} at case {number}'] += 1
                number += 1
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--cases', type=int, default=2000)
    parser.add_argument('--seconds', type=float, default=600, help='no new cases after this time')
    parser.add_argument('--files', type=Path, help='folder with more checkpoints to mutate')
    parser.add_argument('--work', type=Path, help=argparse.SUPPRESS)
    parser.add_argument('--range', type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument('--bases', type=Path, nargs='+', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work, args.bases, args.seed, *args.range)
        return 0
    outcomes = campaign(args)
    print(f'checkpoints, seed {args.seed}: {sum(outcomes.values())} tried')
    for outcome, count in outcomes.most_common():
        print(f'{count:8}  {outcome}')
    bad = sum(count for outcome, count in outcomes.items() if outcome not in GOOD)
    print(f'{bad:8}  anything else')
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
