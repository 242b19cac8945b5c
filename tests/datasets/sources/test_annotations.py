"""Annotations of COCO, LabelMe and Label Studio as label maps: what `predict --format` wrote comes back."""

import base64
import io
import json
import os
import pickle
import shutil
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from labeled_images import CLASSES, export, finish, label_map
from PIL import Image

from ms_segformer.datasets import DatasetError, build_source, find_data_sources, inspect
from ms_segformer.datasets.brush import encode_brush
from ms_segformer.datasets.label_file import read_label
from ms_segformer.datasets.layout import annotated_classes
from ms_segformer.datasets.sources import SegSourceLabelStudio
from ms_segformer.results.formats import encode_rle


@pytest.fixture
def images(tmp_path, monkeypatch):
    """{path: label map} of three images in `data/images`, one of them in a sub-folder."""
    monkeypatch.chdir(tmp_path)
    names = ('a.png', 'more/a.png', 'zebra.png')
    return {tmp_path / 'data/images' / name: label_map(seed, 180 + seed, 240) for seed, name in enumerate(names)}


def written(images, *formats, **options):
    jobs = finish('out', images)
    assert export('out', jobs, formats, **options)[1] == []


def corrected(path, target):
    """Predictions as Label Studio exports them once somebody has submitted them."""
    tasks = json.load(open(path))
    for number, task in enumerate(tasks):
        result = task.pop('predictions')[0]['result']
        task['annotations'] = [
            {'was_cancelled': False, 'result': []},
            {'was_cancelled': False, 'result': result},
            {'was_cancelled': True, 'result': []},
        ]
        task['id'] = number
    json.dump(tasks, open(target, 'w'))


def only_source(folder='data', **options):
    ((_, section),) = find_data_sources(folder, **options).items()
    return build_source(section)


def wanted(label):
    return np.where(label < len(CLASSES), label, 255)


def mean_iou(label, found):
    ids = [each for each in range(len(CLASSES)) if (label == each).mean() >= 0.01]
    return np.mean([((label == i) & (found == i)).sum() / ((label == i) | (found == i)).sum() for i in ids])


ROUND_TRIPS = [('coco', 'rle', 0, 1), ('labelstudio', 'rle', 0, 1)]
ROUND_TRIPS += [
    (format, 'polygons', *limit) for format in ('coco', 'labelme', 'labelstudio') for limit in ((0, 1), (0.75, 0.97))
]


@pytest.mark.parametrize('format, regions, simplify, least', ROUND_TRIPS)
def test_what_predict_wrote_comes_back(images, format, regions, simplify, least):
    written(images, format, regions=regions, simplify=simplify)
    if format == 'labelme':
        shutil.copytree('out/labelme/data/images', 'data/labelme')
    elif format == 'labelstudio':
        corrected('out/labelstudio.json', 'data/project-1-at-2024-01-01.json')
    else:
        shutil.copy('out/coco.json', 'data/coco.json')
    source = only_source(classes=CLASSES)
    assert type(source).__name__.lower() == f'segsource{format}' and len(source) == 3
    for index, (path, expected) in enumerate(images.items()):
        assert os.path.samefile(source.image_path(index), path)
        found = pickle.loads(pickle.dumps(source)).load(index)['gt_semantic_seg']
        if least == 1:
            np.testing.assert_array_equal(found, wanted(expected))
        else:
            assert mean_iou(wanted(expected), found) >= least


def test_real_label_maps_come_back(shared, tmp_path):
    """COCO-Stuff's own annotations: as polygons at the default simplification, painted over one another."""
    from ms_segformer.datasets.coco_stuff import CLASSES as NAMES
    from ms_segformer.results.formats import polygons

    ious, content = [], {'images': [], 'annotations': [], 'categories': []}
    content['categories'] = [{'id': number, 'name': name} for number, name in enumerate(NAMES)]
    labels = []
    for path in sorted((shared / 'data/cocostuff_sample/annotations').rglob('*_labelTrainIds.png')):
        label, name = read_label(path), path.name.replace('_labelTrainIds.png', '.jpg')
        labels.append(label)
        shutil.copy(next((shared / 'data/cocostuff_sample').rglob(name)), tmp_path)
        content['images'].append({'id': name, 'file_name': name, 'height': label.shape[0], 'width': label.shape[1]})
        content['annotations'] += [
            region(part.ring().ravel().tolist(), int(each), name, area=part.area)
            for each in np.unique(label[label < 171])
            for part in polygons(label == each)
        ]
    (tmp_path / 'coco.json').write_text(json.dumps(content))
    source = only_source(tmp_path)
    for index, label in enumerate(labels):
        found = source.load_label(index)
        for each in np.unique(label[label < 171]):
            mask = label == each
            if mask.mean() >= 0.01:
                ious.append((mask & (found == each)).sum() / (mask | (found == each)).sum())
    assert len(ious) > 100 and np.mean(ious) >= 0.98


