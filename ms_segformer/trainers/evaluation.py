"""From a network and a data set's samples to label maps at the images' own size, for evaluation.

An image may go through the network whole or in overlapping windows (`slide`), at several scales, and mirrored; the
class probabilities of all versions are averaged, as the original's test-time augmentation does.
"""
import time
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..config.settings import InferenceSettings
from ..datasets.errors import DatasetError
from ..postprocess.segmentation import FLOAT32_RANGE, largest_magnitude, segment
from ..progress import screen


class Evaluator:
    """Turns a batch of a test pipeline into label maps.

    Args:
        model: a `Segformer` (or any module with `logits` and `settings`); put into evaluation mode.
        device: where it runs.
        test: `config.InferenceSettings`; None takes the model's.
        dtype: torch.bfloat16 or torch.float16 to run the network in, or None for float32.
        network: callable from images to logits in place of the model's own, such as a `runtime` engine.
    """

    def __init__(self, model, device='cpu', test=None, dtype=None, network=None):
        self.model, self.device = model, torch.device(device)
        self.test = test or getattr(getattr(model, 'settings', None), 'test', None) or InferenceSettings()
        self.align_corners = getattr(getattr(model, 'decode_head', None), 'align_corners', False)
        self.dtype = dtype
        self.name = getattr(model, 'model_dir', None)
        # The folded head works in place, which autocast does not follow.
        (model.prepare_inference if dtype is None and hasattr(model, 'prepare_inference') else model.eval)()
        self.network = network or model.logits

    @torch.no_grad()
    def predict(self, batch):
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
            raise DatasetError('the evaluation samples have no tensor img; the transforms of dataset.val.pipeline end '
                               'with ImageToTensor and Collect, whose keys are ["img"]')
        versions = [self._network(images) for images in batch['img']]  # per version: list of N logits
        metas = batch['img_metas']
        return [self._label_map([version[i] for version in versions], [meta[i] for meta in metas])
                for i in range(len(versions[0]))]

    def _network(self, images):
        if isinstance(images, torch.Tensor):
            return list(self._logits(images.to(self.device)))
        return [self._logits(image.to(self.device))[0] for image in images]

    def _logits(self, images):
        """N×3×H×W to logits: N×C×H/4×W/4 for whole images, N×C×H×W in windows."""
        cast = nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)
        with cast:
            if self.test.mode == 'slide':
                return self._slide(images)
            return self.network(images).float()

    def _finite(self, logits: torch.Tensor) -> torch.Tensor:
        """Finite logits, in float64 where float32 could overflow further on."""
        return logits if largest_magnitude(logits, self.name) <= FLOAT32_RANGE else logits.double()

    def _slide(self, images):
        n, _, height, width = images.shape
        total = count = None
        for top in _starts(height, self.test.crop_size[0], self.test.stride[0]):
            for left in _starts(width, self.test.crop_size[1], self.test.stride[1]):
                rows = slice(top, min(top + self.test.crop_size[0], height))
                columns = slice(left, min(left + self.test.crop_size[1], width))
                window = images[:, :, rows, columns]
                logits = self._resize(self._finite(self.network(window.contiguous()).float()), window.shape[-2:])
                if total is None:
                    total = logits.new_zeros(n, logits.shape[1], height, width)
                    count = logits.new_zeros(height, width, dtype=torch.float32)
                elif total.dtype != logits.dtype:  # the first windows were small enough for float32
                    total, logits = total.double(), logits.double()
                total[:, :, rows, columns] += logits
                count[rows, columns] += 1
        return total / count

    def _label_map(self, versions, metas):
        if len(versions) == 1 and versions[0].device.type == 'cpu' and self.test.mode == 'whole':
            meta = metas[0]
            shapes = [meta.get(key) or meta['img_shape'] for key in ('pad_shape', 'img_shape', 'ori_shape')]
            found = segment(versions[0], *shapes, num_names=0, align_corners=self.align_corners, model=self.name)
            return torch.from_numpy(found.seg_map)
        probabilities = None
        for logits, meta in zip(versions, metas, strict=True):
            scaled = self._at_image_size(self._finite(logits[None]), meta)
            if len(versions) == 1:
                return scaled.argmax(1)[0].to(torch.uint8).cpu()
            scaled = scaled.softmax(1)
            if meta.get('flip'):
                scaled = scaled.flip(3 if meta.get('flip_direction', 'horizontal') == 'horizontal' else 2)
            probabilities = scaled if probabilities is None else probabilities.add_(scaled)
        return probabilities.argmax(1)[0].to(torch.uint8).cpu()

    def _at_image_size(self, logits, meta):
        """The two scalings of the original: to the network's input, whose padding is cut off, then to the image."""
        padded, valid = meta.get('pad_shape', meta['img_shape']), meta['img_shape']
        logits = self._resize(logits, tuple(padded[:2]))[:, :, :valid[0], :valid[1]]
        return self._resize(logits, tuple(meta['ori_shape'][:2]))

    def _resize(self, x, size):
        if tuple(x.shape[-2:]) == tuple(size):
            return x
        return F.interpolate(x, tuple(size), mode='bilinear', align_corners=self.align_corners)


