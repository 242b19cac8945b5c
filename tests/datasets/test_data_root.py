"""The paths of a configuration and the folder of the data set that was downloaded."""

import pytest

from ms_segformer.datasets.data_root import locate_source
from ms_segformer.datasets.seg_dataset import SegDataset


@pytest.fixture
def data_set(tmp_path, monkeypatch):
    """A data set `data`, and a working directory that has none of it."""
    (tmp_path / 'elsewhere' / 'train2017').mkdir(parents=True)
    (tmp_path / 'data' / 'train2017').mkdir(parents=True)
    (tmp_path / 'data' / 'train.txt').write_text('a\n')
    monkeypatch.chdir(tmp_path / 'elsewhere')
    return tmp_path / 'data'


@pytest.mark.parametrize(
    'path, below',
    [
        ('./data/coco_stuff164k/train2017', 'train2017'),
        ('data/coco_stuff164k/train.txt', 'train.txt'),
        ('../../data/train2017/', 'train2017'),
        ('train2017', None),
        ('./data/val2017', None),
        ('/nowhere/train.txt', None),
        ('.', None),
        ('', None),
        ('x\0', None),
        ('x' * 5000, None),
        (['a'], None),
    ],
)
def test_a_relative_path_that_is_not_there_is_found_below_the_data_set(data_set, caplog, path, below):
    with caplog.at_level('INFO', 'modelscope'):
        found = locate_source({'type': 'SegSourceRaw', 'img_root': path}, {'train': str(data_set)})
    assert found == {'type': 'SegSourceRaw', 'img_root': path if below is None else str(data_set / below)}
    said = [record.getMessage() for record in caplog.records]
    assert said == (
        []
        if below is None
        else [f'not in {data_set.parent}/elsewhere, and taken from the data set in {data_set}: {path} (img_root)']
    )
    assert locate_source({'img_root': path}, None) == {'img_root': path}


def test_a_data_set_finds_its_files_there(pairs, tmp_path, monkeypatch):
    (tmp_path / 'empty').mkdir()
    monkeypatch.chdir(tmp_path / 'empty')
    section = {
        'type': 'SegSourceRaw',
        'classes': ['sky', 'ground', 'house'],
        'img_root': './data/images',
        'label_root': './data/labels',
    }
    assert len(SegDataset(section, split_config={'train': str(pairs)})) == 5


@pytest.mark.parametrize(
    'entries, images, split',
    [
        (['coco/train2017'], 'coco/train2017', 'coco/train.txt'),
        (['coco/train2017', '.mark', '__MACOSX/x'], 'coco/train2017', 'coco/train.txt'),
        (['data/coco/train2017', 'data/coco/train.txt'], 'data/coco/train2017', 'data/coco/train.txt'),
        (['coco/train2017', 'coco/train.txt', 'README.md'], 'coco/train2017', 'coco/train.txt'),
        (['coco/train2017', 'train.txt'], 'coco/train2017', 'train.txt'),
        (['train2017', 'coco/train2017'], 'train2017', 'train.txt'),
        (['train2017'], 'train2017', 'train.txt'),
        ([], 'train2017', 'train.txt'),
    ],
)
@pytest.mark.parametrize('prefix', ['${data_root}', './data/coco_stuff164k'])
def test_an_archive_with_one_folder_is_that_folder(tmp_path, monkeypatch, prefix, entries, images, split):
    folder = tmp_path / 'data set'
    for entry in ['.', *entries]:
        path = folder / entry
        (path if '.' not in path.name else path.parent).mkdir(parents=True, exist_ok=True)
        if '.' in path.name:
            path.touch()
    monkeypatch.chdir(tmp_path)
    section = {'img_root': f'{prefix}/train2017', 'split': f'{prefix}/train.txt'}
    found = locate_source(section, {'train': str(folder)})
    expected = {key: folder / path for key, path in zip(section, (images, split), strict=True)}
    assert found == {
        key: str(path) if '$' in prefix or path.exists() else section[key] for key, path in expected.items()
    }


def test_the_folder_of_the_images_is_not_taken_for_the_label_maps(data_set):
    section = {'img_root': './data/train2017', 'label_root': './data/annotations/train2017'}
    assert locate_source(section, {'train': str(data_set)}) == {
        'img_root': str(data_set / 'train2017'),
        'label_root': './data/annotations/train2017',
    }
