import json
import pickle
import time

import numpy as np
import pytest
import torch
from modelscope.msdatasets import MsDataset
from modelscope.msdatasets.dataset_cls.custom_datasets.builder import CUSTOM_DATASETS, build_custom_dataset
from modelscope.msdatasets.dataset_cls.dataset import ExternalDataset
from modelscope.trainers import EpochBasedTrainer
from modelscope.utils.config import Config
from PIL import Image
from torch.utils.data import DataLoader

from ms_segformer.datasets.errors import DatasetError
from ms_segformer.datasets.seg_dataset import SegDataset, UnusableSegDataset, collate, raise_construction_error

CLASSES = ['sky', 'ground', 'house']
NORMALIZE = {'type': 'MMNormalize', 'mean': [123.675, 116.28, 103.53], 'std': [58.395, 57.12, 57.375], 'to_rgb': True}
TRAIN = [
    {'type': 'MMResize', 'img_scale': {'__class__': 'tuple', '__value__': [64, 32]}, 'ratio_range': [0.5, 2.0]},
    {'type': 'SegRandomCrop', 'crop_size': [32, 32], 'cat_max_ratio': 0.75},
    {'type': 'MMRandomFlip', 'flip_ratio': 0.5},
    {'type': 'MMPhotoMetricDistortion'},
    NORMALIZE,
    {'type': 'MMPad', 'size': [32, 32], 'pad_val': {'img': 0, 'masks': 0, 'seg': 255}},
    {'type': 'DefaultFormatBundle'},
    {'type': 'Collect', 'keys': ['img', 'gt_semantic_seg']},
]
TEST = [
    {
        'type': 'MMMultiScaleFlipAug',
        'img_scale': [128, 32],
        'flip': False,
        'transforms': [
            {'type': 'MMResize', 'keep_ratio': True},
            {'type': 'MMRandomFlip'},
            NORMALIZE,
            {'type': 'ImageToTensor', 'keys': ['img']},
            {'type': 'Collect', 'keys': ['img']},
        ],
    }
]


@pytest.fixture
def train_set(section):
    return SegDataset(section, TRAIN, mode='train', seed=5)


def test_a_training_sample_has_the_original_s_keys(train_set):
    sample = train_set[0]
    assert set(sample) == {'img', 'gt_semantic_seg', 'img_metas'}
    assert sample['img'].shape == (3, 32, 32) and sample['img'].dtype == torch.float32
    assert sample['gt_semantic_seg'].shape == (1, 32, 32) and sample['gt_semantic_seg'].dtype == torch.uint8
    metas = sample['img_metas']
    assert metas['ori_shape'] == (30, 40, 3) and metas['pad_shape'] == (32, 32, 3) and metas['ori_filename'] == 'a.jpg'
    assert set(metas) == {
        'filename',
        'ori_filename',
        'ori_shape',
        'img_shape',
        'pad_shape',
        'scale_factor',
        'flip',
        'flip_direction',
        'img_norm_cfg',
    }


def test_a_test_sample_has_a_list_of_versions_and_its_label(section):
    dataset = SegDataset(section, TEST, mode='eval')
    sample = dataset[2]
    assert [tuple(img.shape) for img in sample['img']] == [(3, 32, 43)]
    assert sample['img_metas'][0]['ori_shape'] == (30, 40, 3)
    assert sample['index'] == 2
    np.testing.assert_array_equal(sample['label'], dataset.load_label(2))
    assert dataset.CLASSES == CLASSES and dataset.num_classes == 3 and len(dataset.PALETTE) == 3


def test_the_pair_is_read_once_per_sample(train_set, monkeypatch):
    reads = []
    for name in ('read_raw_image', 'read_raw_label'):
        original = getattr(train_set.source, name)
        monkeypatch.setattr(train_set.source, name, lambda index, o=original, n=name: reads.append(n) or o(index))
    train_set[3]
    assert sorted(reads) == ['read_raw_image', 'read_raw_label']


def _epoch(dataset, workers, order, **options):
    loader = DataLoader(dataset, batch_size=2, sampler=order, num_workers=workers, collate_fn=collate, **options)
    images = {}
    for batch in loader:
        images.update(
            (meta['filename'], (img, label))
            for meta, img, label in zip(batch['img_metas'], batch['img'], batch['gt_semantic_seg'], strict=True)
        )
    return images


