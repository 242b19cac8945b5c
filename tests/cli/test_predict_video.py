"""`ms-segformer predict clip.mp4`: its files, the manifest, and damaged, stopped and repeated runs."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from videos import cut, make_clip, make_folder

from ms_segformer.cli.main import main
from ms_segformer.files import TEMPORARY, temporary_prefix
from ms_segformer.results import ResultWriter
from ms_segformer.results.video import OverlayVideo

av = pytest.importorskip('av', reason='needs PyAV')


@pytest.fixture(scope='session')
def model(tiny_model_dir, tmp_path_factory):
    """A model that takes these frames at their own size."""
    path = shutil.copytree(tiny_model_dir, tmp_path_factory.mktemp('model') / 'small')
    raw = json.loads((path / 'configuration.json').read_text())
    raw['dataset']['val']['pipeline'][0]['transforms'][0]['img_scale'] = [64, 48]
    (path / 'configuration.json').write_text(json.dumps(raw))
    return path


@pytest.fixture
def predict(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return main(['predict', *map(str, arguments), '--model', str(model), '-o', 'out', '--engine', 'torch'])

    return run


def names(folder='out'):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob('*') if path.is_file())


def entries(folder='out'):
    lines = (Path(folder) / 'manifest.jsonl').read_text(encoding='utf-8').splitlines()
    return {Path(entry['input']['path']).name: entry for entry in map(json.loads, lines)}


def lines_of(path):
    return [json.loads(line) for line in Path(path).read_text(encoding='utf-8').splitlines()]


def times_of(path):
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


def test_a_video_gives_an_overlay_and_a_line_a_frame(predict, capsys):
    make_clip('clips/a.mp4' if os.makedirs('clips') is None else '', 5, sound=True)
    assert predict('clips/a.mp4') == 0
    assert names() == ['clips/a.jsonl', 'clips/a_overlay.mp4', 'manifest.jsonl']
    lines = lines_of('out/clips/a.jsonl')
    assert [line['index'] for line in lines] == list(range(5)) and lines[4]['time'] == pytest.approx(0.4)
    covered = sum(coco.decode(row['mask']) for row in lines[0]['segments'])
    assert covered.shape == (48, 64) and covered.max() == 1
    assert times_of('out/clips/a_overlay.mp4') == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    entry = entries()['a.mp4']
    assert entry['error'] is None and set(entry['outputs']) == {'clips/a.jsonl', 'clips/a_overlay.mp4'}
    said = capsys.readouterr()
    assert 'sound is left out' in said.err and 'a.mp4: 5 frames in ' in said.err and ' frames/s' in said.err
    assert 'score 0.' in said.out and '-> out/clips/a_overlay.mp4, out/clips/a.jsonl' in said.out


def test_what_is_finished_is_skipped_until_it_changes(predict, capsys):
    clip = make_clip(Path('a.mp4'), 3)
    assert predict(clip) == 0
    before = {name: os.stat(f'out/{name}').st_mtime_ns for name in names()}
    assert predict(clip) == 0 and '1 skipped' in capsys.readouterr().err
    assert {name: os.stat(f'out/{name}').st_mtime_ns for name in names()} == before
    make_clip(clip, 4)
    assert predict(clip) == 0 and len(lines_of('out/a.jsonl')) == 4


def test_images_and_videos_go_together(predict, capsys):
    make_clip(Path('a.mp4'), 2)
    Image.new('RGB', (64, 48), 'gray').save('a.png')
    assert predict('a.mp4', 'a.png', '--format', 'coco') == 0
    assert names() == sorted(
        ['a.jsonl', 'a_overlay.mp4', 'a.png.json', 'a.png_labels.png', 'a.png_overlay.jpg', 'coco.json']
        + ['formats.json', 'manifest.jsonl']
    )
    said = capsys.readouterr().err
    assert '2 of 2 inputs segmented' in said and '--format is for images' in said
    assert len(json.loads(Path('out/coco.json').read_text())['images']) == 1


def test_save_chooses(predict, capsys):
    make_clip(Path('a.mp4'), 2)
    assert predict('a.mp4', '--save', 'json') == 0 and names() == ['a.jsonl', 'manifest.jsonl']
    assert predict('a.mp4', '--save', 'labels') == 1
    assert '--save labels is for images' in capsys.readouterr().err
    assert predict('a.mp4', '--save', 'labels', 'overlay') == 0 and 'a_overlay.mp4' in names()


def test_a_truncated_video_keeps_what_there_is_and_fails(predict, capsys):
    cut(make_clip(Path('a.mkv'), 20, noise=True), 0.5)
    assert predict('a.mkv') == 1
    said = capsys.readouterr().err
    assert 'error: a.mkv: truncated or damaged' in said and 'the result is of these' in said
    count = len(lines_of('out/a.jsonl'))
    assert 5 <= count < 15 and len(times_of('out/a_overlay.mp4')) == count
    assert 'truncated' in entries()['a.mkv']['error']
    assert predict('a.mkv') == 1 and 'in an earlier run' in capsys.readouterr().err
    assert predict('a.mkv', '--retry-failed') == 1 and 'in an earlier run' not in capsys.readouterr().err


def test_no_video_is_said_and_the_others_go_on(predict, capsys):
    Path('bad.mp4').write_bytes(b'no video')
    make_clip(Path('good.mp4'), 2)
    assert predict('bad.mp4', 'good.mp4', 'none.mp4') == 1
    said = capsys.readouterr().err
    assert 'error: bad.mp4: not a video' in said and 'none.mp4: no such file' in said
    assert names() == ['good.jsonl', 'good_overlay.mp4', 'manifest.jsonl']
    assert predict('bad.mp4', 'good.mp4') == 1 and 'bad.mp4: not a video' in capsys.readouterr().err


def test_large_frames_are_refused(predict, capsys):
    make_clip(Path('a.mp4'), 1)
    assert predict('a.mp4', '--max-pixels', 1000) == 1
    assert '64×48 pixels, more than the 1,000 allowed' in capsys.readouterr().err and names() == ['manifest.jsonl']
    assert predict('a.mp4') == 0, 'another limit is another try'


def test_a_video_is_not_fetched(predict, capsys):
    assert predict('http://127.0.0.1:9/a.mp4?x=1') == 1
    assert 'a video is read from a file; download it first' in capsys.readouterr().err


def test_files_of_others_stay(predict, capsys):
    make_clip(Path('a.mp4'), 2)
    os.mkdir('out')
    Path('out/a_overlay.mp4').write_text('mine')
    assert predict('a.mp4') == 1 and 'is there already' in capsys.readouterr().err
    assert Path('out/a_overlay.mp4').read_text() == 'mine' and not Path('out/a.jsonl').exists()
    assert predict('a.mp4', '--overwrite') == 0 and len(times_of('out/a_overlay.mp4')) == 2


def test_a_result_that_was_worked_on_stays_and_is_seen_before_the_work(predict, capsys, monkeypatch):
    clip = make_clip(Path('a.mp4'), 2)
    assert predict(clip) == 0
    Path('out/a.jsonl').write_text('corrected')
    make_clip(clip, 3)
    monkeypatch.setattr(ResultWriter, 'frame', lambda *_: pytest.fail('segmented'))
    assert predict(clip) == 1 and 'has been changed since it was written' in capsys.readouterr().err
    assert Path('out/a.jsonl').read_text() == 'corrected'


def test_a_result_is_no_input(predict, capsys):
    make_clip(Path('a.mp4'), 2)
    assert predict('a.mp4') == 0
    assert predict('*/*.mp4') == 1 and 'nothing but results of earlier runs' in capsys.readouterr().err


def test_a_folder_is_one_video_where_asked_for(predict, capsys):
    make_folder(Path('shots'), 3)
    assert predict('shots/', '--video-from-images', 5) == 0
    assert names() == ['manifest.jsonl', 'shots.jsonl', 'shots_overlay.mp4']
    assert [line['time'] for line in lines_of('out/shots.jsonl')] == pytest.approx([0, 0.2, 0.4])
    assert predict('shots', '--video-from-images', 5) == 0 and '1 skipped' in capsys.readouterr().err
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save('shots/shot3.png')
    assert predict('shots', '--video-from-images', 5) == 0 and len(lines_of('out/shots.jsonl')) == 4
    assert predict('shots', '--video-from-images', 10) == 0 and lines_of('out/shots.jsonl')[1]['time'] == 0.1
    assert predict('shots/shot0.png', '--video-from-images', 5) == 1
    assert 'is for folders, and none was given' in capsys.readouterr().err


def test_an_error_in_the_middle_leaves_nothing(predict, monkeypatch, capsys):
    make_clip(Path('a.mp4'), 6)

    def fail(self, result, rows):
        if result['index'] == 3:
            raise RuntimeError('out of memory')
        return result['image']

    monkeypatch.setattr(ResultWriter, 'frame', fail)
    assert predict('a.mp4') == 1
    assert 'a.mp4: its result cannot be made or written (out of memory)' in capsys.readouterr().err
    assert names() == ['manifest.jsonl']
    monkeypatch.undo()


def test_a_full_disk_leaves_nothing(predict, monkeypatch, capsys):
    make_clip(Path('a.mp4'), 6)

    def full(self, picture, time):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(OverlayVideo, 'add', full)
    assert predict('a.mp4') == 1
    assert 'out: No space left on device. 0 of 1 inputs are finished and kept; make room' in capsys.readouterr().err
    assert names() == []
    monkeypatch.undo()


def test_without_pyav_it_is_said_before_anything_is_done(predict, monkeypatch, capsys):
    make_clip(Path('a.mp4'), 1)
    monkeypatch.setitem(sys.modules, 'av', None)
    assert predict('a.mp4') == 1
    assert "pip install 'ms-segformer[video]'" in capsys.readouterr().err and not Path('out').exists()


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_the_command_that_is_stopped_leaves_nothing_that_looks_finished(predict, model, tmp_path, number, code):
    make_clip(tmp_path / 'a.mp4', 400)
    words = ['predict', 'a.mp4', '--model', str(model), '-o', 'out', '--engine', 'torch', '--batch-size', '2']
    command = [sys.executable, '-m', 'ms_segformer', *words]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    begun = temporary_prefix('a.jsonl')
    out = tmp_path / 'out'
    while not (out.is_dir() and any(p.name.startswith(begun) and p.stat().st_size for p in out.iterdir())):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == code, said
    assert not [name for name in os.listdir(out) if name.startswith('a')]
    if number == signal.SIGINT:
        assert said == 'interrupted\n' and not [name for name in os.listdir(out) if name.startswith(TEMPORARY)]
    make_clip(tmp_path / 'a.mp4', 3)
    assert predict('a.mp4') == 0
    assert sorted(os.listdir(out)) == ['a.jsonl', 'a_overlay.mp4', 'manifest.jsonl']
