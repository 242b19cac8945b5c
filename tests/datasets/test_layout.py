import json

import numpy as np
import pytest
from PIL import Image

from ms_segformer.datasets.coco_stuff import CLASSES
from ms_segformer.datasets.errors import DatasetError
from ms_segformer.datasets.layout import find_data_sources
from ms_segformer.datasets.sources import build_source


def _write(path, mode):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).convert(mode).save(path)


@pytest.mark.parametrize(
    ('images', 'labels', 'split'),
    [
        ('train2017/a.jpg', 'annotations/train2017/a_labelTrainIds.png', 'train'),
        ('images/train/a.png', 'annotations/train/a.png', 'train'),
        ('images/val/a.jpeg', 'labels/val/a.png', 'val'),
        ('train/images/a.jpg', 'train/labels/a.png', 'train'),
        ('img_dir/test/a.jpg', 'ann_dir/test/a.png', 'test'),
        ('images/a.jpg', 'labels/a.png', 'all'),
        ('JPEGImages/a.jpg', 'SegmentationClass/a.png', 'all'),
    ],
)
def test_usual_folders_are_found(tmp_path, images, labels, split):
    _write(tmp_path / images, 'RGB')
    _write(tmp_path / labels, 'L')
    sections = find_data_sources(tmp_path, classes=None if 'TrainIds' in labels else ['only'])
    assert list(sections) == [split]
    source = build_source(sections[split])
    assert len(source) == 1 and source.load(0)['img'].shape == (8, 8, 3)
    assert source.CLASSES == (list(CLASSES) if 'TrainIds' in labels else ['only'])


def test_the_folder_s_class_file_and_split_file_count(tmp_path):
    for name in 'ab':
        _write(tmp_path / f'images/train/{name}.jpg', 'RGB')
        _write(tmp_path / f'labels/train/{name}.png', 'L')
    (tmp_path / 'classes.txt').write_text('one\ntwo\n')
    (tmp_path / 'train.txt').write_text('b\n')
    source = build_source(find_data_sources(tmp_path)['train'])
    assert source.CLASSES == ['one', 'two'] and source.name(0) == 'b.jpg' and len(source) == 1


def test_a_model_directory_names_its_data(tmp_path):
    source = {'type': 'SegSourceRaw', 'img_root': '${data_root}/x', 'classes': ['one']}
    (tmp_path / 'configuration.json').write_text(
        json.dumps(
            {
                'dataset': {
                    'train': {'type': 'SegDataset', 'data_source': source},
                    'val': {'type': 'SegDataset', 'ignore_index': 7, 'data_source': {**source, 'img_root': './y'}},
                }
            }
        )
    )
    sections = find_data_sources(tmp_path, data_root='/data/')
    assert sections['train']['img_root'] == '/data/x' and sections['val']['img_root'] == './y'
    assert [section['ignore_index'] for section in sections.values()] == [255, 7]
    with pytest.raises(DatasetError, match='data_root'):
        find_data_sources(tmp_path)