@pytest.mark.parametrize('workers', [0, 1, 2])
def test_samples_do_not_depend_on_workers_or_order(train_set, workers):
    train_set.set_epoch(2)
    expected = _epoch(train_set, 0, [0, 1, 2, 3, 4])
    np.random.seed(workers)
    got = _epoch(train_set, workers, [4, 2, 0, 1, 3])
    assert expected.keys() == got.keys()
    for name, tensors in expected.items():
        assert all(map(torch.equal, tensors, got[name]))


def test_the_epoch_reaches_workers_that_live_on(train_set):
    loader = DataLoader(train_set, batch_size=5, num_workers=2, persistent_workers=True, collate_fn=collate)
    seen = []
    for epoch in (0, 1, 0):
        train_set.set_epoch(epoch)
        seen.append(torch.cat([batch['img'] for batch in loader]))
    assert torch.equal(seen[0], seen[2]) and not torch.equal(seen[0], seen[1])
    train_set.set_seed(6)
    train_set.set_epoch(0)
    assert not torch.equal(seen[0], torch.cat([batch['img'] for batch in loader]))


def test_batches_of_test_samples_keep_their_sizes(section, pairs, write_pair):
    write_pair(pairs / 'images', pairs / 'labels', 'f', size=(30, 30))
    dataset = SegDataset(section, TEST, mode='eval')
    same, mixed = (
        next(iter(DataLoader(dataset, batch_size=2, sampler=order, collate_fn=collate)))
        for order in ([0, 1], [0, len(dataset) - 1])
    )
    assert same['img'][0].shape == (2, 3, 32, 43)
    assert [tuple(img.shape) for img in mixed['img'][0]] == [(1, 3, 32, 43), (1, 3, 32, 32)]
    assert [tuple(label.shape) for label in mixed['label']] == [(30, 40), (30, 30)]
    assert mixed['index'] == [0, 5]


def test_training_samples_of_different_size_are_an_error(section, pairs, write_pair):
    write_pair(pairs / 'images', pairs / 'labels', 'f', size=(30, 30))
    dataset = SegDataset(section, [TRAIN[0], NORMALIZE, *TRAIN[-2:]])
    with pytest.raises(DatasetError, match='SegRandomCrop and MMPad'):
        collate([dataset[0], dataset[5]])


def test_data_root_is_replaced_and_other_paths_stay(section, pairs):
    rooted = {**section, 'img_root': '${data_root}/images', 'label_root': '${data_root}/labels'}
    dataset = SegDataset(rooted, TRAIN, split_config={'train': str(pairs) + '/'})
    assert dataset.source.img_root == str(pairs / 'images')
    with pytest.raises(DatasetError, match=r'contains \$\{data_root\}'):
        SegDataset(rooted, TRAIN)
    with pytest.raises(DatasetError, match=r'img_root \./data/coco_stuff164k/train2017/ is not a folder'):
        SegDataset(
            {**section, 'img_root': './data/coco_stuff164k/train2017/'}, TRAIN, split_config={'train': str(pairs)}
        )


def test_an_unknown_transform_is_an_error_unless_the_fallback_knows_it(section):
    pipeline = [*TRAIN[:4], {'type': 'Brighten'}, *TRAIN[4:]]
    with pytest.raises(DatasetError, match='unknown transform "Brighten"'):
        SegDataset(section, pipeline)
    calls = []
    dataset = SegDataset(section, pipeline, fallback=lambda name: lambda: lambda results: calls.append(name) or results)
    dataset[0]
    assert calls == ['Brighten']


def test_a_data_set_survives_pickling(train_set):
    train_set.trainer = lambda: None  # not picklable
    copy = pickle.loads(pickle.dumps(train_set))
    assert torch.equal(copy[1]['img'], train_set[1]['img']) and copy.trainer is None


def _configuration(section):
    return Config(
        {
            'task': 'image-segmentation',
            'model': {'type': 'Segformer'},
            'preprocessor': {},
            'dataset': {
                'train': {'type': 'SegDataset', 'ignore_index': 255, 'data_source': section, 'pipeline': TRAIN},
                'val': {'type': 'SegDataset', 'ignore_index': 255, 'data_source': section, 'pipeline': TEST},
            },
        }
    )


