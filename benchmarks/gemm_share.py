"""(h) Share of the measured peak of matrix products that the network reaches.

python -m benchmarks.gemm_share
"""

import statistics
from functools import partial

import torch

from .measure import interleave, parser, quiet, report
from .subjects import SIZE, count_flops, our_model


def main():
    p = parser(__doc__.splitlines()[0], rounds=20)
    p.add_argument('--variants', nargs='+', default=['b0', 'b2'])
    args = p.parse_args()
    quiet()
    from ms_segformer.engines import create_engine, openvino_engine

    openvino_engine.FREQUENT = 1
    image, square = torch.randn(1, 3, *SIZE), 1536
    a, b = torch.randn(square, square), torch.randn(square, square)
    candidates, flops = {'matrix product': lambda: a @ b}, {'matrix product': 2 * square**3}
    for variant in args.variants:
        model = our_model(variant)
        operations = count_flops(model, image)
        for engine in ('torch', 'openvino'):
            name = f'{variant.upper()}, {engine}'
            candidates[name] = partial(create_engine(model, engine), image)
            flops[name] = operations
    with torch.inference_mode():
        seconds = interleave(candidates, args)
    peak = [flops['matrix product'] / s for s in seconds['matrix product']]
    rows = [['what', 'GFLOP', 'GFLOP/s', "share of the product's"]]
    for name in candidates:
        speed = [flops[name] / s for s in seconds[name]]
        rows.append(
            [
                name,
                f'{flops[name] / 1e9:.1f}',
                f'{statistics.median(speed) / 1e9:.0f}',
                f'{statistics.median(x / y for x, y in zip(speed, peak, strict=True)):.2f}',
            ]
        )
    report(
        'Share of the matrix-product peak',
        rows,
        args,
        'gemm_share',
        f'float32; the product is {square}×{square} by {square}×{square} in torch. Products and convolutions are '
        'counted, nothing else; attention counts as its two products.',
    )


if __name__ == '__main__':
    main()
