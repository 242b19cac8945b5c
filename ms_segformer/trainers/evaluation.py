"""From a network and a data set's samples to label maps at the images' own size, for evaluation.

An image may go through the network whole or in overlapping windows (`slide`), at several scales, and mirrored; the
class probabilities of all versions are averaged, as the original's test-time augmentation does.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
import torch
from tqdm import tqdm

from ..config.settings import InferenceSettings
from ..datasets.errors import DatasetError
from ..datasets.loader import Loader, MapStyle
from ..datasets.sample import Batch, ImageMeta
from ..datasets.seg_dataset import collate
from ..errors import ArgumentError
from ..metrics import ConfusionMatrix
from ..postprocess.augmentation import Mirrored, Whole, Windows, label_versions
from ..postprocess.segmentation import segment
from ..postprocess.sliding_window import Mosaic, slide_segment
from ..preprocessors.shapes import ImageShapes
from ..processes import Died, ProcessError, work_in_processes
from ..progress import screen
from . import distributed
from .data_loading import ShareSampler

Network = Callable[[torch.Tensor], torch.Tensor]  # images to logits


class Evaluator:
    """Turns a batch of a test pipeline into label maps.

    Args:
        model: a `Segformer` (or any module with `logits` and `settings`); put into evaluation mode.
        device: where it runs.
        test: `config.settings.InferenceSettings`; None takes the model's.
        dtype: torch.bfloat16 or torch.float16 to run the network in, or None for float32.
        network: callable from images to logits in place of the model's own, such as one of `engines`.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        device: torch.device | str = 'cpu',
        test: InferenceSettings | None = None,
        dtype: torch.dtype | None = None,
        network: Network | None = None,
    ) -> None:
        self.model, self.device = model, torch.device(device)
        self.test = test or getattr(getattr(model, 'settings', None), 'test', None) or InferenceSettings()
        self.align_corners = getattr(getattr(model, 'decode_head', None), 'align_corners', False)
        self.dtype = dtype
        self.name = getattr(model, 'model_dir', None)
        # The folded head works in place, which autocast does not follow.
        prepare = getattr(model, 'prepare_inference', None) if dtype is None else None
        (prepare or model.eval)()
        self.network = network or cast(Network, model.logits)

    @torch.no_grad()
    def predict(self, batch: Batch) -> list[torch.Tensor]:
        """Predict the label maps of a batch.

        Args:
            batch: as `datasets.seg_dataset.collate` makes it: `img` and `img_metas` are lists over the versions.

        Returns:
            List of N label maps H×W uint8 on the CPU at the images' own sizes.

        Raises:
            postprocess.LogitsError: the network's logits hold NaN or infinity, as after a step that diverged.
            DatasetError: the samples are no tensors.
        """
        if not all(isinstance(image, torch.Tensor) for images in batch['img'] for image in images):
            raise DatasetError(
                'the evaluation samples have no tensor img; the transforms of dataset.val.pipeline end '
                'with ImageToTensor and Collect, whose keys are ["img"]'
            )
        versions = [list(images) for images in batch['img']]
        if self.test.mode == 'whole':
            versions = [self._logits(images) for images in batch['img']]
        label_map = self._label_windows if self.test.mode == 'slide' else self._label_whole
        return [
            torch.from_numpy(label_map(list(one), list(metas)))
            for one, metas in zip(zip(*versions, strict=True), zip(*batch['img_metas'], strict=True), strict=True)
        ]

    def _logits(self, images: torch.Tensor | list[torch.Tensor]) -> list[torch.Tensor]:
        """The C×H/4×W/4 float32 logits of N images of a version."""
        if isinstance(images, torch.Tensor):
            return list(self._run(images))
        return [self._run(image)[0] for image in images]

    def _run(self, images: torch.Tensor) -> torch.Tensor:
        with nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype):
            return self.network(images.to(self.device)).float()

    def _label_whole(self, versions: list[torch.Tensor], metas: list[ImageMeta]) -> np.ndarray:
        """From an image's logits, one C×h×w of each version."""
        shapes = [ImageShapes.of(meta) for meta in metas]
        if len(versions) == 1:
            return segment(versions[0], shapes[0], 0, self.align_corners, self.name).seg_map
        return label_versions(
            [
                Mirrored(Whole(logits, sizes, self.align_corners, self.name), _mirrored_axis(meta))
                for logits, sizes, meta in zip(versions, shapes, metas, strict=True)
            ],
            shapes[0].original,
        )

    def _label_windows(self, versions: list[torch.Tensor], metas: list[ImageMeta]) -> np.ndarray:
        """From the network's inputs for an image, one 3×H×W or 1×3×H×W of each version."""
        parts = [_Parts(image.reshape(1, *image.shape[-3:])) for image in versions]
        shapes = [replace(ImageShapes.of(meta), padded=part.size) for part, meta in zip(parts, metas, strict=True)]
        crop, stride = self.test.crop_size, self.test.stride
        assert crop is not None and stride is not None  # which the reader of the configuration looks at
        if len(versions) == 1:
            return slide_segment(self._run, parts[0], shapes[0], crop, stride, 0, self.align_corners, self.name).seg_map
        mosaics = [Mosaic(part.size, crop, stride, self.align_corners, self.name) for part in parts]
        for mosaic, part in zip(mosaics, parts, strict=True):
            deque(mosaic.fill(self._run, part), maxlen=0)
        return label_versions(
            [
                Mirrored(Windows(mosaic, sizes), _mirrored_axis(meta))
                for mosaic, sizes, meta in zip(mosaics, shapes, metas, strict=True)
            ],
            shapes[0].original,
        )


