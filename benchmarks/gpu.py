"""Everything that is checked and measured on a GPU, in ten minutes, as one report. `make gpu` runs it.

python -m benchmarks.gpu --output benchmarks/RESULTS_GPU.md

The tests of `tests/gpu` come first, then the benchmarks with `--device cuda`, the most important ones at first.
The report is written anew after each; what no time was left for is named in it.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULE = 'benchmarks.'
STEPS = {  # arguments after `python -m`, and the seconds that each may take
    'Tests': (['pytest', 'tests/gpu', '-q', '-p', 'no:cacheprovider', '--show-capture=no', '-rs'], 240),
    'Forward, B0': ([MODULE + 'forward', '--device', 'cuda', '--rounds', '30'], 120),
    'Training, bf16': (
        ['benchmarks/train_throughput.py', '--device', 'cuda', '--amp', 'bf16', '--batch', '16', '--workers', '6']
        + ['--threads', '4', '--steps', '10', '--rounds', '4'],
        100,
    ),
    'End to end, B0': ([MODULE + 'end_to_end', '--device', 'cuda', '--rounds', '20'], 60),
    'End to end, B0, fp16': ([MODULE + 'end_to_end', '--device', 'cuda', '--rounds', '20', '--precision', 'fp16'], 60),
    'B0 to B5, fp16': ([MODULE + 'scaling', '--device', 'cuda', '--engine', 'torch', '--precision', 'fp16'], 60),
    'B0 to B5, float32': ([MODULE + 'scaling', '--device', 'cuda', '--engine', 'torch'], 60),
    'Share of the peak, bf16': (
        [MODULE + 'gemm_share', '--device', 'cuda', '--precision', 'bf16', '--batch', '8', '--rounds', '10'],
        60,
    ),
    'Training, float32': (
        ['benchmarks/train_throughput.py', '--device', 'cuda', '--batch', '16', '--workers', '6']
        + ['--threads', '4', '--steps', '10', '--rounds', '3'],
        80,
    ),
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
    try:
        done = subprocess.run(
            [sys.executable, *script, *words],
            cwd=ROOT,
            env={**os.environ, 'PYTHONPATH': str(ROOT), 'MODELSCOPE_LOG_LEVEL': '40'},
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        said, end = done.stdout, '' if not done.returncode else f'exit code {done.returncode}'
        if done.returncode:
            said += '\n' + '\n'.join(done.stderr.splitlines()[-15:])
    except subprocess.TimeoutExpired as error:
        said, end = (error.stdout or b'').decode(errors='replace'), f'stopped after {seconds:.0f} s'
    said = re.sub(r'^## .*\n+', '', said.strip(), flags=re.MULTILINE)
    if words[0] == 'pytest':
        said = '```\n' + '\n'.join(said.splitlines()[-40:]) + '\n```'
    command = ' '.join(['python', *script, *words])
    return f'{said}\n\n`{command}`: {time.monotonic() - began:.0f} s' + (f', {end}' if end else '')


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
