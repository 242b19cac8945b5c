"""`SegDataset`: pairs of image and label map through a pipeline of transforms, as the published configurations ask.

    dataset = SegDataset(data_source={'type': 'SegSourceRaw', …}, pipeline=[{'type': 'MMResize', …}, …], mode='train')
    dataset.set_seed(0)
    dataset.set_epoch(3)                       # before each iter(loader)
    loader = DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=collate)

The random draws of a sample follow from (seed, epoch, index) alone, so they do not depend on the number of workers or
on what ran before, and a resumed run sees what an unbroken one sees.
"""

import logging
from collections.abc import Sequence
from typing import Any, cast

import cv2
import numpy as np
import torch
from modelscope.msdatasets.dataset_cls.custom_datasets import TorchCustomDataset
from modelscope.msdatasets.dataset_cls.custom_datasets.builder import CUSTOM_DATASETS

from .. import metainfo
from ..config.jsonplus import decode_jsonplus
from ..integrations.easycv import bridge
from ..metainfo import IGNORE_INDEX
from .data_root import locate_source
from .errors import DatasetError
from .sample import Batch, Formatted
from .sources import SegSourcePairs, Source, build_source
from .transforms import Compose, sample_rng
from .transforms.registry import Fallback

logger = logging.getLogger(__name__)


@CUSTOM_DATASETS.register_module(metainfo.TASK, metainfo.DATASET, force=True)
class SegDataset(TorchCustomDataset):
    """Images and label maps for semantic segmentation.

    Args:
        data_source: section of the configuration (`{'type': 'SegSourceRaw', …}`), or a source object.
        pipeline: list of transforms, see `ms_segformer.datasets.transforms`.
        ignore_index: value in the label files for "not labeled" besides 255; samples carry 255 in its place.
        mode: `train`, `eval` or `inference`; kept for ModelScope, the pipeline decides what a sample holds.
        split_config: `{'train': folder}` or `{'validation': folder}` as ModelScope's downloaded data sets give it; the
            folder replaces `${data_root}` in `data_source`, and a relative path that does not exist is found below it.
        datasets: table of pairs (`datasets.Dataset`, `MsDataset` over one, list) to read instead of `data_source`,
            whose classes, palette, `reduce_zero_label`, `raw_ids`, `to_float32` and column names still count.
        seed: first of the three numbers that a sample's random draws follow from.
        fallback: callable from a transform's name to its class, for names unknown here; None: EasyCV's transforms,
            where it is installed.
        preprocessor, trainer, profiling, extra: passed by ModelScope; not used.

    Attributes:
        source: where the pairs come from, see `datasets.sources.Source`.
        ignore_index: 255, which samples carry where nothing is labeled.

    Raises:
        DatasetError: whatever is wrong with the section or the files. Built through ModelScope's registry, whose
            trainer prints an exception and goes on without the data set, the error comes at the first use instead.
    """

    def __init__(
        self,
        data_source: dict[str, Any] | Source | None = None,
        pipeline: Sequence = (),
        ignore_index: int = IGNORE_INDEX,
        mode: str | None = None,
        split_config: dict[str, str] | None = None,
        datasets: Any = None,
        seed: int = 0,
        fallback: Fallback | None = None,
        preprocessor: Any = None,
        trainer: Any = None,
        profiling: bool = False,
        **extra: Any,
    ) -> None:
        if extra:
            logger.warning('SegDataset ignores %s', ', '.join(sorted(extra)))
        self.trainer = trainer
        self.mode = mode
        self.preprocessor = None
        self.ignore_index = IGNORE_INDEX
        self.source = _source(data_source, split_config, datasets, ignore_index)
        self.pipeline = Compose(decode_jsonplus(pipeline), fallback or bridge.transform)
        self._position = torch.tensor([int(seed), 0])
        self._position.share_memory_()  # workers that outlive an epoch see the next one's number
        self._threads_set = False

    @classmethod
    def _instantiate(cls, **arguments: Any) -> 'SegDataset | UnusableSegDataset':
        """Build for ModelScope's registry: an error becomes a data set that raises it at the first use."""
        try:
            return cls(**arguments)
        except DatasetError as error:
            logger.error('%s', error)
            return UnusableSegDataset(error)

    def __len__(self) -> int:
        return len(self.source)

    def require_labels(self) -> None:
        """Raise `DatasetError` where samples have no label maps: they can neither be trained on nor evaluated."""
        if not getattr(self.source, 'has_labels', True):
            raise DatasetError(self.source.without_labels())

    @property
    def CLASSES(self) -> list[str]:
        """Names of the classes, by id."""
        return self.source.CLASSES

    @property
    def PALETTE(self) -> list[list[int]]:
        """[red, green, blue] of the classes, by id."""
        return self.source.PALETTE

    @property
    def num_classes(self) -> int:
        """Number of class names (the network may have one output more)."""
        return len(self.source.CLASSES)

    @property
    def seed(self) -> int:
        """The number set by `set_seed`."""
        return int(self._position[0])

    @property
    def epoch(self) -> int:
        """The number set by `set_epoch`."""
        return int(self._position[1])

    def set_seed(self, seed: int) -> None:
        """Set the seed (≥ 0) that every sample's random draws follow from, in running workers too."""
        self._position[0] = int(seed)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch (≥ 0) that every sample's random draws follow from, in running workers too."""
        self._position[1] = int(epoch)

    def sample_name(self, index: int) -> str:
        """Return the image's name relative to its folder."""
        return self.source.name(index)

    def load_label(self, index: int) -> np.ndarray:
        """Return the ground truth of a sample: H×W uint8 at the image's size, class ids and 255."""
        return self.source.load_label(index)

    get_gt = load_label

    def __getitem__(self, index: int) -> Formatted:
        """Return a sample as the pipeline ends it; with a test pipeline (`MMMultiScaleFlipAug`), `label` (when the
        source has labels) and `index` are added.

        Raises:
            DatasetError: a file of the pair cannot be used.
        """
        index = range(len(self))[index]
        self._limit_worker_threads()
        sample = self.source.load(index)
        sample['rng'] = sample_rng(self.seed, self.epoch, index)
        label = sample.get('gt_semantic_seg')
        data: Formatted | None = self.pipeline(sample)
        if data is None:
            raise DatasetError(f'the pipeline dropped {self.sample_name(index)}: a transform returned None')
        if 'gt_semantic_seg' not in data:
            data['index'] = index
            if label is not None:
                data['label'] = torch.from_numpy(label)
        return data

    def _limit_worker_threads(self) -> None:
        """In a loader's worker process, keep OpenCV from starting threads: the workers are the parallelism."""
        if not self._threads_set and torch.utils.data.get_worker_info() is not None:
            cv2.setNumThreads(0)  # 1 would hang in a forked process, where OpenCV waits for its pool to end
            self._threads_set = True

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, 'trainer': None, '_threads_set': False}


