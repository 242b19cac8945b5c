"""The part of `ms-segformer eval` that runs on Ray: actors count, this process adds up."""

import os
import sys
import time
from argparse import Namespace
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError, SegformerError, some_of
from ..progress import screen
from .ray_cluster import check_ray_arguments, cluster

if TYPE_CHECKING:
    import pyarrow

    from ..config.settings import InferenceSettings
    from ..trainers.evaluation import Evaluation, LabeledImages

IMAGES_A_TASK = 8  # at least; what an actor's death costs


def check_ray(args: Namespace) -> None:
    """Refuse what makes no sense with `--ray`.

    Raises:
        ArgumentError: of the options.
        RayError: Ray is not installed.
    """
    check_ray_arguments(args)
    if args.ray and args.workers:
        raise ArgumentError('--workers does not go with --ray: its actors load images themselves')


def evaluate_with_ray(args: Namespace, dataset: 'LabeledImages', test: 'InferenceSettings') -> 'Evaluation':
    """Evaluate a model on a data set with the actors of a cluster.

    The counts are integers, and each image's are added once, so the sum is that of one process, to the last pixel.

    Args:
        args: the command line's.
        dataset: goes to the actors, which have to reach its files.
        test: as for `trainers.evaluation.Evaluator`.

    Raises:
        RayError: of the cluster; an image is not counted.
        DatasetError: the data set is empty, or an image of it cannot be used.
    """
    import numpy as np
    from tqdm import tqdm

    from ..datasets.errors import DatasetError
    from ..metrics import ConfusionMatrix
    from ..pipelines.ray import RayError, in_actors
    from ..trainers.evaluation import Evaluation

    images = len(dataset)
    if not images:
        raise DatasetError('there is no image to evaluate on')
    started = time.monotonic()
    confusion = ConfusionMatrix(dataset.num_classes, dataset.ignore_index)
    counted = np.zeros(images, bool)
    size = max(IMAGES_A_TASK, args.batch_size)
    shares = [list(range(start, min(start + size, images))) for start in range(0, images, size)]
    with cluster(args) as actors:
        arguments = {
            'model': os.path.abspath(args.model) if os.path.isdir(args.model) else args.model,
            'dataset': dataset,
            'test': test,
            'device': actors.device,
            'engine': args.engine,
            'precision': args.precision,
            'batch_size': args.batch_size,
            'threads': max(1, int(actors.num_cpus)),
            'directory': os.getcwd(),
        }
        rows = in_actors(
            Counter,
            [{'indices': share} for share in shares],
            arguments,
            num_cpus=actors.num_cpus,
            num_gpus=actors.num_gpus,
            concurrency=actors.concurrency,
        )
        bar = tqdm(total=images, unit='image', desc='evaluating', disable=not sys.stderr.isatty(), **screen())
        with bar:
            for row in rows:
                if row['problem'] is not None:
                    raise DatasetError(row['problem'])
                if counted[row['indices']].any():
                    raise RayError(f'images {row["indices"]} came twice')
                counted[row['indices']] = True
                confusion.counts += np.frombuffer(row['counts'], np.int64).reshape(confusion.counts.shape)
                bar.update(len(row['indices']))
    left = np.flatnonzero(~counted)
    if len(left):
        raise RayError(f'{len(left)} of {images} images are not counted: {some_of([str(each) for each in left], 8)}')
    return Evaluation(confusion, list(dataset.CLASSES), images, time.monotonic() - started)


class Counter:
    """An actor's model and data set, and what it counts.

    Args:
        model: directory or id.
        dataset: its files have to be there.
        test, batch_size: as for `trainers.evaluation.evaluate`.
        device, engine, precision: of the network.
        threads: of the network on the CPU.
        directory: that relative paths of the data set begin in.
    """

    def __init__(
        self,
        model: str,
        dataset: 'LabeledImages',
        test: 'InferenceSettings',
        device: str,
        engine: str,
        precision: str,
        batch_size: int,
        threads: int,
        directory: str,
    ) -> None:
        import torch

        from ..engines import create_engine
        from ..integrations.modelscope.hub import model_directory
        from ..trainers import distributed
        from ..trainers.evaluation import Evaluator
        from .eval import load

        with suppress(OSError):  # not there: then what is looked for below it is not either, which is said
            os.chdir(directory)
        torch.set_num_threads(threads)
        chosen = distributed.choose_device(device.partition(':')[0])
        network = load(model_directory(model))[0].to(chosen)
        self._evaluator = Evaluator(network, chosen, test, network=create_engine(network, engine, precision, chosen))
        self._dataset, self._batch_size = dataset, batch_size

    def __call__(self, table: 'pyarrow.Table') -> 'pyarrow.Table':
        """Count images, a row of `indices` at a time; returns these and their counts, or what is wrong with one."""
        import pyarrow as pa

        schema = pa.schema([('indices', pa.list_(pa.int64())), ('counts', pa.binary()), ('problem', pa.string())])
        return pa.Table.from_pylist([self._count(row['indices']) for row in table.to_pylist()], schema=schema)

    def _count(self, indices: list[int]) -> dict[str, Any]:
        from ..trainers.evaluation import count

        try:
            counts = count(self._evaluator, self._dataset, indices, self._batch_size)
        except (SegformerError, OSError) as error:  # it would be the same in another actor
            return {'indices': indices, 'problem': str(error)}
        return {'indices': indices, 'counts': counts.tobytes()}
