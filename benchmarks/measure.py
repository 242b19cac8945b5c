"""Interleaved timing, memory of a fresh process, and the table that RESULTS.md keeps."""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import time
import warnings
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).with_name('RESULTS.md')
PAUSE = 0.1  # seconds before each run: thread pools spin on for a while, and would slow down whatever runs next


def parser(description, rounds=15):
    """Arguments that every benchmark has."""
    p = argparse.ArgumentParser(description=description)
    p.add_argument(
        '--rounds', type=int, default=rounds, help='interleaved runs of each candidate (default: %(default)s)'
    )
    p.add_argument('--warmup', type=int, default=2, help='runs before those (default: %(default)s)')
    p.add_argument('--model', help='a model directory with a trained B0 (default: random weights)')
    p.add_argument('--image', help='a photograph (default: a synthetic one)')
    p.add_argument(
        '--cpu-time',
        action='store_true',
        help='count the processor time of the process, not the time that '
        'passes: for ratios on a machine that is busy with other work',
    )
    p.add_argument('--device', default='cpu', help='where to run: cpu, or cuda (default: %(default)s)')
    p.add_argument('--keep', action='store_true', help='write the table to benchmarks/RESULTS.md')
    return p


def interleave(candidates, args):
    """Run the candidates in turn and return {name: seconds of each round}; what a GPU was given is finished in them."""
    clock = time.process_time if args.cpu_time else time.perf_counter
    finish = synchronize(getattr(args, 'device', 'cpu'))
    seconds = {name: [] for name in candidates}
    for step in range(args.warmup + args.rounds):
        for name, function in candidates.items():
            time.sleep(PAUSE)
            finish()
            start = clock()
            function()
            finish()
            if step >= args.warmup:
                seconds[name].append(clock() - start)
    return seconds


def synchronize(device):
    """A function that waits until a device has done what it was given."""
    if not str(device).startswith('cuda'):
        return lambda: None
    import torch

    return torch.cuda.synchronize


def timing_table(seconds, against=None):
    """Rows: name, median, 10th to 90th percentile in ms, and the median of the per-round ratios to `against`."""
    rows = [['candidate', 'median ms', '10–90 %', *([f'/ {against}'] if against else [])]]
    for name, values in seconds.items():
        ordered = sorted(values)
        low, high = ordered[len(ordered) // 10], ordered[-1 - len(ordered) // 10]
        row = [name, f'{statistics.median(values) * 1e3:.1f}', f'{low * 1e3:.1f}–{high * 1e3:.1f}']
        if against:
            row.append(f'{ratio(seconds, name, against):.2f}')
        rows.append(row)
    return rows


def rate_table(seconds, count, against, unit):
    """Rows: name, units a second, and the median and range of the per-round ratios of its rate to that of `against`."""
    rows = [('candidate', f'{unit}/s', f'of the {against.partition(",")[0]}', 'range')]
    for name, taken in seconds.items():
        ratios = sorted(other / own for other, own in zip(seconds[against], taken, strict=True))
        rate = count / statistics.median(taken)
        rows.append((name, f'{rate:.2f}', f'{statistics.median(ratios):.2f}', f'{ratios[0]:.2f}–{ratios[-1]:.2f}'))
    return rows


def ratio(seconds, name, against):
    """Median over rounds of one candidate's time over another's in the same round."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[against], strict=True))


def report(title, rows, args, module, notes=''):
    """Print a table; with `--keep`, also put it into RESULTS.md in the place of the last one of that title."""
    header, *body = rows
    table = '\n'.join('| ' + ' | '.join(map(str, row)) + ' |' for row in [header, ['-'] * len(header), *body])
    if getattr(args, 'device', 'cpu') != 'cpu':
        title += f', {_gpu()}'
    command = ' '.join(['python', '-m', f'benchmarks.{module}', *(a for a in sys.argv[1:] if a != '--keep')])
    command = re.sub(r'(?<= )\S*/(\w+/?)(?= |$)', r'…/\1', re.sub(r'\S*/(\S+\.\w+)', r'…/\1', command))
    clock = 'Times are processor time of the process, all its threads.' if args.cpu_time else ''
    notes = [note for note in (notes, clock) if note]
    text = '\n\n'.join([f'## {title}', table, *notes, f'`{command}` · {environment()}']) + '\n'
    print(text, flush=True)
    if args.keep:
        _keep(title, text)


def environment():
    """The machine and versions in a line."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    def installed(name):
        try:
            return f'{name} {version(name)}'
        except PackageNotFoundError:
            return f'no {name}'

    load = os.getloadavg()[0] if hasattr(os, 'getloadavg') else float('nan')
    return ', '.join(
        [
            _processor(),
            f'{torch.get_num_threads()} threads',
            f'Python {platform.python_version()}',
            *map(installed, ('torch', 'openvino', 'onnxruntime', 'transformers')),
            f'load {load:.1f}',
            str(date.today()),
        ]
    )


def _gpu():
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'


def _processor():
    try:
        names = re.findall(r'model name\s*: (.+)', Path('/proc/cpuinfo').read_text())
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _keep(title, text):
    old = RESULTS.read_text(encoding='utf-8') if RESULTS.exists() else '# Results\n'
    sections = re.split(r'(?m)^(?=## )', old)
    found = [i for i, section in enumerate(sections) if section.startswith(f'## {title}\n')]
    if found:
        sections[found[0]] = text + '\n'
    else:
        sections.append(text + '\n')
    RESULTS.write_text('\n\n'.join(section.strip() for section in sections) + '\n', encoding='utf-8')


def fresh(code):
    """Run Python code in a fresh process and return its last line of output.

    The code may call `peak_start()` and `peak_stop()`: MiB that the process's resident memory rose above where it was.
    """
    prelude = 'import warnings; warnings.simplefilter("ignore")\nfrom benchmarks.measure import peak_start, peak_stop\n'
    done = subprocess.run([sys.executable, '-c', prelude + code], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'a fresh process failed:\n{done.stderr[-2000:]}')
    return done.stdout.strip().splitlines()[-1]


def peak_start():
    """Forget the process's peak memory (Linux) and remember how much it holds."""
    import gc

    gc.collect()
    Path('/proc/self/clear_refs').write_text('5')
    return _status('VmRSS')


def peak_stop(before):
    """MiB by which the resident memory rose above `before` at its highest."""
    return (_status('VmHWM') - before) / 1024


def _status(key):
    return int(re.search(rf'{key}:\s+(\d+)', Path('/proc/self/status').read_text())[1])


def quiet():
    """Keep other packages' notices out of the tables."""
    warnings.simplefilter('ignore')
    os.environ.setdefault('MODELSCOPE_LOG_LEVEL', '40')
    os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')
