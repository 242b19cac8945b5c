import io
import zlib

import numpy as np
import pytest
from PIL import Image

from ms_segformer.datasets.coco_stuff import CLASSES as COCO_CLASSES
from ms_segformer.datasets.coco_stuff import PALETTE, RAW_TO_TRAIN
from ms_segformer.datasets.errors import DatasetError
from ms_segformer.datasets.messages import logger
from ms_segformer.datasets.seg_dataset import SegDataset
from ms_segformer.datasets.sources import (
    SegSourcePairs,
    build_source,
    make_palette,
    reduce_zero_label,
    say_if_255_looks_like_a_class,
)

CLASSES = ['sky', 'ground', 'house']


def test_images_and_labels_pair_by_relative_name(section):
    source = build_source(section)
    assert [source.name(index) for index in range(len(source))] == ['a.jpg', 'b.jpg', 'c.jpg', 'd.jpg', 'deep/e.jpg']
    sample = source.load(4)
    assert sample['seg_filename'].endswith('labels/deep/e.png')
    assert sample['img'].shape == (30, 40, 3) and sample['img'].dtype == np.float32
    assert sample['gt_semantic_seg'].shape == (30, 40) and sample['gt_semantic_seg'].dtype == np.uint8
    expected = np.asarray(Image.open(sample['filename']))[..., ::-1]
    np.testing.assert_array_equal(sample['img'], expected)


def test_a_split_file_selects_and_orders_with_or_without_suffix(section, pairs):
    (pairs / 'train.txt').write_text('deep/e\n\nc.jpg\na\n')
    source = build_source({**section, 'split': str(pairs / 'train.txt')})
    assert [source.name(index) for index in range(len(source))] == ['deep/e.jpg', 'c.jpg', 'a.jpg']


def test_a_split_file_is_utf_8(section, pairs):
    (pairs / 'train.txt').write_bytes('Bär\n'.encode('latin-1'))
    with pytest.raises(DatasetError, match=f'^split file {pairs}/train.txt is not UTF-8 text .*; save it as UTF-8$'):
        build_source({**section, 'split': str(pairs / 'train.txt')})


def test_suffixes_match_in_any_case_and_as_a_list(section, pairs):
    (pairs / 'images/b.jpg').rename(pairs / 'images/b.JPG')
    (pairs / 'images/c.jpg').rename(pairs / 'images/c.jpeg')
    assert len(build_source(section)) == 4
    assert len(build_source({**section, 'img_suffix': ['.jpg', '.jpeg']})) == 5


def test_classes_may_be_a_file(section, pairs):
    source = build_source({**section, 'classes': str(pairs / 'classes.txt')})
    assert source.CLASSES == CLASSES


def test_a_palette_is_drawn_only_when_none_is_given(section):
    drawn = build_source(section).PALETTE
    assert drawn == build_source(section).PALETTE
    assert drawn[0] == [102, 179, 92]  # numpy.random.seed(42); randint(0, 255, (3, 3)): what EasyCV draws
    given = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert build_source({**section, 'palette': given}).PALETTE == given
    coco = build_source({**section, 'classes': list(COCO_CLASSES)})
    assert coco.PALETTE == [list(color) for color in PALETTE]
    with pytest.raises(DatasetError, match='palette'):
        build_source({**section, 'palette': given[:2]})


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'img_root': '/nowhere'}, 'img_root /nowhere is not a folder'),
        ({'label_root': '/nowhere'}, 'label_root /nowhere is not a folder'),
        ({'split': '/nowhere.txt'}, 'split file /nowhere.txt does not exist'),
        ({'img_suffix': '.bmp'}, 'no images ending in .bmp'),
        ({'label_suffix': '_ids.png'}, '5 images have no label map'),
        ({'classes': ['a', 'a']}, 'more than once'),
        ({'classes': []}, 'classes'),
        ({'classes': 'no_such_file.txt'}, 'no_such_file.txt'),
        ({'img_sufix': '.jpg'}, r"does not take \['img_sufix'\]; its arguments are: img_root"),
        (
            {'type': 'SegSourceMoon'},
            'unknown data source "SegSourceMoon"; known are: SegSourceCoco, SegSourceCocoStuff10k',
        ),
    ],
)
def test_a_wrong_section_says_what_is_wrong(section, change, message):
    with pytest.raises(DatasetError, match=message):
        build_source({**section, **change})


