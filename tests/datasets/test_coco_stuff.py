import json

import numpy as np
import pytest

from ms_segformer.datasets import coco_stuff
from ms_segformer.datasets.label_file import read_label


def test_the_eleven_never_annotated_ids_are_left_out():
    assert len(coco_stuff.CLASSES) == len(set(coco_stuff.CLASSES)) == 171
    assert len(coco_stuff.RAW_NAMES) == 182
    absent = [coco_stuff.RAW_NAMES[raw_id] for raw_id in coco_stuff.ABSENT_RAW_IDS]
    assert absent == [
        'street sign',
        'hat',
        'shoe',
        'eye glasses',
        'plate',
        'mirror',
        'window',
        'desk',
        'door',
        'blender',
        'hair brush',
    ]
    assert coco_stuff.CLASSES[coco_stuff.NUM_THINGS - 1] == 'toothbrush'
    assert coco_stuff.CLASSES[coco_stuff.NUM_THINGS] == 'banner'


def test_raw_ids_keep_their_name_as_training_ids():
    for raw_id, name in enumerate(coco_stuff.RAW_NAMES):
        train_id = coco_stuff.RAW_TO_TRAIN[raw_id]
        if raw_id in coco_stuff.ABSENT_RAW_IDS:
            assert train_id == 255
        else:
            assert coco_stuff.CLASSES[train_id] == name
    assert (coco_stuff.RAW_TO_TRAIN[182:] == 255).all()


def test_the_published_palette_repeats_colors_and_the_distinct_one_does_not():
    assert len(coco_stuff.PALETTE) == 171
    assert len(set(coco_stuff.PALETTE)) == 162
    assert coco_stuff.PALETTE[0] == coco_stuff.PALETTE[1] == (0, 192, 64)  # person, bicycle
    distinct = coco_stuff.DISTINCT_PALETTE
    assert len(set(distinct)) == 171
    assert sum(a != b for a, b in zip(distinct, coco_stuff.PALETTE, strict=True)) == 9
    assert all(0 <= value <= 255 for color in distinct for value in color)


def test_a_label_map_with_ids_beyond_coco_stuff_is_refused():
    label = np.array([[0, 181, 255], [183, 5, 11]], np.uint8)
    with pytest.raises(ValueError, match=r'\[11, 183\]'):  # 11 is no official id either, but a training id
        coco_stuff.raw_label_to_train(label)
    label[1] = 30, 5, 12
    np.testing.assert_array_equal(coco_stuff.raw_label_to_train(label), [[0, 170, 255], [26, 5, 11]])


def test_names_map_and_palette_equal_the_reference(shared):
    mapping = json.loads((shared / 'data/cocostuff_sample/mapping.json').read_text())
    configuration = json.loads((shared / 'oracle/configuration/b0.json').read_text())
    assert list(coco_stuff.CLASSES) == mapping['classes172'] == configuration['CLASSES']
    assert [list(color) for color in coco_stuff.PALETTE] == configuration['PALETTE']
    assert {int(raw): train for raw, train in mapping['raw_to_train172'].items()} == {
        raw: int(train)
        for raw, train in enumerate(coco_stuff.RAW_TO_TRAIN)
        if raw == 255 or raw < 182 and raw not in coco_stuff.ABSENT_RAW_IDS
    }
    assert {int(raw): name for raw, name in mapping['raw_names'].items()} == dict(enumerate(coco_stuff.RAW_NAMES))


@pytest.mark.parametrize('split', ['train2017', 'val2017'])
def test_official_label_maps_convert_to_the_reference(shared, split):
    folder = shared / 'data/cocostuff_sample/annotations' / split
    converted = sorted(folder.glob('*_labelTrainIds.png'))
    assert len(converted) == {'train2017': 13, 'val2017': 8}[split]
    for path in converted:
        raw = read_label(folder / path.name.replace('_labelTrainIds', ''))
        np.testing.assert_array_equal(coco_stuff.raw_label_to_train(raw), read_label(path))
