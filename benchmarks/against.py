"""(j) This checkout against another one of the project, a commit ago or a hundred, in one interleaved run.

    git worktree add --detach ../before COMMIT && (cd ../before && python setup.py build_ext --inplace)
    python -m benchmarks.against ../before --model DIR --image photo.jpg

Each checkout has a process of its own, and the two take turns at the same work: forward passes of every engine, a JPEG
to its result, postprocessing, training steps; peak memory is that of fresh processes, also in turns.

The timed processes keep the memory they have freed (glibc's malloc). Otherwise it depends on the order in which a
process happened to free its first large blocks whether each call gets its memory from the system anew, and that alone
makes one process up to a fifth slower than another one of the same code.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ENGINES = (
    ('torch', 'float32'),
    ('torch', 'bf16'),
    ('openvino', 'float32'),
    ('openvino', 'bf16'),
    ('onnxruntime', 'float32'),
)
WARMUP = 30  # calls: OpenVINO makes the network for a shape that is frequent
PEAK_ROUNDS = 5
KEEP_FREED = {'MALLOC_MMAP_THRESHOLD_': str(1 << 30), 'MALLOC_TRIM_THRESHOLD_': str((1 << 31) - 1)}


class Checkout:
    """A process that works with the package of one checkout."""

    def __init__(self, root, *arguments):
        environment = {**os.environ, 'PYTHONPATH': str(root), 'MODELSCOPE_LOG_LEVEL': '40', **KEEP_FREED}
        self.process = subprocess.Popen(
            [sys.executable, __file__, '--worker', *arguments],
            cwd=root,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.home = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError('the process of a checkout ended; its message stands above')
        return json.loads(line)

    def ask(self, **request):
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return self.answer()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def main():
    from .measure import PAUSE, parser, quiet, report
    from .subjects import photograph, random_model_dir
    from .train_throughput import made_up

    p = parser('this checkout against another one of the project', rounds=30)
    p.add_argument('other', type=Path, help='another checkout, its kernel built in place')
    p.add_argument('--only', nargs='*', help='parts of the names of what is to run (default: everything)')
    args = p.parse_args()
    quiet()
    roots = {'this': Path(__file__).parents[1], 'other': args.other.resolve()}
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or random_model_dir('b0', folder)
        path = photograph(args.image, folder=folder)
        data = made_up(Path(folder) / 'data')
        sides = {}
        for name, root in roots.items():
            sides[name] = Checkout(root, str(Path(model).resolve()), path, str(data))
            if Path(sides[name].home) != root / 'ms_segformer':
                raise SystemExit(f'{root} was to be measured, but the package of {sides[name].home} was imported')
        rows = [['', 'this, median', 'other, median', 'this / other', '10–90 %']]
        names = [*sides['this'].ask(list=True), *(f'peak memory, {name}, MiB' for name in ('openvino', 'torch'))]
        for name in names:
            if args.only and not any(part in name for part in args.only):
                continue
            peak = name.startswith('peak')
            found = {side: [] for side in sides}
            for warmed in range(-1, PEAK_ROUNDS if peak else args.rounds):
                # Who goes first changes, for a first one may find the caches of the second.
                for side in list(sides)[:: 1 if warmed % 2 else -1]:
                    time.sleep(PAUSE)
                    value = sides[side].ask(run=name, cpu=args.cpu_time, warm=warmed < 0)
                    if warmed >= 0:
                        found[side].append(value)
            ratios = sorted(a / b for a, b in zip(*found.values(), strict=True))
            low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
            medians = [f'{statistics.median(values) * (1 if peak else 1e3):.1f}' for values in found.values()]
            rows.append([name, *medians, f'{statistics.median(ratios):.3f}', f'{low:.2f}–{high:.2f}'])
            print(*rows[-1], sep=' | ', file=sys.stderr, flush=True)
        for side in sides.values():
            side.close()
    commits = ', '.join(f'{side}: {_commit(root)}' for side, root in roots.items())
    report('This checkout against another', rows, args, 'against', f'Milliseconds, or MiB; {commits}.')


def _commit(root):
    found = subprocess.run(['git', 'log', '-1', '--format=%h %s'], cwd=root, capture_output=True, text=True)
    return found.stdout.strip() or 'no commit'


def worker(model, path, data):
    """Answer requests on standard input with one line of JSON each."""
    out, sys.stdout = sys.stdout, sys.stderr

    def say(value):
        print(json.dumps(value), file=out, flush=True)

    import ms_segformer

    say(str(Path(ms_segformer.__file__).parent))
    names, made = list(_tasks(model, path, data)), {}
    for line in sys.stdin:
        request = json.loads(line)
        if 'list' in request:
            say(names)
            continue
        name = request['run']
        if name.startswith('peak'):
            say(_peak(model, path, name.split(', ')[1]))
            continue
        if name not in made:
            made.clear()  # one at a time, so that none has the memory or the threads of another
            made[name] = _tasks(model, path, data)[name]()
        for _ in range(WARMUP if request['warm'] and 'train' not in name else 1):
            clock = time.process_time if request['cpu'] else time.perf_counter
            start = clock()
            made[name]()
            passed = clock() - start
        say(passed)


def _tasks(model, path, data):
    """Name -> what makes the function to be timed."""
    tasks = {f'forward, {e} {p}': lambda e=e, p=p: _forward(model, path, e, p) for e, p in ENGINES}
    tasks['end to end, openvino'] = lambda: _end_to_end(model, path, 'openvino')
    tasks['end to end, torch'] = lambda: _end_to_end(model, path, 'torch')
    tasks['end to end, torch, windows'] = lambda: _end_to_end(model, path, 'torch', mode='slide')
    tasks['postprocess'] = lambda: _postprocess(model, path)
    tasks['train step'] = lambda: _train(data, None)
    tasks['train step, bf16'] = lambda: _train(data, 'bf16')
    return tasks


def _segmenter(model, **options):
    from modelscope.pipelines import pipeline

    return pipeline('image-segmentation', model, device='cpu', **options)


def _forward(model, path, engine, precision):
    segmenter = _segmenter(model, engine=engine, precision=precision)
    segmenter(path)
    image = segmenter.preprocessor(path)['img']
    return lambda: segmenter._engine(image)


def _end_to_end(model, path, engine, **options):
    segmenter = _segmenter(model, engine=engine)
    return lambda: segmenter(path, **options)


def _postprocess(model, path):
    segmenter = _segmenter(model, engine='torch')
    segmenter(path)
    prepared = segmenter.preprocessor(path)
    logits = segmenter._engine(prepared['img'])
    return lambda: segmenter.postprocess({**prepared, 'logits': logits})


def _train(data, amp):
    from argparse import Namespace

    from benchmarks.train_throughput import ours  # that of the checkout: its root is on the path

    return ours(Path(data), tempfile.mkdtemp(prefix='against_'), Namespace(threads=2, amp=amp))


def _peak(model, path, engine):
    """MiB above the loaded model at the highest, of the first call of a fresh process."""
    code = (
        'import sys; sys.path.append("."); import ms_segformer\n'
        'from benchmarks.measure import peak_start, peak_stop\n'
        'from modelscope.pipelines import pipeline\n'
        f'segmenter = pipeline("image-segmentation", {model!r}, device="cpu", engine={engine!r})\n'
        'import numpy as np; segmenter.prepare_model()\n'
        f'before = peak_start(); segmenter({path!r}); print(peak_stop(before))'
    )
    environment = {name: value for name, value in os.environ.items() if name not in KEEP_FREED}
    done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


if __name__ == '__main__':
    if sys.argv[1:2] == ['--worker']:
        worker(*sys.argv[2:])
    else:
        main()