def coco(images=((4, 6),), annotations=(), names=('car', 'road')):
    return {
        'images': [
            {'id': number, 'file_name': f'{number}.png', 'height': height, 'width': width}
            for number, (height, width) in enumerate(images)
        ],
        'categories': [{'id': 10 + number, 'name': name} for number, name in enumerate(names)],
        'annotations': list(annotations),
    }


def region(points, category=10, image=0, **more):
    return {'image_id': image, 'category_id': category, 'segmentation': [points], **more}


def save(content, path='data/coco.json', sizes=((4, 6),)):
    for number, (height, width) in enumerate(sizes):
        Path('data').mkdir(exist_ok=True)
        Image.new('RGB', (width, height)).save(f'data/{number}.png')
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_smaller_regions_of_coco_lie_above(here):
    small, large = region([1, 1, 3, 1, 3, 3, 1, 3], 10, area=4), region([0, 0, 5, 0, 5, 4, 0, 4], 11, area=20)
    for annotations in ([small, large], [large, small]):
        save(coco(annotations=annotations))
        label = only_source().load_label(0)
        assert label[2, 2] == 0 and label[0, 0] == 1 and label[0, 5] == 255


def test_later_shapes_of_labelme_lie_above_and_all_kinds_are_read(here):
    png = io.BytesIO()
    Image.fromarray(np.array([[255, 0], [255, 255]], np.uint8)).save(png, 'PNG')
    mask = base64.b64encode(png.getvalue()).decode()
    shapes = [
        {'label': 'road', 'points': [[0, 0], [6, 4]], 'shape_type': 'rectangle'},
        {'label': 'car', 'points': [[1, 1], [3, 1], [3, 3], [1, 3]]},
        {'label': 'tree', 'points': [[4, 1], [5, 2]], 'shape_type': 'mask', 'mask': mask},
        {'label': 'wheel', 'points': [[2, 2], [2, 2.8]], 'shape_type': 'circle'},
    ]  # fmt: skip
    file = {'shapes': shapes, 'imagePath': '..\\elsewhere\\0.png', 'imageHeight': 4, 'imageWidth': 6}
    save(file, 'data/0.json')
    source = only_source()
    assert source.CLASSES == ['car', 'road', 'tree', 'wheel']
    assert source.load_label(0).tolist() == [[1] * 6, [1, 3, 3, 1, 2, 1], [1, 3, 3, 1, 2, 2], [1] * 6]


def task(result, image='/data/upload/1/0a1b2c3d-0.png', **more):
    return {'data': {'image': image}, 'annotations': [{'result': result}], **more}


def drawn(kind, label='car', size=(4, 6), **value):
    return {'type': kind, 'original_height': size[0], 'original_width': size[1], 'value': {kind: [label], **value}}


@pytest.mark.parametrize(
    'image',
    ['/data/upload/1/0a1b2c3d-0.png', '/data/local-files/?d=any/0.png', 'https://host/a%20b/0.png?x=1', '0.png'],
)
def test_label_studio_s_regions_and_addresses(here, image):
    mask = np.zeros((4, 6), bool)
    mask[3] = True
    result = [
        drawn('rectanglelabels', x=0, y=0, width=100, height=50),
        drawn('polygonlabels', 'road', points=[[0, 0], [50, 0], [50, 25], [0, 25]]),
        drawn('brushlabels', 'tree', format='rle', rle=encode_brush(mask)),
        {'type': 'choices', 'value': {'choices': ['good']}},
    ]
    save([task(result, image), {'data': {'image': 'unlabeled.png'}, 'annotations': []}], 'data/labelstudio.json')
    source = only_source()
    assert source.CLASSES == ['car', 'road', 'tree']
    assert source.load_label(0).tolist() == [[1] * 3 + [0] * 3, [0] * 6, [255] * 6, [2] * 6]


