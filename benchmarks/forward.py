"""(a) The network alone: every engine, and what `transformers` offers, at one input shape.

python -m benchmarks.forward --variant b0
"""

import os
from functools import partial

import torch

from .measure import interleave, parser, quiet, ratio, report, timing_table
from .subjects import (
    SIZE,
    int8_model,
    our_model,
    transformers_int8,
    transformers_model,
    transformers_on,
    transformers_onnxruntime,
    transformers_openvino,
)


def main():
    p = parser(__doc__.splitlines()[0], rounds=30)
    p.add_argument('--variant', default='b0')
    p.add_argument('--size', type=int, nargs=2, default=SIZE, metavar=('HEIGHT', 'WIDTH'))
    p.add_argument('--without', nargs='*', default=(), help='candidates to leave out, by a part of their name')
    p.add_argument('--int8', action='store_true', help='int8 too; needs NNCF')
    p.add_argument(
        '--no-bf16',
        action='store_true',
        help='what int8 leaves out in float32, as on a processor without bfloat16; with ONEDNN_MAX_CPU_ISA set to '
        'AVX512_CORE_VNNI or AVX2, which OpenVINO takes its instructions from but not what it says it can do',
    )
    args = p.parse_args()
    quiet()
    from ms_segformer.engines import create_engine

    if args.device == 'cpu':
        from ms_segformer.engines import openvino_engine

        if args.no_bf16:
            openvino_engine.fault_in_bfloat16 = lambda _: 'left out for the benchmark'
        openvino_engine.FREQUENT = 1  # one shape only here: the network for that shape from the start, like the peers'
    shape = (1, 3, *args.size)
    image = torch.randn(shape)
    model, peer = our_model(args.variant, args.model), transformers_model(args.variant)
    quantized = int8_model(args.variant, args.model) if args.int8 else None
    makers = {
        'transformers': lambda: peer,
        'transformers, ONNX Runtime': lambda: transformers_onnxruntime(peer, shape),
        'transformers, OpenVINO': lambda: transformers_openvino(peer, shape),
        'transformers, OpenVINO bf16': lambda: transformers_openvino(peer, shape, 'bf16'),
        'transformers, OpenVINO, any shape': lambda: transformers_openvino(peer, shape, any_shape=True),
        'transformers, OpenVINO bf16, any shape': lambda: transformers_openvino(peer, shape, 'bf16', True),
        'ours, torch': lambda: create_engine(model, 'torch'),
        'ours, torch bf16': lambda: create_engine(model, 'torch', 'bf16'),
        'ours, ONNX Runtime': lambda: create_engine(model, 'onnxruntime'),
        'ours, OpenVINO': lambda: create_engine(model, 'openvino'),
        'ours, OpenVINO bf16': lambda: create_engine(model, 'openvino', 'bf16'),
    }
    if args.device != 'cpu':
        makers = on_gpu(model, peer, args.device)
    if args.int8:
        calibration = [torch.randn(shape).numpy() for _ in range(6)]
        makers |= {
            'transformers, OpenVINO int8': lambda: transformers_int8(
                peer, shape, 'f32' if args.no_bf16 else 'bf16', calibration
            ),
            'ours, OpenVINO int8': lambda: create_engine(quantized, 'openvino', 'int8'),
        }
    made = {name: make() for name, make in makers.items() if not any(part in name for part in args.without)}
    with torch.inference_mode():
        seconds = interleave({name: partial(run, image) for name, run in made.items()}, args)
    rows = timing_table(seconds, 'transformers' if 'transformers' in seconds else None)
    pairs = [('ours, torch', 'transformers')] + [
        (f'ours, OpenVINO{p}', f'transformers, OpenVINO{p}{s}') for p in ('', ' bf16') for s in ('', ', any shape')
    ]
    pairs += [('ours, OpenVINO int8', f'ours, OpenVINO{p}') for p in ('', ' bf16')]
    pairs += [('ours, OpenVINO int8', 'transformers, OpenVINO int8')]
    pairs += [(f'ours{p}', f'transformers{p}{c}') for p in ('', ' bf16', ' fp16') for c in ('', ', compiled')]
    bounds = [(a, b) for a, b in pairs if {a, b} <= set(seconds)]
    notes = (
        'Median of the ratios within a round: '
        + '; '.join(f'{a} / {b} {ratio(seconds, a, b):.2f}' for a, b in bounds)
        + '.'
    )
    title = 'Forward with int8' if args.int8 else 'Forward'
    if args.no_bf16:
        title += f', the rest in float32, instructions up to {os.environ.get("ONEDNN_MAX_CPU_ISA", "all")}'
    report(f'{title}, {args.variant.upper()}, {args.size[0]}×{args.size[1]}, one image', rows, args, 'forward', notes)


def on_gpu(model, peer, device):
    """The candidates that run on a GPU, from an image in the CPU's memory to logits in the GPU's."""
    from ms_segformer.engines import create_engine
    from ms_segformer.engines.torch_engine import TYPES

    makers = {}
    for precision, dtype in TYPES.items():
        suffix = '' if precision == 'float32' else f' {precision}'
        makers |= {
            f'transformers{suffix}': partial(transformers_on, peer, device, dtype),
            f'transformers{suffix}, compiled': partial(transformers_on, peer, device, dtype, True),
            f'ours{suffix}': partial(create_engine, model, 'torch', precision, device),
            f'ours{suffix}, compiled': partial(create_engine, model, 'torch-compile', precision, device),
        }
    return makers


if __name__ == '__main__':
    main()