def test_a_missing_label_or_image_is_found_at_construction(section, pairs):
    (pairs / 'labels/c.png').unlink()
    with pytest.raises(DatasetError, match=r'1 images have no label map; missing are .*labels/c\.png'):
        build_source(section)
    (pairs / 'train.txt').write_text('a\nz\n')
    with pytest.raises(DatasetError, match=r'1 images that the split file .* do not exist: .*images/z\.jpg'):
        build_source({**section, 'split': str(pairs / 'train.txt')})
    pairing = build_source(section, check=False).pairing
    assert pairing.names == ['a', 'b', 'd', 'deep/e'] and len(pairing.missing_labels) == 1


def test_a_label_of_another_size_is_an_error(section, pairs):
    Image.fromarray(np.zeros((40, 30), np.uint8)).save(pairs / 'labels/b.png')
    source = build_source(section)
    source.load(0)
    with pytest.raises(DatasetError, match=r'b\.png is 30×40 pixels and its image .*b\.jpg is 40×30'):
        source.load(1)


def test_label_values_outside_the_classes_are_an_error(section, pairs):
    label = np.zeros((30, 40), np.uint8)
    label[0, :7] = 9
    Image.fromarray(label).save(pairs / 'labels/b.png')
    with pytest.raises(DatasetError, match=r'holds the values \[9\] \(7 pixels\); the 3 classes are 0-2 and 255'):
        build_source(section).load(1)


@pytest.mark.parametrize('content', [b'', b'no picture at all', None])
@pytest.mark.parametrize('kind', ['images/b.jpg', 'labels/b.png'])
def test_an_unreadable_file_is_an_error(section, pairs, kind, content):
    path = pairs / kind
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2] if content is None else content)
    with pytest.raises(DatasetError, match=path.name):
        build_source(section).load(1)


def test_another_value_for_not_labeled_becomes_255(section, pairs):
    label = np.zeros((30, 40), np.uint8)
    label[0], label[1] = 9, 255
    Image.fromarray(label).save(pairs / 'labels/b.png')
    loaded = build_source({**section, 'ignore_index': 9}).load_label(1)
    assert (loaded[:2] == 255).all() and (loaded[2:] == 0).all()
    label[0] = 3
    Image.fromarray(label).save(pairs / 'labels/b.png')
    with pytest.raises(DatasetError, match='set reduce_zero_label to true'):
        build_source(section).load_label(1)
    reduced = build_source({**section, 'reduce_zero_label': True}).load_label(1)
    assert (reduced[0] == 2).all() and (reduced[1:] == 255).all()


def test_reduce_zero_label_moves_ids_down():
    label = np.array([[0, 1, 2, 254, 255]], np.uint8)
    np.testing.assert_array_equal(reduce_zero_label(label), [[255, 0, 1, 253, 255]])


def test_official_coco_stuff_maps_train_without_conversion(tmp_path, write_pair):
    write_pair(tmp_path / 'img', tmp_path / 'ann', '0001')
    raw = np.random.RandomState(0).choice([0, 10, 12, 13, 181, 255], (30, 40)).astype(np.uint8)
    Image.fromarray(raw).save(tmp_path / 'ann/0001.png')
    cfg = {'type': 'SegSourceCocoStuff164k', 'img_root': str(tmp_path / 'img'), 'label_root': str(tmp_path / 'ann')}
    source = build_source(cfg)
    assert source.CLASSES == list(COCO_CLASSES)
    np.testing.assert_array_equal(source.load_label(0), RAW_TO_TRAIN[raw])
    # said to be training ids, the official ones are out of range
    with pytest.raises(DatasetError, match='ms-segformer prepare coco-stuff'):
        build_source({**cfg, 'classes': list(COCO_CLASSES), 'raw_ids': False}).load_label(0)


