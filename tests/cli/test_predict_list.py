"""`ms-segformer predict --from FILE`: inputs from a list."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ms_segformer.cli.main import main


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(('a.jpg', 'b.png', 'more/c.png', 'more/# d.png')):
        path = tmp_path / 'photos' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path


@pytest.fixture
def predict(model):
    def run(*arguments):
        options = ['--model', model, '-o', 'out', '--engine', 'torch', '--device', 'cpu', '--save', 'labels']
        return main(['predict', *map(str, arguments), *map(str, options)])

    return run


def results():
    return sorted(path.relative_to('out').as_posix() for path in Path('out').rglob('*.png'))


def test_a_list_is_taken_line_by_line(here, predict):
    Path('list.txt').write_bytes(
        b'\xef\xbb\xbfphotos/a.jpg\r\n\n \t\n' + f'{here}/photos/b.png\nphotos/more\nphotos/a.j*'.encode()
    )
    assert predict('--from', 'list.txt') == 0
    assert results() == [f'photos/{name}_labels.png' for name in ('a', 'b', 'more/# d', 'more/c')]


def test_a_list_comes_after_the_images_and_from_the_standard_input(here, predict, capsys, monkeypatch):
    Path('list').write_text('photos/a.jpg\nphotos/b.png\n')
    with open('list') as file:
        monkeypatch.setattr('sys.stdin', file)
        assert predict('photos/b.png', '--from', '-') == 0
    printed = capsys.readouterr().out
    assert printed.index('photos/b.png') < printed.index('photos/a.jpg')
    assert results() == ['photos/a_labels.png', 'photos/b_labels.png']


def test_names_that_are_no_text_are_taken_as_they_are(here, predict):
    name = os.fsdecode(b'photos/\xff.png')
    shutil.copy('photos/b.png', name)
    Path('list').write_bytes(os.fsencode(name))
    assert predict('--from', 'list') == 0
    assert len(results()) == 1


@pytest.mark.parametrize(
    'arguments, said',
    [
        ([], 'no images were named; give files, folders, patterns or URLs, or a list of them with --from'),
        (['--from', 'nowhere.txt'], 'nowhere.txt: cannot be read (No such file or directory)'),
        (['--from', 'photos'], 'photos: cannot be read (Is a directory)'),
        (['--from', 'empty.txt'], 'empty.txt: holds no line that names an image'),
        (['--from', 'photos/b.png'], 'photos/b.png: line 3 is no name of an image; --from takes a text'),
        (['--from', 'wrong.txt'], 'nothing.png: no such file'),
    ],
)
def test_what_is_no_list_is_said_before_a_model_is_opened(here, predict, capsys, monkeypatch, arguments, said):
    monkeypatch.setattr('ms_segformer.cli.predict._open', lambda args: pytest.fail('opens a model'))
    Path('empty.txt').write_text('\n\n')
    Path('wrong.txt').write_text('nothing.png\n')
    assert predict(*arguments) == 1
    assert said in capsys.readouterr().err


def test_a_closed_standard_input_is_said(here, predict, capsys, monkeypatch):
    monkeypatch.setattr('sys.stdin', io.StringIO(''))
    assert predict('--from', '-') == 1
    assert 'the list from the standard input: cannot be read' in capsys.readouterr().err
