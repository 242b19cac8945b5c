"""Formats of other tools: what the files hold, and what they never replace."""

import csv
import json
import os
import weakref
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest
from labeled_images import CLASSES, export, finish, label_map
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

from ms_segformer.cli import predict
from ms_segformer.datasets.brush import decode_brush
from ms_segformer.datasets.label_file import read_label
from ms_segformer.datasets.regions import fill_polygons
from ms_segformer.files import TEMPORARY
from ms_segformer.results import Manifest, ManifestError, OwnOutputs
from ms_segformer.results.formats.export import WRITERS, write_formats
from ms_segformer.results.formats.options import REGIONS, FormatOptions
from ms_segformer.results.palettes import palette_for


@pytest.fixture
def images(tmp_path, monkeypatch):
    """{path: label map} of three images, one of them in a sub-folder."""
    monkeypatch.chdir(tmp_path)
    names = ('photos/a.png', 'photos/more/a.png', 'photos/zebra.png')
    return {tmp_path / name: label_map(seed, 90 + seed, 120) for seed, name in enumerate(names)}


@pytest.fixture
def photographs(images):
    """Like `images`, of the size of small photographs."""
    return {path: label_map(seed, 360 + seed, 480) for seed, path in enumerate(images)}


@pytest.fixture
def jobs(images):
    return finish('out', images)


def wanted(label):
    """A label map with 255 where there is no class."""
    return np.where(label < len(CLASSES), label, 255)


def mean_iou(label, found):
    """Over classes that cover at least a hundredth of the image."""
    ids = [each for each in range(len(CLASSES)) if (label == each).mean() >= 0.01]
    assert len(ids) > 3
    return np.mean([((label == i) & (found == i)).sum() / ((label == i) | (found == i)).sum() for i in ids])


def tree():
    """Content of every file below the output folder."""
    return {str(path): path.read_bytes() for path in Path('out').rglob('*') if path.is_file()}


def test_the_command_has_all_formats():
    assert predict.FORMATS == tuple(WRITERS) and predict.REGIONS == REGIONS


def read_coco():
    """{file name: label map} by pycocotools."""
    coco = COCO('out/coco.json')
    assert [each['name'] for each in coco.loadCats(coco.getCatIds())] == CLASSES
    found = {}
    for image in coco.imgs.values():
        label = np.full((image['height'], image['width']), 255, np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(image['id'])):
            mask = coco.annToMask(annotation) > 0
            assert (label[mask] == 255).all() or annotation['iscrowd'] == 0
            label[mask] = annotation['category_id'] - 1
        found[image['file_name']] = label
    return found


def test_coco_gives_the_label_maps_back(images, jobs):
    assert export('out', jobs, ['coco']) == (['coco.json'], [])
    found = read_coco()
    assert list(found) == ['a.png', 'more/a.png', 'zebra.png']
    for label, expected in zip(found.values(), images.values(), strict=True):
        np.testing.assert_array_equal(label, wanted(expected))


def test_annotations_of_coco_say_area_box_and_score(images, jobs):
    for regions in ('rle', 'polygons'):
        export('out', jobs, ['coco'], regions=regions, simplify=0)
        content = json.load(open('out/coco.json'))
        assert [each['id'] for each in content['annotations']] == list(range(1, len(content['annotations']) + 1))
        pixels = {}
        for each in content['annotations']:
            key = each['image_id'], each['category_id'] - 1
            pixels[key] = pixels.get(key, 0) + each['area']
            assert each['score'] == pytest.approx(0.5 + 0.01 * key[1])
            x, y, width, height = each['bbox']
            assert 0 <= x < x + width <= 120 and 0 <= y < y + height <= 92
        for number, label in enumerate(images.values(), 1):
            for each in range(len(CLASSES)):
                assert pixels.get((number, each), 0) == (label == each).sum()


@pytest.mark.parametrize('simplify, least', [(0, 1), (0.75, 0.98)])
def test_polygons_of_coco_are_near_the_label_maps(photographs, simplify, least):
    export('out', finish('out', photographs), ['coco'], regions='polygons', simplify=simplify)
    for label, expected in zip(read_coco().values(), photographs.values(), strict=True):
        assert mean_iou(wanted(expected), label) >= least