def test_pascal_voc_layout(tmp_path, write_pair):
    root = tmp_path / 'VOCdevkit/VOC2012'
    write_pair(root / 'JPEGImages', root / 'SegmentationClass', '2007_000032')
    (root / 'ImageSets/Segmentation').mkdir(parents=True)
    (root / 'ImageSets/Segmentation/train.txt').write_text('2007_000032\n')
    source = build_source({'type': 'SegSourceVoc2012', 'path': str(tmp_path), 'split': 'train'})
    assert len(source) == 1 and len(source.CLASSES) == 21
    assert source.load(0)['gt_semantic_seg'].max() == 255


def test_coco_stuff_10k_reads_mat_files(tmp_path, write_pair):
    savemat = pytest.importorskip('scipy.io').savemat
    write_pair(tmp_path / 'img', tmp_path / 'ann', 'COCO_1')
    savemat(tmp_path / 'ann/COCO_1.mat', {'S': np.full((30, 40), 182, np.uint8)})
    (tmp_path / 'train.txt').write_text('COCO_1\n')
    source = build_source(
        {
            'type': 'SegSourceCocoStuff10k',
            'path': str(tmp_path / 'train.txt'),
            'img_root': str(tmp_path / 'img'),
            'label_root': str(tmp_path / 'ann'),
        }
    )
    assert source.CLASSES[source.load_label(0)[0, 0]] == 'wood'


def _encoded(image):
    stream = io.BytesIO()
    image.save(stream, 'PNG')
    return stream.getvalue()


@pytest.mark.parametrize('form', ['tuple', 'dict', 'bytes', 'array', 'path'])
def test_a_table_of_pairs_is_a_source(tmp_path, form):
    colors = np.random.RandomState(0).randint(0, 256, (30, 40, 3), np.uint8)
    ids = np.random.RandomState(1).randint(0, 3, (30, 40)).astype(np.uint8)
    image, label = Image.fromarray(colors), Image.fromarray(ids)
    image.save(tmp_path / 'x.png')
    label.save(tmp_path / 'y.png')
    sample = {
        'tuple': (image, label),
        'dict': {'image': image, 'label': label},
        'bytes': {'image': {'bytes': _encoded(image), 'path': None}, 'label': {'bytes': _encoded(label)}},
        'array': (colors, ids.astype(np.int64)),
        'path': {'img': str(tmp_path / 'x.png'), 'mask': str(tmp_path / 'y.png')},
    }[form]
    loaded = SegSourcePairs([sample], CLASSES).load(0)
    np.testing.assert_array_equal(loaded['img'], colors[..., ::-1])
    np.testing.assert_array_equal(loaded['gt_semantic_seg'], ids)


def test_a_table_without_a_known_image_column_names_its_columns():
    with pytest.raises(DatasetError, match=r"\['a', 'b'\]"):
        SegSourcePairs([{'a': 1, 'b': 2}], CLASSES)


def test_a_huggingface_table_is_a_source():
    datasets = pytest.importorskip('datasets')
    colors = np.random.RandomState(0).randint(0, 256, (30, 40, 3), np.uint8)
    ids = np.random.RandomState(1).randint(0, 3, (30, 40)).astype(np.uint8)
    features = datasets.Features({'image': datasets.Image(), 'label': datasets.Image()})
    table = datasets.Dataset.from_dict(
        {
            'image': [{'bytes': _encoded(Image.fromarray(colors)), 'path': None}],
            'label': [{'bytes': _encoded(Image.fromarray(ids)), 'path': None}],
        },
        features,
    )
    loaded = SegSourcePairs(table.with_format('torch'), CLASSES).load(0)
    np.testing.assert_array_equal(loaded['img'], colors[..., ::-1])
    np.testing.assert_array_equal(loaded['gt_semantic_seg'], ids)