@pytest.mark.parametrize('name', [b'a b #1?+%20&;.png', '照片.png'.encode(), b'no text \xff.png'])
def test_label_studio_s_addresses_of_any_name(here, name):
    save([], 'data/labelstudio.json')
    try:
        os.rename('data/0.png', os.path.join(b'data', name))
    except OSError:
        pytest.skip('this file system takes no such name')
    for address in ('/data/local-files/?d=photos/', 'https://host/'):
        save([task([drawn('polygonlabels', points=[[0, 0], [50, 0], [50, 25]])], address + quote(name))], 'data/l.json')
        os.replace('data/l.json', 'data/labelstudio.json')
        assert os.fsencode(only_source().image_path(0)) == os.path.join(b'data', name)


def test_pixels_outside_of_all_regions_may_be_a_class(here):
    save(coco(annotations=[region([1, 1, 3, 1, 3, 3, 1, 3])]))
    section = find_data_sources('data')['all']
    assert (build_source(section).load_label(0) == 255).sum() == 20
    assert (build_source({**section, 'unlabeled': 'road'}).load_label(0) == 1).sum() == 20
    with pytest.raises(DatasetError, match='unlabeled: the class "sky" is not among the 2 classes'):
        build_source({**section, 'unlabeled': 'sky'})


def test_classes_are_found_by_their_names(here):
    save(coco(annotations=[region([0, 0, 6, 0, 6, 4, 0, 4], 11)]))
    assert annotated_classes('data') == ['car', 'road']
    assert (only_source(classes=['a', 'b', 'road', 'car']).load_label(0) == 2).all()
    with pytest.raises(DatasetError, match='the class "road" is not among the 1 classes'):
        only_source(classes=['car'])
    Path('data/classes.txt').write_text('road\ncar\n')
    assert (only_source().load_label(0) == 0).all() and annotated_classes('data') is None


@pytest.mark.parametrize(
    'place',
    ['annotations/instances_{}2017.json', 'annotations/instances_{}.json', '{}.json', '{}/_annotations.coco.json'],
)
def test_splits_are_recognized(here, place):
    for split in ('train', 'val'):
        save(coco(annotations=[region([0, 0, 6, 0, 6, 4, 0, 4])]), f'data/{place.format(split)}')
        for folder in (f'data/{split}2017',) if '2017' in place else (f'data/{split}',):
            os.makedirs(folder, exist_ok=True)
            Image.new('RGB', (6, 4)).save(f'{folder}/0.png')
    found = find_data_sources('data')
    assert set(found) == {'train', 'val'}
    for split, section in found.items():
        source = build_source(section)
        assert split in source.image_path(0) and (source.load_label(0) == 0).all()


def test_label_maps_count_before_annotations(here):
    for kind, name in (('images', '0.png'), ('labels', '0.png')):
        os.makedirs(f'data/{kind}')
        Image.new('L', (6, 4)).save(f'data/{kind}/{name}')
    save(coco())
    Path('data/classes.txt').write_text('sky\n')
    assert find_data_sources('data')['all']['type'] == 'SegSourceRaw' and annotated_classes('data') is None


def test_a_split_file_chooses(here):
    sizes = ((4, 6), (4, 6))
    save(coco(sizes), sizes=sizes)
    section = find_data_sources('data')['all']
    assert [build_source({**section, 'split': ['1']}).name(0)] == ['1.png']
    with pytest.raises(DatasetError, match='that data/coco.json or the split file lists do not exist: 7'):
        build_source({**section, 'split': ['1.png', '7']})


def test_missing_and_doubled_images_are_named(here):
    content = coco(((4, 6), (4, 6)))
    save(content)
    section = find_data_sources('data')['all']
    with pytest.raises(DatasetError, match='1 images that data/coco.json lists do not exist: data/1.png'):
        build_source(section)
    source = build_source(section, check=False)
    assert inspect(source, 1).counts() == {'missing image': 1, 'nothing labeled': 1}
    content['images'][1]['file_name'] = '0.png'
    save(content)
    with pytest.raises(DatasetError, match='several entries for one image: 0.png and 0.png'):
        build_source(section)


