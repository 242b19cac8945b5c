"""The demonstration model: what it sees, that every way of running it agrees, and its accuracy on CamVid."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from modelscope.pipelines import pipeline
from PIL import Image

from ms_segformer.cli.main import main
from ms_segformer.datasets import coco_stuff
from ms_segformer.metainfo import TASK, VARIANTS, demo_model_dir
from recipes.street_demo.classes import CAMVID, CLASSES, IGNORE, lookup_table

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def demo():
    return pipeline(TASK, str(demo_model_dir()), device='cpu')


@pytest.fixture(scope='module')
def camvid(shared):
    return shared / 'data' / 'camvid'


@pytest.fixture(scope='module')
def street(camvid):
    """Validation photographs of CamVid with their label maps in the model's ids."""
    table = lookup_table(CAMVID)
    return [
        (path, table[np.asarray(Image.open(camvid / 'annotations' / 'val' / f'{path.stem}.png'))])
        for path in sorted((camvid / 'images' / 'val').glob('*.jpg'))
    ]


def accuracy(maps, labels):
    """(mIoU, pixel accuracy), in plain numpy and independent of the package's metric."""
    maps, labels = np.stack(maps), np.stack(labels)
    maps, labels = maps[labels != IGNORE], labels[labels != IGNORE]
    iou = [((maps == i) & (labels == i)).sum() / ((maps == i) | (labels == i)).sum() for i in range(len(CLASSES))]
    return np.mean(iou), (maps == labels).mean()


def measured():
    """The figures of the model card."""
    text = (demo_model_dir() / 'README.md').read_text(encoding='utf-8')
    found = re.search(r'ten classes (0\.\d+), pixel accuracy (0\.\d+)', text)
    return float(found[1]), float(found[2])


def test_the_photograph_in_the_repository_is_segmented(demo):
    result = demo(str(ROOT / 'assets' / 'china.jpg'))
    share = {label: mask.mean() for label, mask in zip(result['labels'], result['masks'], strict=True)}
    assert share['sky-other'] > 0.25 and share['tree'] > 0.1 and share['building-other'] > 0.05
    assert dict(zip(result['labels'], result['scores'], strict=True))['sky-other'] > 0.5


def test_the_model_is_small_and_says_what_it_is():
    (weights,) = demo_model_dir().glob('*.safetensors')
    assert weights.stat().st_size <= 8e6
    card = (demo_model_dir() / 'README.md').read_text(encoding='utf-8')
    assert 'demonstration' in card and 'research use' in card
    assert not any(hub_id in card for variant in VARIANTS.values() for hub_id in variant.hub_ids)


def test_accuracy_on_camvid_is_what_the_card_says(demo, street):
    results = demo([str(path) for path, _ in street])
    miou, correct = accuracy([result['seg_map'] for result in results], [label for _, label in street])
    print(f'mIoU over ten classes {miou:.4f}, pixel accuracy {correct:.4f}')
    assert len(street) == 101
    assert miou >= 0.70 and correct >= 0.93
    assert abs(miou - measured()[0]) < 0.001 and abs(correct - measured()[1]) < 0.001


def test_eval_finds_the_same_accuracy(camvid, street, tmp_path, capsys):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / 'val').symlink_to(camvid / 'images' / 'val')
    (tmp_path / 'annotations' / 'val').mkdir(parents=True)
    for path, label in street:
        Image.fromarray(label).save(tmp_path / 'annotations' / 'val' / f'{path.stem}.png')
    (tmp_path / 'classes.txt').write_text('\n'.join(CLASSES) + '\n')
    assert main(['eval', '--data', str(tmp_path), '--model', 'demo', '--json', '-']) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures['images'] == 101
    assert abs(figures['mIoU'] - measured()[0]) < 0.001 and abs(figures['aAcc'] - measured()[1]) < 0.001


@pytest.mark.parametrize('kind', ['noise', 'black', 'red', 'the sky and nothing else'])
def test_no_other_class_can_appear(demo, kind):
    """Ten outputs, each a class of COCO-Stuff that the model has learned, are all there is to choose from."""
    pictures = {
        'noise': np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8),
        'black': np.zeros((64, 64, 3), np.uint8),
        'red': np.full((64, 200, 3), (200, 20, 30), np.uint8),
        'the sky and nothing else': np.full((200, 64, 3), (110, 170, 240), np.uint8),
    }
    result = demo(pictures[kind])
    assert list(demo.classes) == list(CLASSES) and set(CLASSES) <= set(coco_stuff.CLASSES)
    assert set(result['labels']) <= set(CLASSES) and result['seg_map'].max() < len(CLASSES)


@pytest.mark.parametrize('engine', ['torch', 'openvino', 'onnxruntime'])
def test_engines_agree_in_float32(demo, street, engine):
    if engine != 'torch':
        pytest.importorskip(engine, reason=f'{engine} is not installed (an extra)')
    other = pipeline(TASK, str(demo_model_dir()), device='cpu', engine=engine)
    paths = [str(path) for path, _ in street[::10]]
    same = [(a['seg_map'] == b['seg_map']).mean() for a, b in zip(demo(paths), other(paths), strict=True)]
    assert np.mean(same) >= 0.9999


@pytest.mark.parametrize('engine', ['torch', 'openvino'])
def test_bf16_changes_few_pixels_and_costs_no_accuracy(demo, street, engine):
    if engine != 'torch':
        pytest.importorskip(engine, reason=f'{engine} is not installed (an extra)')
    half = pipeline(TASK, str(demo_model_dir()), device='cpu', engine=engine, precision='bf16')
    some = street[::4]
    plain, fast = ([result['seg_map'] for result in run([str(path) for path, _ in some])] for run in (demo, half))
    assert np.mean(np.stack(plain) == np.stack(fast)) >= 0.99
    labels = [label for _, label in some]
    assert abs(accuracy(plain, labels)[0] - accuracy(fast, labels)[0]) <= 0.005


def test_batches_equal_one_by_one(demo, street):
    paths = [str(path) for path, _ in street[:5]]
    for a, b in zip(demo(paths, batch_size=3), map(demo, paths), strict=True):
        np.testing.assert_array_equal(a['seg_map'], b['seg_map'])
        assert a['labels'] == b['labels']


def test_slide_sees_much_the_same_as_whole(demo, street):
    paths = [str(path) for path, _ in street[::25]]
    labels = [label for _, label in street[::25]]
    whole, slid = (
        [result['seg_map'] for result in demo(paths, **options)]
        for options in ({}, {'mode': 'slide', 'crop_size': 512, 'stride': 171})
    )
    assert np.mean(np.stack(whole) == np.stack(slid)) > 0.9
    assert abs(accuracy(whole, labels)[1] - accuracy(slid, labels)[1]) < 0.05
