"""(e) How the network's cost grows with the variant and with the image.

python -m benchmarks.scaling
"""

import statistics

import torch

from .measure import interleave, parser, quiet, report
from .subjects import SIZE, count_flops, our_model


def main():
    p = parser(__doc__.splitlines()[0], rounds=5)
    p.add_argument('--variants', nargs='+', default=['b0', 'b1', 'b2', 'b3', 'b4', 'b5'])
    p.add_argument('--engine', default='auto')
    args = p.parse_args()
    quiet()
    from ms_segformer.engines import create_engine

    rows = [['variant', 'input', 'GFLOP', 'median ms', 'GFLOP/s']]
    cases = [(variant, SIZE) for variant in args.variants] + [
        (args.variants[0], size) for size in ((256, 352), (1024, 1408))
    ]
    engines = {}
    for variant, size in cases:
        image = torch.randn(1, 3, *size)
        if variant not in engines:
            engines.clear()  # one network in memory at a time
            model = our_model(variant)
            engines[variant] = model, create_engine(model, args.engine)
        model, engine = engines[variant]
        flops = count_flops(model, image)
        seconds = statistics.median(interleave({'': lambda run=engine, x=image: run(x)}, args)[''])
        rows.append(
            [
                variant.upper(),
                f'{size[0]}×{size[1]}',
                f'{flops / 1e9:.1f}',
                f'{seconds * 1e3:.0f}',
                f'{flops / seconds / 1e9:.0f}',
            ]
        )
    report('Variants and sizes', rows, args, 'scaling', f'Engine {engine.name}, float32.')


if __name__ == '__main__':
    main()
