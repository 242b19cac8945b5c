"""Mutated checkpoints: each has to give tensors or a `CheckpointError`, in bounded time and memory, running nothing.

    python campaigns/checkpoint_fuzz.py --seed 1 --cases 3000 [--files DIR]

Bases: the tiny model as EasyCV exports it, in zip and legacy form; a file with numpy numbers, dates, paths, a class
that is not installed and a shell command in its pickle, in both forms; a file of this package; more from --files.
Mutations: bits flipped, bytes overwritten, pieces cut out or copied from another place, ends cut off; and for zip files
the same in the pickle or the numbers alone, under checksums made right again. Beside them files with odd values in
their meta and weights, and pickles that are programs: large values kept and asked for again by random opcodes,
thousands of times. What is read is loaded into the tiny model; odd files are also converted and described.

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


LARGE = (  # values of about a megabyte that one opcode can fetch again, kept under 0
    b'X\x00\x00\x10\x00' + b'x' * (1 << 20), b'(' + b'K\x01' * 100_000 + b't', b']q\x02(' + b'K\x01' * 100_000 + b'e',
    b'\x8b\x00\x00\x10\x00' + b'\x7f' * (1 << 20), b')' + b'\x85' * 100_000,
    b'B\x00\x00\x10\x00' + b'x' * (1 << 20),
    b'}(' + b''.join(b'J' + i.to_bytes(4, 'little') + b'N' for i in range(100_000)) + b'u',
    b'ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000'
    b'X\x03\x00\x00\x00cpuJ\x60\x04\x00\x00NtQK\x00K\x02\x85K\x01\x85\x89)tR')
CALLED = (b'ccollections\nOrderedDict\n', b'cbuiltins\nset\n', b'ctorch\nSize\n', b'c_codecs\nencode\n',
          b'cnumpy\ndtype\n', b'cnumpy.core.multiarray\nscalar\n', b'cnumpy.core.multiarray\n_reconstruct\n',
          b'ctorch._utils\n_rebuild_tensor_v2\n', b'ctorch._utils\n_rebuild_parameter\n', b'cos\nsystem\n')
STEPS = (b'h\x00', b'h\x01', b'N', b'K\x01', b'\x85', b'\x86', b'\x87', b'R', b'\x81', b'b', b'0', b'2', b']', b'}',
         b')', b'a', b's', b'(', b't', b'l', b'd', b'e', b'u', b'1', b'Q', b'\x93', b'\x8f', b'\x90', b'\x91', b'o')


def program(random: np.random.Generator) -> bytes:
    """A pickle that keeps two values and then does a few steps with them again and again."""
    def some(choices):
        return choices[random.integers(len(choices))]

    steps = b''.join(some(STEPS) for _ in range(random.integers(2, 8)))
    if random.random() < 0.5:  # what is likeliest to run through: a call, an item, a name
        steps = some((b'h\x01h\x00\x85R', b'h\x01h\x00R', b'h\x00h\x01\x93', b'}h\x00N\x73', b'h\x01h\x00N\x86R',
                      b'h\x00Q', b'h\x01h\x00b')) + some((b'', b'0'))
    return (b'\x80\x04' + some(LARGE) + b'q\x00' + some((*LARGE, *CALLED, *CALLED)) + b'q\x01'
            + steps * int(10 ** random.uniform(0, 4.5)) + b'.')


def odd_content(state: dict, random: np.random.Generator) -> dict:
    """A checkpoint with values nobody expects."""
    import torch
    odd = [None, True, 10**20, 1e300, float('nan'), '', 'x' * 10_000, '\x1b[2J\n', b'x', (), [], {}, [[]], {1: 2},
           {'a'}, torch.ones(2), torch.tensor(1), torch.ones(0, 3), torch.ones(3, dtype=torch.complex64),
           torch.ones(2) == 1, torch.ones(1).expand(10_000, 10_000), np.float32(2), np.arange(5),
           ['a'] * 171, ['a'] * 172, [None] * 171,
           [[0, 0, 0]] * 171, [[0, 'a', 0]] * 171, [torch.ones(3)] * 171, torch.ones(2, 2).to_sparse()]

    def some(count):
        return [odd[i] for i in random.integers(len(odd), size=count)]

    state = dict(state)
    for key in random.choice(sorted(state), random.integers(0, 3)):
        state[key] = some(1)[0]
    meta = dict(zip(('CLASSES', 'PALETTE', 'config', 'epoch', 'iter', 'time'), some(6), strict=True))
    if random.random() < 0.5:
        meta['config'] = dict(zip(('CLASSES', 'PALETTE'), some(2), strict=True))
    return {'state_dict': state, 'meta': meta if random.random() < 0.9 else some(1)[0], 'optimizer': some(1)[0]}


def one_case(path: Path, state: dict, random: np.random.Generator) -> tuple[bytes, bool]:
    """A made or mutated file, and whether a checksum covers the mutation."""
    import torch
    content = path.read_bytes()
    kind = random.random()
    if kind < 0.4:
        buffer = io.BytesIO()
        torch.save({} if kind < 0.2 else odd_content(state, random), buffer)
        if kind >= 0.2:
            return buffer.getvalue(), False
        target = io.BytesIO()
        with zipfile.ZipFile(target, 'w') as archive:
            archive.writestr('archive/data.pkl', program(random))
            archive.writestr('archive/data/0', bytes(4 * 1120))
        return target.getvalue(), False
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


def describe_and_convert(path: Path, folder: Path) -> None:
    """What `ms-segformer info` and the conversion make of a file; a model directory is there in full or not at all."""
    import shutil

    from ms_segformer.cli import info
    from ms_segformer.models.checkpoint import CheckpointError
    from ms_segformer.models.foreign import convert
    directory, target = folder / f'model_{os.getpid()}', folder / f'converted_{os.getpid()}'
    directory.mkdir(exist_ok=True)
    shutil.copy(ROOT / 'tests' / 'data' / 'tiny_model' / 'configuration.json', directory)
    shutil.copy(path, directory / 'pytorch_model.pt')
    said = info.model(str(directory))
    if len(str(said)) > 5000 or not str(said.get('checkpoint says', '')).isprintable():
        raise AssertionError(f'info says too much: {str(said)[:200]}')
    try:
        convert(path, target)
    except CheckpointError as error:
        if target.exists():
            raise AssertionError(f'left behind by {error}') from None
    shutil.rmtree(target, ignore_errors=True)


def work(folder: Path, files: list[Path], seed: int, start: int, stop: int) -> None:
    """Read mutated files in this process; print a line before and after each."""
    import encodings.cp437  # noqa: F401  (how zipfile reads names of old; imported before imports are watched)
    import encodings.unicode_escape  # noqa: F401
    import resource
    import signal

    import torch

    from ms_segformer.config import read_configuration
    from ms_segformer.models.checkpoint import CheckpointError, load_state, read_checkpoint
    from ms_segformer.models.segformer import Segformer
    model = Segformer(**read_configuration(ROOT / 'tests' / 'data' / 'tiny_model').raw['model'])
    good = {path: read_checkpoint(path)[0] for path in files}
    describe_and_convert(files[0], folder)  # imports what it takes
    noted: list[str] = []
    watched = ('import', 'os.system', 'exec', 'compile', 'subprocess.Popen', 'pickle.find_class', 'socket.connect')
    sys.addaudithook(lambda event, args: noted.append(f'{event} {args[0]}') if event in watched else None)
    target = folder / f'case_{os.getpid()}.pt'
    for number in range(start, stop):
        print(json.dumps([number, 'started']), flush=True)
        random = np.random.default_rng([seed, number])
        source = files[random.integers(len(files))]
        content, covered = one_case(source, good[source], random)
        target.write_bytes(content)
        made = b'optimizer' in content
        noted.clear()
        signal.alarm(SECONDS)
        try:
            if made:
                describe_and_convert(target, folder)
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