class _Parts:
    """Reads windows from a 1×3×H×W tensor."""

    def __init__(self, image: torch.Tensor) -> None:
        self.image, self.size = image, (image.shape[2], image.shape[3])

    def __call__(self, top: int, bottom: int, left: int, right: int) -> torch.Tensor:
        return self.image[:, :, top:bottom, left:right].contiguous()


def _mirrored_axis(meta: ImageMeta) -> int | None:
    if not meta.get('flip'):
        return None
    return 1 if meta.get('flip_direction', 'horizontal') == 'horizontal' else 0


class LabeledImages(MapStyle, Protocol):
    """A data set whose samples can be evaluated, such as a `SegDataset`."""

    @property
    def CLASSES(self) -> Sequence[str]: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def ignore_index(self) -> int: ...

    def sample_name(self, index: int) -> str: ...


@dataclass
class Evaluation:
    """What `evaluate` found.

    Attributes:
        confusion: `metrics.ConfusionMatrix` over all images.
        classes: names by id.
        images: number of images.
        seconds: time it took, data loading included.
    """

    confusion: ConfusionMatrix
    classes: list[str]
    images: int
    seconds: float

    def values(self) -> dict[str, float]:
        """Return the report of the original's evaluator: `mIoU`, `mAcc`, `aAcc`, `IoU.<class>`, …, in [0, 1]."""
        from ..metrics.segmentation import SegmentationEvaluator  # imported late: brings ModelScope's metrics

        return SegmentationEvaluator(self.classes).evaluate(self.confusion)


def inference_pipeline(
    transforms: Sequence[Mapping[str, Any]], scales: Sequence[float] = (1.0,), flip: bool = False
) -> list[dict[str, Any]]:
    """Return a test pipeline with scales and mirrored versions added.

    Args:
        transforms: `config.Settings.test_pipeline`.
        scales: factors of the size that it tests at.
        flip: also look at the mirrored image.

    Raises:
        ArgumentError: the pipeline is not of the `MMMultiScaleFlipAug` kind.
    """
    pipeline = [deepcopy(dict(step)) for step in transforms]
    augment = next((step for step in pipeline if step.get('type') == 'MMMultiScaleFlipAug'), None)
    if augment is None or augment.get('img_scale') is None:
        raise ArgumentError(
            'scales and flip need a test pipeline with MMMultiScaleFlipAug and img_scale; this one has '
            f'{[step.get("type") for step in pipeline]}'
        )
    size = augment['img_scale']
    size = size[0] if isinstance(size[0], (list, tuple)) else size
    if list(scales) != [1.0]:
        augment['img_scale'] = [tuple(int(side * factor + 0.5) for side in size) for factor in scales]
    augment['flip'] = bool(flip)
    return pipeline


def predictions(
    evaluator: Evaluator, dataset: MapStyle, indices: Iterable[int], batch_size: int = 1, workers: int = 0
) -> Iterator[tuple[int, torch.Tensor, np.ndarray]]:
    """Predict label maps of some samples of a data set, in order.

    Args:
        evaluator: `Evaluator`.
        dataset: a `SegDataset` with a test pipeline and labels.
        indices: which samples, from 0.
        batch_size, workers: of the loader.

    Yields:
        (index, prediction, label) of each sample; both are H×W uint8 at the image's own size.

    Raises:
        DatasetError: a pair cannot be used, whichever process noticed.
    """
    for batch in Loader(dataset, batch_size=batch_size, sampler=indices, num_workers=workers, collate_fn=collate):
        yield from zip(batch['index'], evaluator.predict(batch), batch['label'], strict=True)


