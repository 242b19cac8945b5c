import argparse
import json

import numpy as np
import pytest
from PIL import Image

from ms_segformer.cli import check_data
from ms_segformer.config.messages import ConfigurationError
from ms_segformer.datasets.errors import DatasetError

CLASSES = ['sky', 'ground', 'house']


def check(*arguments):
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser()
    check_data.add_arguments(parser)
    return check_data.run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def folder(tmp_path):
    """A folder with 40 training and 2 validation pairs of 24×16 pixels."""
    numbers = np.random.RandomState(0)
    for split, count in (('train', 40), ('val', 2)):
        for kind in ('images', 'labels'):
            (tmp_path / kind / split).mkdir(parents=True)
        for index in range(count):
            colors = numbers.randint(0, 256, (16, 24, 3), np.uint8)
            label = np.zeros((16, 24), np.uint8)
            label[4:] = 1
            label[0, 0] = 255
            Image.fromarray(colors).save(tmp_path / f'images/{split}/{index:02d}.jpg')
            Image.fromarray(label).save(tmp_path / f'labels/{split}/{index:02d}.png')
    (tmp_path / 'classes.txt').write_text('\n'.join(CLASSES))
    return tmp_path


def damage(folder):
    """Damage six training pairs, each in its own way."""
    (folder / 'labels/train/01.png').unlink()
    (folder / 'images/train/02.jpg').write_bytes((folder / 'images/train/02.jpg').read_bytes()[:300])
    (folder / 'labels/train/03.png').write_bytes(b'')
    Image.fromarray(np.zeros((24, 16), np.uint8)).save(folder / 'labels/train/04.png')
    label = np.zeros((16, 24), np.uint8)
    label[0, :5] = 7
    Image.fromarray(label).save(folder / 'labels/train/05.png')
    Image.fromarray(np.full((16, 24), 255, np.uint8)).save(folder / 'labels/train/06.png')


def test_good_data_pass(folder, capsys):
    assert check(folder) == 0
    output = capsys.readouterr().out
    assert 'train: 40 pairs' in output and 'val: 2 pairs' in output and output.count('no problems') == 2
    assert '1 of 3 classes do not occur: house' in output


@pytest.mark.parametrize('jobs', [1, 2])
def test_every_kind_of_problem_is_named_and_counted(folder, capsys, jobs):
    damage(folder)
    assert check(folder, '--json', '-j', jobs) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report['train']['usable'] and report['val']['usable']
    found = {
        kind: [problem['file'].split('/')[-1] for problem in problems]
        for kind, problems in report['train']['problems'].items()
    }
    assert found == {
        'missing label': ['01.jpg'],
        'unreadable': ['02.jpg', '03.png'],
        'size mismatch': ['04.png'],
        'values out of range': ['05.png'],
        'nothing labeled': ['06.png'],
    }
    assert '7 (5 pixels)' in report['train']['problems']['values out of range'][0]['detail']
    assert report['train']['pairs'] == 39


def test_the_report_for_people_names_the_files(folder, capsys):
    damage(folder)
    assert check(folder, '--split', 'train') == 1
    output = capsys.readouterr().out
    assert 'missing label: 1' in output and 'unreadable: 2' in output and 'labels/train/03.png' in output
    assert 'val:' not in output and 'no problems' not in output


def test_an_unlabeled_pair_is_reported_but_usable(folder, capsys):
    Image.fromarray(np.full((16, 24), 255, np.uint8)).save(folder / 'labels/val/00.png')
    assert check(folder) == 0
    assert 'nothing labeled: 1' in capsys.readouterr().out


def test_long_lists_are_cut_unless_asked_for(folder, capsys):
    for path in (folder / 'labels/train').glob('*.png'):
        path.unlink()
    assert check(folder) == 1
    output = capsys.readouterr().out
    assert 'missing label: 40' in output and '… 30 more' in output and 'nothing found' in output
    check(folder, '--all')
    assert '39.jpg' in capsys.readouterr().out


