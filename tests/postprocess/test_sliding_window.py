"""Sliding windows give what the plain form with all logits in memory gives."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ms_segformer.postprocess import kernel, sliding_window
from ms_segformer.postprocess.segmentation import LogitsError
from ms_segformer.postprocess.sliding_window import slide_segment
from ms_segformer.preprocessors.shapes import ImageShapes

TIE = 1e-3
SQUARE = ImageShapes((64, 64), (64, 64), (64, 64))


def network(image, classes=11):
    """Stands for a network: position-dependent within the window, a quarter of the size."""
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(classes, 3, 7, 7, generator=generator)
    return F.conv2d(image, kernel, stride=4, padding=3)


def plain(image, crop, stride, valid, final):
    """All windows' logits scaled, summed, divided, cut, scaled."""
    _, _, height, width = image.shape
    total, count = 0, torch.zeros(1, 1, height, width, dtype=torch.float64)
    for i in range(max(height - crop[0] + stride[0] - 1, 0) // stride[0] + 1):
        for j in range(max(width - crop[1] + stride[1] - 1, 0) // stride[1] + 1):
            bottom, right = min(i * stride[0] + crop[0], height), min(j * stride[1] + crop[1], width)
            top, left = max(bottom - crop[0], 0), max(right - crop[1], 0)
            window = image[:, :, top:bottom, left:right]
            logits = F.interpolate(network(window).double(), window.shape[2:], mode='bilinear')
            total = total + F.pad(logits, (left, width - right, top, height - bottom))
            count[:, :, top:bottom, left:right] += 1
    assert count.min() > 0
    return F.interpolate((total / count)[:, :, : valid[0], : valid[1]], final, mode='bilinear')[0]


CASES = [  # network input, valid part, photograph; window, stride
    (ImageShapes((64, 96), (64, 96), (64, 96)), (32, 32), (32, 32)),
    (ImageShapes((100, 131), (97, 125), (100, 120)), (32, 48), (20, 32)),
    (ImageShapes((100, 131), (100, 131), (260, 300)), (64, 64), (43, 43)),
    (ImageShapes((90, 200), (90, 200), (31, 67)), (32, 32), (11, 11)),
    (ImageShapes((50, 40), (50, 40), (61, 47)), (64, 32), (40, 20)),
    (ImageShapes((20, 20), (20, 20), (20, 20)), (64, 64), (40, 40)),
    (ImageShapes((65, 65), (65, 64), (65, 65)), (64, 64), (1, 64)),
]


@pytest.mark.parametrize('block', [sliding_window.BLOCK, 1 << 16])
@pytest.mark.parametrize('shapes,crop,stride', CASES)
def test_equals_the_plain_form(monkeypatch, shapes, crop, stride, block):
    monkeypatch.setattr(sliding_window, 'BLOCK', block)
    image = torch.randn(1, 3, *shapes.padded, generator=torch.Generator().manual_seed(1))
    image = F.avg_pool2d(image, 9, 1, 4) * 9
    reference = plain(image, crop, stride, shapes.resized, shapes.original)
    probability = reference.softmax(0).amax(0).numpy()
    result = slide_segment(network, lambda a, b, c, d: image[:, :, a:b, c:d], shapes, crop, stride, 11)
    two = reference.topk(2, 0).values
    clear = (two[0] - two[1] > TIE).numpy()
    assert clear.mean() > 0.95
    assert (result.seg_map == reference.argmax(0).numpy())[clear].all()
    assert sum(result.counts) == shapes.original[0] * shapes.original[1]
    for class_id, score in zip(result.class_ids, result.scores, strict=True):
        assert score == pytest.approx(probability[result.seg_map == class_id].mean(), abs=1e-3)


@pytest.mark.parametrize('block', [sliding_window.BLOCK, 1 << 16])
@pytest.mark.parametrize('shapes,crop,stride', CASES)
def test_confidence_equals_the_plain_form_and_changes_nothing_else(monkeypatch, shapes, crop, stride, block):
    monkeypatch.setattr(sliding_window, 'BLOCK', block)
    image = torch.randn(1, 3, *shapes.padded, generator=torch.Generator().manual_seed(1))
    image = F.avg_pool2d(image, 9, 1, 4) * 9

    def read(top, bottom, left, right):
        return image[:, :, top:bottom, left:right]

    result = slide_segment(network, read, shapes, crop, stride, 11, confidence=True)
    best, second = plain(image, crop, stride, shapes.resized, shapes.original).softmax(0).topk(2, 0).values.numpy()
    assert abs(result.confidence.probability - best).max() < 1e-3
    assert abs(result.confidence.margin - (best - second)).max() < 1e-3
    without = slide_segment(network, read, shapes, crop, stride, 11)
    assert without.confidence is None and np.array_equal(without.seg_map, result.seg_map)
    assert without.scores == result.scores


def test_windows_are_asked_for_once_and_in_reading_order():
    asked = []

    def read(top, bottom, left, right):
        asked.append((top, left))
        assert (bottom - top, right - left) == (32, 32)
        return torch.zeros(1, 3, 32, 32)

    slide_segment(network, read, ImageShapes((80, 100), (80, 100), (80, 100)), (32, 32), (24, 24), 11)
    assert asked == sorted(set(asked))
    assert asked[0] == (0, 0) and asked[-1] == (48, 68)


def test_memory_of_a_long_image_is_that_of_its_width(monkeypatch):
    held = []

    class Watched(sliding_window.Mosaic):
        def average(self, rows, cols):
            held.append(sum(window.logits.numel() for window in self.windows.values()))
            return super().average(rows, cols)

    monkeypatch.setattr(sliding_window, 'Mosaic', Watched)
    read = lambda a, b, c, d: torch.zeros(1, 3, b - a, d - c)  # noqa: E731
    peaks = []
    for height, step in ((512, 96), (3968, 96), (4096, 32)):  # the last row of windows is `step` below the one before
        held.clear()
        slide_segment(network, read, ImageShapes(*[(height, 1024)] * 3), (128, 128), (96, 96), 11)
        peaks.append(max(held) * 4)
        assert peaks[-1] < 1.2 * 11 / 4 * (1024 / 96 * 128 * (128 - step) + 4 * 128 * 128)
    assert peaks[1] == peaks[0]


@pytest.mark.parametrize('stride', [(0, 16), (16, 33)])
def test_strides_that_leave_gaps_are_refused(stride):
    with pytest.raises(ValueError, match='1 <= stride <= crop_size'):
        slide_segment(network, None, SQUARE, (32, 32), stride, 11)


def test_label_map_is_independent_of_the_block_size(monkeypatch):
    image = torch.randn(1, 3, 90, 110, generator=torch.Generator().manual_seed(2))
    maps = []
    for block in (1 << 14, 1 << 18, 1 << 26):
        monkeypatch.setattr(sliding_window, 'BLOCK', block)
        maps.append(
            slide_segment(
                network,
                lambda a, b, c, d: image[:, :, a:b, c:d],
                ImageShapes((90, 110), (90, 110), (200, 77)),
                (48, 48),
                (32, 32),
                11,
            ).seg_map
        )
    assert np.mean(maps[0] == maps[1]) > 0.9999 and np.mean(maps[1] == maps[2]) > 0.9999


@pytest.mark.parametrize('compiled', [True, False])
@pytest.mark.parametrize(
    'value, kind', [(float('nan'), 'NaN'), (float('inf'), 'infinite'), (-float('inf'), 'infinite')]
)
def test_one_logit_of_the_last_window_that_is_not_finite_is_an_error(monkeypatch, value, kind, compiled):
    if not compiled:
        monkeypatch.setattr(kernel, '_torch_only', True)
    windows = []

    def diverged(image):
        windows.append(network(image))
        windows[-1][0, 5, 3, 4] = value if len(windows) == 9 else 0
        return windows[-1]

    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with pytest.raises(LogitsError, match=f'logits of models/seven .*1 {kind} of') as error:
        slide_segment(
            diverged, lambda a, b, c, d: image[:, :, a:b, c:d], SQUARE, (32, 32), (16, 16), 11, model='models/seven'
        )
    assert len(windows) == 9 and 'earlier checkpoint' in str(error.value)


def slide_constant(value):
    """The segmentation of a network whose second class has that logit in every window; four windows overlap."""

    def constant(image):
        logits = torch.zeros(1, 3, 8, 8)
        logits[:, 1] = value
        return logits

    return slide_segment(
        constant, lambda a, b, c, d: torch.zeros(1, 3, 32, 32), SQUARE, (32, 32), (16, 16), 3, model='models/seven'
    )


@pytest.mark.parametrize('value, best', [(1e31, 1), (-1e31, 0), (-1e30, 0), (8e37, 1), (3.4e38, 1)])
def test_huge_finite_logits_give_the_best_class(value, best):
    found = slide_constant(value)
    assert (found.seg_map == best).all() and all(0 < score <= 1 for score in found.scores)
