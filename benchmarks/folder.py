"""(f) A folder of 50 photographs of mixed sizes.

python -m benchmarks.folder --model DIR --image photo.jpg
"""

import tempfile
from pathlib import Path

from .measure import interleave, parser, quiet, report, timing_table
from .subjects import our_pipeline, photograph, random_model_dir, transformers_pipeline

SHAPES = [(640, 480), (640, 427), (480, 640), (500, 375), (1280, 853)]


def main():
    p = parser(__doc__.splitlines()[0], rounds=3)
    p.add_argument('--photographs', type=int, default=50)
    p.add_argument('--without-peer', action='store_true')
    args = p.parse_args()
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        made = {shape: Path(photograph(args.image, *shape, folder)).read_bytes() for shape in SHAPES}
        paths = []
        for i in range(args.photographs):
            paths.append(str(Path(folder, f'{i}.jpg')))
            Path(paths[-1]).write_bytes(made[SHAPES[i % len(SHAPES)]])
        ours = our_pipeline(args.model or random_model_dir('b0', folder))
        candidates = {'ours, a list': lambda: ours(paths), 'ours, one by one': lambda: [ours(path) for path in paths]}
        if not args.without_peer:
            peer = transformers_pipeline((512, 683))
            candidates = {'transformers, a list': lambda: peer(paths), **candidates}
        seconds = interleave(candidates, args)
    rows = timing_table(seconds, None if args.without_peer else 'transformers, a list')
    report(f'{args.photographs} photographs of five shapes', rows, args, 'folder', 'Milliseconds for all of them.')


if __name__ == '__main__':
    main()
