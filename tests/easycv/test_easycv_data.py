"""Metric values, and images after the published pipelines: ours against EasyCV's."""

import copy
import json

import cv2
import numpy as np
import pytest

CLASSES = [f'class {i}' for i in range(171)]
EVALUATORS = [{'type': 'SegmentationEvaluator', 'classes': CLASSES, 'metric_names': ['mIoU']}]


def _maps(seed, count=4):
    """Label maps of several sizes with absent classes, ignored pixels and predictions of VOID."""
    rng = np.random.RandomState(seed)
    labels, predictions = [], []
    for _ in range(count):
        height, width = rng.randint(20, 60, 2)
        label = rng.randint(0, 120, (height, width)).astype(np.uint8)
        label[rng.rand(height, width) < 0.1] = 255
        prediction = np.where(rng.rand(height, width) < 0.6, label, rng.randint(0, 172, (height, width)))
        prediction[prediction == 255] = 171
        labels.append(label)
        predictions.append(prediction.astype(np.uint8))
    return predictions, labels


@pytest.mark.parametrize('seed', range(3))
def test_every_metric_value_is_the_same(easycv, seed):
    from easycv.core.evaluation.builder import build_evaluator

    from ms_segformer.metrics.segmentation import EasyCVMetric

    predictions, labels = _maps(seed)
    ours = EasyCVMetric(evaluators=copy.deepcopy(EVALUATORS))
    for prediction, label in zip(predictions, labels, strict=True):
        ours.add({'seg_pred': [prediction]}, {'label': [label]})
    ours = ours.evaluate()
    kept = [label != 255 for label in labels]
    theirs = build_evaluator(copy.deepcopy(EVALUATORS))[0].evaluate(
        {'seg_pred': [p[k].astype(np.int64) for p, k in zip(predictions, kept, strict=True)]},
        {'gt_seg_maps': [t[k].astype(np.int64) for t, k in zip(labels, kept, strict=True)]},
    )
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name


TRAIN_PIPELINE = [
    {'type': 'MMResize', 'img_scale': (2048, 512), 'ratio_range': (0.5, 2.0)},
    {'type': 'SegRandomCrop', 'crop_size': (512, 512), 'cat_max_ratio': 0.75},
    {'type': 'MMRandomFlip', 'flip_ratio': 0.5},
    {'type': 'MMPhotoMetricDistortion'},
    {'type': 'MMNormalize', 'mean': [123.675, 116.28, 103.53], 'std': [58.395, 57.12, 57.375], 'to_rgb': True},
    {'type': 'MMPad', 'size': (512, 512), 'pad_val': {'img': 0, 'masks': 0, 'seg': 255}},
]


def _sample(path):
    image = cv2.imread(str(path))
    labels = (image[..., 1] // 2).astype(np.uint8)
    return {
        'img': image,
        'img_fields': ['img'],
        'gt_semantic_seg': labels,
        'seg_fields': ['gt_semantic_seg'],
        'filename': str(path),
        'ori_filename': path.name,
        'ori_shape': image.shape,
        'img_shape': image.shape,
    }


@pytest.mark.parametrize('seed', range(4))
def test_the_training_transforms_give_the_same_image_and_labels(easycv, photographs, seed):
    from easycv.datasets.shared.pipelines.transforms import Compose as TheirCompose

    from ms_segformer.datasets.transforms import Compose

    path = photographs[seed % len(photographs)]
    theirs = _sample(path)
    theirs['img'] = theirs['img'].astype(np.float32)  # as their data source hands it out
    np.random.seed(seed)
    theirs = TheirCompose(copy.deepcopy(TRAIN_PIPELINE))(theirs)
    ours = _sample(path)
    ours['img'] = ours['img'].astype(np.float32)
    ours = Compose(copy.deepcopy(TRAIN_PIPELINE))({**ours, 'rng': np.random.RandomState(seed)})
    assert (ours['gt_semantic_seg'] == theirs['gt_semantic_seg']).all()
    np.testing.assert_allclose(ours['img'], theirs['img'], atol=2e-4)


def test_a_transform_of_easycv_runs_in_our_pipeline_and_repeats_itself(easycv, photographs):
    from ms_segformer.datasets.transforms import Compose, sample_rng
    from ms_segformer.integrations.easycv import bridge

    assert bridge.transform('ColorAugSSDTransform').__module__.startswith('easycv.')
    pipeline = Compose(
        [TRAIN_PIPELINE[1], {'type': 'ColorAugSSDTransform', 'img_format': 'BGR'}, TRAIN_PIPELINE[4]],
        fallback=bridge.transform,
    )

    def run(index):
        return pipeline({**_sample(photographs[0]), 'rng': sample_rng(0, 0, index)})['img']

    assert run(0).dtype == np.float32
    assert (run(0) == run(0)).all() and not (run(0) == run(1)).all()


def test_a_transform_nobody_has_is_an_error_naming_it(easycv):
    from ms_segformer.datasets.errors import DatasetError
    from ms_segformer.datasets.transforms import build
    from ms_segformer.integrations.easycv import bridge

    with pytest.raises(DatasetError, match='MMNothing'):
        build({'type': 'MMNothing'}, fallback=bridge.transform)


def test_the_dataset_of_easycv_and_ours_agree_on_every_label(easycv, shared):
    """The 13 COCO-Stuff pairs, read by either through the published configuration's data section."""
    from ms_segformer.datasets.seg_dataset import SegDataset

    folder = shared / 'data' / 'cocostuff_sample'
    section = json.loads((shared / 'oracle' / 'configuration' / 'b0.json').read_text())['dataset']['train']
    source = {
        **section['data_source'],
        'img_root': f'{folder}/train2017/',
        'split': f'{folder}/train.txt',
        'label_root': f'{folder}/annotations/train2017/',
    }
    ours = SegDataset(data_source=copy.deepcopy(source), pipeline=[], mode='train')
    source.update(num_processes=1)
    from easycv.datasets.segmentation.data_sources.raw import SegSourceRaw

    theirs = SegSourceRaw(**{key: value for key, value in source.items() if key != 'type'})
    names = {sample['filename'].rsplit('/', 1)[-1]: i for i, sample in enumerate(theirs.samples_list)}
    assert len(ours) == len(names) == 13
    for i in range(len(ours)):
        name = str(ours.sample_name(i)).rsplit('/', 1)[-1]
        sample = theirs[names[name if name in names else f'{name}.jpg']]
        assert (ours.load_label(i) == sample['gt_semantic_seg']).all()
