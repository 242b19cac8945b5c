"""(m) `predict` on a folder of photographs: one process, several, and one of another checkout, in turns.

    git worktree add --detach ../before COMMIT && (cd ../before && python setup.py build_ext --inplace)
    python -m benchmarks.processes --photos DIR --before ../before

Each command runs from its start to its end, with all files written. The photographs are cut from those of a folder, in
the sizes that photographs of COCO have.
"""

import os
import random
import subprocess
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

from PIL import Image, ImageOps

from .measure import interleave, parser, quiet, rate_table, report

ROOT = Path(__file__).parents[1]
# Of 21 photographs of COCO 2017; three of ten are turned upright here.
SIZES = (
    *((640, 480),) * 5,
    *((640, 427),) * 2,
    *((640, 426),) * 2,
    *((640, 425),) * 2,
    *((500, 375), (640, 458), (640, 382), (640, 420), (640, 360), (640, 428), (640, 315), (320, 240), (612, 612)),
    (640, 419),
)
UPRIGHT = 0.3
KINDS = ('.jpg', '.jpeg', '.png')


def main():
    p = parser(__doc__.splitlines()[0], rounds=3)
    p.add_argument('--photos', required=True, help='folder of photographs, with its sub-folders')
    p.add_argument('--photographs', type=int, default=300, help='to make of them (default: %(default)s)')
    p.add_argument('--processes', type=int, nargs='+', default=[2])
    p.add_argument('--before', help='another checkout, built')
    p.add_argument('--precision', default='float32')
    p.add_argument('--save', nargs='+', default=['labels', 'overlay', 'json'])
    args = p.parse_args()
    args.warmup = min(args.warmup, 1)
    quiet()
    model = str(Path(args.model).resolve()) if args.model and args.model != 'demo' else 'demo'
    with tempfile.TemporaryDirectory() as folder:
        photographs = Path(folder, 'photographs')
        shapes = make(Path(args.photos), photographs, args.photographs)
        command = partial(predict, photographs, model, args)
        candidates = {'one process': partial(command, ROOT, 1)}
        if args.before:
            candidates = {'before, one process': partial(command, Path(args.before).resolve(), None), **candidates}
        candidates.update({f'{number} processes': partial(command, ROOT, number) for number in args.processes})
        memory = {name: 0 for name in candidates}

        def run(name, candidate):
            memory[name] = max(memory[name], candidate())

        seconds = interleave({name: partial(run, name, candidate) for name, candidate in candidates.items()}, args)
    rows = rate_table(seconds, args.photographs, next(iter(candidates)), 'images')
    rows = [(*rows[0], 'memory'), *((*row, f'{memory[row[0]]:,} MiB') for row in rows[1:])]
    notes = (
        f'{args.photographs} photographs of {shapes} shapes, {args.precision}, written: {", ".join(args.save)}. '
        'The time is that of the whole command, the memory the most that all of its processes have together, with '
        'shared pages divided.'
    )
    report(f'A folder in several processes, {Path(model).name}', rows, args, 'processes', notes)


def make(source, folder, count):
    """Cut photographs of many shapes from those of a folder, always the same; returns the number of shapes."""
    folder.mkdir()
    found = sorted(path for path in source.rglob('*') if path.suffix.lower() in KINDS)
    found = [path for path in found if 'annotations' not in path.parts]
    choose, shapes = random.Random(0), set()
    for number in range(count):
        size = choose.choice(SIZES)
        size = size[::-1] if choose.random() < UPRIGHT else size
        with Image.open(found[number * 7 % len(found)]) as image:
            ImageOps.fit(image.convert('RGB'), size).save(folder / f'{number:04}.jpg', quality=90)
        shapes.add(size)
    return len(shapes)


def predict(photographs, model, args, root, processes):
    """Run the command of a checkout; returns the most memory that it had, in MiB."""
    with tempfile.TemporaryDirectory() as out:
        words = [str(photographs), '--model', model, '-o', out, '--device', 'cpu', '-q', '--precision', args.precision]
        words += ['--save', *args.save, *(['--processes', str(processes)] if processes else [])]
        process = subprocess.Popen(
            [sys.executable, '-m', 'ms_segformer', 'predict', *words],
            cwd=out,
            env={**os.environ, 'PYTHONPATH': str(root)},
        )
        watch = Memory(process.pid)
        assert process.wait() == 0
        watch.end()
        written = len(list(Path(out).rglob('*.json'))) if 'json' in args.save else args.photographs
        assert written == args.photographs, f'{written} results'
        return watch.most


class Memory(threading.Thread):
    """Watches what a process and its children hold: proportional set sizes, of Linux."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.most, self._ended = pid, 0, threading.Event()
        self.start()

    def run(self):
        while not self._ended.wait(0.5):
            self.most = max(self.most, sum(map(held, family(self.pid))) >> 10)

    def end(self):
        self._ended.set()
        self.join()


def family(pid):
    """A process and those that come from it."""
    try:
        children = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    except OSError:
        children = []
    return [pid, *(each for child in children for each in family(int(child)))]


def held(pid):
    """Proportional set size of a process in KiB."""
    try:
        lines = Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith('Pss:'))
    except (OSError, StopIteration):
        return 0


if __name__ == '__main__':
    main()
