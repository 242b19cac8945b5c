"""(n) Images a second and core: as many processes of one thread as there are cores, from JPEG to the files' contents.

python -m benchmarks.per_core --photo photo.jpg
"""

import tempfile
import time
from pathlib import Path

from .measure import parser, quiet, report
from .subjects import int8_model, random_model_dir

CASES = (
    ('b0', 'float32', 60),
    ('b0', 'bf16', 60),
    ('b0', 'int8', 60),
    ('b2', 'float32', 16),
    ('b2', 'bf16', 16),
    ('b5', 'float32', 8),
    ('b5', 'bf16', 8),
)
WARM = 2  # images of each process that are not timed


def main():
    p = parser(__doc__.splitlines()[0], rounds=1)
    p.add_argument('--photo', required=True, help='of which each image is a copy')
    p.add_argument('--only', nargs='+', help='such as b0:bf16')
    args = p.parse_args()
    quiet()
    from ms_segformer.datasets.parallel import available_cores

    cores = available_cores()
    rows = [('model', 'precision', 'images a second and core', 'kB a label map', 'kB an overlay', 'kB of JSON')]
    for variant, precision, count in CASES:
        if args.only and f'{variant}:{precision}' not in args.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            model = 'demo' if variant == 'b0' else random_model_dir(variant, folder)
            if precision == 'int8':
                model = int8_model(model_dir=str(demo()), folder=folder).model_dir
            rate, sizes = measure(model, precision, args.photo, count, cores)
        rows.append((variant, precision, f'{rate:.2f}', *(f'{size / 1000:.0f}' for size in sizes)))
    notes = (
        'The demonstration model for B0, random weights for the others, whose files are larger than those of a trained '
        f'model. All {cores} cores work.'
    )
    report('Images a second and core', rows, args, 'per_core', notes)


def demo():
    from ms_segformer.metainfo import demo_model_dir

    return demo_model_dir()


def measure(model, precision, photo, count, cores):
    """(images a second and core, mean bytes of each kind of file)."""
    from ms_segformer import load
    from ms_segformer.pipelines.to_files import Making, Wanted, make_files

    kinds = ('labels', 'overlay', 'json')
    making = Making(str(model), precision=precision, call={'with_masks': False})
    images = [Wanted(str(Path(photo).resolve()), photo, kinds)] * (count + WARM * cores)
    times, sizes = [], [0, 0, 0]
    for made in make_files(making, load(model, device='cpu', precision=precision), images, cores):
        assert made.error is None, made.error
        times.append(time.perf_counter())
        sizes = [size + len(made.contents[kind]) for size, kind in zip(sizes, kinds, strict=True)]
    seconds = times[-1] - times[WARM * cores - 1]
    return count / seconds / cores, [size / len(images) for size in sizes]


if __name__ == '__main__':
    main()