def test_small_parts_are_left_out_on_request(images, jobs):
    for regions in ('rle', 'polygons'):
        export('out', jobs, ['coco', 'labelstudio', 'labelme'], regions=regions)
        before = sum(each['area'] < 30 for each in json.load(open('out/coco.json'))['annotations'])
        export('out', jobs, ['coco'], regions=regions, min_area=30)
        after = [each['area'] for each in json.load(open('out/coco.json'))['annotations']]
        assert min(after) >= 30 and (before or regions == 'rle')


def test_panoptic_gives_the_label_maps_back(images, jobs):
    """By the rules of the format: ids are colors, all of the picture's and no others are listed, with their areas."""
    written, refused = export('out', jobs, ['panoptic'])
    assert not refused and written[-1] == 'panoptic.json'
    content = json.load(open('out/panoptic.json'))
    names = {each['id']: each['name'] for each in content['categories']}
    assert list(names.values()) == CLASSES and {each['isthing'] for each in content['categories']} == {0}
    for annotation, image, expected in zip(content['annotations'], content['images'], images.values(), strict=True):
        assert annotation['image_id'] == image['id']
        color = np.array(Image.open(f'out/panoptic/{annotation["file_name"]}')).astype(int)
        assert color.shape == (image['height'], image['width'], 3)
        ids = color @ [1, 256, 65536]
        found, areas = np.unique(ids[ids > 0], return_counts=True)
        listed = {each['id']: each for each in annotation['segments_info']}
        assert {number: each['area'] for number, each in listed.items()} == dict(zip(found, areas, strict=True))
        label = np.full(ids.shape, 255)
        for number, each in listed.items():
            label[ids == number] = CLASSES.index(names[each['category_id']])
            rows, columns = np.nonzero(ids == number)
            x, y = columns.min(), rows.min()
            assert each['bbox'] == [x, y, columns.max() - x + 1, rows.max() - y + 1]
        np.testing.assert_array_equal(label, wanted(expected))


def test_masks_give_the_label_maps_back(images, jobs):
    export('out', jobs, ['masks'])
    for name, expected in zip(('a', 'more/a', 'zebra'), images.values(), strict=True):
        np.testing.assert_array_equal(read_label(f'out/masks/photos/{name}.png'), wanted(expected))
    assert open('out/masks/classes.txt', encoding='utf-8').read().splitlines() == CLASSES
    lines = open('out/masks/labelmap.txt', encoding='utf-8').read().splitlines()
    palette = Image.open('out/masks/photos/a.png').getpalette()
    assert lines[1] == f'sky:{palette[0]},{palette[1]},{palette[2]}::' and len(lines) == 7


def test_names_that_a_list_of_colors_cannot_hold_are_said(jobs):
    for name in ('road:wet', '#sky'):
        with Manifest('out') as manifest:
            options = FormatOptions([name, *CLASSES[1:]], palette_for(CLASSES))
            written, problems = write_formats(['masks', 'csv'], manifest, jobs, options)
        assert 'masks/classes.txt' in written and 'masks/labelmap.txt' not in written and 'segments.csv' in written
        assert len(problems) == 1 and f'{name!r} would be another class' in problems[0]


def test_the_table_has_a_row_a_segment(images, jobs):
    export('out', jobs, ['csv'])
    rows = list(csv.DictReader(open('out/segments.csv', encoding='utf-8', newline='')))
    assert {row['image'] for row in rows} == {'a.png', 'more/a.png', 'zebra.png'}
    for row in rows:
        label = images[next(path for path in images if str(path).endswith('photos/' + row['image']))]
        mask = label == int(row['id'])
        assert row['label'] == CLASSES[int(row['id'])] and int(row['pixels']) == mask.sum()
        x, y, width, height = (int(row[key]) for key in ('x', 'y', 'width', 'height'))
        assert mask[y : y + height, x : x + width].sum() == mask.sum()
        assert float(row['share']) == pytest.approx(mask.mean(), abs=1e-6)


