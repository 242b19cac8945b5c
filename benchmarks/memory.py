"""(d) How far the process's memory rises above the loaded model (Linux).

python -m benchmarks.memory --model DIR --image photo.jpg
"""

import tempfile

from .measure import fresh, parser, quiet, report
from .subjects import photograph, random_model_dir

CODE = """
from benchmarks.subjects import our_pipeline, transformers_pipeline
ours = {ours}
segmenter = our_pipeline({model!r}, engine={engine!r}) if ours else transformers_pipeline(({height}, {width}))
if ours:
    engine = segmenter.prepare_model()
    if {engine!r} == 'openvino':
        engine._request((1, 3, {height}, {width}))  # the compiled network is part of the loaded model
before = peak_start()
result = segmenter({path!r})
print(peak_stop(before))
"""


def main():
    p = parser(__doc__.splitlines()[0])
    p.add_argument('--without-peer', action='store_true')
    args = p.parse_args()
    quiet()
    rows = [['photograph', 'candidate', 'MiB above the loaded model']]
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or random_model_dir('b0', folder)
        for width, height in ((640, 480), (4000, 3000)):
            path = photograph(args.image, width, height, folder)
            network = (512, int(width * 512 / height + 0.5))
            for engine in ('openvino', 'torch', None):
                if engine is None and args.without_peer:
                    continue
                code = CODE.format(
                    ours=engine is not None, model=model, engine=engine, path=path, height=network[0], width=network[1]
                )
                rows.append(
                    [f'{width}×{height}', f'ours, {engine}' if engine else 'transformers', f'{float(fresh(code)):.0f}']
                )
    report('Memory, B0, from file to masks', rows, args, 'memory', 'Peak of the first call in a fresh process.')


if __name__ == '__main__':
    main()
