"""`ms-segformer eval`."""
import argparse
import json
import shutil

import cv2
import numpy as np
import pytest

from ms_segformer.cli import eval as command
from ms_segformer.datasets.errors import DatasetError


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Two pictures with label maps of COCO-Stuff classes."""
    root = tmp_path_factory.mktemp('eval_data')
    random = np.random.RandomState(0)
    for folder in ('images/val', 'labels/val'):
        (root / folder).mkdir(parents=True)
    for name in ('a', 'b'):
        cv2.imwrite(str(root / 'images' / 'val' / f'{name}.jpg'), random.randint(0, 256, (60, 90, 3), np.uint8))
        label = random.randint(0, 171, (60, 90), np.uint8)
        cv2.imwrite(str(root / 'labels' / 'val' / f'{name}_labelTrainIds.png'), label)
    return root


@pytest.fixture(scope='module')
def model(tiny_model_dir, tmp_path_factory):
    """The tiny model, tested at a small size."""
    folder = tmp_path_factory.mktemp('model') / 'tiny'
    shutil.copytree(tiny_model_dir, folder)
    configuration = json.loads((folder / 'configuration.json').read_text())
    for pipeline in (configuration.get('test_pipeline'), configuration['dataset']['val']['pipeline']):
        if pipeline:
            pipeline[0]['img_scale'] = [96, 64]
    (folder / 'configuration.json').write_text(json.dumps(configuration))
    return folder


def run(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(word) for word in words] + ['--device', 'cpu', '--engine', 'torch']))


def test_it_prints_a_table_and_writes_values_and_a_picture(model, data, tmp_path, capsys):
    assert run('--model', model, '--data', data, '--json', tmp_path / 'values.json', '--confusion',
               tmp_path / 'confusion.png') == 0
    printed = capsys.readouterr().out
    values = json.loads((tmp_path / 'values.json').read_text())
    assert 'IoU %' in printed and '2 images in' in printed
    assert values['images'] == 2 and values['mIoU'] == values['SegmentationEvaluator_mIoU']
    assert f'{100 * values["mIoU"]:.2f}' in printed
    assert cv2.imread(str(tmp_path / 'confusion.png')).ndim == 3


@pytest.mark.parametrize('words', [
    ['--mode', 'slide', '--crop-size', 48, 48, '--stride', 32, 32], ['--scales', 0.5, 1, '--flip'], ['--limit', 1],
    ['--batch-size', 2]])
def test_ways_to_look_at_an_image(model, data, capsys, words):
    assert run('--model', model, '--data', data, '--json', '-', *words) == 0
    values = json.loads(capsys.readouterr().out)
    assert values['images'] == (1 if '--limit' in words else 2) and 0 <= values['mIoU'] <= 1


def test_what_cannot_be_evaluated_is_an_error(model, data, tmp_path):
    with pytest.raises(DatasetError, match='has no split "test"; it has val'):
        run('--model', model, '--data', data, '--split', 'test')
    with pytest.raises(ValueError, match='slide needs --crop-size H W and --stride H W'):
        run('--model', model, '--data', data, '--mode', 'slide')
    with pytest.raises(ValueError, match='--stride .* has to be from 1 to --crop-size'):
        run('--model', model, '--data', data, '--mode', 'slide', '--crop-size', 8, 8, '--stride', 9, 9)
    shutil.copytree(data, tmp_path / 'other')
    (tmp_path / 'other' / 'classes.txt').write_text('cat\ndog\n')
    with pytest.raises(DatasetError, match='have 2 classes .cat, dog, ….*the model has 171'):
        run('--model', model, '--data', tmp_path / 'other')
