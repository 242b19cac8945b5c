"""`ms-segformer predict`: what it writes, and what it says when something is wrong."""

import fcntl
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFont
from pycocotools import mask as coco

from ms_segformer.cli.main import main
from ms_segformer.datasets.class_names import CHINESE_NAMES
from ms_segformer.datasets.coco_stuff import CLASSES
from ms_segformer.engines import factory
from ms_segformer.files import TEMPORARY, atomic_write, temporary_prefix
from ms_segformer.fonts import font_of
from ms_segformer.preprocessors.image import MAX_PIXELS
from ms_segformer.results import ResultWriter, writer

SUFFIXES = ('_labels.png', '_overlay.jpg', '.json')


def photograph(path, seed=0, size=(48, 64)):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """The folder `photos` of the current directory, with four images."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(('a.jpg', 'b.png', 'more/a.png', 'more/c.png')):
        photograph(tmp_path / 'photos' / name, seed)
    return tmp_path / 'photos'


def copy_of_model(source, target, scale):
    """The tiny model with another size of the network's input, (long, short side)."""
    shutil.copytree(source, target)
    path = target / 'configuration.json'
    raw = json.loads(path.read_text())
    raw['dataset']['val']['pipeline'][0]['transforms'][0]['img_scale'] = scale
    path.write_text(json.dumps(raw))
    return target


@pytest.fixture(scope='session')
def small_model(tiny_model_dir, tmp_path_factory):
    """A model that takes these photographs at their own size, not at ten times that."""
    return copy_of_model(tiny_model_dir, tmp_path_factory.mktemp('model') / 'small', [64, 48])


@pytest.fixture
def predict(small_model):
    def run(*arguments, model=small_model, out='out', save=('labels',)):
        options = ['--model', model, '-o', out, '--engine', 'torch', *(['--save', *save] if save else [])]
        return main(['predict', *map(str, arguments), *map(str, options)])

    return run


def tree(folder):
    """Content of every file below a folder, hidden ones too, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob('*') if path.is_file()
    }


def entries(folder='out'):
    """The manifest's entries by the name of their input."""
    lines = (Path(folder) / 'manifest.jsonl').read_text(encoding='utf-8').splitlines()
    return {Path(next(iter(entry['input'].values()))).name: entry for entry in map(json.loads, lines)}


def segmented(monkeypatch):
    """A list of the images that are segmented from now on: the first file that is made of each."""
    written = []
    contents = ResultWriter.contents

    def note(self, kinds, name, result):
        written.append(os.path.relpath(os.path.splitext(name)[0]) + writer.KINDS[kinds[0]])
        return contents(self, kinds, name, result)

    monkeypatch.setattr(ResultWriter, 'contents', note)
    return written


def test_label_map_overlay_and_json_agree(photos, predict, tmp_path, capsys):
    assert predict(photos / 'a.jpg', save=None) == 0
    assert sorted(tree('out')) == ['manifest.jsonl', *sorted(f'photos/a{suffix}' for suffix in SUFFIXES)]
    out = tmp_path / 'out' / 'photos'
    labels = Image.open(out / 'a_labels.png')
    assert labels.mode == 'P' and labels.size == (64, 48)
    seg_map = np.asarray(labels)
    content = json.loads((out / 'a.json').read_text(encoding='utf-8'))
    assert (content['height'], content['width']) == seg_map.shape
    assert {row['id'] for row in content['segments']} == {i for i in np.unique(seg_map).tolist() if i < len(CLASSES)}
    for row in content['segments']:
        mask = seg_map == row['id']
        assert row['label'] == CLASSES[row['id']]
        np.testing.assert_array_equal(coco.decode(row['mask']), mask)
        assert row['pixels'] == mask.sum() and abs(row['share'] - mask.mean()) < 1e-6
        assert 0 < row['score'] <= 1
    shares = [row['share'] for row in content['segments']]
    assert shares == sorted(shares, reverse=True)
    overlay = Image.open(out / 'a_overlay.jpg')
    assert overlay.width > 64 and overlay.height >= 48
    printed = capsys.readouterr().out
    assert all(row['label'] in printed for row in content['segments'])


def listed(printed):
    """(share in percent, class) of the lines that name one."""
    return [(float(share), label) for share, label in re.findall(r'^ +([\d.]+)%  (.*?) +score', printed, re.M)]


def test_small_shares_are_not_listed_and_are_in_the_files(photos, predict, capsys):
    assert predict(photos / 'a.jpg', '--min-share', '0', save=('json',)) == 0
    everything = listed(capsys.readouterr().out)
    content = Path('out/photos/a.json').read_bytes()
    assert len(everything) == len(json.loads(content)['segments']) > 3 and everything[-1][0] < 2
    assert predict(photos / 'a.jpg', '--min-share', '2%', '--overwrite', save=('json',)) == 0
    printed = capsys.readouterr().out
    large = [each for each in everything if each[0] >= 2]
    assert listed(printed) == large
    assert f'and {len(everything) - len(large)} of less than 2 % (--min-share)' in printed
    assert Path('out/photos/a.json').read_bytes() == content