def test_an_image_listed_twice_is_named_wherever_it_stands(here):
    content = coco(((4, 6),) * 3)
    content['images'][2]['file_name'] = '0.png'
    save(content, sizes=((4, 6),) * 2)
    with pytest.raises(DatasetError, match='several entries for one image: 0.png and 0.png'):
        only_source()


def test_images_lie_in_sub_folders(here):
    """An annotation that says less than the path below the folder finds the one image that it can mean."""
    os.makedirs('data/images/deep/a')
    Image.new('RGB', (6, 4)).save('data/images/deep/a/0.png')
    content = coco()
    for name in ('0.png', 'A/0.PNG', 'somewhere/deep/a/0.png'):
        content['images'][0]['file_name'] = name
        save(content, sizes=())
        assert only_source().name(0) == 'deep/a/0.png'
    content['images'][0]['file_name'] = 'b/0.png'
    save(content, sizes=())
    with pytest.raises(DatasetError, match='do not exist: data/images/b/0.png'):
        only_source()
    os.makedirs('data/images/deep/b')
    Image.new('RGB', (6, 4)).save('data/images/deep/b/0.png')
    content['images'][0]['file_name'] = '0.png'
    save(content, sizes=())
    with pytest.raises(DatasetError, match=r'images/0.png \(2 sub-folders have an image of this name\)'):
        only_source()


def test_images_above_the_folder_are_never_read(here):
    Path('data').mkdir()
    Image.new('RGB', (6, 4)).save('secret.png')
    content = coco()
    for name in ('../secret.png', str(Path('secret.png').absolute()), '..\\secret.png'):
        content['images'][0]['file_name'] = name
        save(content, sizes=())
        with pytest.raises(DatasetError, match='do not exist'):
            only_source()


BAD_COCO = [
    '{',
    '[' * 10**5,
    '{}',
    '{"images": [], "annotations": [], "categories": {}}',
    {**coco(), 'images': [7]},
    {**coco(), 'images': [{'id': 0}]},
    {**coco(), 'images': [{'id': [1], 'file_name': '0.png'}]},
    {**coco(), 'categories': [{'id': 'x', 'name': 'car'}]},
    {**coco(), 'categories': [{'id': 1, 'name': 5}]},
    coco(annotations=[region([0, 0, 1, 1, 2, 2], 99)]),
    coco(annotations=[region([0, 0, 1, 1, 2, 2], {})]),
    coco(annotations=[region([0, 0, 1, 1, 2, 2], image=5)]),
    {**coco(), 'images': [{**image, 'id': 7} for image in coco(((4, 6), (4, 6)))['images']]},
    {**coco(), 'categories': [{'id': 10, 'name': 'car'}, {'id': 10, 'name': 'road'}]},
    coco(annotations=[{'image_id': 0, 'category_id': 10, 'bbox': [0, 0, 1, 1]}]),
    coco(annotations=[region([0, 0, 1, 1])]),
    coco(annotations=[region([0, 0, 1e12, 1, 5, 5])]),
    coco(annotations=[region(['a'] * 6)]),
    coco(annotations=[{**region([]), 'segmentation': 'text'}]),
    coco(annotations=[{**region([]), 'segmentation': {'size': [4, 6], 'counts': [99]}}]),
    coco(annotations=[{**region([]), 'segmentation': encode_rle(np.ones((3, 3)))}]),
    coco(((2**20, 2**20),), [region([0, 0, 9, 0, 9, 9])]),
    coco(((4.5, 6),)),
    coco(((None, 6),)),
]


@pytest.mark.parametrize('content', BAD_COCO)
def test_damaged_coco_files_are_refused(here, content):
    save(content, sizes=((4, 6), (4, 6)))
    with pytest.raises(DatasetError, match='coco.json'):
        only_source().load_label(0)


def shape(**more):
    return {'label': 'car', 'points': [[0, 0], [2, 0], [2, 2]], 'shape_type': 'polygon', **more}