def evaluate(
    model: torch.nn.Module,
    dataset: LabeledImages,
    device: torch.device | str = 'cpu',
    test: InferenceSettings | None = None,
    dtype: torch.dtype | None = None,
    network: Network | None = None,
    batch_size: int = 1,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    progress: bool = False,
) -> Evaluation:
    """Evaluate a model on a data set; under `torch.distributed` every process takes its share.

    Args:
        model, device, test, dtype, network: as for `Evaluator`.
        dataset: a `SegDataset` with a test pipeline and labels.
        batch_size, workers: of the loader.
        rank, world_size: this process and their number.
        progress: show a progress bar.

    Returns:
        `Evaluation`, the same in every process.

    Raises:
        DatasetError: the data set is empty.
    """
    if len(dataset) == 0:
        raise DatasetError('there is no image to evaluate on')
    started = time.monotonic()
    evaluator = Evaluator(model, device, test, dtype, network)
    confusion = ConfusionMatrix(dataset.num_classes, dataset.ignore_index)
    sampler = ShareSampler(len(dataset), rank, world_size)
    with tqdm(total=len(sampler), unit='image', desc='evaluating', disable=not progress, **screen()) as bar:
        for _, prediction, label in predictions(evaluator, dataset, sampler, batch_size, workers):
            confusion.update(prediction, label)
            bar.update()
    confusion.all_reduce()
    return Evaluation(confusion, list(dataset.CLASSES), len(dataset), time.monotonic() - started)


class ImageCounter:
    """Counts the pixels of one image of a data set after the other, for processes that share it out.

    Args:
        evaluator: predicts.
        dataset: a `SegDataset` with a test pipeline and labels.
    """

    def __init__(self, evaluator: Evaluator, dataset: LabeledImages) -> None:
        self._evaluator, self._dataset = evaluator, dataset

    def __call__(self, index: int) -> np.ndarray:
        """The counts of an image, as those of a `ConfusionMatrix`: C×(C+1) int64.

        Raises:
            DatasetError: the pair cannot be used.
        """
        return count(self._evaluator, self._dataset, [index])


def count(evaluator: Evaluator, dataset: LabeledImages, indices: Iterable[int], batch_size: int = 1) -> np.ndarray:
    """The counts of some images of a data set, as those of a `ConfusionMatrix`: C×(C+1) int64.

    Raises:
        DatasetError: a pair cannot be used.
    """
    confusion = ConfusionMatrix(dataset.num_classes, dataset.ignore_index)
    for _, prediction, label in predictions(evaluator, dataset, indices, batch_size):
        confusion.update(prediction, label)
    return confusion.counts


def evaluate_in_processes(
    open_counter: Callable[[int], ImageCounter], dataset: LabeledImages, processes: int, progress: bool = False
) -> Evaluation:
    """Evaluate a model on a data set that several processes share out; what they count is added up.

    Args:
        open_counter: makes, in the process of a number from 0, what counts there; it is pickled.
        dataset: what each of them opens.
        processes: their number.
        progress: show a progress bar.

    Raises:
        DatasetError: the data set is empty.
        ProcessError: a process cannot work, or died twice at one image.
    """
    if len(dataset) == 0:
        raise DatasetError('there is no image to evaluate on')
    started = time.monotonic()
    confusion = ConfusionMatrix(dataset.num_classes, dataset.ignore_index)
    with (
        closing(work_in_processes(open_counter, range(len(dataset)), min(processes, len(dataset)))) as counted,
        tqdm(total=len(dataset), unit='image', desc='evaluating', disable=not progress, **screen()) as bar,
    ):
        for index, counts in enumerate(counted):
            if isinstance(counts, Died):
                raise ProcessError(f'{dataset.sample_name(index)}: {counts}; use fewer --processes')
            confusion.counts += counts
            bar.update()
    return Evaluation(confusion, list(dataset.CLASSES), len(dataset), time.monotonic() - started)


def measure(
    metrics: Sequence[Any],
    evaluator: Evaluator,
    batches: Iterable[Batch],
    most: int | None = None,
    seen: Callable[[Batch, dict[str, Any]], None] | None = None,
) -> dict[str, float]:
    """Feed this process's batches into metrics of ModelScope's kind, and add up those of every process.

    Args:
        metrics: with `add` and `evaluate`, and `all_reduce` where they can be added up.
        evaluator: predicts.
        batches: of the evaluation data.
        most: number of batches to look at; None for all.
        seen: called as `seen(batch, {'seg_map': […]})` with every batch.
    """
    for number, batch in enumerate(batches):
        if most is not None and number >= most:
            break
        outputs = {'seg_map': evaluator.predict(batch)}
        for metric in metrics:
            metric.add(outputs, batch)
        if seen is not None:
            seen(batch, outputs)
    values: dict[str, float] = {}
    for metric in metrics:
        if hasattr(metric, 'all_reduce'):
            metric.all_reduce()
        values.update(metric.evaluate())
    return values


def with_progress(loader: Iterable[Any]) -> Iterable[Any]:
    """The loader, with a progress bar where a terminal shows it."""
    if not (sys.stderr.isatty() and distributed.is_first()):
        return loader
    return tqdm(loader, desc='evaluating', leave=False, **screen())
