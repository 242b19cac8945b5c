"""From a network and a data set's samples to label maps at the images' own size, for evaluation.

An image may go through the network whole or in overlapping windows (`slide`), at several scales, and mirrored; the
class probabilities of all versions are averaged, as the original's test-time augmentation does.
"""
from contextlib import nullcontext

import torch
import torch.nn.functional as F

from ..config import TestSettings


class Evaluator:
    """Turns a batch of a test pipeline into label maps.

    Args:
        model: a `Segformer` (or any module with `logits` and `settings`); put into evaluation mode.
        device: where it runs.
        test: `config.TestSettings`; None takes the model's.
        dtype: torch.bfloat16 or torch.float16 to run the network in, or None for float32.
    """

    def __init__(self, model, device='cpu', test=None, dtype=None):
        self.model, self.device = model, torch.device(device)
        self.test = test or getattr(getattr(model, 'settings', None), 'test', None) or TestSettings()
        self.align_corners = getattr(getattr(model, 'decode_head', None), 'align_corners', False)
        self.dtype = dtype
        (model.prepare_inference if hasattr(model, 'prepare_inference') else model.eval)()

    @torch.no_grad()
    def predict(self, batch):
        """Predict the label maps of a batch.

        Args:
            batch: as `datasets.seg_dataset.collate` makes it: `img` and `img_metas` are lists over the versions.

        Returns:
            List of N label maps H×W uint8 on the CPU at the images' own sizes.
        """
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
            return self.model.logits(images).float()

    def _slide(self, images):
        n, _, height, width = images.shape
        total = count = None
        for top in _starts(height, self.test.crop_size[0], self.test.stride[0]):
            for left in _starts(width, self.test.crop_size[1], self.test.stride[1]):
                rows = slice(top, min(top + self.test.crop_size[0], height))
                columns = slice(left, min(left + self.test.crop_size[1], width))
                window = images[:, :, rows, columns]
                logits = self._resize(self.model.logits(window).float(), window.shape[-2:])
                if total is None:
                    total = logits.new_zeros(n, logits.shape[1], height, width)
                    count = logits.new_zeros(height, width)
                total[:, :, rows, columns] += logits
                count[rows, columns] += 1
        return total / count

    def _label_map(self, versions, metas):
        probabilities = None
        for logits, meta in zip(versions, metas, strict=True):
            scaled = self._at_image_size(logits[None], meta)
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