def test_the_reference_sample_loads_whole(shared):
    root = shared / 'data/cocostuff_sample'
    cfg = {
        'type': 'SegSourceRaw',
        'img_root': str(root / 'train2017'),
        'split': str(root / 'train.txt'),
        'label_root': str(root / 'annotations/train2017'),
        'label_suffix': '_labelTrainIds.png',
        'classes': list(COCO_CLASSES),
    }
    source = build_source(cfg)
    assert len(source) == 13
    assert source.name(0) == '000000017914.jpg'
    for index in range(len(source)):
        assert source.load(index)['gt_semantic_seg'].shape == source.load(index)['img'].shape[:2]
    official = build_source(
        {
            'type': 'SegSourceCocoStuff164k',
            'img_root': cfg['img_root'],
            'label_root': cfg['label_root'],
            'split': cfg['split'],
        }
    )
    for index in range(len(source)):
        np.testing.assert_array_equal(official.load_label(index), source.load_label(index))


@pytest.mark.parametrize('split', [None, 'd.png\nd.jpg\na\n', 'a\nd\n'])
def test_two_images_of_one_name_are_no_pairs(section, pairs, split):
    Image.new('RGB', (40, 30)).save(pairs / 'images/d.png')
    both = {**section, 'img_suffix': ['.jpg', '.png']}
    if split is not None:
        (pairs / 'train.txt').write_text(split)
        both['split'] = str(pairs / 'train.txt')
    with pytest.raises(DatasetError) as caught:
        build_source(both)
    first, second = sorted(
        [str(pairs / 'images/d.jpg'), str(pairs / 'images/d.png')],
        reverse=split is not None and split.startswith('d.png'),
    )
    assert str(caught.value) == (
        f'images that differ in their ending only take the same label map: {first} and {second}. Rename or remove all '
        'but one, or set img_suffix to the ending that counts'
    )
    assert len(build_source(section)) == 5, 'with one ending there is no doubt'


def test_a_split_file_that_names_endings_decides(section, pairs):
    Image.new('RGB', (40, 30), 'red').save(pairs / 'images/d.png')
    (pairs / 'train.txt').write_text('a.jpg\nd.png\nd.png\n')
    source = build_source({**section, 'img_suffix': ['.jpg', '.png'], 'split': str(pairs / 'train.txt')})
    assert [source.name(index) for index in range(len(source))] == ['a.jpg', 'd.png', 'd.png']


def test_names_that_differ_in_case_do_not_share_a_label_map(section, pairs):
    Image.new('RGB', (40, 30)).save(pairs / 'images/D.jpg')
    with pytest.raises(DatasetError, match=r'take the same label map: \S*/images/D.jpg and \S*/images/d.jpg\.'):
        build_source(section)


def test_values_outside_the_classes_are_found_in_a_sample(section, pairs):
    Image.fromarray(np.full((30, 40), 7, np.uint8)).save(pairs / 'labels/c.png')
    (pairs / 'labels/b.png').write_bytes(b'')
    assert build_source(section).ids_outside() == ({7: 1}, str(pairs / 'labels/c.png'))
    assert build_source(section).ids_outside(most=1) == ({}, None)


def test_a_table_without_label_maps_is_refused_for_training():
    image = Image.new('RGB', (40, 30))
    dataset = SegDataset(datasets=[{'image': image, 'caption': 'a'}], data_source={'classes': CLASSES}, mode='train')
    with pytest.raises(DatasetError, match=r'no label maps \(its columns: image, caption\)\. Name .* data_root=…'):
        dataset.require_labels()
    with pytest.raises(DatasetError, match='the column "label" holds numbers, not label maps'):
        SegSourcePairs([{'image': image, 'label': 3}], CLASSES)


