"""Everything that is checked and measured on a GPU, in ten minutes, as one report. `make gpu` runs it.

python -m benchmarks.gpu --output benchmarks/RESULTS_GPU.md

The tests of `tests/gpu` come first, then the benchmarks with `--device cuda`, the most important ones at first.
The report is written anew after each; what no time was left for is named in it.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULE = 'benchmarks.'
FORWARD = [MODULE + 'forward', '--device', 'cuda', '--rounds']
END_TO_END = [MODULE + 'end_to_end', '--device', 'cuda', '--rounds', '20']
SCALING = [MODULE + 'scaling', '--device', 'cuda', '--engine', 'torch']
TRAINING = ['benchmarks/train_throughput.py', '--device', 'cuda', '--batch', '16', '--workers', '6']
TRAINING += ['--threads', '4', '--steps', '10', '--rounds', '3']
# Arguments after `python -m`, and the seconds that each may take; torch.compile, which takes most of them, comes late.
STEPS = {
    'Tests': (['pytest', 'tests/gpu', '-v', '-p', 'no:cacheprovider', '--show-capture=no', '--tb=short', '-rs'], 240),
    'Forward, B0': ([*FORWARD, '30', '--without', 'compiled'], 70),
    'Training, bf16': ([*TRAINING, '--amp', 'bf16'], 110),
    'End to end, B0': (END_TO_END, 60),
    'End to end, B0, fp16': ([*END_TO_END, '--precision', 'fp16'], 60),
    'B0 to B5, fp16': ([*SCALING, '--precision', 'fp16'], 70),
    'Forward, B0, compiled': ([*FORWARD, '20', '--without', 'bf16'], 200),
    'Share of the peak, bf16': (
        [MODULE + 'gemm_share', '--device', 'cuda', '--precision', 'bf16', '--batch', '8', '--rounds', '10'],
        120,
    ),
    'Training, float32': (TRAINING, 100),
    'B0 to B5, float32': (SCALING, 70),
    'End to end, B0, compiled': ([*END_TO_END, '--compiled'], 90),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--output', default='benchmarks/RESULTS_GPU.md', help='the report (default: %(default)s)')
    parser.add_argument('--seconds', type=int, default=570, help='for all of it (default: %(default)s)')
    args = parser.parse_args()
    began, parts = time.monotonic(), []
    for title, (words, seconds) in STEPS.items():
        left = args.seconds - (time.monotonic() - began)
        parts.append(f'## {title}\n\n{outcome(words, min(seconds, left)) if left > 20 else "No time was left."}\n')
        write(Path(args.output), parts)
    print(Path(args.output).read_text(encoding='utf-8'))


def outcome(words, seconds):
    """What a command printed, and how it ended."""
    script = [] if words[0].endswith('.py') else ['-m']
    began = time.monotonic()
    with tempfile.TemporaryFile('w+', errors='replace') as out, tempfile.TemporaryFile('w+', errors='replace') as err:
        process = subprocess.Popen(
            [sys.executable, '-u', *script, *words],
            cwd=ROOT,
            env={**os.environ, 'PYTHONPATH': str(ROOT), 'MODELSCOPE_LOG_LEVEL': '40'},
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            end = f'exit code {code}' if (code := process.wait(seconds)) else ''
        except subprocess.TimeoutExpired:
            end = f'stopped after {seconds:.0f} s'
        finally:
            with suppress(ProcessLookupError):  # and what it has started, which would go on with the GPU
                os.killpg(process.pid, signal.SIGKILL)
        said, complained = (file.read() for file in (out, err) if not file.seek(0))
    said = re.sub(r'^## .*\n+', '', said.strip(), flags=re.MULTILINE)
    if words[0] == 'pytest':  # which names a test before it runs: the last one is what did not end
        lines = [line for line in said.splitlines() if ' PASSED' not in line or line == said.splitlines()[-1]]
        said = fenced(lines[:20] + ['…'] + lines[-180:] if len(lines) > 200 else lines)
    if end and complained.strip():
        said += '\n\n' + fenced(complained.splitlines()[-15:])
    command = ' '.join(['python', *script, *words])
    return f'{said}\n\n`{command}`: {time.monotonic() - began:.0f} s' + (f', {end}' if end else '')


def fenced(lines):
    """Lines as they are, in Markdown."""
    return '\n'.join(['```', *lines, '```'])


def write(path, parts):
    header = (
        '# On a GPU\n\nWritten by `make gpu` '
        f'({date.today()}); see [benchmarks/gpu.py](gpu.py) for what it runs.\n\n{machine()}\n'
    )
    temporary = path.with_name(path.name + '.part')
    temporary.write_text('\n'.join([header, *parts]), encoding='utf-8')
    temporary.replace(path)


def machine():
    """The GPU, and the versions that its results depend on."""
    import torch

    if not torch.cuda.is_available():
        return f'torch {torch.__version__}: no GPU that it can use with CUDA. Nothing below was run on one.'
    gpu = torch.cuda.get_device_properties(0)
    return (
        f'{gpu.name}, {gpu.total_memory >> 30} GiB, compute capability {gpu.major}.{gpu.minor}, torch '
        f'{torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, Python '
        f'{sys.version.split()[0]}, {os.cpu_count()} CPU threads'
    )


if __name__ == '__main__':
    main()