BAD_LABELME = [
    {'imagePath': '0.png'},
    {'shapes': [5]},
    {'shapes': [shape(label=None)]},
    {'shapes': [shape(points='x')]},
    {'shapes': [shape(points=[[0, 0]] * 2)]},
    {'shapes': [shape(shape_type='line', points=[[0, 0], [1, 1]])]},
    {'shapes': [shape(shape_type='point', points=[[0, 0]])]},
    {'shapes': [shape(shape_type='circle', points=[[0, 0], [1e300, 1e300]])]},
    {'shapes': [shape(shape_type='mask', points=[[0, 0], [1, 1]])]},
    {'shapes': [shape(shape_type='mask', points=[[0, 0], [1, 1]], mask='~')]},
    {'shapes': [shape(shape_type='mask', points=[[0, 0], [1, 1]], mask='AAAA')]},
    {'shapes': [], 'imageHeight': None},
    {'shapes': [], 'imagePath': 4},
]


@pytest.mark.parametrize('content', BAD_LABELME)
def test_damaged_labelme_files_are_refused(here, content):
    save({'imagePath': '0.png', 'imageHeight': 4, 'imageWidth': 6, **content}, 'data/0.json')
    section = {'type': 'SegSourceLabelMe', 'img_root': 'data', 'label_root': 'data', 'classes': ['car']}
    with pytest.raises(DatasetError, match='0.json'):
        build_source(section).load_label(0)


BAD_LABEL_STUDIO = [
    [5],
    [],
    [{'image': 'a.png', 'label': []}],
    [{'data': {'image': '0.png'}, 'predictions': [{'result': []}], 'annotations': []}],
    [{'data': {'image': '0.png'}, 'annotations': {}}],
    [task(5)],
    [task([7])],
    [task([drawn('brushlabels', rle=[1, 2])])],
    [task([drawn('brushlabels')])],
    [task([drawn('brushlabels', size=([], {}))])],
    [task([drawn('ellipselabels', x=1, y=1, radiusX=4, radiusY=4)])],
    [task([drawn('rectanglelabels', x=0, y=0, width=9, height=9, rotation=10)])],
    [task([drawn('rectanglelabels', x='0', y=0, width=9, height=9)])],
    [task([drawn('polygonlabels', points=[[0, 0], [1e9, 0], [5, 5]])])],
    [task([{**drawn('polygonlabels', points=[[0, 0], [9, 0], [5, 5]]), 'image_rotation': 90}])],
    [task([drawn('polygonlabels', size=(0, 6), points=[[0, 0], [9, 0], [5, 5]])])],
    [task([drawn('polygonlabels', size=(2**20, 2**20), points=[[0, 0], [9, 0], [5, 5]])])],
    [task([drawn('polygonlabels', None, points=[[0, 0], [9, 0], [5, 5]])])],
    [task([drawn('polygonlabels', points=[[0, 0], [9, 0], [5, 5]])], image=4)],
    [task([drawn('polygonlabels', points=[[0, 0], [9, 0], [5, 5]])], image='http://[x/0.png')],
]


@pytest.mark.parametrize('content', BAD_LABEL_STUDIO)
def test_damaged_exports_of_label_studio_are_refused(here, content):
    save(content, 'data/export.json')
    section = {'type': 'SegSourceLabelStudio', 'img_root': 'data', 'label_root': 'data/export.json', 'classes': ['car']}
    with pytest.raises(DatasetError, match='export.json'):
        build_source(section).load_label(0)


@pytest.mark.parametrize(
    ('content', 'says'), [(None, 'does not exist'), (b'', 'is an empty file'), (b'[{', 'is not JSON')]
)
def test_a_file_that_cannot_be_read_is_not_called_something_else(here, content, says):
    if content is not None:
        Path('export.json').write_bytes(content)
    with pytest.raises(DatasetError, match=f'^annotation file export.json {says}'):
        SegSourceLabelStudio.class_names('export.json')


def test_what_is_for_label_maps_is_refused(here):
    save(coco())
    with pytest.raises(DatasetError, match='regions are found by class names'):
        only_source(reduce_zero_label=True)


def test_an_image_of_another_size_is_an_error(here):
    save(coco(annotations=[region([0, 0, 1, 0, 1, 1])]), sizes=((5, 6),))
    with pytest.raises(DatasetError, match='coco.json .image 0.png. is 6×4 pixels and its image data/0.png is 6×5'):
        only_source().load(0)