def test_pixels_and_images_are_counted_per_class(folder, capsys):
    check(folder, '--json')
    classes = json.loads(capsys.readouterr().out)['val']['classes']
    assert classes == [
        {'id': 0, 'name': 'sky', 'pixels': 2 * 95, 'images': 2},
        {'id': 1, 'name': 'ground', 'pixels': 2 * 288, 'images': 2},
        {'id': 2, 'name': 'house', 'pixels': 0, 'images': 0},
    ]


def test_the_histogram_is_drawn(folder, tmp_path, capsys):
    check(folder, '--picture', tmp_path / 'out' / 'classes.png')
    with Image.open(tmp_path / 'out' / 'classes.png') as picture:
        assert picture.width > 400 and picture.height > 60


def test_a_split_file_in_the_folder_counts(folder, capsys):
    (folder / 'train.txt').write_text('00\n07\nnone\n')
    assert check(folder, '--json') == 1
    report = json.loads(capsys.readouterr().out)['train']
    assert report['pairs'] == 2 and len(report['problems']['missing image']) == 1


def test_a_configuration_is_checked_with_its_classes_and_data_root(folder, tmp_path, capsys):
    source = {
        'type': 'SegSourceRaw',
        'img_root': '${data_root}/images/train',
        'label_root': '${data_root}/labels/train',
        'classes': ['only sky'],
    }
    configuration = tmp_path / 'configuration.json'
    configuration.write_text(json.dumps({'dataset': {'train': {'type': 'SegDataset', 'data_source': source}}}))
    assert check(configuration, '--data-root', folder) == 1
    assert 'values out of range: 40' in capsys.readouterr().out
    assert check(configuration, '--data-root', folder, '--classes', folder / 'classes.txt') == 0
    with pytest.raises(DatasetError, match='data_root'):
        check(configuration)


@pytest.mark.parametrize(
    ('prepare', 'arguments', 'message'),
    [
        (lambda folder: None, ['nowhere'], 'does not exist'),
        (lambda folder: (folder / 'classes.txt').unlink(), [], 'classes of .* are not known'),
        (lambda folder: (folder / 'labels').rename(folder / 'things'), [], 'no images with label maps in known places'),
        (lambda folder: None, ['.', '--split', 'test'], 'has no split test; it has train, val'),
        (lambda folder: (folder / 'configuration.json').write_text('{}'), [], 'names no data'),
        (lambda folder: (folder / 'configuration.json').write_text('{'), [], 'not a JSON file'),
    ],
)
def test_what_cannot_be_checked_says_why(folder, monkeypatch, prepare, arguments, message):
    prepare(folder)
    monkeypatch.chdir(folder)
    with pytest.raises((DatasetError, ConfigurationError), match=message):
        check(*(arguments or [folder]))


def test_the_reference_data_pass(shared, capsys):
    assert check(shared / 'data/cocostuff_sample', '--json') == 0
    report = json.loads(capsys.readouterr().out)
    assert report['train']['pairs'] == 13 and report['val']['pairs'] == 8
    assert len(report['val']['classes']) == 171
    assert sum(entry['images'] > 0 for entry in report['val']['classes']) == 62


def test_another_data_set_is_found_by_its_folders(shared, tmp_path, capsys):
    names = tmp_path / 'classes.txt'
    names.write_text('Sky\nBuilding\nPole\nRoad\nPavement\nTree\nSignSymbol\nFence\nCar\nPedestrian\nBicyclist')
    assert check(shared / 'data/camvid', '--classes', names, '--split', 'val', '--json') == 1
    problems = json.loads(capsys.readouterr().out)['val']['problems']
    assert list(problems) == ['values out of range'] and 'holds 11 (' in problems['values out of range'][0]['detail']
    assert check(shared / 'data/camvid', '--classes', names, '--split', 'val', '--ignore-index', 11) == 0


def test_images_that_share_a_label_map_are_named(folder, capsys):
    Image.new('RGB', (24, 16)).save(folder / 'images/train/03.png')
    assert check(folder) == 1
    output = capsys.readouterr().out
    assert 'several images of one name: 1' in output
    assert f'{folder}/images/train/03.jpg and {folder}/images/train/03.png: take the same label map' in output
