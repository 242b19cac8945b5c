"""The data sets and loaders of a run, and the order of its samples.

The order of the training samples follows from the seed and the epoch, and may begin anywhere in an epoch.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..config.jsonplus import plain
from ..datasets.errors import DatasetError
from ..datasets.loader import Loader, MapStyle
from ..datasets.seg_dataset import SegDataset, raise_construction_error
from .errors import TrainingError


class EpochSampler(Sampler):
    """Shuffled indices of a data set, split over the processes of a distributed run.

    Every process gets equally many: the last ones are filled up from the beginning, as training needs equal counts.

    Args:
        size: number of samples.
        seed: with the epoch, decides the order.
        rank, world_size: this process and their number.
        shuffle: False keeps the order of the data set.
    """

    def __init__(self, size: int, seed: int = 0, rank: int = 0, world_size: int = 1, shuffle: bool = True) -> None:
        self.size, self.seed, self.rank, self.world_size, self.shuffle = size, seed, rank, world_size, shuffle
        self.epoch, self.start = 0, 0

    def set_position(self, epoch: int, start: int = 0) -> None:
        """The next iteration yields epoch `epoch` (from 0), without the first `start` samples of this process."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        """Samples of a whole epoch in this process."""
        return math.ceil(self.size / self.world_size)

    def __iter__(self) -> Iterator[int]:
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.size, generator=generator).tolist()
        else:
            order = list(range(self.size))
        total = len(self) * self.world_size
        order = (order * math.ceil(total / max(len(order), 1)))[:total]
        return iter(order[self.rank : total : self.world_size][self.start :])


class ShareSampler(Sampler):
    """Each process's disjoint share of a data set in order: nothing twice, nothing missing; shares may differ by one.

    Args:
        size: number of samples.
        rank, world_size: this process and their number.
    """

    def __init__(self, size: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(rank, size, world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)


def training_loader(
    dataset: MapStyle,
    section: Mapping[str, Any] | None,
    sampler: Sampler | None,
    collate: Callable[[list], Any],
    seed: int,
    rank: int,
    world_size: int,
    pin: bool,
) -> DataLoader:
    """The loader of the training data; its order follows from the seed and the epoch alone.

    Args:
        dataset: any with a length.
        section: `train.dataloader`.
        sampler: what decides the order in place of `EpochSampler`.
        collate: joins samples into a batch.
        seed: of the run.
        rank, world_size: this process and their number.
        pin: keep batches in pinned memory unless the section says otherwise.
    """
    options = _loader_options(section, pin)
    if options['num_workers']:
        options.setdefault('persistent_workers', True)
    shuffle = options.pop('shuffle', True)
    if sampler is None:
        sampler = EpochSampler(len(dataset), seed, rank, world_size, shuffle)
    # Its own generator: the global one must not depend on how often a loader was started.
    return Loader(
        dataset, sampler=sampler, collate_fn=collate, generator=torch.Generator().manual_seed(seed), **options
    )


def evaluation_loader(
    dataset: MapStyle,
    section: Mapping[str, Any] | None,
    sampler: Sampler | None,
    collate: Callable[[list], Any],
    seed: int,
    rank: int,
    world_size: int,
    pin: bool,
) -> DataLoader:
    """The loader of a process's share of the evaluation data; arguments as for `training_loader`."""
    options = _loader_options(section, pin)
    for key in ('shuffle', 'persistent_workers'):
        options.pop(key, None)
    return Loader(
        dataset,
        sampler=sampler or ShareSampler(len(dataset), rank, world_size),
        collate_fn=collate,
        generator=torch.Generator().manual_seed(seed),
        **options,
    )


def _loader_options(section: Mapping[str, Any] | None, pin: bool) -> dict[str, Any]:
    """The arguments of torch's loader for a section of a configuration."""
    options = {key: value for key, value in plain(section or {}, 'configuration').items() if value is not None}
    batch, workers = options.pop('batch_size_per_gpu', 1), options.pop('workers_per_gpu', 0)
    if not isinstance(batch, int) or batch < 1:
        raise TrainingError(f'batch_size_per_gpu is {batch!r}; expected an integer of at least 1')
    return {'batch_size': batch, 'num_workers': workers, 'pin_memory': pin, **options}


def build_dataset(given: Any, cfg: Any, split: str, mode: str) -> Dataset | None:
    """Return the data set of a split, ready to be sampled; None where nothing describes one.

    Args:
        given: None for what the configuration describes, an `MsDataset`, a table of pairs, or a torch data set.
        cfg: ModelScope's configuration.
        split: `train` or `val`, of the configuration's `dataset` section.
        mode: ModelScope's `ModeKeys`.

    Raises:
        DatasetError: the data cannot be used.
    """
    from modelscope.msdatasets.ms_dataset import MsDataset  # imported late: evaluating without a trainer needs it not

    section = plain(cfg.safe_get(f'dataset.{split}') or {}, 'configuration')
    if isinstance(given, MsDataset):
        if not given.is_custom:
            given.to_custom_dataset(custom_cfg=cfg, preprocessor=None, mode=mode)
        given = given.ds_instance
    if given is None:
        return SegDataset(**_arguments(section, split, mode)) if section else None
    raise_construction_error(given)
    if isinstance(given, SegDataset) or isinstance(given, Dataset) and not _is_table(given):
        return given
    return SegDataset(datasets=given, **_arguments(section, split, mode))


def _is_table(given: Any) -> bool:
    """Whether a data set is one of Hugging Face's, whose rows are pairs."""
    return type(given).__module__.split('.')[0] == 'datasets'


def _arguments(section: dict[str, Any], split: str, mode: str) -> dict[str, Any]:
    if not section.get('pipeline'):
        raise DatasetError(f'dataset.{split} has no pipeline: a list of transforms, as in the published configurations')
    arguments = {key: value for key, value in section.items() if key not in ('type', 'mode', 'preprocessor')}
    if isinstance(arguments.get('data_source'), dict) and list(arguments['data_source']) == ['classes']:
        arguments['data_source'] = {'classes': arguments['data_source']['classes']}
    return {**arguments, 'mode': mode}
