"""(g) What importing costs, and how soon a fresh process has its first result.

python -m benchmarks.startup --model DIR --image photo.jpg
"""

import statistics
import tempfile

from .measure import fresh, parser, quiet, report
from .subjects import photograph, random_model_dir

IMPORT = 'import time; start = time.perf_counter(); {code}; print(time.perf_counter() - start)'
FIRST = """
import time
import ms_segformer
from modelscope.pipelines import pipeline
start = time.perf_counter()
pipeline('image-segmentation', {model!r}, device='cpu', engine={engine!r})({path!r})
print(time.perf_counter() - start)
"""


def main():
    args = parser(__doc__.splitlines()[0], rounds=7).parse_args()
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        model, path = args.model or random_model_dir('b0', folder), photograph(args.image, folder=folder)
        cases = {
            'import modelscope.pipelines': IMPORT.format(code='import modelscope.pipelines'),
            'the same and ms_segformer': IMPORT.format(code='import ms_segformer, modelscope.pipelines'),
            'import ms_segformer, ModelScope imported': 'import modelscope.pipelines\n'
            + IMPORT.format(code='import ms_segformer'),
            'first result after the imports, torch': FIRST.format(model=model, path=path, engine='torch'),
            'first result after the imports, OpenVINO, cache warm': FIRST.format(
                model=model, path=path, engine='openvino'
            ),
        }
        seconds = {name: [] for name in cases}
        for step in range(args.rounds + 1):
            for name, code in cases.items():
                value = float(fresh(code))
                if step:
                    seconds[name].append(value)
    rows = [['what', 'median s', 'least–most']]
    rows += [[name, f'{statistics.median(v):.3f}', f'{min(v):.3f}–{max(v):.3f}'] for name, v in seconds.items()]
    report('Start', rows, args, 'startup')


if __name__ == '__main__':
    main()
