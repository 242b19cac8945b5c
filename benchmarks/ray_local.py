"""`predict` on a folder of photographs: several processes, and as many actors of Ray on this machine, in turns.

    python -m benchmarks.ray_local --photos DIR

Each command runs from its start to its end. The processes write label maps and JSON, the actors Parquet with the same
content. Ray and its actors take longer to start, so the rate is given of the whole command and of what it does after a
sixth of the images, when all of them are at work.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .measure import parser, quiet, report
from .processes import ROOT, make

LEFT_OUT = 6  # one in so many images comes before all are at work


def main():
    p = parser(__doc__.splitlines()[0], rounds=3)
    p.add_argument('--photos', required=True, help='folder of photographs, with its sub-folders')
    p.add_argument('--photographs', type=int, default=300, help='to make of them (default: %(default)s)')
    p.add_argument('--processes', type=int, default=2)
    args = p.parse_args()
    args.warmup = min(args.warmup, 1)
    quiet()
    model = str(Path(args.model).resolve()) if args.model and args.model != 'demo' else 'demo'
    candidates = {f'{args.processes} processes': ['--save', 'labels', 'json'], 'Ray': ['--ray', 'local']}
    rates = {name: [] for name in candidates}
    with tempfile.TemporaryDirectory() as folder:
        photographs = Path(folder, 'photographs')
        shapes = make(Path(args.photos), photographs, args.photographs)
        for step in range(args.warmup + args.rounds):
            for name, options in candidates.items():
                found = predict(photographs, model, args, options)
                if step >= args.warmup:
                    rates[name].append(found)
    first = next(iter(candidates))
    rows = [('candidate', 'images/s', f'of {first}', 'whole command, images/s', f'of {first}')]
    for name in candidates:
        row = [name]
        for kind in range(2):
            own, other = ([each[kind] for each in rates[which]] for which in (name, first))
            row += [f'{statistics.median(own):.2f}', f'{statistics.median(map(float.__truediv__, own, other)):.2f}']
        rows.append(tuple(row))
    notes = f'{args.photographs} photographs of {shapes} shapes. The first rate is that after a sixth of the images.'
    report(f'Ray on one machine, {Path(model).name}', rows, args, 'ray_local', notes)


def predict(photographs, model, args, options):
    """Run the command; returns its images a second after the first ones, and from its start to its end."""
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory() as out:
        words = [str(photographs), '--model', model, '-o', out, '--device', 'cpu', '-q']
        start = time.time()
        subprocess.run(
            [sys.executable, '-m', 'ms_segformer', 'predict', *words, '--processes', str(args.processes), *options],
            cwd=out,
            env={**os.environ, 'PYTHONPATH': str(ROOT)},
            stderr=subprocess.DEVNULL if '--ray' in options else None,
            check=True,
        )
        whole = time.time() - start
        files = [(path.stat().st_mtime, pq.read_metadata(path).num_rows) for path in Path(out).rglob('*.parquet')]
        files = files or [(path.stat().st_mtime, 1) for path in Path(out).rglob('*.json')]
    done = 0
    begin, before = start, 0
    for moment, images in sorted(files):
        done += images
        if not before and done >= args.photographs // LEFT_OUT:
            begin, before = moment, done
    assert done == args.photographs, f'{done} results'
    return (done - before) / (moment - begin), done / whole


if __name__ == '__main__':
    main()
