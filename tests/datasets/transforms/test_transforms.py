import hashlib
import json

import cv2
import numpy as np
import pytest
import torch

from ms_segformer.config.jsonplus import decode_jsonplus
from ms_segformer.datasets import transforms
from ms_segformer.datasets.errors import DatasetError

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
TRAIN_PIPELINE = [
    {'type': 'MMResize', 'img_scale': (2048, 512), 'ratio_range': (0.5, 2.0)},
    {'type': 'SegRandomCrop', 'crop_size': (512, 512), 'cat_max_ratio': 0.75},
    {'type': 'MMRandomFlip', 'flip_ratio': 0.5},
    {'type': 'MMPhotoMetricDistortion'},
    {'type': 'MMNormalize', 'mean': MEAN, 'std': STD, 'to_rgb': True},
    {'type': 'MMPad', 'size': (512, 512), 'pad_val': {'img': 0, 'masks': 0, 'seg': 255}},
    {'type': 'DefaultFormatBundle'},
    {'type': 'Collect', 'keys': ['img', 'gt_semantic_seg']},
]


def make_sample(height=427, width=640, rng=None, dtype=np.float32):
    """A random smooth image with a label map of blocks."""
    numbers = np.random.RandomState(7)
    img = cv2.resize(numbers.randint(0, 256, (height // 16, width // 16, 3), np.uint8), (width, height))
    label = np.kron(numbers.randint(0, 20, (height // 32 + 1, width // 32 + 1)), np.ones((32, 32)))[:height, :width]
    sample = {
        'img': img.astype(dtype),
        'gt_semantic_seg': label.astype(np.uint8),
        'filename': 'x.jpg',
        'ori_filename': 'x.jpg',
        'ori_shape': img.shape,
        'img_shape': img.shape,
        'pad_shape': img.shape,
        'img_fields': ['img'],
        'seg_fields': ['gt_semantic_seg'],
    }
    return sample if rng is None else {**sample, 'rng': rng}


# The crop window's corner (top, left), the resized size and the flip that numpy's stream gives for three seeds; the
# same draws reproduce the original's images, see test_training_transforms_equal_the_original.
@pytest.mark.parametrize('stream', ['own', 'global'])
@pytest.mark.parametrize(
    ('seed', 'size', 'flip'), [(0, (677, 1015), False), (1, (576, 863), True), (2, (590, 884), False)]
)
def test_the_draws_follow_the_seed(seed, size, flip, stream):
    np.random.seed(seed if stream == 'global' else 99)
    sample = make_sample(rng=np.random.RandomState(seed) if stream == 'own' else None)
    resized = transforms.build(TRAIN_PIPELINE[0])(sample)
    assert resized['img'].shape == (*size, 3) and resized['gt_semantic_seg'].shape == size
    cropped = transforms.build(TRAIN_PIPELINE[1])(resized)
    assert transforms.build(TRAIN_PIPELINE[2])(cropped)['flip'] is flip


def test_a_pipeline_gives_tensors_of_one_size_and_repeats_itself():
    pipeline = transforms.Compose(TRAIN_PIPELINE)
    outputs = [pipeline(make_sample(rng=transforms.sample_rng(3, 5, 8))) for _ in range(2)]
    assert outputs[0]['img'].shape == (3, 512, 512) and outputs[0]['img'].dtype == torch.float32
    assert outputs[0]['gt_semantic_seg'].shape == (1, 512, 512) and outputs[0]['gt_semantic_seg'].dtype == torch.uint8
    assert torch.equal(outputs[0]['img'], outputs[1]['img'])
    other = pipeline(make_sample(rng=transforms.sample_rng(3, 5, 9)))
    assert not torch.equal(outputs[0]['img'], other['img'])


def test_a_small_image_is_padded_with_zero_and_ignore():
    results = transforms.Compose(TRAIN_PIPELINE[4:6])(make_sample(100, 96))
    assert results['img'].shape == (512, 512, 3) and results['pad_shape'] == (512, 512, 3)
    assert (results['img'][100:] == 0).all() and (results['img'][:, 96:] == 0).all()
    assert (results['gt_semantic_seg'][100:] == 255).all() and (results['gt_semantic_seg'][:100, :96] != 255).all()
    divided = transforms.build({'type': 'MMPad', 'size_divisor': 32})(make_sample(100, 96))
    assert divided['img'].shape == (128, 96, 3)


@pytest.mark.parametrize(
    ('shape', 'scale', 'expected'),
    [
        ((427, 640), (2048, 512), (512, 767)),
        ((640, 427), (2048, 512), (767, 512)),
        ((100, 4000), (2048, 512), (51, 2048)),
        ((512, 512), (512, 512), (512, 512)),
    ],
)
def test_an_image_is_fitted_into_long_and_short_side(shape, scale, expected):
    assert transforms.fit_size(shape, scale) == expected


def test_resizing_without_ratio_takes_width_and_height():
    results = transforms.build({'type': 'MMResize', 'img_scale': (64, 32), 'keep_ratio': False})(make_sample(100, 50))
    assert results['img'].shape == (32, 64, 3)
    np.testing.assert_allclose(results['scale_factor'], [64 / 50, 0.32] * 2, rtol=1e-6)


def test_one_of_several_scales_is_drawn():
    for mode, allowed in (('value', {(64, 32), (128, 64)}), ('range', None)):
        resize = transforms.build({'type': 'MMResize', 'img_scale': [(64, 32), (128, 64)], 'multiscale_mode': mode})
        scales = {resize(make_sample(rng=np.random.RandomState(seed)))['scale'] for seed in range(12)}
        assert len(scales) == 2 if allowed else len(scales) > 2
        assert allowed is None or scales == allowed
        assert all(64 <= long <= 128 and 32 <= short <= 64 for long, short in scales)


def test_a_crop_avoids_windows_that_one_class_fills():
    label = np.zeros((100, 400), np.uint8)
    label[:, 200:] = np.arange(200) % 5 + 1
    label[:50, 200:] = 255
    crop = transforms.build({'type': 'SegRandomCrop', 'crop_size': (60, 60), 'cat_max_ratio': 0.6})
    plain = transforms.build({'type': 'SegRandomCrop', 'crop_size': (60, 60)})

    def filled(transform, seed):
        sample = {
            'img': np.zeros((100, 400, 3), np.float32),
            'gt_semantic_seg': label,
            'seg_fields': ['gt_semantic_seg'],
            'rng': np.random.RandomState(seed),
        }
        return (transform(sample)['gt_semantic_seg'] == 0).all()

    assert sum(filled(plain, seed) for seed in range(50)) > 10
    assert sum(filled(crop, seed) for seed in range(50)) == 0


def test_image_and_label_flip_together():
    sample = make_sample(64, 96)
    sample['img'] = np.repeat(sample['gt_semantic_seg'][..., None], 3, 2).astype(np.float32)
    for direction in ('horizontal', 'vertical', 'diagonal'):
        flip = transforms.build({'type': 'MMRandomFlip', 'flip_ratio': 1.0, 'direction': direction})
        flipped = flip({**sample})
        np.testing.assert_array_equal(flipped['img'][..., 0], flipped['gt_semantic_seg'])
        assert flipped['flip_direction'] == direction
        assert not np.array_equal(flipped['img'], sample['img'])


def test_uint8_and_float_images_normalize_to_the_same_numbers():
    normalize = transforms.build({'type': 'MMNormalize', 'mean': MEAN, 'std': STD})
    img = np.random.RandomState(0).randint(0, 256, (40, 50, 3), np.uint8)
    from_uint8, from_float = (normalize({'img': img.astype(dtype)})['img'] for dtype in (np.uint8, np.float32))
    np.testing.assert_array_equal(from_uint8, from_float)
    expected = (img[..., ::-1].astype(np.float64) - np.float32(MEAN)) / np.float32(STD)
    np.testing.assert_allclose(from_float, expected, atol=3e-7)


def test_the_test_pipeline_makes_every_scale_and_flip_from_one_image():
    augment = transforms.build(
        {
            'type': 'MMMultiScaleFlipAug',
            'img_scale': [(64, 32), (128, 64)],
            'flip': True,
            'transforms': [
                {'type': 'MMResize', 'keep_ratio': True},
                {'type': 'MMRandomFlip'},
                {'type': 'MMNormalize', 'mean': MEAN, 'std': STD},
                {'type': 'ImageToTensor', 'keys': ['img']},
                {'type': 'Collect', 'keys': ['img']},
            ],
        }
    )
    sample = make_sample(100, 200)
    before = sample['img'].copy()
    output = augment(sample)
    assert [tuple(img.shape) for img in output['img']] == [(3, 32, 64)] * 2 + [(3, 64, 128)] * 2
    assert [meta['flip'] for meta in output['img_metas']] == [False, True, False, True]
    assert torch.equal(output['img'][1], output['img'][0].flip(2))
    np.testing.assert_array_equal(sample['img'], before)


def test_distortion_changes_colors_but_not_the_caller_s_image():
    distort = transforms.build({'type': 'MMPhotoMetricDistortion'})
    sample = make_sample(64, 64)
    before = sample['img'].copy()
    means = {
        round(float(distort({**sample, 'rng': np.random.RandomState(seed)})['img'].mean()), 3) for seed in range(8)
    }
    np.testing.assert_array_equal(sample['img'], before)
    assert len(means) > 5


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        ({'type': 'Mosaic'}, 'unknown transform "Mosaic". Known are: Collect, DefaultFormatBundle'),
        ({'type': 'MMResize', 'scale': 3}, r"MMResize does not take \['scale'\]; its arguments are: img_scale"),
        ({'type': 'MMNormalize', 'mean': MEAN}, r"MMNormalize needs \['std'\]"),
        ({'type': 'MMNormalize', 'mean': MEAN, 'std': [1, 0, 1]}, 'std above 0'),
        ({'type': 'MMResize', 'ratio_range': (0.5, 2)}, 'ratio_range needs exactly one img_scale'),
        ({'type': 'MMResize', 'img_scale': (0, 5)}, 'pair of positive numbers'),
        ({'type': 'MMPad'}, 'exactly one of size'),
        ({'type': 'MMRandomFlip', 'flip_ratio': 2}, 'probability'),
        ({'type': 'MMRandomFlip', 'direction': 'sideways'}, 'sideways'),
        ({'type': 'SegRandomCrop', 'crop_size': (10_000, 10_000)}, 'crop_size .* up to 33,554,432'),
        ({'type': 'MMResize', 'img_scale': (20_000, 20_000)}, 'img_scale .* 400,000,000 pixels'),
        ({'type': 'MMResize', 'img_scale': (2048, 512), 'ratio_range': (0.5, 100)}, 'ratio_range .* 33,554,432'),
        ({'type': 'MMPad', 'size_divisor': 10**6}, 'size_divisor is 1000000; accepted: an integer from 1 to 1024'),
        ({'type': 'SegRandomCrop', 'crop_size': (0, 0)}, 'crop_size'),
        ({'type': 'MMMultiScaleFlipAug', 'transforms': []}, 'either img_scale or scale_factor'),
        ({'kind': 'MMResize'}, 'the key "type"'),
    ],
)
def test_a_wrong_entry_says_what_is_known(cfg, message):
    with pytest.raises(DatasetError, match=message):
        transforms.build(cfg)


def test_a_crop_larger_than_the_padding_is_an_error():
    with pytest.raises(DatasetError, match='does not fit'):
        transforms.build({'type': 'MMPad', 'size': (50, 50)})(make_sample(100, 40))


class Brighten:
    """A transform from elsewhere that draws from numpy's global stream."""

    def __init__(self, by=1):
        self.by = by

    def __call__(self, results):
        return {**results, 'img': results['img'] + self.by * np.random.random_sample()}


def test_a_foreign_transform_is_found_by_the_fallback_and_seeded():
    def find(name):
        return Brighten if name == 'Brighten' else None

    pipeline = transforms.Compose([{'type': 'Brighten', 'by': 5}], fallback=find)
    np.random.seed(1)
    outputs = [pipeline(make_sample(rng=transforms.sample_rng(0, 0, 4)))['img'] for _ in range(2)]
    np.testing.assert_array_equal(*outputs)
    assert np.random.random_sample() == np.random.RandomState(1).random_sample()  # the global stream is put back
    with pytest.raises(DatasetError, match='unknown transform "Darken"'):
        transforms.Compose([{'type': 'Darken'}], fallback=find)


def _reference_sample(oracle, label, rng):
    img = cv2.imread(str(oracle / 'golden/china.jpg'))
    height, width = img.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return {
        'img': img.astype(np.float32),
        'gt_semantic_seg': label,
        'rows': rows,
        'columns': columns,
        'rng': rng,
        'img_fields': ['img'],
        'seg_fields': ['gt_semantic_seg', 'rows', 'columns'],
    }


def test_training_transforms_equal_the_original(oracle):
    # The label map that the reference was made with is not among the reference files, so its values cannot be
    # compared; any varied one gives the same windows. What can be: the source pixel of every reference label, which
    # is known here, must always have carried the same label.
    configuration = decode_jsonplus(json.loads((oracle / 'configuration/b0.json').read_text()))
    pipeline = transforms.Compose(configuration['dataset']['train']['pipeline'][:-2])
    golden = np.load(oracle / 'golden/train_pipeline.npz')
    label = np.load(oracle / 'golden/recipe_b0.npz')['china_seg'].astype(np.uint8)
    seen, repeated = {}, 0
    for seed in range(3):
        results = pipeline(_reference_sample(oracle, label, np.random.RandomState(seed)))
        img = results['img'].transpose(2, 0, 1)[:, ::16, ::16]
        np.testing.assert_allclose(img, golden[f'img{seed}'], atol=1e-6, rtol=0)
        sources = zip(results['rows'][::8, ::8].ravel(), results['columns'][::8, ::8].ravel(), strict=True)
        for source, value in zip(sources, golden[f'gt{seed}'].ravel(), strict=True):
            repeated += source in seen
            assert seen.setdefault(source, value) == value
    assert repeated > 200


@pytest.mark.parametrize('name', ['china', 'flower'])
def test_the_network_input_of_the_test_pipeline_equals_the_original(oracle, name):
    configuration = decode_jsonplus(json.loads((oracle / 'configuration/b0.json').read_text()))
    pipeline = transforms.Compose(configuration['dataset']['val']['pipeline'])
    img = cv2.imread(str(oracle / f'golden/{name}.jpg'))
    tensor = pipeline({'img': img, 'img_fields': ['img'], 'filename': name})['img'][0].numpy()[None]
    golden = np.load(oracle / f'golden/{name}_input_tensor_b0.npz')
    np.testing.assert_allclose(tensor[:, :, ::4, ::4], golden['sub4'], atol=1e-6, rtol=0)
    assert hashlib.sha256(tensor.tobytes()).hexdigest() == str(golden['sha256'])
