"""Label maps with COCO-Stuff's official ids (0-181): told from training ids by what only one of the two can hold."""
import numpy as np
import pytest
from PIL import Image

from ms_segformer.datasets import coco_stuff
from ms_segformer.datasets.errors import DatasetError
from ms_segformer.datasets.sources import SegSourcePairs, build_source, logger

CLASSES = list(coco_stuff.CLASSES)
EITHER, OFFICIAL, TRAIN = [0, 12, 111, 255], [0, 12, 180, 255], [0, 11, 111, 255]  # values of three label maps


@pytest.fixture(autouse=True)
def heard(monkeypatch, caplog):
    import modelscope.utils.logger  # noqa: F401  (when it is imported it takes the messages for itself)
    monkeypatch.setattr(logger, 'propagate', True)
    caplog.set_level('INFO', 'modelscope')


@pytest.fixture
def section(tmp_path):
    """A function that writes a data set, one pair for each list of values, and returns its `data_source` section."""
    def write(*maps, suffix='.png'):
        for folder in ('images', 'labels'):
            (tmp_path / folder).mkdir()
        for number, values in enumerate(maps):
            Image.new('RGB', (8, 4)).save(tmp_path / 'images' / f'{number}.jpg')
            Image.fromarray(np.resize(np.array(values, np.uint8), (4, 8))).save(
                tmp_path / 'labels' / f'{number}{suffix}')
        return {'type': 'SegSourceRaw', 'img_root': str(tmp_path / 'images'), 'label_root': str(tmp_path / 'labels'),
                'classes': CLASSES}
    return write


def ids(source, index):
    return np.unique(source.load(index)['gt_semantic_seg']).tolist()


def test_one_map_shows_the_ids_of_all(section, caplog):
    source = build_source(section(EITHER, OFFICIAL))
    assert source.official and ids(source, 0) == [0, 11, 100, 255] and ids(source, 1) == [0, 11, 169, 255]
    assert [record.getMessage() for record in caplog.records] == [
        f'label map {source.label_path(1)} holds 180: the label maps are the official ones of COCO-Stuff (ids 0-181); '
        'they are turned into training ids']


def test_an_id_that_no_official_map_has_shows_training_ids(section, caplog):
    source = build_source(section(EITHER, TRAIN))
    assert not source.official and ids(source, 0) == EITHER and ids(source, 1) == TRAIN
    assert not caplog.records


def test_where_nothing_shows_it_they_are_training_ids_and_this_is_said(section, caplog):
    source = build_source(section(EITHER, EITHER))
    assert not source.official and ids(source, 0) == EITHER
    assert 'set raw_ids to true' in caplog.text and len(caplog.records) == 1


def test_the_option_decides_without_a_look(section, caplog, monkeypatch):
    described = section(EITHER)
    monkeypatch.setattr(coco_stuff, 'shown_ids', None)
    assert ids(build_source({**described, 'raw_ids': True}), 0) == [0, 11, 100, 255]
    assert ids(build_source({**described, 'raw_ids': False}), 0) == EITHER
    assert not caplog.records


def test_the_names_of_converted_maps_decide_without_a_look(section, monkeypatch):
    described = section(EITHER, suffix='_labelTrainIds.png')
    monkeypatch.setattr(coco_stuff, 'shown_ids', None)
    assert ids(build_source({**described, 'label_suffix': '_labelTrainIds.png'}), 0) == EITHER


@pytest.mark.parametrize('maps', [[OFFICIAL, TRAIN], [TRAIN, OFFICIAL], [EITHER + [11, 180]]])
def test_a_mixture_is_refused(section, maps):
    described = section(*maps)
    with pytest.raises(DatasetError, match='prepare coco-stuff') as caught:
        build_source(described).load_label(len(maps) - 1)
    assert f'{described["label_root"]}/{len(maps) - 1}.png' in str(caught.value) and '\n' not in str(caught.value)


def test_an_id_of_neither_kind_is_an_error(section):
    described = section(OFFICIAL, [0, 200])
    with pytest.raises(DatasetError, match=r'1\.png: the label map holds ids \[200\]'):
        build_source(described).load_label(1)


def test_other_classes_are_not_looked_at(section, monkeypatch):
    described = {**section(OFFICIAL), 'classes': [f'class {number}' for number in range(181)]}
    monkeypatch.setattr(coco_stuff, 'shown_ids', None)
    assert ids(build_source(described), 0) == OFFICIAL
    with pytest.raises(DatasetError, match='raw_ids is for the 171 classes of COCO-Stuff 164k; these are 181 others'):
        build_source({**described, 'raw_ids': True})


def test_official_names_stand_in_for_converted_ones_that_are_not_there(section, caplog):
    described = {**section(EITHER, OFFICIAL), 'label_suffix': '_labelTrainIds.png'}
    source = build_source(described)
    assert source.official and ids(source, 0) == [0, 11, 100, 255]
    assert f'no *_labelTrainIds.png in {described["label_root"]}: its *.png are taken' in caplog.text


def test_official_names_that_show_nothing_are_refused(section):
    described = {**section(EITHER), 'label_suffix': '_labelTrainIds.png'}
    with pytest.raises(DatasetError, match='set raw_ids to false or true'):
        build_source(described)
    assert ids(build_source({**described, 'raw_ids': True}), 0) == [0, 11, 100, 255]


def test_where_some_are_converted_the_others_are_missing(section, tmp_path):
    described = {**section(OFFICIAL, OFFICIAL), 'label_suffix': '_labelTrainIds.png'}
    Image.fromarray(np.zeros((4, 8), np.uint8)).save(tmp_path / 'labels' / '0_labelTrainIds.png')
    with pytest.raises(DatasetError, match=r'1 images have no label map; missing are \S+/1_labelTrainIds.png'):
        build_source(described)


@pytest.mark.parametrize('kind', ['list', 'datasets'])
def test_a_table_is_looked_at_too(kind, caplog):
    rows = [{'image': Image.new('RGB', (8, 4)), 'label': Image.fromarray(np.resize(np.array(values, np.uint8), (4, 8)))}
            for values in (EITHER, OFFICIAL)]
    if kind == 'datasets':
        rows = pytest.importorskip('datasets').Dataset.from_list(rows)
    source = SegSourcePairs(rows, CLASSES)
    assert source.official and ids(source, 0) == [0, 11, 100, 255]
    assert 'label map of sample 1 holds 180' in caplog.text
    assert ids(SegSourcePairs(rows, CLASSES, raw_ids=False), 0) == EITHER


def test_a_large_data_set_is_looked_at_until_it_is_known(section, monkeypatch):
    read = []
    shown = coco_stuff.shown_ids
    monkeypatch.setattr(coco_stuff, 'shown_ids', lambda label: read.append(label) or shown(label))
    build_source(section(EITHER, *[OFFICIAL] * 299))
    assert len(read) == 2


@pytest.mark.parametrize('split', ['train', 'val'])
def test_both_kinds_of_the_reference_sample_are_told_apart(shared, split):
    root = shared / 'data' / 'cocostuff_sample'
    described = {'type': 'SegSourceRaw', 'img_root': str(root / f'{split}2017'), 'split': str(root / f'{split}.txt'),
                 'label_root': str(root / 'annotations' / f'{split}2017'), 'classes': CLASSES}
    official = build_source(described)
    converted = build_source({**described, 'label_suffix': '_labelTrainIds.png'})
    assert official.official and not converted.official
    for index in range(len(official)):
        np.testing.assert_array_equal(official.load_label(index), converted.load_label(index))
    assert coco_stuff.shown_ids(converted.load_label(1))[0] is None
