"""The scripts in `examples`, run as their docstrings say, on pictures of sky above ground."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from forks import LIBRARIES, forks
from PIL import Image
from pycocotools import mask as coco

import ms_segformer

EXAMPLES = Path(__file__).parents[2] / 'examples'
SIZE = HEIGHT, WIDTH = 96, 128


def run(folder, script, *arguments):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    return forks(LIBRARIES).run([EXAMPLES / script, *arguments], environment, cwd=folder)


def horizon(number):
    return 36 + 4 * number


@pytest.fixture
def photos(tmp_path):
    """A folder with five pictures, one of them in a sub-folder, next to which the scripts run."""
    random = np.random.default_rng(0)
    for number in range(5):
        label = np.repeat([0, 1], (horizon(number), HEIGHT - horizon(number)))[:, None].repeat(WIDTH, 1)
        image = np.array([(120, 170, 230), (90, 80, 40)])[label] + random.normal(0, 10, (*SIZE, 3))
        path = tmp_path / 'photos' / ('more' if number == 4 else '') / f'{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)
    return tmp_path / 'photos'


NAMES = ['0.png', '1.png', '2.png', '3.png', os.path.join('more', '4.png')]


def test_a_folder_becomes_one_coco_file(photos, tmp_path, tiny_model_dir):
    (photos / 'torn.jpg').write_bytes(b'\xff\xd8\xff')
    done = run(tmp_path, 'folder_to_coco.py', 'photos', 'photos.json', '--model', tiny_model_dir)
    assert done.returncode == 1 and 'torn.jpg' in done.stderr, done.stderr
    document = json.loads((tmp_path / 'photos.json').read_text())
    names = {image['id']: image['file_name'] for image in document['images']}
    assert sorted(names.values()) == NAMES
    segmenter = ms_segformer.load(tiny_model_dir, engine='torch')
    for number, name in names.items():
        result = segmenter(str(photos / name))
        found = [each for each in document['annotations'] if each['image_id'] == number]
        assert sorted(each['category_id'] - 1 for each in found) == sorted(
            map(segmenter.classes.index, result['labels'])
        )
        for each in found:
            mask = coco.decode(each['segmentation'])
            assert (mask == (result['seg_map'] == each['category_id'] - 1)).all()

    again = run(tmp_path, 'folder_to_coco.py', 'photos', 'photos.json', '--model', tiny_model_dir)
    assert again.returncode == 2 and 'photos.json is there already' in again.stderr


def test_a_folder_becomes_a_table(photos, tmp_path, tiny_model_dir):
    pandas = pytest.importorskip('pandas', reason='a table needs pandas')
    done = run(tmp_path, 'result_to_pandas.py', 'photos', 'classes.csv', '--model', tiny_model_dir)
    assert done.returncode == 0, done.stderr
    rows = pandas.read_csv(tmp_path / 'classes.csv')
    assert sorted(set(rows['image'])) == NAMES
    result = ms_segformer.load(tiny_model_dir, engine='torch')(str(photos / '0.png'), confidence=True)
    of_first = rows[rows['image'] == '0.png'].set_index('label')
    assert sorted(of_first.index) == sorted(result['labels'])
    for label, score, mask in zip(result['labels'], result['scores'], result['masks'], strict=True):
        row = of_first.loc[label]
        assert row['pixels'] == mask.sum()
        assert row['score'] == pytest.approx(score, abs=1e-5) and row['confidence'] == pytest.approx(score, abs=1e-3)
        assert row['unsure'] == pytest.approx((result['margin'][mask > 0] < 0.1).mean(), abs=1e-3)
    largest = rows.groupby('label')['pixels'].sum().idxmax()
    assert largest in done.stdout


def test_an_empty_folder_is_told(tmp_path):
    (tmp_path / 'photos').mkdir()
    for script in ('folder_to_coco.py', 'result_to_pandas.py'):
        done = run(tmp_path, script, 'photos', 'out', '--model', 'demo')
        assert done.returncode == 2 and 'photos: no images' in done.stderr


def rectangle(label, top, bottom):
    value = {'x': 0, 'y': 100 * top / HEIGHT, 'width': 100, 'height': 100 * (bottom - top) / HEIGHT}
    return {
        'type': 'rectanglelabels',
        'original_width': WIDTH,
        'original_height': HEIGHT,
        'value': {**value, 'rectanglelabels': [label]},
    }


def task(name, *regions):
    return {'data': {'image': f'/data/local-files/?d=photos/{name}'}, 'annotations': [{'result': list(regions)}]}


def test_an_export_of_label_studio_trains_a_model(photos, tmp_path, tiny_model_dir):
    names = [name.replace(os.sep, '/') for name in NAMES]
    tasks = [
        task(name, rectangle('sky', 0, horizon(number)), rectangle('ground', horizon(number), HEIGHT))
        for number, name in enumerate(names)
    ]
    (tmp_path / 'project-1.json').write_text(json.dumps([*tasks, task('nobody_labeled.png')]))
    options = ('--model', tiny_model_dir, '--epochs', 8, '--lr', 2e-3)
    done = run(tmp_path, 'finetune_label_studio.py', 'project-1.json', 'photos', *options)
    assert done.returncode == 0, done.stderr
    assert 'classes ground, sky, mIoU' in done.stdout.splitlines()[-1]
    dataset = json.loads((tmp_path / 'run' / 'configuration.json').read_text())['dataset']
    chosen = {split: [Path(name).name for name in dataset[split]['data_source']['split']] for split in ('train', 'val')}
    assert chosen == {'val': ['0.png'], 'train': ['1.png', '2.png', '3.png', '4.png']}
    result = ms_segformer.load(tmp_path / 'run' / 'output', engine='torch')(str(photos / '0.png'))
    expected = np.repeat([1, 0], (horizon(0), HEIGHT - horizon(0)))[:, None]
    assert (result['seg_map'] == expected).mean() > 0.9, 'the picture that was not trained on'


def test_one_labeled_image_cannot_be_split(tmp_path):
    (tmp_path / 'project-1.json').write_text(json.dumps([task('a.png', rectangle('sky', 0, HEIGHT))]))
    (tmp_path / 'photos').mkdir()
    done = run(tmp_path, 'finetune_label_studio.py', 'project-1.json', 'photos', '--model', 'demo')
    assert done.returncode == 2 and '1 labeled images; expected 2 at least' in done.stderr
