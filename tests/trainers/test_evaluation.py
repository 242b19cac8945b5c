"""From a network to label maps and metrics: against the original's maps, in windows, at several scales and mirrored."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ms_segformer.config.reader import read_configuration
from ms_segformer.config.settings import InferenceSettings
from ms_segformer.datasets.errors import DatasetError
from ms_segformer.datasets.seg_dataset import SegDataset, collate
from ms_segformer.models.segformer import Segformer
from ms_segformer.postprocess.segmentation import LogitsError
from ms_segformer.trainers.evaluation import Evaluator, evaluate, inference_pipeline


def load(folder):
    settings = read_configuration(folder)
    return Segformer.of_directory(str(folder), settings.model_section), settings


def dataset(settings, root, split, size=(96, 64), **pipeline):
    steps = inference_pipeline(settings.test_pipeline, **pipeline)
    if size:
        factor = size[0] / 2048 if not isinstance(steps[0]['img_scale'], list) else None
        if factor is not None:
            steps[0]['img_scale'] = size
    return SegDataset(
        {
            'type': 'SegSourceRaw',
            'img_root': str(root / 'images' / split),
            'label_root': str(root / 'annotations' / split),
            'classes': list(settings.classes),
        },
        steps,
        mode='eval',
    )


@pytest.mark.parametrize('split, names', [('val2017', 2)])
def test_label_maps_are_the_original_s(shared, oracle, split, names):
    # Its pipeline, which made these maps, resizes images of uint8; its data sets, and so its evaluation, float32 ones.
    model, settings = load(oracle / 'trained_b0')
    root = shared / 'data' / 'cocostuff_sample'
    data = SegDataset(
        {
            'type': 'SegSourceRaw',
            'img_root': str(root / split),
            'label_root': str(root / 'annotations' / split),
            'label_suffix': '_labelTrainIds.png',
            'to_float32': False,
            'classes': list(settings.classes),
        },
        inference_pipeline(settings.test_pipeline),
        mode='eval',
    )
    maps = np.load(oracle / 'trained_b0' / 'label_maps.npz')
    stems = {key[:-4]: key for key in maps.files if key.endswith('_seg')}
    evaluator, seen = Evaluator(model), 0
    for index in range(len(data)):
        stem = next((stem for stem in stems if stem.endswith(data.sample_name(index).rsplit('.')[0])), None)
        if stem is None or seen == names:
            continue
        (found,) = evaluator.predict(collate([data[index]]))
        different = found.numpy() != maps[stems[stem]]
        assert not (different & (maps[f'{stem}_margin'] >= 1e-3)).any()
        seen += 1
    assert seen == names


@pytest.fixture
def tiny(tiny_model_dir):
    return load(tiny_model_dir)


def test_one_window_over_the_whole_image_is_the_whole_image(tiny, tiny_data):
    model, settings = tiny
    data = dataset(settings, tiny_data, 'val')
    batch = collate([data[i] for i in range(3)])
    whole = Evaluator(model).predict(batch)
    window = Evaluator(model, test=InferenceSettings('slide', (500, 500), (400, 400))).predict(batch)
    for a, b in zip(whole, window, strict=True):
        assert a.shape == b.shape and (a != b).float().mean() < 1e-3  # ties apart: other order of the sums


def test_windows_average_where_they_overlap(tiny, tiny_data):
    model, settings = tiny
    batch = collate([dataset(settings, tiny_data, 'val')[0]])
    (found,) = Evaluator(model, test=InferenceSettings('slide', (64, 64), (20, 20))).predict(batch)
    image = batch['img'][0]  # 64×96: columns 0–64, 20–84, 32–96
    expected, count = torch.zeros(1, 172, 64, 96), torch.zeros(96)
    with torch.no_grad():
        for left in (0, 20, 32):
            logits = F.interpolate(model.logits(image[..., left : left + 64]), (64, 64), mode='bilinear')
            expected[..., left : left + 64] += logits
            count[left : left + 64] += 1
        expected = F.interpolate(expected / count, batch['img_metas'][0][0]['ori_shape'][:2], mode='bilinear')[0]
    top = expected.topk(2, 0).values
    clear = top[0] - top[1] > 1e-3
    assert clear.float().mean() > 0.95 and (found == expected.argmax(0))[clear].all()


def test_scales_and_mirrored_images_are_averaged_as_probabilities(tiny, tiny_data):
    model, settings = tiny
    pipeline = inference_pipeline(settings.test_pipeline, scales=(0.5, 1.0), flip=True)
    pipeline[0]['img_scale'] = [(48, 32), (96, 64)]
    data = SegDataset(
        {
            'type': 'SegSourceRaw',
            'img_root': str(tiny_data / 'images' / 'val'),
            'label_root': str(tiny_data / 'annotations' / 'val'),
            'classes': list(settings.classes),
        },
        pipeline,
        mode='eval',
    )
    sample = data[0]
    assert len(sample['img']) == 4
    (found,) = Evaluator(model).predict(collate([sample]))
    total = 0
    with torch.no_grad():
        for image, meta in zip(sample['img'], sample['img_metas'], strict=True):
            logits = F.interpolate(model.logits(image[None]), image.shape[-2:], mode='bilinear')
            logits = F.interpolate(
                logits[..., : meta['img_shape'][0], : meta['img_shape'][1]], meta['ori_shape'][:2], mode='bilinear'
            ).softmax(1)
            total = total + (logits.flip(3) if meta['flip'] else logits)
    top = total[0].topk(2, 0).values
    assert not ((found != total[0].argmax(0)) & (top[0] - top[1] > 1e-4)).any()


def test_the_factors_multiply_the_test_size(tiny):
    settings = tiny[1]
    size = inference_pipeline(settings.test_pipeline)[0]['img_scale']
    assert inference_pipeline(settings.test_pipeline, (0.5, 2.0))[0]['img_scale'] == [
        (size[0] // 2, size[1] // 2),
        (2 * size[0], 2 * size[1]),
    ]
    with pytest.raises(ValueError, match="MMMultiScaleFlipAug .*this one has .'MMResize'"):
        inference_pipeline([{'type': 'MMResize'}])


def test_an_evaluation_is_the_same_for_any_batch_size_and_worker(tiny, tiny_data):
    model, settings = tiny
    data = dataset(settings, tiny_data, 'val')
    one = evaluate(model, data)
    other = evaluate(model, data, batch_size=3, workers=1)
    assert np.array_equal(one.confusion.counts, other.confusion.counts)
    assert one.images == 5 and one.confusion.counts.sum() == sum((data.load_label(i) != 255).sum() for i in range(5))
    values = one.values()
    assert math.isnan(values['IoU.wood']) or values['IoU.wood'] == 0
    assert json.dumps(values['mIoU']) != 'NaN'


WAYS = {
    'whole': {},
    'slide': {'test': InferenceSettings('slide', (64, 64), (20, 20))},
    'several scales': {},
    'bf16': {'dtype': torch.bfloat16},
}


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('value, kind', [(float('nan'), 'NaN'), (float('inf'), 'infinite')])
def test_a_network_that_diverged_is_an_error_that_names_the_model(tiny, tiny_data, tiny_model_dir, way, value, kind):
    model, settings = tiny
    with torch.no_grad():
        model.decode_head.conv_seg.bias[17] = value
    pipeline = {'scales': (0.5, 1.0), 'flip': True} if way == 'several scales' else {}
    data = dataset(settings, tiny_data, 'val', size=None if pipeline else (96, 64), **pipeline)
    with pytest.raises(LogitsError, match=f'{tiny_model_dir} are not finite .*{kind}.*use an earlier checkpoint'):
        evaluate(model, data, **WAYS[way])


def constant(value):
    """A network that gives class 2 of 3 one logit, and the others nothing."""

    def network(images):
        logits = torch.zeros(len(images), 3, images.shape[2] // 4, images.shape[3] // 4)
        logits[:, 2] = value
        return logits

    return network


@pytest.mark.parametrize('way', ['whole', 'slide', 'several scales'])
@pytest.mark.parametrize('value, best', [(3.4e38, 2), (1e31, 2), (-1e30, 0), (-1e31, 0), (-3.4e38, 0)])
def test_huge_finite_logits_give_the_best_class(tiny, way, value, best):
    image, meta = torch.zeros(1, 3, 64, 96), {'img_shape': (64, 96), 'ori_shape': (50, 70), 'flip': False}
    versions = 2 if way == 'several scales' else 1
    batch = {'img': [image] * versions, 'img_metas': [[meta]] * versions}
    evaluator = Evaluator(tiny[0], network=constant(value), **WAYS[way])
    (found,) = evaluator.predict(batch)
    assert found.shape == (50, 70) and (found == best).all()


def test_a_backbone_alone_is_not_evaluated(options, tmp_path):
    from modelscope.trainers import build_trainer

    from ms_segformer.models.checkpoint import CheckpointError

    trainer = build_trainer('easycv', options)
    backbone = {key: value for key, value in trainer.bare_model.state_dict().items() if key.startswith('backbone.')}
    torch.save({'state_dict': backbone}, tmp_path / 'backbone.pth')
    with pytest.raises(CheckpointError, match='no weights of a whole model'):
        trainer.evaluate(checkpoint_path=str(tmp_path / 'backbone.pth'))


def test_samples_that_are_no_tensors_are_an_error(tiny_model_dir):
    model, _ = load(tiny_model_dir)
    batch = {'img': [[np.zeros((48, 64, 3), np.uint8)]], 'img_metas': [[{}]]}
    with pytest.raises(DatasetError, match='have no tensor img; .* ImageToTensor'):
        Evaluator(model).predict(batch)