def test_quiet_says_errors_and_warnings_only(photos, predict, capsys, caplog):
    assert predict(photos, '--quiet') == 0
    assert predict(photos, '.', '-q') == 0, 'results are in the folder, and images are skipped'
    assert capsys.readouterr() == ('', '') and caplog.text == ''
    (photos / 'broken.jpg').write_bytes(b'nothing')
    assert predict(photos, '-q') == 1
    out, said = capsys.readouterr()
    assert out == '' and said.startswith('error: ') and 'broken.jpg' in said and said.count('\n') == 1


def test_progress_on_a_terminal_tells_images_per_second(photos, predict, monkeypatch, capsys):
    monkeypatch.setattr('sys.stderr.isatty', lambda: True, raising=False)
    assert predict(photos) == 0
    assert re.search(r'\| 4/4 images, +\d+\.\d+ images/s, 00:00 left', capsys.readouterr().err)
    assert predict(photos, '--overwrite', '--quiet') == 0
    assert capsys.readouterr().err == ''


def test_a_warning_on_a_terminal_has_a_line_of_its_own(photos, predict, monkeypatch):
    frames = [Image.new('L', (64, 48), shade) for shade in (0, 99)]
    frames[0].save(photos / 'b.gif', save_all=True, append_images=frames[1:])
    ours, theirs = os.openpty()
    with open(theirs, 'w') as terminal:
        handler = logging.StreamHandler(terminal)
        monkeypatch.setattr(logging.root, 'handlers', [handler])
        monkeypatch.setattr(sys, 'stderr', terminal)
        assert predict(photos) == 0
        assert logging.root.handlers == [handler]
    written = b''
    with suppress(OSError):  # at the end, on Linux
        while part := os.read(ours, 100_000):
            written += part
    os.close(ours)
    lines = re.split(r'[\r\n]+', written.decode())
    assert f'{photos / "b.gif"} has several frames or pages; the first is taken' in lines
    assert any('/5 images' in line for line in lines)


def test_the_tree_of_the_images_is_kept(photos, predict, tmp_path, monkeypatch):
    elsewhere = tmp_path / 'elsewhere' / 'deep'
    photograph(elsewhere / 'a.jpg')
    monkeypatch.chdir(photos)
    assert predict('.', '*.png', '../photos/more/../b.png', elsewhere / 'a.jpg', out='../out') == 0
    absolute = elsewhere.relative_to('/').as_posix()
    assert sorted(tree(tmp_path / 'out')) == sorted(
        [
            'a_labels.png',
            'b_labels.png',
            'more/a_labels.png',
            'more/c_labels.png',
            f'{absolute}/a_labels.png',
            'manifest.jsonl',
        ]
    )


def test_of_images_with_one_name_the_first_keeps_it_now_and_later(photos, predict):
    photograph(photos / 'a.png', 7)
    photograph(photos / 'a.png.jpg', 8)
    assert predict(photos / 'a.png', photos / 'a.png.jpg', photos / 'a.jpg') == 0
    names = {
        'a.png': ['photos/a_labels.png'],
        'a.png.jpg': ['photos/a.png_labels.png'],
        'a.jpg': ['photos/a.jpg_labels.png'],
    }
    assert {name: list(entry['outputs']) for name, entry in entries().items()} == names
    before = tree('out')
    assert predict(photos / 'a.jpg', photos / 'a.png.jpg', photos / 'a.png', '--overwrite') == 0
    assert {name: list(entry['outputs']) for name, entry in entries().items()} == names
    assert {**tree('out'), 'manifest.jsonl': before['manifest.jsonl']} == before


def test_equal_names_of_two_runs_do_not_collide(photos, predict, tmp_path, monkeypatch):
    assert predict('photos/a.jpg') == 0
    before = tree('out')
    photograph(tmp_path / 'other' / 'photos' / 'a.jpg', 9)
    monkeypatch.chdir(tmp_path / 'other')
    assert predict('photos/a.jpg', out=tmp_path / 'out') == 0
    after = tree(tmp_path / 'out')
    assert after['photos/a_labels.png'] == before['photos/a_labels.png']
    assert sorted(after) == ['manifest.jsonl', 'photos/a.jpg_labels.png', 'photos/a_labels.png']


