"""Label maps with COCO-Stuff's official ids (0-181): told from training ids by what only one of the two can hold."""

import numpy as np
import pytest
from PIL import Image

from ms_segformer.datasets import coco_stuff
from ms_segformer.datasets.errors import DatasetError
from ms_segformer.datasets.messages import logger
from ms_segformer.datasets.sources import SegSourcePairs, build_source, share_ids

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
                tmp_path / 'labels' / f'{number}{suffix}'
            )
        return {
            'type': 'SegSourceRaw',
            'img_root': str(tmp_path / 'images'),
            'label_root': str(tmp_path / 'labels'),
            'classes': CLASSES,
        }

    return write


def ids(source, index):
    return np.unique(source.load(index)['gt_semantic_seg']).tolist()


def test_one_map_shows_the_ids_of_all(section, caplog):
    source = build_source(section(EITHER, OFFICIAL))
    assert source.official and ids(source, 0) == [0, 11, 100, 255] and ids(source, 1) == [0, 11, 169, 255]
    assert [record.getMessage() for record in caplog.records] == [
        f'label map {source.label_path(1)} holds 180: the label maps are the official ones of COCO-Stuff (ids 0-181); '
        'they are turned into training ids'
    ]


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
    monkeypatch.setattr(coco_stuff, 'foreign_ids', None)
    assert ids(build_source({**described, 'raw_ids': True}), 0) == [0, 11, 100, 255]
    assert ids(build_source({**described, 'raw_ids': False}), 0) == EITHER
    assert not caplog.records


def test_the_names_of_converted_maps_decide_without_a_look(section, monkeypatch):
    described = section(EITHER, suffix='_labelTrainIds.png')
    monkeypatch.setattr(coco_stuff, 'foreign_ids', None)
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
    monkeypatch.setattr(coco_stuff, 'foreign_ids', None)
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
    rows = [
        {'image': Image.new('RGB', (8, 4)), 'label': Image.fromarray(np.resize(np.array(values, np.uint8), (4, 8)))}
        for values in (EITHER, OFFICIAL)
    ]
    if kind == 'datasets':
        rows = pytest.importorskip('datasets').Dataset.from_list(rows)
    source = SegSourcePairs(rows, CLASSES)
    assert source.official and ids(source, 0) == [0, 11, 100, 255]
    assert 'label map of sample 1 holds 180' in caplog.text
    assert ids(SegSourcePairs(rows, CLASSES, raw_ids=False), 0) == EITHER


def test_a_large_data_set_is_looked_at_until_it_is_known(section, monkeypatch):
    read = []
    shown = coco_stuff.foreign_ids
    monkeypatch.setattr(coco_stuff, 'foreign_ids', lambda *seen: read.append(seen) or shown(*seen))
    build_source(section(EITHER, *[OFFICIAL] * 299))
    assert len(read) == 2  # 12 and 180 are together in no other kind


@pytest.mark.parametrize('split', ['train', 'val'])
def test_both_kinds_of_the_reference_sample_are_told_apart(shared, split):
    root = shared / 'data' / 'cocostuff_sample'
    described = {
        'type': 'SegSourceRaw',
        'img_root': str(root / f'{split}2017'),
        'split': str(root / f'{split}.txt'),
        'label_root': str(root / 'annotations' / f'{split}2017'),
        'classes': CLASSES,
    }
    official = build_source(described)
    converted = build_source({**described, 'label_suffix': '_labelTrainIds.png'})
    assert official.official and not converted.official
    for index in range(len(official)):
        np.testing.assert_array_equal(official.load_label(index), converted.load_label(index))
    assert coco_stuff.TRAINING not in coco_stuff.foreign_ids(np.unique(converted.load_label(1)).tolist())


# COCO-Stuff 10k counts from 1: 0 is "not labeled", 182 the last.
FROM_ONE, FROM_ONE_SHOWN = [0, 6, 14, 180], [0, 6, 67, 173]


def test_maps_that_count_from_one_are_not_taken_for_those_that_count_from_zero(section):
    described = section(FROM_ONE, FROM_ONE_SHOWN)
    with pytest.raises(
        DatasetError,
        match=r'0\.png holds 180: .*1\.png holds 67, so they count from 1\..*'
        'reduce_zero_label to true',
    ) as caught:
        build_source(described)
    assert '\n' not in str(caught.value)
    source = build_source({**described, 'reduce_zero_label': True})
    assert source.official
    assert [ids(source, index) for index in (0, 1)] == [[5, 12, 168, 255], [5, 60, 161, 255]]


def test_maps_that_may_count_either_way_are_not_guessed(section):
    described = section(FROM_ONE)
    for reduce in (False, True):
        with pytest.raises(DatasetError, match='nothing shows whether they count from 0 or from 1'):
            build_source({**described, 'reduce_zero_label': reduce})
    assert ids(build_source({**described, 'raw_ids': True}), 0) == [0, 6, 13, 169]
    assert ids(build_source({**described, 'raw_ids': True, 'reduce_zero_label': True}), 0) == [5, 12, 168, 255]


def test_official_maps_from_zero_are_not_moved_down(section):
    described = section(OFFICIAL)
    with pytest.raises(DatasetError, match=r'holds 180: .*holds 12, so they count from 0\.'):
        build_source({**described, 'reduce_zero_label': True})


@pytest.mark.parametrize('kind', ['SegSourceRaw', 'SegSourceCocoStuff164k'])
def test_official_maps_that_hold_what_no_official_map_does_are_refused(section, kind):
    described = {**section(TRAIN), 'type': kind, 'raw_ids': True}
    with pytest.raises(DatasetError, match=r'0\.png: the label map holds ids \[11\], which no official'):
        build_source(described).load_label(0)


@pytest.mark.parametrize('value', [182, 200, 13])
def test_another_value_for_not_labeled_is_that_of_the_files(section, value):
    source = build_source({**section([0, 12, 180, value]), 'ignore_index': value})
    assert source.official and ids(source, 0) == [0, 11, 169, 255]


def test_a_split_that_shows_nothing_counts_as_the_other_does(section, tmp_path, monkeypatch):
    described = section(EITHER, OFFICIAL)
    train, val = (build_source({**described, 'split': [name]}) for name in '10')
    assert train.official and val.ids_unknown
    share_ids([train, None, val])
    assert val.official and ids(val, 0) == [0, 11, 100, 255]
    said = build_source({**described, 'split': ['0'], 'raw_ids': False})
    share_ids([train, said])
    assert not said.official
