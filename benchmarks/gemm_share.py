"""(h) Share of the measured peak of matrix products that the network reaches.

python -m benchmarks.gemm_share
"""

import statistics
from functools import partial

import torch

from ms_segformer.postprocess.float32 import exact_float32

from .measure import interleave, parser, quiet, report
from .subjects import SIZE, count_flops, our_model


def main():
    p = parser(__doc__.splitlines()[0], rounds=20)
    p.add_argument('--variants', nargs='+', default=['b0', 'b2'])
    p.add_argument('--precision', default='float32', help='of both, on a GPU: float32, bf16 or fp16')
    p.add_argument('--batch', type=int, default=1, help='images a run (default: %(default)s)')
    args = p.parse_args()
    quiet()
    from ms_segformer.engines import create_engine
    from ms_segformer.engines.torch_engine import TYPES

    if args.device == 'cpu':
        from ms_segformer.engines import openvino_engine

        openvino_engine.FREQUENT = 1
    on_gpu = args.device != 'cpu'
    image, square = torch.randn(args.batch, 3, *SIZE), 8192 if on_gpu else 1536
    a, b = torch.randn(2, square, square).to(args.device, TYPES[args.precision])
    candidates, flops = {'matrix product': lambda: a @ b}, {'matrix product': 2 * square**3}
    for variant in args.variants:
        model = our_model(variant)
        operations = count_flops(model, image)
        for engine in ('torch', 'torch-compile') if on_gpu else ('torch', 'openvino'):
            name = f'{variant.upper()}, {engine}'
            candidates[name] = partial(create_engine(model, engine, args.precision, args.device), image.to(args.device))
            flops[name] = operations
    with torch.inference_mode(), exact_float32(torch.device(args.device)):
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
        f'{args.precision}, {args.batch} image(s); the product is {square}×{square} by {square}×{square} in torch. '
        'Products and convolutions are counted, nothing else; attention counts as its two products.',
    )


if __name__ == '__main__':
    main()