@pytest.mark.parametrize('simplify, least', [(0, 1), (0.75, 0.98)])
def test_labelme_is_near_the_label_maps(photographs, simplify, least):
    export('out', finish('out', photographs), ['labelme'], simplify=simplify)
    for name, (path, expected) in zip(('a', 'more/a', 'zebra'), photographs.items(), strict=True):
        file = f'out/labelme/photos/{name}.json'
        content = json.load(open(file))
        assert os.path.samefile(os.path.join(os.path.dirname(file), content['imagePath']), path)
        label = np.full(expected.shape, 255)
        assert (content['imageHeight'], content['imageWidth']) == label.shape
        for shape in content['shapes']:
            assert shape['shape_type'] == 'polygon'
            label[fill_polygons([shape['points']], *label.shape, file) > 0] = CLASSES.index(shape['label'])
        assert mean_iou(wanted(expected), label) >= least


@pytest.mark.parametrize('simplify, least', [(0, 0.999), (0.75, 0.98)])
def test_labelme_s_own_drawing_is_near_the_label_maps(photographs, simplify, least):
    """By its `shape_to_mask`: Pillow fills polygons with their outline (tests/interop has LabelMe itself)."""
    export('out', finish('out', photographs), ['labelme'], simplify=simplify)
    for name, expected in zip(('a', 'more/a', 'zebra'), photographs.values(), strict=True):
        label = np.full(expected.shape, 255)
        for shape in json.load(open(f'out/labelme/photos/{name}.json'))['shapes']:
            mask = Image.new('1', expected.shape[::-1])
            ImageDraw.Draw(mask).polygon([tuple(point) for point in shape['points']], fill=1, outline=1)
            label[np.array(mask)] = CLASSES.index(shape['label'])
        assert mean_iou(wanted(expected), label) >= least


def test_label_studio_gives_the_label_maps_back(images, jobs):
    export('out', jobs, ['labelstudio'])
    tasks = json.load(open('out/labelstudio.json'))
    assert [task['data']['image'] for task in tasks] == [
        f'/data/local-files/?d={name}' for name in ('a.png', 'more/a.png', 'zebra.png')
    ]
    for task, expected in zip(tasks, images.values(), strict=True):
        label = np.full(expected.shape, 255)
        for region in task['predictions'][0]['result']:
            mask = decode_brush(region['value']['rle'], region['original_height'], region['original_width'], 'test')
            label[mask > 0] = CLASSES.index(region['value']['brushlabels'][0])
        np.testing.assert_array_equal(label, wanted(expected))
    root = xml.etree.ElementTree.parse('out/labelstudio_config.xml').getroot()
    assert [each.get('value') for each in root.iter('Label')] == CLASSES
    assert root.find('BrushLabels').get('name') == 'label' and root.find('Image').get('value') == '$image'


def test_label_studio_takes_polygons(photographs):
    export('out', finish('out', photographs), ['labelstudio'], regions='polygons', image_prefix='s3://bucket/')
    tasks = json.load(open('out/labelstudio.json'))
    assert tasks[1]['data']['image'] == 's3://bucket/more/a.png'
    for task, expected in zip(tasks, photographs.values(), strict=True):
        label = np.full(expected.shape, 255)
        for region in task['predictions'][0]['result']:
            points = np.array(region['value']['points']) / 100 * [label.shape[1], label.shape[0]]
            label[fill_polygons([points], *label.shape, 'test') > 0] = CLASSES.index(
                region['value']['polygonlabels'][0]
            )
        assert mean_iou(wanted(expected), label) >= 0.98


def test_written_again_the_same_files_stand_there(jobs):
    written, refused = export('out', jobs, WRITERS)
    assert not refused and len(written) == 3 * 3 + 7
    before = tree()
    assert not [name for name in before if TEMPORARY in name]
    times = {name: os.stat(name).st_mtime_ns for name in before}
    assert export('out', jobs, WRITERS) == (written, [])
    assert tree() == before
    assert {name for name in before if os.stat(name).st_mtime_ns != times[name]} <= {
        'out/coco.json', 'out/panoptic.json', 'out/labelstudio.json', 'out/segments.csv'
    }  # fmt: skip


def test_other_options_replace_what_this_command_wrote(jobs):
    export('out', jobs, ['coco', 'labelme'])
    before = tree()
    assert export('out', jobs, ['coco', 'labelme'], simplify=2, regions='polygons')[1] == []
    assert tree() != before