@pytest.mark.skipif(torch.cuda.is_available(), reason='needs a machine without CUDA')
@pytest.mark.parametrize('device, said', [([], False), (['--device', 'gpu'], True), (['--device', 'cpu'], False)])
def test_a_gpu_that_is_asked_for_and_missing_is_said(photos, predict, caplog, device, said):
    assert predict(photos / 'a.jpg', *device) == 0
    assert ('sees no CUDA device; the CPU is used' in caplog.text) is said
    assert ("device 'gpu" in caplog.text) is said, 'under the name that was given'


@pytest.mark.parametrize(
    'name, said',
    [
        ('/dev/null', 'a pipe, socket, terminal or other device'),
        ('photos/a.jpg/x.jpg', 'Not a directory'),
        ('x' * 5000, 'File name too long'),
        ('nowhere.jpg', 'no such file'),
        ('nope*.jpg', 'nothing matches this pattern'),
        ('empty', 'no images in this folder'),
    ],
)
def test_what_can_be_no_image_is_said_before_a_model_is_opened(
    photos, predict, tmp_path, capsys, monkeypatch, name, said
):
    (tmp_path / 'empty').mkdir()
    monkeypatch.setattr('ms_segformer.cli.predict._open', lambda args: pytest.fail('opens a model'))
    assert predict(name) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'error: {name}: ') and said in line


