"""(e) How the network's cost grows with the variant and with the image.

python -m benchmarks.scaling
"""

import statistics

import torch

from .measure import interleave, parser, quiet, report
from .subjects import SIZE, count_flops, our_model

CARD = "The cards' time is that of the whole pipeline of the original for an image; here it is the network alone."


def main():
    p = parser(__doc__.splitlines()[0], rounds=5)
    p.add_argument('--variants', nargs='+', default=['b0', 'b1', 'b2', 'b3', 'b4', 'b5'])
    p.add_argument('--engine', default='auto')
    p.add_argument('--precision', default='float32')
    args = p.parse_args()
    quiet()
    from ms_segformer.engines import create_engine
    from ms_segformer.metainfo import VARIANTS

    rows = [['variant', 'input', 'GFLOP', 'median ms', 'GFLOP/s', 'model card, V100, ms']]
    cases = [(variant, SIZE) for variant in args.variants] + [
        (args.variants[0], size) for size in ((256, 352), (1024, 1408))
    ]
    engines = {}
    for variant, size in cases:
        image = torch.randn(1, 3, *size)
        if variant not in engines:
            engines.clear()  # one network in memory at a time
            model = our_model(variant)
            engines[variant] = model, create_engine(model, args.engine, args.precision, args.device)
        model, engine = engines[variant]
        flops = count_flops(model, image)
        seconds = statistics.median(interleave({'': lambda run=engine, x=image: run(x)}, args)[''])
        rows.append(
            [
                variant.upper(),
                f'{size[0]}×{size[1]}',
                f'{flops / 1e9:.1f}',
                f'{seconds * 1e3:.1f}',
                f'{flops / seconds / 1e9:.0f}',
                f'{VARIANTS[variant].published_latency_ms}' if size == SIZE else '',
            ]
        )
    report('Variants and sizes', rows, args, 'scaling', f'Engine {engine.name}, {args.precision}. {CARD}')


if __name__ == '__main__':
    main()
