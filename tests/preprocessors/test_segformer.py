"""The network's input against the original's."""

import hashlib

import numpy as np
import pytest

from ms_segformer.config.settings import PreprocessSettings
from ms_segformer.preprocessors.segformer import SegformerPreprocessor


@pytest.mark.parametrize('name', ['china', 'flower'])
def test_the_network_input_is_bit_equal_to_the_originals(oracle, name):
    golden = np.load(oracle / 'golden' / f'{name}_input_tensor_b0.npz')
    tensor = SegformerPreprocessor(oracle / 'trained_b0')(oracle / 'golden' / f'{name}.jpg')['img']
    assert hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest() == str(golden['sha256'])


@pytest.mark.parametrize(
    'size, expected',
    [
        ((427, 640), (512, 767)),
        ((640, 427), (767, 512)),
        ((56, 900), (127, 2048)),
        ((1, 1), (512, 512)),
        ((4000, 6000), (512, 768)),
        ((1, 6000), (1, 2048)),
        ((5, 7), (512, 717)),
    ],
)
def test_sizes(size, expected):
    assert SegformerPreprocessor(settings=PreprocessSettings()).network_shape(*size) == expected


def test_padding_is_zeros_after_normalizing_at_the_bottom_and_right():
    plain = SegformerPreprocessor(settings=PreprocessSettings())
    padded = SegformerPreprocessor(settings=PreprocessSettings(size_divisor=32))
    image = np.full((100, 150, 3), 200, np.uint8)
    a, b = plain(image), padded(image)
    assert a['img_shape'] == b['img_shape'] == a['pad_shape'] == (512, 768)
    odd = padded(image[:97])
    height, width = odd['img_shape']
    assert odd['pad_shape'] == (512, 800) and (height, width) == (512, 792)
    assert (odd['img'][..., width:] == 0).all() and (odd['img'][..., :width] != 0).all()


def test_a_thin_image_is_padded_to_what_the_network_can_take():
    prepared = SegformerPreprocessor(settings=PreprocessSettings())(np.zeros((1, 6000, 3), np.uint8))
    assert prepared['img_shape'] == (1, 2048) and prepared['pad_shape'] == (29, 2048)


def test_without_keep_ratio_the_size_is_the_configured_one():
    settings = PreprocessSettings(scale=(64, 48), keep_ratio=False)
    prepared = SegformerPreprocessor(settings=settings)(np.zeros((10, 90, 3), np.uint8))
    assert prepared['img'].shape == (1, 3, 48, 64)


def test_windows_are_parts_of_the_whole_input_and_zero_beyond_the_image():
    preprocessor = SegformerPreprocessor(settings=PreprocessSettings(scale=(80, 50), size_divisor=32))
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    whole = preprocessor(image)['img']
    loaded = preprocessor.load(image)
    assert whole.shape[2:] == loaded['pad_shape'] == (64, 96)
    for box in ((0, 64, 0, 96), (10, 40, 5, 60), (40, 64, 60, 96), (55, 64, 80, 96)):
        top, bottom, left, right = box
        np.testing.assert_array_equal(preprocessor.window(loaded['image'], *box), whole[:, :, top:bottom, left:right])


def test_an_image_may_keep_its_size():
    prepared = SegformerPreprocessor(settings=PreprocessSettings())(np.zeros((600, 333, 3), np.uint8), resize=False)
    assert prepared['img_shape'] == prepared['pad_shape'] == prepared['ori_shape'] == (600, 333)
