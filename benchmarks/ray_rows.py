"""How many rows a second the way of `predict --ray` takes, and what the driver needs, with nothing in place of a model.

    python -m benchmarks.ray_rows --images 1000000 --actors 2

Image names are dealt out into parts, actors of a Ray on this machine write a row with an error for each, and the driver
puts the parts into their folder: all of `predict --ray` but for reading images and the network. Then a second run finds
that nothing is left. `--segment` sends as many empty images through `pipelines.ray.segment` instead, with the real
reading and the demonstration model, which has nothing to do.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ms_segformer.pipelines.ray import PartSegmenter, segment, segment_parts, segmentation_schema
from ms_segformer.results.parquet import ParquetFolder, file_system

RECORD = {'model': {'name': 'none', 'sha256': '0' * 64}, 'options': {}}


class Empty(PartSegmenter):
    """Writes parts whose images have no result."""

    def __init__(self, location: str, unfinished: str, **_: Any) -> None:
        self._files, self._path = file_system(location)
        self._unfinished = unfinished

    def rows(self, images: Any) -> Any:
        import pyarrow as pa

        return pa.Table.from_pylist([{'error': 'empty'} for _ in images], schema=segmentation_schema())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=1_000_000)
    parser.add_argument('--actors', type=int, default=2)
    parser.add_argument('--segment', action='store_true', help='through segment(), with a model')
    args = parser.parse_args()
    os.environ['RAY_USAGE_STATS_ENABLED'] = '0'
    import ray
    from ray.data import DataContext

    before = peak()
    ray.init(
        address='local',
        num_cpus=args.actors + 1,
        include_dashboard=False,
        object_store_memory=256 << 20,
        log_to_driver=False,
        logging_level='ERROR',
    )
    DataContext.get_current().enable_progress_bars = False
    print(f'{args.images:,} images, {args.actors} actors, {os.cpu_count()} cores; driver {before} MiB before Ray')
    if args.segment:
        through_segment(args.images, args.actors)
    else:
        through_parts(args.images, args.actors)
    ray.shutdown()


def through_parts(images: int, actors: int) -> None:
    keys = [f'/shared/photographs/{number // 1000:04}/{number:08}.jpg' for number in range(images)]
    print(f'names {peak()} MiB')
    with tempfile.TemporaryDirectory() as place:
        for run in ('first run', 'second run'):
            began = time.monotonic()
            with ParquetFolder(place, RECORD) as folder:
                plan = folder.plan(keys)
                planned = time.monotonic() - began
                done = segment_parts(
                    folder, plan.parts, 'none', {}, num_cpus=1, num_gpus=0, concurrency=actors, segmenter=Empty
                )
                rows = sum(len(outcome.part.keys) for outcome in done)
            seconds = time.monotonic() - began
            print(
                f'{run}: {rows:,} rows in {len(plan.parts):,} files, {seconds:.1f} s, {planned:.1f} s of it the plan, '
                f'{rows / seconds:,.0f} rows/s; driver at most {peak()} MiB'
            )
        sizes = [path.stat().st_size for path in Path(place).glob('*.parquet')]
        print(f'{len(sizes):,} files, {sum(sizes) / 2**20:.1f} MiB')


def through_segment(images: int, actors: int) -> None:
    import ray

    empty = ray.data.range(images).map_batches(with_nothing, batch_format='numpy')
    began, rows, failed = time.monotonic(), 0, 0
    for table in segment(empty, 'demo', concurrency=actors, batch_size=256).iter_batches(batch_format='pyarrow'):
        rows += table.num_rows
        failed += table.num_rows - table.column('error').null_count
    seconds = time.monotonic() - began
    print(
        f'{rows:,} rows, {failed:,} with an error, {seconds:.1f} s, {rows / seconds:,.0f} rows/s; driver at most '
        f'{peak()} MiB'
    )


def with_nothing(batch: dict[str, Any]) -> dict[str, Any]:
    return {**batch, 'bytes': np.array([b''] * len(batch['id']), object)}


def peak() -> int:
    """The most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == '__main__':
    main()
