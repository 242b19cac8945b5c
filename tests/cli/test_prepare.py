import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ms_segformer.cli import check_data, prepare
from ms_segformer.datasets import preparation
from ms_segformer.datasets.coco_stuff import RAW_TO_TRAIN
from ms_segformer.datasets.errors import DatasetError
from ms_segformer.datasets.label_file import read_label

ROOT = Path(__file__).parents[2]
IDS = np.flatnonzero(RAW_TO_TRAIN < 255).astype(np.uint8)  # all official ones


def run(command, *arguments):
    """Run a command and return its exit code."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(argument) for argument in arguments]))


def prepare_coco(download, output, *more):
    return run(
        prepare,
        'coco-stuff',
        '--images',
        download / 'images',
        '--stuffthingmaps',
        download / 'maps',
        '-o',
        output,
        *more,
    )


@pytest.fixture
def download(tmp_path):
    """Images and official label maps: 20 for training, 3 for validation."""
    numbers = np.random.RandomState(0)
    root = tmp_path / 'download'
    for split, count in (('train2017', 20), ('val2017', 3)):
        for kind in ('images', 'maps'):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            Image.new('RGB', (30, 20)).save(root / f'images/{split}/{index:012d}.jpg')
            label = numbers.choice([*IDS, 255], (20, 30)).astype(np.uint8)
            Image.fromarray(label).save(root / f'maps/{split}/{index:012d}.png')
    return root


def test_label_maps_and_split_files_are_written(download, tmp_path, capsys):
    output = tmp_path / 'coco_stuff164k'
    assert prepare_coco(download, output) == 0
    assert 'train: 20 pairs' in capsys.readouterr().out
    assert (output / 'val.txt').read_text() == '000000000000\n000000000001\n000000000002\n'
    for split, count in (('train2017', 20), ('val2017', 3)):
        written = sorted((output / 'annotations' / split).iterdir())
        assert len(written) == count
        for path in written:
            raw = read_label(download / 'maps' / split / path.name.replace('_labelTrainIds', ''))
            np.testing.assert_array_equal(read_label(path), RAW_TO_TRAIN[raw])
    assert run(check_data, output) == 0  # images are linked, so the layout is complete


def test_maps_of_another_kind_are_all_refused_and_nothing_is_said_to_be_ready(download, tmp_path, capsys):
    """Training ids already, or those of COCO-Stuff 10k: both look like official ids."""
    for path in download.glob('maps/*/*.png'):
        Image.fromarray(np.resize(np.array([0, 67, 170], np.uint8), (20, 30))).save(path)
    assert prepare_coco(download, tmp_path / 'out') == 1
    said = capsys.readouterr().out
    assert said.count('holds ids [67], which no official one') == 13 and '10 more failed' in said
    assert not (tmp_path / 'out').exists()


def test_a_second_run_keeps_what_is_finished_and_repeats_the_rest(download, tmp_path, capsys):
    output = tmp_path / 'out'
    prepare_coco(download, output)
    folder = output / 'annotations/train2017'
    paths = sorted(folder.iterdir())
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(paths[2])  # readable, and wrong
    (folder / f'{paths[3].name}.99.unfinished').write_bytes(b'left by a killed run')
    kept = paths[4].stat().st_mtime_ns
    capsys.readouterr()
    assert prepare_coco(download, output) == 0
    assert 'train: 20 pairs in' in (text := capsys.readouterr().out) and '3 label maps written, 17 kept' in text
    assert paths[4].stat().st_mtime_ns == kept and len(list(folder.iterdir())) == 20
    for path in paths:
        raw = read_label(download / 'maps/train2017' / path.name.replace('_labelTrainIds', ''))
        np.testing.assert_array_equal(read_label(path), RAW_TO_TRAIN[raw])


def test_a_subset_of_images_or_maps_is_enough(download, tmp_path, capsys):
    (download / 'images/train2017/000000000003.jpg').unlink()
    (download / 'maps/train2017/000000000005.png').unlink()
    assert prepare_coco(download, tmp_path / 'out') == 0
    output = capsys.readouterr().out
    assert 'train: 18 pairs' in output and '1 images have no label map' in output
    assert '000000000005' not in (tmp_path / 'out/train.txt').read_text()
    # a single split folder works too
    assert (
        run(
            prepare,
            'coco-stuff',
            '--images',
            download / 'images/val2017',
            '--stuffthingmaps',
            download / 'maps/val2017',
            '-o',
            tmp_path / 'one',
            '--no-links',
        )
        == 0
    )
    assert sorted(path.name for path in (tmp_path / 'one').iterdir()) == ['annotations', 'val.txt']


def test_a_map_that_is_not_coco_stuff_fails_by_name_and_the_others_are_done(download, tmp_path, capsys):
    Image.fromarray(np.full((20, 30), 200, np.uint8)).save(download / 'maps/val2017/000000000001.png')
    (download / 'maps/val2017/000000000002.png').write_bytes(b'')
    assert prepare_coco(download, tmp_path / 'out') == 1
    output = capsys.readouterr().out
    assert 'maps/val2017/000000000001.png: the label map holds ids [200]' in output
    assert '000000000002.png is an empty file' in output
    assert (tmp_path / 'out/val.txt').read_text() == '000000000000\n'


def test_missing_folders_and_no_pairs_are_errors(download, tmp_path):
    with pytest.raises(DatasetError, match='is not a folder'):
        run(prepare, 'coco-stuff', '--images', tmp_path / 'no', '--stuffthingmaps', download / 'maps', '-o', tmp_path)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DatasetError, match='no image under .* has a label map'):
        run(
            prepare,
            'coco-stuff',
            '--images',
            tmp_path / 'empty',
            '--stuffthingmaps',
            download / 'maps',
            '-o',
            tmp_path / 'out',
        )


def test_a_disk_that_cannot_be_written_ends_in_one_message(download, tmp_path, monkeypatch):
    def full(target, label):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(preparation, '_write_png', full)
    with pytest.raises(DatasetError, match='No space left on device.*What is finished is kept'):
        prepare_coco(download, tmp_path / 'out', '-j', 1)


def test_a_label_map_that_the_disk_has_no_room_for_is_not_written(download, tmp_path):
    """It used to stand there empty: numpy's `tofile` says nothing when its last bytes cannot be written."""
    resource = pytest.importorskip('resource')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
    try:
        with pytest.raises(OSError):
            preparation._write_png(str(tmp_path / 'a.png'), np.zeros((90, 90), np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.glob('*.png*'))


def test_a_killed_run_leaves_no_half_file_and_can_be_repeated(download, tmp_path):
    numbers = np.random.RandomState(1)
    for index in range(20, 120):
        Image.new('RGB', (300, 200)).save(download / f'images/train2017/{index:012d}.jpg')
        Image.fromarray(numbers.choice(IDS, (200, 300))).save(download / f'maps/train2017/{index:012d}.png')
    output = tmp_path / 'out'
    folder = output / 'annotations/train2017'
    script = (
        'from ms_segformer.datasets.preparation import prepare_coco_stuff as p\n'
        f'p({str(download / "images")!r}, {str(download / "maps")!r}, {str(output)!r}, jobs=1)'
    )
    process = subprocess.Popen([sys.executable, '-c', script], env={**os.environ, 'PYTHONPATH': str(ROOT)})
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline and len(_finished(folder)) < 10:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = _finished(folder)
    assert 10 <= len(finished) < 120, 'the run ended before it could be killed'
    for path in finished:
        raw = read_label(download / 'maps/train2017' / path.name.replace('_labelTrainIds', ''))
        np.testing.assert_array_equal(read_label(path), RAW_TO_TRAIN[raw])
    assert prepare_coco(download, output) == 0
    assert len(_finished(folder)) == len(list(folder.iterdir())) == 120


def _finished(folder):
    return list(Path(folder).glob('*_labelTrainIds.png')) if folder.is_dir() else []


def test_the_reference_pairs_come_out(shared, tmp_path):
    sample = shared / 'data/cocostuff_sample'
    assert (
        run(prepare, 'coco-stuff', '--images', sample, '--stuffthingmaps', sample / 'annotations', '-o', tmp_path) == 0
    )
    for split in ('train', 'val'):
        assert (tmp_path / f'{split}.txt').read_text().split() == sorted((sample / f'{split}.txt').read_text().split())
        expected = sorted((sample / f'annotations/{split}2017').glob('*_labelTrainIds.png'))
        assert len(expected) == {'train': 13, 'val': 8}[split]
        for path in expected:
            np.testing.assert_array_equal(
                read_label(tmp_path / f'annotations/{split}2017' / path.name), read_label(path)
            )


def test_a_file_in_the_output_s_place_is_left_alone(download, tmp_path):
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(DatasetError, match=f'^{tmp_path}/file is a file; choose a folder to write to'):
        preparation.prepare_coco_stuff(download / 'images', download / 'maps', tmp_path / 'file', jobs=1)
    assert (tmp_path / 'file').read_text() == 'mine'


def test_the_example_says_what_was_made(tmp_path, capsys):
    assert run(prepare, 'example', '-o', tmp_path / 'shapes') == 0
    assert capsys.readouterr().out == (
        f'{tmp_path}/shapes: 12 pairs for train, 4 pairs for val; classes background, circle, square, triangle '
        f'(in {tmp_path}/shapes/classes.txt)\n'
    )
    assert run(check_data, tmp_path / 'shapes') == 0