def test_a_pattern_or_a_folder_without_images_fails_alone(photos, predict, tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    assert predict(photos / 'a.jpg', 'nope*.jpg', 'empty') == 1
    said = capsys.readouterr().err
    assert 'error: nope*.jpg: nothing matches' in said and 'error: empty: no images' in said
    assert (tmp_path / 'out' / 'photos' / 'a_labels.png').exists()


def test_a_bad_image_fails_alone(photos, predict, tmp_path, capsys):
    (photos / 'broken.jpg').write_bytes(b'nothing')
    assert predict(photos / 'a.jpg', photos / 'broken.jpg', 'nowhere.jpg', save=None) == 1
    said = capsys.readouterr().err
    assert 'broken.jpg: not an image' in said and 'nowhere.jpg: no such file' in said
    assert re.search(r'1 of 3 images segmented in \d+\.\d s, \d+\.\d images/s; 2 failed$', said.strip())
    assert sorted(tree('out')) == ['manifest.jsonl', *sorted(f'photos/a{suffix}' for suffix in SUFFIXES)]
    assert 'not an image' in entries()['broken.jpg']['error'] and entries()['broken.jpg']['outputs'] == {}


def test_finished_images_are_skipped_and_changed_ones_done_again(photos, predict, monkeypatch, capsys):
    assert predict(photos) == 0
    first = tree('out')
    written = segmented(monkeypatch)
    assert predict(photos) == 0 and written == []
    assert '0 of 4 images segmented; 4 skipped' in capsys.readouterr().err
    assert tree('out') == first
    photograph(photos / 'a.jpg', 11)  # changed
    (Path('out') / 'photos' / 'b_labels.png').unlink()  # lost
    photograph(photos / 'new.png', 12)
    assert predict(photos) == 0
    assert written == ['photos/a_labels.png', 'photos/b_labels.png', 'photos/new_labels.png']
    assert tree('out')['photos/b_labels.png'] == first['photos/b_labels.png']
    assert tree('out')['photos/a_labels.png'] != first['photos/a_labels.png']
    written.clear()
    assert predict(photos, save=('json',)) == 0, 'another file is wanted of each'
    assert len(written) == 5 and len(entries()['a.jpg']['outputs']) == 2
    written.clear()
    assert predict(photos) == 0 and written == []
    assert predict(photos, '--overwrite') == 0 and len(written) == 5


def test_what_was_saved_besides_does_not_stay_behind_when_the_image_changes(photos, predict):
    assert predict(photos / 'a.jpg', save=None) == 0
    before = tree('out')
    photograph(photos / 'a.jpg', 13)
    assert predict(photos / 'a.jpg', save=('labels',)) == 0
    assert not [name for name, content in tree('out').items() if before[name] == content]


EDITS = {
    'of another size': lambda path: path.write_bytes(b'corrected by hand'),
    'of the same size': lambda path: path.write_bytes(path.read_bytes()[::-1]),
    'a link': lambda path: (path.rename('mine.png'), path.symlink_to('../../mine.png')),
}


@pytest.mark.parametrize('edit', EDITS)
def test_what_a_user_makes_of_a_result_is_not_replaced_unasked(photos, predict, monkeypatch, capsys, edit):
    assert predict(photos) == 0
    mine = Path('out') / 'photos' / 'a_labels.png'
    EDITS[edit](mine)
    edited = mine.read_bytes()
    assert predict(photos, save=('json',)) == 0, 'it is not asked for'
    assert mine.read_bytes() == edited
    before = tree('out')
    photograph(photos / 'a.jpg', 31)  # now it is out of date
    capsys.readouterr()
    assert predict(photos, save=('json',)) == 1
    said = capsys.readouterr().err
    assert ('a symbolic link' if edit == 'a link' else 'has been changed since it was written') in said
    assert f'{mine}' in said and tree('out') == before
    assert predict(photos, '--overwrite') == (edit == 'a link')
    assert (mine.read_bytes() == edited) is (edit == 'a link')


def test_a_truncated_result_is_not_taken_for_a_finished_one(photos, predict, capsys):
    assert predict(photos) == 0
    labels = Path('out') / 'photos' / 'a_labels.png'
    labels.write_bytes(labels.read_bytes()[:50])
    assert predict(photos) == 1
    assert 'a_labels.png has been changed since it was written' in capsys.readouterr().err
    assert predict(photos, '--overwrite') == 0


def test_equal_files_are_not_written_again(photos, predict):
    assert predict(photos) == 0
    before = {path: path.stat().st_ino for path in Path('out').rglob('*_labels.png')}
    assert predict(photos, '--overwrite') == 0
    assert {path: path.stat().st_ino for path in before} == before


@pytest.mark.parametrize('failure', ['missing', 'damaged', 'out of memory'])
def test_a_failure_leaves_what_is_known_of_the_earlier_result(photos, predict, capsys, failure):
    assert predict(photos) == 0
    before, photo = tree('out'), (photos / 'a.jpg').read_bytes()
    times = (photos / 'a.jpg').stat().st_atime_ns, (photos / 'a.jpg').stat().st_mtime_ns
    if failure == 'missing':
        (photos / 'a.jpg').unlink()
    else:
        photograph(photos / 'a.jpg', size=(48, 64) if failure == 'damaged' else (64, 64))
        if failure == 'damaged':
            (photos / 'a.jpg').write_bytes(b'no image')
    assert predict(photos / 'a.jpg', photos / 'b.png', '--max-pixels', 64 * 48) == 1
    assert tree('out')['photos/a_labels.png'] == before['photos/a_labels.png']
    assert entries()['a.jpg']['error'] is None
    (photos / 'a.jpg').write_bytes(photo)
    os.utime(photos / 'a.jpg', ns=times)
    capsys.readouterr()
    assert predict(photos, '--full-size') == 1
    assert 'was made with other options (full_size False, now True)' in capsys.readouterr().err
    assert predict(photos) == 0 and '4 skipped' in capsys.readouterr().err


def test_what_another_try_may_mend_is_tried_again(photos, predict, capsys):
    photograph(photos / 'a.jpg', size=(65, 64))
    assert predict(photos, '--max-pixels', 64 * 64) == 1
    assert '64×65 pixels' in entries()['a.jpg']['error']
    capsys.readouterr()
    assert predict(photos, '--max-pixels', 64 * 64) == 1 and 'in an earlier run' not in capsys.readouterr().err
    assert predict(photos) == 0, 'as the message says'


def test_a_write_that_failed_is_tried_again(photos, predict, capsys):
    Path('out').mkdir()
    (Path('out') / 'photos').write_text('no folder')
    assert predict(photos) == 1 and 'cannot be written' in capsys.readouterr().err
    (Path('out') / 'photos').unlink()
    assert predict(photos) == 0 and all('writing' not in entry for entry in entries().values())


def test_failed_images_are_tried_again_when_asked_for_or_changed(photos, predict, monkeypatch, capsys):
    (photos / 'a.jpg').write_bytes(b'nothing')
    assert predict(photos) == 1
    written = segmented(monkeypatch)
    capsys.readouterr()
    assert predict(photos) == 1 and written == []
    said = capsys.readouterr().err
    assert '3 skipped' in said and '1 failed' in said and 'a.jpg' in said and '--retry-failed' in said
    assert predict(photos, '--retry-failed') == 1 and written == [], 'tried in vain'
    assert '--retry-failed' not in capsys.readouterr().err
    photograph(photos / 'a.jpg')
    assert predict(photos) == 0 and written == ['photos/a_labels.png']


@pytest.mark.parametrize(
    'change, said',
    [
        (['--precision', 'bf16'], 'precision float32, now bf16'),
        (['--full-size'], 'full_size False, now True'),
        ('model', 'another model'),
    ],
)
def test_results_made_otherwise_are_not_mixed_unasked(
    photos, predict, tmp_path, tiny_model_dir, capsys, monkeypatch, change, said
):
    monkeypatch.setattr(factory, 'fault_in_bfloat16', lambda _: None)  # the tiny model has one where there is AMX
    assert predict('photos/a.jpg') == 0
    before = tree('out')
    options = {}
    if change == 'model':
        change, options = [], {'model': copy_of_model(tiny_model_dir, tmp_path / 'model', [160, 64])}
    capsys.readouterr()
    assert predict('photos', *change, **options) == 1
    error = capsys.readouterr().err
    assert said in error and '--overwrite' in error and error.count('\n') == 1
    assert tree('out') == before
    assert predict('photos', *change, '--overwrite', **options) == 0
    assert predict('photos', *change, **options) == 0


def test_files_of_others_are_not_overwritten_unasked(photos, predict, capsys):
    thesis = Path('out') / 'photos' / 'a_labels.png'
    thesis.parent.mkdir(parents=True)
    thesis.write_text('thesis')
    assert predict(photos) == 1
    said = capsys.readouterr().err
    assert 'photos/a_labels.png is there already' in said and '--overwrite' in said and '3 of 4' in said
    assert thesis.read_text() == 'thesis'
    assert predict(photos) == 1 and thesis.read_text() == 'thesis'
    assert predict(photos, '--overwrite') == 0 and Image.open(thesis).mode == 'P'
    other = Path('out') / 'photos' / 'd_labels.png'
    other.symlink_to('nowhere.png')
    photograph(photos / 'd.png')
    assert predict(photos) == 1 and other.is_symlink() and not other.exists()


def test_nothing_is_written_behind_a_link_below_the_output(photos, predict, tmp_path, capsys):
    """Neither over a user's file, nor of two images in one place, nor where it would not be found again."""
    for target in ('out/photos', 'elsewhere'):
        (tmp_path / target).mkdir(parents=True)
    precious = tmp_path / 'precious.png'
    precious.write_text('precious')
    (tmp_path / 'out' / 'photos' / 'more').symlink_to('../photos')
    (tmp_path / 'out' / 'photos' / 'b_labels.png').symlink_to(precious)
    os.mkfifo(tmp_path / 'out' / 'photos' / 'd_labels.png')  # to open it would wait for a reader
    photograph(photos / 'd.png')
    for more in ([], ['--overwrite']):
        assert predict(photos, *more) == 1
        said = capsys.readouterr().err
        assert '1 of 5' in said
        assert said.count('photos/more is a symbolic link') == 2 and 'b_labels.png is a symbolic link' in said
        assert 'd_labels.png is a symbolic link, folder or device' in said
    assert precious.read_text() == 'precious' and list(tree('out')) != [] and len(entries()['a.jpg']['outputs']) == 1
    (tmp_path / 'out2').symlink_to('elsewhere')
    assert predict(photos, out='out2') == 0, 'the output itself may be one'


def test_results_that_were_moved_behind_a_link_are_still_not_images(photos, predict, tmp_path):
    assert predict(photos) == 0
    (tmp_path / 'out' / 'photos').rename(tmp_path / 'moved')
    (tmp_path / 'out' / 'photos').symlink_to('../moved')
    assert predict('out/*/*.png', out='out2') == 1 and not Path('out2').exists()


def test_results_are_not_taken_as_images(photos, predict, tmp_path, monkeypatch, capsys):
    assert predict('.', save=None) == 0
    written = segmented(monkeypatch)
    assert 'note' not in capsys.readouterr().err
    assert predict('.', save=None) == 0 and written == []
    assert 'note: 8 results of earlier runs are not taken for images' in capsys.readouterr().err
    assert predict('.', save=None, out='out2') == 0 and len(written) == 4, 'nor are those in another folder'
    assert predict('out/../out', out='out3') == 1
    assert predict('*/photos/*.jpg', out='out3') == 1
    photograph(tmp_path / 'out' / 'photos' / 'mine.jpg')
    written.clear()
    assert predict('out', out='out4') == 0 and written == ['out/photos/mine_labels.png']


def test_a_result_that_would_replace_an_image_is_refused_before_anything_runs(photos, predict, tmp_path, capsys):
    photograph(tmp_path / 'a_labels.png', 21)
    before = (tmp_path / 'a_labels.png').read_bytes()
    photograph(tmp_path / 'a.jpg', 22)
    for more in ([], ['--overwrite']):
        assert predict('b.jpg', 'a.jpg', 'a_labels.png', *more, out='.') == 1
        assert 'would replace this file, which is one of the images' in capsys.readouterr().err
    (tmp_path / 'link').mkdir()
    (tmp_path / 'link' / 'a_labels.png').hardlink_to(tmp_path / 'a_labels.png')
    assert predict('a.jpg', 'a_labels.png', '--overwrite', out='link') == 1
    assert (tmp_path / 'a_labels.png').read_bytes() == before and not (tmp_path / 'manifest.jsonl').exists()


def test_a_full_disk_ends_the_run_in_words_and_the_next_goes_on(photos, predict, capsys, monkeypatch):
    """`/dev/full` takes the place of the second image's file: the system itself says that there is no space."""
    assert predict(photos, out='unbroken') == 0
    with monkeypatch.context() as patch:
        patch.setattr(
            writer, 'atomic_write', lambda path: atomic_write('/dev/full' if path.name == 'b_labels.png' else path)
        )
        assert predict(photos) == 1
    said = capsys.readouterr().err
    assert 'No space left on device' in said and '1 of 4 images are finished and kept' in said
    assert sorted(name for name in tree('out')) == ['manifest.jsonl', 'photos/a_labels.png']
    written = segmented(monkeypatch)
    assert predict(photos) == 0 and len(written) == 3
    assert tree('out') == tree('unbroken')


def test_a_file_that_cannot_be_written_is_that_images_error(photos, predict, tmp_path, capsys):
    photograph(photos / ('x' * 250 + '.png'))
    (tmp_path / 'out' / 'photos').mkdir(parents=True)
    (tmp_path / 'out' / 'photos' / 'more').write_text('no folder')
    assert predict(photos) == 1
    said = capsys.readouterr().err
    assert '2 of 5 images segmented' in said and '; 3 failed' in said and said.count('cannot be written') == 2
    assert '261 bytes, 255 at most' in said
    assert (tmp_path / 'out' / 'photos' / 'more').read_text() == 'no folder'
    (tmp_path / 'out' / 'photos' / 'more').unlink()
    assert predict(photos, '--retry-failed') == 1 and entries()['c.png']['error'] is None


@pytest.mark.parametrize(
    'name', [b'\xff.png', '图'.encode() * 80 + b'.png', b'a\nb.png'], ids=['undecodable', 'Chinese', 'newline']
)
def test_every_file_name_is_written_printed_and_known_again(photos, predict, monkeypatch, name):
    name = os.fsdecode(name)
    photograph(photos / name)
    assert predict(photos, save=None) == 0
    stem = name.removesuffix('.png')
    assert {f'photos/{stem}{suffix}' for suffix in SUFFIXES} <= set(tree('out'))
    assert json.loads((Path('out') / 'photos' / f'{stem}.json').read_bytes())['image'] == str(photos / name)
    written = segmented(monkeypatch)
    assert predict(photos, save=None) == 0 and written == []


def test_images_above_a_limit_are_refused(photos, predict, capsys):
    with pytest.raises(SystemExit):
        predict('--help')
    assert str(MAX_PIXELS) in capsys.readouterr().out
    photograph(photos / 'large.png', size=(65, 64))
    assert predict(photos, '--max-pixels', 64 * 64) == 1
    assert 'large.png: 64×65 pixels are more than 4,096' in capsys.readouterr().err
    assert '--max-pixels' in entries()['large.png']['error']
    assert predict(photos, '--max-pixels', 65 * 64, '--retry-failed') == 0


def test_the_journal_of_a_killed_run_is_gone_through(photos, predict, monkeypatch):
    """The states that kill -9 leaves, one in each image's place; campaigns/kill_predict.py kills real processes."""
    assert predict(photos) == 0
    unbroken, known = tree('out'), entries()
    lines = [json.dumps(entry, ensure_ascii=False) for entry in known.values()]
    begun = [json.dumps({**entry, 'writing': True}, ensure_ascii=False) for entry in known.values()]
    out = Path('out')
    # a.jpg finished; b.png announced and not renamed yet; more/a.png announced and renamed; the last line torn
    (out / 'manifest.jsonl').write_text('\n'.join([begun[0], lines[0], begun[1], begun[2], begun[3][:50]]))
    (out / 'photos' / 'b_labels.png').unlink()
    (out / 'photos' / 'more' / 'c_labels.png').unlink()
    leftovers = [
        out / 'photos' / f'{temporary_prefix("b_labels.png")}0123.png',
        out / f'{temporary_prefix("manifest.jsonl")}0123.jsonl',
    ]
    others = [out / f'{TEMPORARY}of-another', out / 'photos' / f'{temporary_prefix("of_another.png")}0123.png']
    for path in leftovers + others:
        path.write_bytes(b'half')
    written = segmented(monkeypatch)
    assert predict(photos) == 0
    assert written == ['photos/b_labels.png', 'photos/more/a_labels.png', 'photos/more/c_labels.png']
    assert all(path.exists() for path in others) and not any(path.exists() for path in leftovers)
    for path in others:
        path.unlink()
    assert tree('out') == unbroken


def test_an_interrupted_run_goes_on(photos, predict, monkeypatch):
    assert predict(photos, out='unbroken') == 0
    with monkeypatch.context() as patch:
        write = ResultWriter.write

        def interrupted(self, contents):
            if 'photos/b_labels.png' in contents:
                raise KeyboardInterrupt
            write(self, contents)

        patch.setattr(ResultWriter, 'write', interrupted)
        assert predict(photos) == 130
    assert sorted(tree('out')) == ['manifest.jsonl', 'photos/a_labels.png']
    written = segmented(monkeypatch)
    assert predict(photos) == 0 and len(written) == 3
    assert tree('out') == tree('unbroken')


def test_an_interrupt_does_not_wait_for_a_silent_server(photos, small_model):
    """In a process of its own, which the server interrupts once it is asked, and which has to end by itself."""
    with socket.create_server(('127.0.0.1', 0)) as silent:
        silent.settimeout(120)
        url = f'http://127.0.0.1:{silent.getsockname()[1]}/a.png'
        # SIGINT is ignored in what a shell runs in the background, the tests perhaps.
        start = (
            'import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); '
            'from ms_segformer.cli.main import main; sys.exit(main())'
        )
        command = [
            sys.executable,
            '-c',
            start,
            'predict',
            photos / 'a.jpg',
            f'{url}?1',
            f'{url}?2',
            '--model',
            small_model,
            '-o',
            'out',
            '--engine',
            'torch',
            '--save',
            'labels',
        ]
        with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            try:
                connected, _ = silent.accept()
                with connected:  # nothing is sent until the client has gone, which by itself it would do after 300 s
                    connected.settimeout(60)
                    connected.recv(10_000)
                    process.send_signal(signal.SIGINT)
                    assert connected.recv(10_000) == b''
                assert process.wait(60) == 130 and b'interrupted' in process.stderr.read()
            finally:
                process.kill()
        silent.settimeout(0.1)
        with pytest.raises(TimeoutError):  # the second URL was not asked for
            silent.accept()


def test_an_unfinished_image_of_an_earlier_run_stays_its_own(photos, predict):
    assert predict(photos / 'a.jpg') == 0
    entry = json.dumps({**entries()['a.jpg'], 'writing': True})
    (Path('out') / 'manifest.jsonl').write_text(entry + '\n')
    assert predict(photos / 'b.png') == 0
    assert entries()['a.jpg']['writing'] and list(entries()) == ['a.jpg', 'b.png']
    assert predict(photos) == 0
    assert 'writing' not in entries()['a.jpg'] and len(entries()) == 4


@pytest.mark.parametrize(
    'content',
    [
        '{"audio": "a.wav"}\n',
        'text',
        '{"input": {"path": "/a"}}\n',
        '\n\n',
        '{"inp\n',
        '{"input": {"path": "/a"}, "outputs": ["../thesis.png"], "error": null, '
        '"model": {"name": "", "sha256": ""}, "options": {}}\n',
    ],
)
def test_a_manifest_of_another_program_is_left_alone(photos, predict, capsys, content):
    Path('out').mkdir()
    (Path('out') / 'manifest.jsonl').write_text(content)
    assert predict(photos) == 1
    assert 'not a manifest of ms-segformer predict' in capsys.readouterr().err
    assert tree('out') == {'manifest.jsonl': content.encode()}
    assert predict('.', out='elsewhere') == 0


def test_what_another_process_is_writing_further_down_is_left_alone(photos, predict):
    """Its folder lies in this one, and its file has the name of one of ours."""
    with atomic_write(Path('out') / 'photos' / 'a_labels.png') as temporary:
        assert predict(photos) == 0
        assert temporary.exists()
    assert not temporary.exists()


def test_two_processes_do_not_write_to_one_folder(photos, predict, capsys):
    Path('out').mkdir()
    descriptor = os.open('out', os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert predict(photos) == 1
    assert 'out: another process is writing there' in capsys.readouterr().err and tree('out') == {}
    os.close(descriptor)
    assert predict(photos) == 0


@pytest.fixture
def server(tmp_path):
    """Serves `images`, path to content, with an ETag unless the path ends in `plain.png`; `asked` lists requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            http.asked.append(self.path)
            content = http.images.get(self.path)
            tag = f'"{hash(content)}"'
            known = self.headers['If-None-Match'] == tag
            self.send_response(404 if content is None else 304 if known else 200)
            if not self.path.endswith('plain.png'):
                self.send_header('ETag', tag)
            self.end_headers()
            self.wfile.write(b'' if content is None or known else content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as http:
        http.asked, http.images = [], {}
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield http
        http.shutdown()


def test_urls_are_fetched_once_a_run_and_known_again(photos, predict, server, monkeypatch, capsys):
    paths = ['/x/a.png', '/x/a.png?size=2', '/../x//plain.png']
    server.images.update({path: (photos / 'b.png').read_bytes() for path in paths})
    host = f'127.0.0.1:{server.server_port}'
    urls = [f'http://{host}{path}' for path in [*paths, '/missing.png']]
    assert predict(*urls, save=None) == 1
    assert sorted(server.asked) == sorted([*paths, '/missing.png'])
    assert '404' in capsys.readouterr().err
    folder = f'{host.replace(":", "_")}/x'
    found = {name for name in tree('out') if name.endswith('.json')}
    assert {f'{folder}/a.json', f'{folder}/plain.json'} < found and len(found) == 3
    written = segmented(monkeypatch)
    before = tree('out')
    server.asked.clear()
    assert predict(*urls, save=None) == 1 and written == [] and tree('out') == before
    assert sorted(server.asked) == sorted([*paths, '/missing.png']), 'the missing one may be there now'
    assert '3 skipped' in capsys.readouterr().err
    server.images[paths[0]] = server.images[paths[2]] = (photos / 'a.jpg').read_bytes()
    server.images['/missing.png'] = (photos / 'a.jpg').read_bytes()
    assert predict(*urls, save=None) == 0 and len(written) == 3


def test_a_password_in_a_url_is_neither_kept_nor_shown(photos, predict, server, capsys):
    server.images['/x/a.png'] = (photos / 'b.png').read_bytes()
    host = f'127.0.0.1:{server.server_port}'
    long = f'http://user:secret@{host}/{"x" * 260}.png'
    assert predict(f'http://user:secret@{host}/x/a.png', f'http://user:secret@{host}/gone.png', long, save=None) == 1
    said = capsys.readouterr()
    assert '1 of 3' in said.err and 'gone.png: cannot be fetched' in said.err
    assert 'save the image to a file with a shorter name' in said.err and 'rename' not in said.err
    assert not [name for name, content in tree('out').items() if b'secret' in content or 'secret' in name]
    assert 'secret' not in said.out + said.err


def test_many_images_are_planned_in_a_few_looks_at_each(tmp_path, monkeypatch):
    """Time is not asserted; the number of system calls that look at files is."""
    from ms_segformer.results import Input, Manifest, Run, make_plan

    monkeypatch.chdir(tmp_path)
    inputs = [
        Input(f'{i}.jpg', 'path', f'{tmp_path}/{i // 100}/{i}.jpg', {'size': 1, 'mtime_ns': 1}, (0, i))
        for i in range(2_000)
    ]
    looks = []
    stat, lstat = os.stat, os.lstat
    monkeypatch.setattr(os, 'stat', lambda *args, **kwargs: looks.append(args) or stat(*args, **kwargs))
    monkeypatch.setattr(os, 'lstat', lambda *args, **kwargs: looks.append(args) or lstat(*args, **kwargs))
    run = Run({'name': 'a', 'sha256': 'b'}, {}, ('labels', 'overlay', 'json'))
    with Manifest('out') as manifest:
        jobs = make_plan(inputs, manifest, run)
    assert len(jobs) == 2_000 and len(looks) < 6 * len(jobs) + 100


def test_names_and_language_change_the_overlay_and_no_label(photos, predict, capsys):
    save = ('labels', 'overlay', 'json')
    # With room for English names, which stand there where no font of the system has the Chinese ones.
    Image.open(photos / 'a.jpg').resize((1200, 900)).save(photos / 'a.jpg')
    assert predict(photos / 'a.jpg', save=save, out='plain') == 0
    capsys.readouterr()
    assert predict(photos / 'a.jpg', '--language', 'zh', '--names', save=save, out='chinese') == 0
    said = capsys.readouterr().out
    plain, chinese = tree('plain'), tree('chinese')
    found = json.loads(chinese['photos/a.json'])['segments']
    assert {row['label'] for row in found} <= set(CLASSES)
    assert all(f'  {CHINESE_NAMES[row["label"]]} ' in said for row in found if row['share'] >= 0.001)
    for name in ('photos/a.json', 'photos/a_labels.png'):
        assert plain[name] == chinese[name]
    if isinstance(font_of(20), ImageFont.FreeTypeFont):  # one bitmap before Pillow 10.1, larger than the room here
        assert plain['photos/a_overlay.jpg'] != chinese['photos/a_overlay.jpg']


def test_results_with_other_names_do_not_mix(photos, predict, capsys):
    assert predict(photos / 'a.jpg') == 0
    assert predict(photos / 'a.jpg', '--names') == 1
    assert 'made with other options (names None, now True)' in capsys.readouterr().err


def test_another_language_is_a_mistake(photos, predict, capsys):
    with pytest.raises(SystemExit):
        predict(photos / 'a.jpg', '--language', 'xx')
    assert '--language' in capsys.readouterr().err


def test_float16_without_a_gpu_is_refused_before_anything_is_written(photos, predict, tmp_path, capsys):
    assert predict(photos, '--precision', 'fp16', '--device', 'cpu') == 1
    assert "precision fp16 runs on a GPU, device is 'cpu'" in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
