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


@pytest.mark.parametrize('path, below', [
    ('./data/coco_stuff164k/train2017', 'train2017'), ('data/coco_stuff164k/train.txt', 'train.txt'),
    ('../../data/train2017/', 'train2017'), ('train2017', None), ('./data/val2017', None),
    ('/nowhere/train.txt', None), ('.', None), ('', None), ('x\0', None), ('x' * 5000, None), (['a'], None)])
def test_a_relative_path_that_is_not_there_is_found_below_the_data_set(data_set, caplog, path, below):
    with caplog.at_level('INFO', 'modelscope'):
        found = locate_source({'type': 'SegSourceRaw', 'img_root': path}, {'train': str(data_set)})
    assert found == {'type': 'SegSourceRaw', 'img_root': path if below is None else str(data_set / below)}
    said = [record.getMessage() for record in caplog.records]
    assert said == ([] if below is None else [
        f'not in {data_set.parent}/elsewhere, and taken from the data set in {data_set}: {path} (img_root)'])
    assert locate_source({'img_root': path}, None) == {'img_root': path}


def test_a_data_set_finds_its_files_there(pairs, tmp_path, monkeypatch):
    (tmp_path / 'empty').mkdir()
    monkeypatch.chdir(tmp_path / 'empty')
    section = {'type': 'SegSourceRaw', 'classes': ['sky', 'ground', 'house'], 'img_root': './data/images',
               'label_root': './data/labels'}
    assert len(SegDataset(section, split_config={'train': str(pairs)})) == 5


@pytest.mark.parametrize('entries, moved', [
    (['coco/train2017'], True), (['coco/train2017', '.mark', '__MACOSX/x'], True),
    (['coco/train2017', 'train.txt'], False),
    (['train2017', 'coco/train2017'], False), (['train2017'], False), ([], False)])
def test_an_archive_with_one_folder_is_that_folder(tmp_path, entries, moved):
    for entry in entries:
        (tmp_path / entry).mkdir(parents=True)
    found = locate_source({'img_root': '${data_root}/train2017', 'split': '${data_root}/train.txt'},
                          {'train': str(tmp_path)})
    root = tmp_path / 'coco' if moved else tmp_path
    assert found == {'img_root': str(root / 'train2017'), 'split': str(root / 'train.txt')}