def test_modelscope_builds_it_from_a_configuration(section, pairs):
    rooted = {**section, 'img_root': '${data_root}/images', 'label_root': '${data_root}/labels'}
    for mode, split in (('train', 'train'), ('eval', 'validation')):
        data = MsDataset(ExternalDataset({split: str(pairs)}, {}))
        data.to_custom_dataset(_configuration(rooted), mode=mode)
        assert isinstance(data.ds_instance, SegDataset) and len(data.ds_instance) == 5
        assert ('label' in data.ds_instance[0]) is (mode == 'eval')
    assert CUSTOM_DATASETS.get('SegDataset', 'image-segmentation') is SegDataset


def _build_in_trainer(configuration, data, mode='train'):
    """What ModelScope's trainer does with a data set, without a trainer."""
    return EpochBasedTrainer.build_dataset(object.__new__(EpochBasedTrainer), data, configuration, mode)


def test_an_error_survives_modelscope_s_trainer_and_comes_at_first_use(section, pairs, capsys):
    (pairs / 'labels/b.png').unlink()
    built = _build_in_trainer(_configuration(section), MsDataset(ExternalDataset({'train': str(pairs)}, {})))
    assert isinstance(built, UnusableSegDataset)
    for use in (
        lambda: len(built),
        lambda: built[0],
        lambda: built.CLASSES,
        lambda: raise_construction_error(built),
        lambda: DataLoader(built, shuffle=True),
    ):
        with pytest.raises(DatasetError, match=r'1 images have no label map; missing are .*b\.png'):
            use()
    with pytest.raises(DatasetError):
        SegDataset(section, TRAIN)


def test_a_good_data_set_raises_no_construction_error(train_set):
    assert raise_construction_error(train_set) is None


def test_a_plain_table_of_pairs_takes_the_configuration_s_pipeline(section):
    pairs = [
        (Image.fromarray(np.full((30, 40, 3), 10 * i, np.uint8)), Image.fromarray(np.full((30, 40), i, np.uint8)))
        for i in range(3)
    ]
    built = _build_in_trainer(_configuration(section), pairs)
    assert isinstance(built, SegDataset) and len(built) == 3 and built.CLASSES == CLASSES
    assert set(np.unique(built[2]['gt_semantic_seg'])) <= {2, 255}


def test_an_instance_passes_through_modelscope_s_trainer(section, train_set):
    assert _build_in_trainer(_configuration(section), train_set) is train_set


def test_an_error_in_a_worker_keeps_its_type_and_names_the_file(section, pairs):
    dataset = SegDataset(section, TRAIN)
    (pairs / 'images/c.jpg').write_bytes(b'gone')
    with pytest.raises(DatasetError, match=r'c\.jpg'):
        list(DataLoader(dataset, num_workers=1, collate_fn=collate))


def test_the_published_configuration_reads_the_reference_sample(shared, monkeypatch, tmp_path):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/coco_stuff164k').symlink_to(shared / 'data/cocostuff_sample')
    monkeypatch.chdir(tmp_path)
    configuration = json.loads((shared / 'oracle/configuration/b0.json').read_text())
    for split, count in (('train', 13), ('val', 8)):
        dataset = build_custom_dataset(
            {
                **configuration['dataset'][split],
                'mode': split,
                'preprocessor': None,
                'split_config': {split: '/unused'},
            },
            'image-segmentation',
        )
        assert len(dataset) == count
        sample = dataset[0]
        shape = sample['img'].shape if split == 'train' else sample['img'][0].shape
        assert shape == ((3, 512, 512) if split == 'train' else (3, 512, 769))
        assert dataset.num_classes == 171


def test_workers_start_although_opencv_has_threads_running(train_set):
    # OpenCV's pool does not survive a fork, and the wrong call in the worker waits for it forever.
    import cv2

    large = np.random.RandomState(0).rand(1500, 1500, 3).astype(np.float32)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        cv2.cvtColor(cv2.resize(large, (2000, 2000)), cv2.COLOR_BGR2HSV)
        time.sleep(1)  # the pool's threads have gone to sleep: only then does the wrong call wait
        loader = DataLoader(train_set, num_workers=1, timeout=60, collate_fn=collate, multiprocessing_context='fork')
        assert len(list(loader)) == 5
    finally:
        cv2.setNumThreads(threads)