def _starts(length, window, stride):
    """First pixels of the windows that cover `length`; the last one is moved back to end at the border."""
    count = max(length - window + stride - 1, 0) // stride + 1
    return [max(min(i * stride + window, length) - window, 0) for i in range(count)]


@dataclass
class Evaluation:
    """What `evaluate` found.

    Attributes:
        confusion: `metrics.segmentation.ConfusionMatrix` over all images.
        classes: names by id.
        images: number of images.
        seconds: time it took, data loading included.
    """

    confusion: object
    classes: list
    images: int
    seconds: float

    def values(self):
        """Return the report of the original's evaluator: `mIoU`, `mAcc`, `aAcc`, `IoU.<class>`, …, in [0, 1]."""
        from ..metrics.segmentation import SegmentationEvaluator
        return SegmentationEvaluator(self.classes).evaluate(self.confusion)


def test_pipeline(configuration, scales=(1.0,), flip=False):
    """Return the test pipeline of a configuration, with scales and mirrored versions added.

    Args:
        configuration: a configuration as plain dicts and lists.
        scales: factors of the size the configuration tests at.
        flip: also look at the mirrored image.

    Raises:
        ValueError: the configuration's pipeline is not of the `MMMultiScaleFlipAug` kind.
    """
    pipeline = deepcopy(configuration.get('test_pipeline') or configuration['dataset']['val']['pipeline'])
    augment = next((step for step in pipeline if step.get('type') == 'MMMultiScaleFlipAug'), None)
    if augment is None or augment.get('img_scale') is None:
        raise ValueError('scales and flip need a test pipeline with MMMultiScaleFlipAug and img_scale; this one has '
                         f'{[step.get("type") for step in pipeline]}')
    size = augment['img_scale']
    size = size[0] if isinstance(size[0], (list, tuple)) else size
    if list(scales) != [1.0]:
        augment['img_scale'] = [tuple(int(side * factor + 0.5) for side in size) for factor in scales]
    augment['flip'] = bool(flip)
    return pipeline


def predictions(evaluator, dataset, indices, batch_size=1, workers=0):
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
    from ..datasets.loader import Loader
    from ..datasets.seg_dataset import collate
    for batch in Loader(dataset, batch_size=batch_size, sampler=indices, num_workers=workers, collate_fn=collate):
        yield from zip(batch['index'], evaluator.predict(batch), batch['label'], strict=True)


def evaluate(model, dataset, device='cpu', test=None, dtype=None, network=None, batch_size=1, workers=0, rank=0,
             world_size=1, progress=False):
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
        ValueError: the data set is empty.
    """
    from tqdm import tqdm

    from ..metrics.segmentation import ConfusionMatrix
    from .sampler import ShareSampler
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


test_pipeline.__test__ = False  # no test, whatever its name suggests to pytest
