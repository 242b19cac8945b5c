"""Ray on this machine against one process: images a second of `segment_parts`, and of the pipeline, the same rows.

    python -m benchmarks.ray_local --images 100 --rounds 3

The photographs are cut from `assets/china.jpg` in many shapes, as JPEG files. One process segments the list and makes
the same rows; its threads are the machine's. Of Ray the time begins with the first part that is finished, which leaves
the start out (seconds, given apart), and the images of that part are not counted.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ms_segformer.pipelines.ray import Segmenter, segment_parts
from ms_segformer.results.parquet import ParquetFolder, to_parquet

ROOT = Path(__file__).parents[1]
RECORD = {'model': {'name': 'demo', 'sha256': '0' * 64}, 'options': {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=100)
    parser.add_argument('--actors', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--model', default='demo')
    parser.add_argument('--engine', default='auto')
    args = parser.parse_args()
    os.environ['RAY_USAGE_STATS_ENABLED'] = '0'
    import ray
    from ray.data import DataContext

    threads = torch.get_num_threads()
    opening = {'device': 'cpu', 'engine': args.engine}
    with tempfile.TemporaryDirectory() as place:
        paths = photographs(Path(place), args.images)
        alone = Segmenter(args.model, opening, threads)
        alone.rows(paths[:8])
        ray.init(
            address='local',
            num_cpus=args.actors,
            include_dashboard=False,
            object_store_memory=256 << 20,
            log_to_driver=False,
            logging_level='ERROR',
        )
        DataContext.get_current().enable_progress_bars = False
        one, many, starts = [], [], []
        for number in range(args.rounds):
            began = time.monotonic()
            for first in range(0, len(paths), 8):
                to_parquet(alone.rows(paths[first : first + 8]))
            one.append(len(paths) / (time.monotonic() - began))
            began, first_end, images = time.monotonic(), 0.0, 0
            with ParquetFolder(f'{place}/rows{number}', RECORD) as folder:
                for outcome in segment_parts(
                    folder,
                    folder.plan(paths).parts,
                    args.model,
                    opening,
                    num_cpus=1,
                    num_gpus=0,
                    concurrency=args.actors,
                ):
                    if not first_end:
                        first_end = time.monotonic()
                        continue
                    images += len(outcome.part.keys)
                many.append(images / (time.monotonic() - first_end))
            starts.append(first_end - began)
            print(f'round {number}: one process {one[-1]:.2f}, Ray {many[-1]:.2f} images/s', flush=True)
        ray.shutdown()
    ratio = statistics.median(many[i] / one[i] for i in range(args.rounds))
    print(
        f'{args.images} images, {threads} threads against {args.actors} actors: {statistics.median(one):.2f} and '
        f'{statistics.median(many):.2f} images/s, ratio {ratio:.2f}; first part after {statistics.median(starts):.1f} s'
    )


def photographs(folder: Path, count: int) -> list[str]:
    chance = np.random.default_rng(0)
    photograph = Image.open(ROOT / 'assets' / 'china.jpg').convert('RGB')
    paths = []
    for number in range(count):
        width, height = (int(side) for side in chance.integers(240, 641, 2))
        height = min(height, photograph.height)
        left, top = (
            int(chance.integers(photograph.width - width + 1)),
            int(chance.integers(photograph.height - height + 1)),
        )
        path = folder / f'{number:04}.jpg'
        photograph.crop((left, top, left + width, top + height)).save(path, quality=92)
        paths.append(str(path))
    return paths


if __name__ == '__main__':
    main()
