"""Kills `ms-segformer predict` at random moments and looks whether a second run leaves what an unbroken one leaves.

    python -m campaigns.kill_predict --seed 1 --cases 50

Each time a process segments 12 images with the tiny model of the tests (one image is broken, two share a name) and gets
SIGKILL. Then a second process is given the same command. The moment is drawn evenly, in half of the runs from the
duration of an unbroken run, most of which is its start, in the others from its part after the first line of the
manifest. Every other time the folder holds the results of an earlier run, since which half of the images have changed.
The processes are forked from one that has imported torch and ModelScope, which saves each of them four seconds.

With `--processes N` the command shares the images out, and every other kill is that of one of its processes: the run
itself goes on then. `--images 200` adds images of other shapes.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from campaigns import frame
from campaigns.frame import TINY_MODEL

NAMES = (
    'a.jpg',
    'a.png',
    'b.png',
    'broken.jpg',
    'c.jpg',
    'deep/er/a.png',
    'deep/b.jpg',
    'deep/large.jpg',
    'e.png',
    'f.png',
    'g.jpg',
    '图.png',
)


def main():
    parser = frame.arguments(__doc__, cases=50)
    parser.add_argument('--processes', type=int, default=1, help='of the command (default: %(default)s)')
    parser.add_argument('--images', type=int, default=len(NAMES), help='at least 12 (default: %(default)s)')
    args = parser.parse_args()
    names = (*NAMES, *(f'more/{number}.jpg' for number in range(args.images - len(NAMES))))
    import modelscope.pipelines  # noqa: F401
    import torch

    import ms_segformer.pipelines.image_segmentation  # noqa: F401
    import ms_segformer.results  # noqa: F401

    torch.set_num_threads(1)
    chance, begun = random.Random(args.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.environ['MS_SEGFORMER_CACHE'] = f'{folder}/cache'
        os.chdir(folder)
        write_images(args.seed, names)
        predict('earlier', args.processes)
        write_images(args.seed + 1, names[::2])
        shutil.copytree('earlier', 'changed')
        unbroken, durations = {}, {}
        for start in ('fresh', 'changed'):
            began = time.monotonic()
            process = predict_later(start, args.processes)
            wait_for_writing(start, process)
            writing = time.monotonic()
            assert finish(process) == 1, 'the broken image'
            durations[start] = time.monotonic() - began, time.monotonic() - writing
            unbroken[start] = tree(start)
        counts, tally = Counter(), frame.Tally()
        for number in range(args.first + args.cases):
            if number > args.first and time.monotonic() - begun > args.seconds:
                break
            start, whole = ('fresh', 'changed')[number % 2], number % 4 < 2
            moment = chance.uniform(0, durations[start][0 if whole else 1])
            if number < args.first:
                continue
            worker = args.processes > 1 and number % 8 >= 4
            found = one(start, whole, moment, unbroken[start], args.processes, worker)
            counts.update(found)
            bad = [what for what in found if what in BAD]
            tally.add(f'{start} folder', 'anything else' if bad else 'results', None if bad else ', '.join(found[:2]))
            print(
                f'{number:4} {start:8} {moment:6.2f} s of {"the whole" if whole else "its writing"}: '
                f'{", ".join(found)}',
                file=sys.stderr,
                flush=True,
            )
    report(durations, counts, len(names))
    return frame.finish('predict, killed', tally, args, time.monotonic() - begun)


BAD = ('half-written file', 'other tree', 'temporary file after the second run', 'other exit code')


def one(start, whole, moment, unbroken, processes, worker):
    """Kill one run `moment` seconds after its start or its first line, run again; returns what was seen, in words.

    With `worker` one of its processes is killed, and it is not run again.
    """
    shutil.rmtree('out', ignore_errors=True)
    if start == 'changed':
        shutil.copytree('earlier', 'out')
    process = predict_later('out', processes)
    if not whole:
        wait_for_writing('out', process)
    time.sleep(moment)
    if worker:
        return one_of_its_processes(process, unbroken)
    os.kill(process, signal.SIGKILL)
    found = ['killed' if finish(process) == -signal.SIGKILL else 'ended before']
    left = tree('out')
    names = [name.rpartition('/')[2] for name in left]
    found.append(
        'before anything was written'
        if left == (tree('earlier') if start == 'changed' else {})
        else 'among the files'
        if any(left.get(name) != unbroken[name] for name in unbroken if is_result(name))
        else 'after the last file'
    )
    if any(name.startswith('.ms-segformer-tmp-') for name in names):
        found.append('temporary file left by the kill')
    if b'"writing": true' in left.get('manifest.jsonl', b'').rpartition(b'\n{')[2]:
        found.append('announced last')
    if not all(complete('out', name) for name in left if is_result(name)):
        found.append('half-written file')
    if finish(predict_later('out', processes)) != 1:
        found.append('other exit code')
    after = tree('out')
    if any('/.' in f'/{name}' for name in after):
        found.append('temporary file after the second run')
    if after != unbroken:
        found.append('other tree')
    return found


def one_of_its_processes(process, unbroken):
    """Kill one process that segments; returns what was seen of the run, in words."""
    there = [pid for child in children(process) for pid in children(child)]
    found = ['one of its processes' if there else 'no process to kill']
    if there:
        os.kill(there[-1], signal.SIGKILL)
    if finish(process) != 1:
        found.append('other exit code')
    if tree('out') != unbroken:
        found.append('other tree')
    return found


def children(pid):
    """The processes that one has started."""
    try:
        return [int(child) for child in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]
    except OSError:
        return []


def wait_for_writing(out, process):
    """Wait until the manifest changes or the process has ended (it is left to be waited for)."""
    path = Path(out) / 'manifest.jsonl'
    before = path.stat().st_size if path.exists() else -1
    while (path.stat().st_size if path.exists() else -1) == before:
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.001)


def is_result(name):
    return name.endswith(('.png', '.jpg', '.json')) and not name.rpartition('/')[2].startswith('.')


def complete(folder, name):
    """Whether a file decodes to its end."""
    path = Path(folder) / name
    try:
        if name.endswith('.json'):
            json.loads(path.read_bytes())
        else:
            with Image.open(path) as image:
                image.load()
    except (OSError, ValueError, SyntaxError):
        return False
    return True


def write_images(seed, names):
    generator = np.random.default_rng(seed)
    for name in names:
        path = Path('photos') / name
        path.parent.mkdir(parents=True, exist_ok=True)
        side = 900 if 'large' in name else 60
        wider = 9 + len(name) % 5 * 12
        Image.fromarray(generator.integers(0, 256, (side, side + wider, 3), dtype=np.uint8)).save(path)
        if 'broken' in name:
            path.write_bytes(path.read_bytes()[:200])


def predict(out, processes):
    return finish(predict_later(out, processes))


def predict_later(out, processes):
    """Start the command in a process of its own; returns its number."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        from ms_segformer.cli.main import main as command

        words = ['--device', 'cpu', '--processes', str(processes)]
        code = command(['predict', 'photos', '--model', str(TINY_MODEL), '-o', out, *words])
    finally:
        os._exit(code)


def finish(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def tree(folder):
    """Content of every file, hidden ones too, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(Path(folder).rglob('*'))
        if path.is_file()
    }


def report(durations, counts, images):
    print(
        f'{images} images, unbroken run '
        + ', '.join(
            f'{whole:.2f} s, {writing:.2f} s of it writing ({start})' for start, (whole, writing) in durations.items()
        )
        + '\n'
    )
    print('| seen | times |\n|-|-|')
    order = (
        'killed',
        'ended before',
        'one of its processes',
        'no process to kill',
        'before anything was written',
        'among the files',
        'after the last file',
        'announced last',
        'temporary file left by the kill',
        *BAD,
    )
    for what in order:
        print(f'| {what} | {counts[what]} |')
    print()


if __name__ == '__main__':
    sys.exit(main())