class UnusableSegDataset(TorchCustomDataset):
    """Stands for a data set that could not be built, and raises the reason whenever it is used.

    Args:
        error: the `DatasetError`.
    """

    def __init__(self, error: DatasetError) -> None:
        self.error = error
        self.trainer = None

    def __len__(self) -> int:
        raise self.error

    def __getitem__(self, index: int) -> Formatted:
        raise self.error

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or name == 'error':
            raise AttributeError(name)
        raise self.error


def raise_construction_error(dataset: Any) -> None:
    """Raise the `DatasetError` of a data set that ModelScope's registry could not build; do nothing otherwise."""
    if isinstance(dataset, UnusableSegDataset):
        raise dataset.error


_TABLE_KEYS = ('palette', 'reduce_zero_label', 'raw_ids', 'to_float32', 'image_column', 'label_column')


def _source(data_source: Any, split_config: dict[str, str] | None, datasets: Any, ignore_index: int) -> Source:
    if data_source is None and datasets is None:
        raise DatasetError(
            'SegDataset needs data_source (a section such as {"type": "SegSourceRaw", …}) '
            'or datasets (a table of pairs)'
        )
    if datasets is not None:
        section = data_source or {}
        kept = {key: section[key] for key in _TABLE_KEYS if key in section}
        return SegSourcePairs(datasets, section.get('classes'), ignore_index=ignore_index, **kept)
    if isinstance(data_source, dict):
        data_source = {'ignore_index': ignore_index, **locate_source(decode_jsonplus(data_source), split_config)}
    if hasattr(data_source, 'load') and hasattr(data_source, '__len__'):  # a source already, maybe the user's own
        return data_source
    return build_source(data_source)


def collate(samples: Sequence[Formatted]) -> Batch:
    """Join samples of a `SegDataset` into a batch, for a `DataLoader`.

    Raises:
        DatasetError: training samples differ in size.
    """
    mappings = [cast(dict[str, Any], sample) for sample in samples]  # a pipeline may keep keys of its own
    return cast(Batch, {key: _join(key, [sample[key] for sample in mappings]) for key in mappings[0]})


def _join(key: str, values: list) -> Any:
    if isinstance(values[0], list):  # versions of the test pipeline
        return [_join_version(list(version)) for version in zip(*values, strict=True)]
    if key in ('label', 'index') or not isinstance(values[0], torch.Tensor):
        return values
    shapes = [tuple(value.shape) for value in values]
    if len(set(shapes)) > 1:
        raise DatasetError(
            f'the samples of a batch differ in size ({key}: {shapes}); '
            'end the pipeline with SegRandomCrop and MMPad of one size'
        )
    return torch.stack(values)


def _join_version(values: list) -> list | torch.Tensor:
    if not isinstance(values[0], torch.Tensor):
        return values
    if len({value.shape for value in values}) > 1:
        return [value[None] for value in values]
    return torch.stack(values)
