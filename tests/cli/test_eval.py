"""`ms-segformer eval`."""

import argparse
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_evaluation import random_pairs

from ms_segformer.cli import eval as command
from ms_segformer.datasets.errors import DatasetError
from ms_segformer.processes import ProcessError


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Two pictures with label maps of COCO-Stuff classes."""
    return random_pairs(tmp_path_factory.mktemp('eval_data'), ['a', 'b'])


def run(*words):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(word) for word in words] + ['--device', 'cpu', '--engine', 'torch']))


def test_it_prints_a_table_and_writes_values_and_a_picture(model, data, tmp_path, capsys):
    assert (
        run(
            '--model',
            model,
            '--data',
            data,
            '--json',
            tmp_path / 'values.json',
            '--confusion',
            tmp_path / 'confusion.png',
        )
        == 0
    )
    printed = capsys.readouterr().out
    values = json.loads((tmp_path / 'values.json').read_text())
    assert 'IoU %' in printed and '2 images in' in printed
    assert values['images'] == 2 and values['mIoU'] == values['SegmentationEvaluator_mIoU']
    assert f'{100 * values["mIoU"]:.2f}' in printed
    assert cv2.imread(str(tmp_path / 'confusion.png')).ndim == 3


@pytest.mark.parametrize(
    'words',
    [
        ['--mode', 'slide', '--crop-size', 48, 48, '--stride', 32, 32],
        ['--scales', 0.5, 1, '--flip'],
        ['--limit', 1],
        ['--batch-size', 2],
    ],
)
def test_ways_to_look_at_an_image(model, data, capsys, words):
    assert run('--model', model, '--data', data, '--json', '-', *words) == 0
    values = json.loads(capsys.readouterr().out)
    assert values['images'] == (1 if '--limit' in words else 2) and 0 <= values['mIoU'] <= 1


def test_what_cannot_be_evaluated_is_an_error(model, data, tmp_path):
    with pytest.raises(DatasetError, match='has no split "test"; it has val'):
        run('--model', model, '--data', data, '--split', 'test')
    with pytest.raises(ValueError, match='slide needs --crop-size H W and --stride H W'):
        run('--model', model, '--data', data, '--mode', 'slide')
    shutil.copytree(data, tmp_path / 'other')
    (tmp_path / 'other' / 'classes.txt').write_text('cat\ndog\n')
    with pytest.raises(DatasetError, match=r'have 2 classes \(cat, dog\).*the model has 171'):
        run('--model', model, '--data', tmp_path / 'other')


def labeled(folder, data, *values):
    """The pictures of `data` with label maps of nothing but some values, and no list of classes."""
    shutil.copytree(data / 'images', folder / 'images')
    (folder / 'labels' / 'val').mkdir(parents=True)
    for name in ('a', 'b'):
        label = np.resize(np.array(values, np.uint8), (60, 90))
        cv2.imwrite(str(folder / 'labels' / 'val' / f'{name}.png'), label)
    return folder


def test_label_maps_of_another_list_are_refused_before_anything_is_evaluated(model, data, tmp_path, monkeypatch):
    monkeypatch.setattr(command, 'load', lambda *args: pytest.fail('loads the model'))
    other = labeled(tmp_path / 'other', data, 0, 5, 200, 255)
    with pytest.raises(DatasetError) as caught:
        run('--model', model, '--data', other, '--limit', 1)
    assert str(caught.value).startswith(
        f'the label maps of {other} do not fit the model: {other}/labels/val/a.png and others hold the values 200; its '
        '171 classes are 0-170, and 255 is "not labeled".'
    )
    assert '\n' not in str(caught.value)


def test_official_label_maps_give_the_score_of_the_converted_ones(model, data, tmp_path, caplog):
    official = labeled(tmp_path / 'official', data, 0, 12, 180, 255)
    converted = labeled(tmp_path / 'converted', data, 0, 11, 169, 255)
    scores = []
    for folder in (official, converted):
        run('--model', model, '--data', folder, '--json', f'{folder}.json')
        values = json.loads(Path(f'{folder}.json').read_text())
        scores.append((values['images'], values['mIoU'], values['aAcc']))
    assert scores[0] == scores[1] and scores[0][0] == 2
    said = [record.getMessage() for record in caplog.records]
    assert sum('the official ones of COCO-Stuff' in message for message in said) == 1
    assert sum('names no classes' in message for message in said) == 1, 'of the converted ones, whose names say nothing'


def test_training_ids_of_coco_stuff_are_no_ids_of_other_classes(model, data, tmp_path):
    other = tmp_path / 'other'
    shutil.copytree(model, other)
    text = (other / 'configuration.json').read_text().replace('"person"', '"human"')
    (other / 'configuration.json').write_text(text)
    with pytest.raises(DatasetError, match='have 171 classes .person, .*the model has 171 .human,'):
        run('--model', other, '--data', data)


def test_ids_that_could_be_any_list_s_are_taken_and_this_is_said(model, data, tmp_path, caplog, capsys):
    folder = labeled(tmp_path / 'other', data, 0, 1)
    assert run('--model', model, '--data', folder) == 0
    assert [record.getMessage() for record in caplog.records if 'names no classes' in record.getMessage()] == [
        f"{folder} names no classes: the values in its label maps are taken as the ids of the model's 171 classes (0 "
        f'person, …). If they mean others, write the names into {folder}/classes.txt, one a line'
    ]
    caplog.clear()
    run('--model', model, '--data', data)
    assert not [record for record in caplog.records if 'names no classes' in record.getMessage()]


@pytest.mark.parametrize('words', [[], ['--mode', 'slide', '--crop-size', 48, 48, '--stride', 32, 32], ['--limit', 1]])
def test_several_processes_count_the_same(model, data, tmp_path, capsys, words):
    for number in (1, 2):
        found = tmp_path / f'{number}.json'
        assert run('--model', model, '--data', data, '--json', found, '--processes', number, *words) == 0
    one, two = (json.loads((tmp_path / f'{number}.json').read_text()) for number in (1, 2))
    assert {**one, 'seconds': 0} == {**two, 'seconds': 0}


def test_several_processes_load_one_image_after_the_other(model, data):
    for words in (['--batch-size', 2], ['--workers', 1]):
        with pytest.raises(ValueError, match=f'{words[0]} is of one process'):
            run('--model', model, '--data', data, '--processes', 2, *words)


def test_a_broken_pair_ends_several_processes_with_its_name(model, data, tmp_path):
    shutil.copytree(data, tmp_path / 'data')
    next((tmp_path / 'data').rglob('a.jpg')).write_bytes(b'no image')
    with pytest.raises(ProcessError, match=r'a\.jpg'):
        run('--model', model, '--data', tmp_path / 'data', '--processes', 2)