def test_corrected_files_stay(jobs):
    """They are named, all others are written, and --overwrite replaces them."""
    export('out', jobs, ['coco', 'labelme'])
    for name in ('coco.json', 'labelme/photos/a.json'):
        open(f'out/{name}', 'a').write('corrected')
    before = tree()
    _, refused = export('out', jobs, ['coco', 'labelme', 'csv'], simplify=2, regions='polygons')
    assert len(refused) == 2 and all('has been changed since it was written' in each for each in refused)
    after = tree()
    for name in ('coco.json', 'labelme/photos/a.json'):
        assert after[f'out/{name}'] == before[f'out/{name}']
    assert after['out/labelme/photos/zebra.json'] != before['out/labelme/photos/zebra.json']
    assert 'out/segments.csv' in after
    assert export('out', jobs, ['coco', 'labelme'], True, simplify=2)[1] == []
    json.load(open('out/coco.json'))


def test_what_is_in_the_way_stays(jobs, tmp_path):
    os.symlink(tmp_path / 'elsewhere', 'out/labelme')
    os.mkdir('out/segments.csv')
    os.symlink(tmp_path / 'other.json', 'out/coco.json')
    _, refused = export('out', jobs, ['coco', 'labelme', 'csv'], overwrite=True)
    assert len(refused) == 5 and all('is a symbolic link, folder or device' in each for each in refused)
    assert not (tmp_path / 'elsewhere').exists() and not (tmp_path / 'other.json').exists()


def test_images_and_results_are_never_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = finish('.', {tmp_path / 'masks' / 'masks' / 'a.png': label_map(), tmp_path / 'coco.png': label_map(1)})
    os.rename('masks/masks/a.png', 'masks/a.png')
    os.link('masks/a.png', 'masks/masks/a.png')
    for overwrite in (False, True):
        _, refused = export('.', jobs, ['coco', 'masks'], overwrite)
        assert any('coco.json is the result of an image' in each for each in refused)
    assert json.load(open('coco.json'))['image'] == str(tmp_path / 'coco.png')


def test_a_result_that_was_changed_is_left_out(jobs):
    open('out/photos/more/a.json', 'a').write(' ')
    os.remove('out/photos/zebra.json')
    _, problems = export('out', jobs, ['coco', 'csv'])
    assert len(problems) == 2 and all('--overwrite makes it again' in problem for problem in problems)
    assert list(read_coco()) == ['a.png']
    os.remove('out/photos/a.json')
    assert export('out', jobs, ['labelstudio'])[0] == ['labelstudio.json', 'labelstudio_config.xml']
    assert json.load(open('out/labelstudio.json')) == []


def test_files_of_formats_are_no_images(jobs):
    export('out', jobs, ['masks', 'panoptic'])
    own = OwnOutputs()
    assert 'out/masks/photos/a.png' in own and 'out/panoptic/photos/more/a.png' in own
    Image.new('L', (3, 3)).save('out/masks/photos/a.png')
    assert 'out/masks/photos/a.png' not in OwnOutputs()


@pytest.mark.parametrize('content', ['{', '[]', '{"outputs": {"../a": {"size": 1, "sha256": ""}}}', '{"outputs": [1]}'])
def test_a_damaged_list_is_said(jobs, content):
    open('out/formats.json', 'w').write(content)
    with pytest.raises(ManifestError, match='formats.json: not a list of ms-segformer predict'):
        export('out', jobs, ['csv'])


def test_a_run_without_images_gives_empty_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export('out', [], WRITERS)
    assert json.load(open('out/coco.json'))['images'] == json.load(open('out/labelstudio.json')) == []


def test_memory_does_not_grow_with_the_images(tmp_path, monkeypatch):
    """One image is held at a time: as many masks are alive after fifty as after one."""
    from ms_segformer.results.formats import images as module

    monkeypatch.chdir(tmp_path)
    jobs = finish('out', {tmp_path / f'{each}.png': label_map(each, 30, 40) for each in range(50)})
    made, alive = [], []

    class Counted(module.SegmentedImage):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(weakref.ref(self))
            alive.append(sum(each() is not None for each in made))

    monkeypatch.setattr(module, 'SegmentedImage', Counted)
    export('out', jobs, ['coco', 'labelstudio', 'panoptic'])
    assert len(alive) == 150 and max(alive) <= 2
