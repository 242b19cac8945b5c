"""Kills `ms-segformer predict --ray local`, or one of its actors, at random moments, and looks at the rows afterwards.

    python -m campaigns.ray --seed 1 --cases 20

Each time the demonstration model segments 60 small photographs, one of which is broken. In every other case the driver
gets SIGKILL and the same command is given again; in the others an actor does, and the command goes on by itself. The
moment is drawn from the time in which an unbroken run has actors. The engine is torch: with OpenVINO the sixth digit of
a score depends on which images a process has had before. At the end every image has to be in the folder once,
with the row of the unbroken run, and nothing unfinished. `python -m campaigns` leaves this campaign out: a case takes
half a minute.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.dataset
from PIL import Image

from campaigns import frame
from campaigns.frame import ROOT

IMAGES = 60
START = 120  # seconds that actors may take to be there


def main() -> int:
    args = frame.arguments(__doc__, cases=20).parse_args()
    chance, begun = random.Random(args.seed), time.monotonic()
    tally = frame.Tally()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ['MS_SEGFORMER_CACHE'] = f'{folder}/cache'
        write_photographs()
        process = command('unbroken')
        wait_for_actors(process)
        began = time.monotonic()
        assert process.wait() == 1, 'the broken image'
        seconds, unbroken = time.monotonic() - began, rows('unbroken')
        assert len(unbroken) == IMAGES
        print(f'an unbroken run has actors for {seconds:.1f} s', file=sys.stderr, flush=True)
        for number in range(args.first + args.cases):
            if number > args.first and time.monotonic() - begun > args.seconds:
                break
            kind, moment = ('driver', 'actor')[number % 2], chance.uniform(0, seconds)
            if number < args.first:
                continue
            seen, fault = one(f'out{number}', kind, moment, unbroken)
            tally.add(f'{kind} killed', 'anything else' if fault else 'results', None if fault else seen)
            print(f'{number:4} {kind:7} {moment:6.2f} s: {seen}{fault}', file=sys.stderr, flush=True)
    return frame.finish('predict --ray, killed', tally, args, time.monotonic() - begun)


def one(out: str, kind: str, moment: float, unbroken: dict) -> tuple[str, str]:
    """Kill something of a run; returns what was seen, and what is wrong."""
    process = command(out)
    wait_for_actors(process)
    time.sleep(moment)
    there = len(list(Path(out).glob('part-*.parquet')))
    if kind == 'driver':
        process.send_signal(signal.SIGKILL)
        ended = process.wait() != -signal.SIGKILL
        code = command(out).wait()
    else:
        found = actors(process.pid)
        ended = not found
        if found:
            os.kill(found[0], signal.SIGKILL)
        code = process.wait()
    share = 'no' if not there else 'some' if there < len(parts()) else 'all'
    seen = 'after its end' if ended else f'with {share} parts'
    try:
        after = rows(out)
    except AssertionError as error:
        return seen, f', {error}'
    faults = [f', exit code {code}'] if code not in (0, 1) else []
    if after != unbroken:
        faults.append(f', {len(after)} rows, {sum(after.get(path) != row for path, row in unbroken.items())} unequal')
    names = sorted(path.name for path in Path(out).iterdir())
    if names != sorted(path.name for path in Path('unbroken').iterdir()):
        faults.append(f', other files: {names}')
    return seen, ''.join(faults)


def parts() -> list[Path]:
    return list(Path('unbroken').glob('part-*.parquet'))


def rows(folder: str) -> dict:
    """All rows of a folder by path."""
    table = pyarrow.dataset.dataset(folder, format='parquet').to_table()
    found = {row['path']: row for row in table.to_pylist()}
    assert len(found) == table.num_rows, f'{table.num_rows - len(found)} images twice'
    return found


def command(out: str) -> subprocess.Popen:
    words = ['predict', 'photos', '--model', 'demo', '--device', 'cpu', '--engine', 'torch', '-o', out]
    words += ['--ray', 'local', '--processes', '2']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, '-m', 'ms_segformer', *words], env=environment, **quiet)


def wait_for_actors(process: subprocess.Popen) -> None:
    end = time.monotonic() + START
    while not actors(process.pid) and process.poll() is None:
        assert time.monotonic() < end, 'no actor came'
        time.sleep(0.05)


def actors(driver: int) -> list[int]:
    """Processes of Ray's that hold a model, of a driver."""
    found = []
    for folder in Path('/proc').iterdir():
        if folder.name.isdigit():
            try:
                named = b'ray::MapWorker' in (folder / 'cmdline').read_bytes()
                if named and parent(parent(int(folder.name))) == driver:  # by way of the raylet
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def parent(process: int) -> int:
    return int(Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[1])


def write_photographs() -> None:
    Path('photos').mkdir()
    photograph = Image.open(ROOT / 'assets' / 'china.jpg').convert('RGB')
    chance = np.random.default_rng(0)
    for number in range(IMAGES):
        width, height = (int(side) for side in chance.integers(96, 192, 2))
        left, top = int(chance.integers(photograph.width - width)), int(chance.integers(photograph.height - height))
        photograph.crop((left, top, left + width, top + height)).save(f'photos/{number:02}.jpg')
    Path('photos/07.jpg').write_bytes(Path('photos/07.jpg').read_bytes()[:300])


if __name__ == '__main__':
    sys.exit(main())