def test_images_without_label_maps_are_refused_for_training(section):
    del section['label_root']
    with pytest.raises(DatasetError, match='images have no label maps; set label_root'):
        SegDataset(section).require_labels()


@pytest.mark.parametrize(
    'palette',
    [
        [[0, 0, 0], [1, 2]],
        [['a', 0, 0], [0, 0, 0]],
        [[None] * 3] * 2,
        [[0, 0, 256]] * 2,
        [[float('nan')] * 3] * 2,
        'grey',
        5,
    ],
)
def test_a_palette_that_is_none_is_an_error(palette):
    with pytest.raises(DatasetError, match='palette holds one .red, green, blue. of 0-255 for each of the 2 classes'):
        make_palette(palette, ['a', 'b'])


def test_images_of_a_table_hold_the_ids_of_their_files():
    """`datasets` decodes by Pillow, which stretches PNGs of 4 bits to 0-255 and says nothing of lossy files."""
    datasets = pytest.importorskip('datasets')

    def table(form, **options):
        content = io.BytesIO()
        label = Image.fromarray(np.resize(np.arange(16, dtype=np.uint8), (4, 8)))
        (label if form == 'JPEG' else label.convert('P')).save(content, form, **options)
        stored = {'bytes': _grey(content.getvalue()) if form == 'PNG' else content.getvalue(), 'path': None}
        features = datasets.Features({'image': datasets.Image(), 'label': datasets.Image()})
        return datasets.Dataset.from_dict({'image': [stored] * 2, 'label': [stored] * 2}, features=features)

    names = [f'class {number}' for number in range(254)]
    assert np.unique(SegSourcePairs(table('PNG', bits=4), names).load_label(1)).tolist() == list(range(16))
    with pytest.raises(DatasetError, match='of sample 1 is a lossy JPEG'):
        SegSourcePairs(table('JPEG'), names).load_label(1)


def _grey(png):
    """A PNG with a palette, 4 bits a pixel, as one without: the same bytes mean shades of grey."""
    at = png.index(b'IDAT') - 4
    header = png[:8] + png[8:33].replace(b'\x04\x03\0\0\0', b'\x04\0\0\0\0')[:-4]
    return header + zlib.crc32(header[12:]).to_bytes(4, 'big') + png[at:]


@pytest.mark.parametrize('cell', [None, {'bytes': None, 'path': None}])
def test_a_row_of_a_table_without_a_label_map_is_named(cell):
    source = SegSourcePairs([{'image': Image.new('RGB', (4, 4)), 'mask': cell}], ['a', 'b'])
    with pytest.raises(DatasetError, match='label map of sample 0 is empty: the column "mask" holds nothing there'):
        source.load_label(0)


def test_a_split_file_may_begin_with_a_byte_order_mark(section, pairs):
    (pairs / 'train.txt').write_text('a\nb\n', encoding='utf-8-sig')
    source = build_source({**section, 'split': str(pairs / 'train.txt')})
    assert [source.name(index) for index in range(2)] == ['a.jpg', 'b.jpg']


@pytest.mark.parametrize('values, said', [((0, 255), True), ((255,), True), ((0,), False), ((0, 1, 255), False)])
def test_masks_of_0_and_255_are_said_to_hold_one_class(section, pairs, caplog, monkeypatch, values, said):
    import modelscope.utils.logger  # noqa: F401  (when it is imported it takes the messages for itself)

    monkeypatch.setattr(logger, 'propagate', True)
    for path in (pairs / 'labels').rglob('*.png'):
        Image.fromarray(np.resize(np.array(values, np.uint8), (30, 40))).save(path)
    say_if_255_looks_like_a_class(build_source(section))
    assert ('255 is "not labeled", so no pixel is ground. Where 255 means that class' in caplog.text) == said
