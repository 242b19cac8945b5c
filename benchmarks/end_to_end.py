"""(b) From a JPEG file to masks, labels and scores, and where our time goes.

python -m benchmarks.end_to_end --model DIR --image photo.jpg
"""

import tempfile
from functools import partial

from .measure import interleave, parser, quiet, ratio, report, timing_table
from .subjects import int8_model, our_pipeline, photograph, random_model_dir, transformers_pipeline


def main():
    p = parser(__doc__.splitlines()[0], rounds=30)
    p.add_argument('--without-peer', action='store_true', help='time our own parts only')
    p.add_argument('--precision', default='float32', help='float32, bf16, fp16 or int8 (default: %(default)s)')
    p.add_argument('--compiled', action='store_true', help='the peer by torch.compile too')
    args = p.parse_args()
    quiet()
    if args.device == 'cpu':
        from ms_segformer.engines import openvino_engine

        openvino_engine.FREQUENT = 1  # as every user has it after two dozen photographs of a shape
    with tempfile.TemporaryDirectory() as folder:
        path = photograph(args.image, folder=folder)
        model = args.model or random_model_dir('b0', folder)
        if args.precision == 'int8':
            model = int8_model(model_dir=model, folder=folder).model_dir
        ours = our_pipeline(model, args.device, precision=args.precision)
        ours(path)
        prepared = ours.preprocessor(path)
        engine = ours.prepare_model()
        logits = engine(prepared['img'])
        parts = {
            'our preprocessing': lambda: ours.preprocessor(path),
            'our network': lambda: engine(prepared['img']),
            'our postprocessing': lambda: ours.postprocess({**prepared, 'logits': logits}),
        }
        candidates = {}
        if not args.without_peer:
            candidates['transformers'] = partial(transformers_pipeline(prepared['img_shape'], args.device), path)
            if args.compiled:
                peer = transformers_pipeline(prepared['img_shape'], args.device, compiled=True)
                candidates['transformers, compiled'] = partial(peer, path)
        seconds = interleave({**candidates, 'ours': lambda: ours(path), **parts}, args)
        found = len(ours(path)['labels'])
    rows = timing_table(seconds, None if args.without_peer else 'transformers')
    share = ratio(
        {
            'sum': [a + b for a, b in zip(seconds['our preprocessing'], seconds['our postprocessing'], strict=True)],
            'all': seconds['ours'],
        },
        'sum',
        'all',
    )
    notes = (
        f'{"A trained model" if args.model else "Random weights"}, engine {engine.name}, {engine.precision}, {found} '
        f'segments; both networks see {prepared["img_shape"][0]}×{prepared["img_shape"][1]} pixels. Before and after '
        f'the network: {share:.2f} of the whole; postprocessing / network '
        f'{ratio(seconds, "our postprocessing", "our network"):.2f}.'
    )
    report(
        f'End to end, B0, 640×480 JPEG, {"trained" if args.model else "random weights"}'
        + ('' if args.precision == 'float32' else f', {args.precision}'),
        rows,
        args,
        'end_to_end',
        notes,
    )


if __name__ == '__main__':
    main()
