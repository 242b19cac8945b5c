"""`ms-segformer predict --processes N`: the same files as one process makes, whatever dies."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ms_segformer import processes
from ms_segformer.cli import predict as command
from ms_segformer.cli.main import main

# Photographs whose name says so kill the process that has segmented them: the first time, or each time.
KILLER = """
import os
import signal
import sys
from pathlib import Path

from ms_segformer.pipelines import to_files

made = to_files._made


def deadly(writer, image, result):
    name = Path(image.name).name
    seen = Path({seen!r}, name)
    again = seen.exists()
    seen.touch()
    if 'always' in name or ('once' in name and not again):
        os.kill(os.getpid(), signal.SIGKILL)
    return made(writer, image, result)


to_files._made = deadly
if __name__ == '__main__':
    from ms_segformer.cli.main import main

    sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """The folder `photos` of the current directory: images of several shapes, one broken."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / 'photos'
    (folder / 'more').mkdir(parents=True)
    for number in range(9):
        name = f'more/{number}.png' if number % 3 == 0 else f'{number}.jpg'
        size = 40 + 8 * (number % 2), 64 - 8 * (number % 3), 3
        Image.fromarray(np.random.default_rng(number).integers(0, 256, size, np.uint8)).save(folder / name)
    (folder / '4.jpg').write_bytes(b'no image')
    return folder


def predict(model, *words):
    return main(['predict', 'photos', '--model', str(model), '--device', 'cpu', *map(str, words)])


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob('*'))
        if path.is_file() and path.name != 'manifest.jsonl'
    }


def entries(folder):
    return [json.loads(line) for line in Path(folder, 'manifest.jsonl').read_text().splitlines()]


def test_files_manifest_and_words_are_those_of_one_process(model, photos, capsys):
    words = ['--engine', 'torch', '--format', 'csv']
    assert predict(model, '-o', 'one', *words) == 1
    one = capsys.readouterr()
    assert predict(model, '-o', 'two', *words, '--processes', 2) == 1
    two = capsys.readouterr()
    assert len(files('one')) == 8 * 3 + 2
    assert files('one') == files('two')
    assert entries('one') == entries('two')
    assert one.out == two.out.replace('two/', 'one/')
    seconds = re.compile(r' in [0-9.]+ s, [0-9.]+ images/s')
    assert seconds.sub('', one.err) == seconds.sub('', two.err) and '4.jpg' in two.err
    assert predict(model, '-o', 'two', *words, '--processes', 3) == 1
    assert '8 skipped' in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='kills processes')
def test_a_photograph_at_which_processes_die_is_tried_once_more_and_reported(model, photos, tmp_path):
    os.rename('photos/5.jpg', 'photos/5-once.jpg')
    os.rename('photos/7.jpg', 'photos/7-always.jpg')
    assert predict(model, '-o', 'one', '--engine', 'torch', '-q') == 1
    (tmp_path / 'seen').mkdir()
    (tmp_path / 'script.py').write_text(KILLER.format(seen=str(tmp_path / 'seen')))
    words = ['photos', '--model', str(model), '--device', 'cpu', '--engine', 'torch', '-o', 'two', '--processes', '2']
    command = [sys.executable, 'script.py', 'predict', *words, '-q']
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 1 and 'Traceback' not in done.stderr, done.stderr
    assert done.stderr.count('error: ') == 2 and '4.jpg' in done.stderr
    assert re.search(r'7-always.jpg: the process that worked on it died 2 times \(signal 9\)', done.stderr)
    one = {name: content for name, content in files('one').items() if '7-always' not in name}
    assert files('two') == one
    assert predict(model, '-o', 'two', '--engine', 'torch', '-q', '--processes', 2, '--retry-failed') == 1
    assert files('two') == files('one')


def test_what_is_wrong_with_the_model_is_said_once(model, photos, tmp_path, capsys):
    assert predict(tmp_path / 'none', '-o', 'out', '--processes', 2) == 1
    assert capsys.readouterr().err.count('error: ') == 1
    assert not Path('out').exists()


@pytest.mark.parametrize('number', ['0', '-1', 'two', '100000'])
def test_impossible_numbers_are_refused(model, photos, capsys, number):
    with pytest.raises(SystemExit):
        predict(model, '--processes', number)
    assert '--processes' in capsys.readouterr().err


@pytest.mark.parametrize(
    'changes, images, memory, expected',
    [
        ({}, 1000, 64 << 30, 4),
        ({}, 599, 64 << 30, 3),
        ({}, 149, 64 << 30, 1),
        ({}, 1000, 8 << 30, 2),
        ({}, 1000, 1 << 30, 1),
        ({}, 1000, None, 1),
        ({'processes': 9}, 1000, None, 9),
        ({'processes': 9}, 2, None, 2),
        ({'processes': 9}, 0, None, 1),
        ({'batch_size': 2}, 1000, 64 << 30, 1),
        ({'from_terminal': False}, 1000, 64 << 30, 1),
        ({'variant': 'b2'}, 1000, 64 << 30, 1),
        ({'device': torch.device('cuda:0')}, 1000, 64 << 30, 1),
    ],
)
def test_the_number_of_processes_where_none_is_given(changes, images, memory, expected, monkeypatch):
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 4)
    monkeypatch.setattr(processes, 'free_memory', lambda: memory)
    monkeypatch.setattr(command, 'prepare_processes', lambda _: None)
    given = {'processes': None, 'batch_size': None, 'from_terminal': True, **changes}
    segmenter = SimpleNamespace(**{'variant': 'b0', 'device': torch.device('cpu'), **changes})
    assert command._number_of_processes(SimpleNamespace(**given), segmenter, images) == expected


def test_the_free_memory_is_that_of_the_machine_or_less():
    free = processes.free_memory()
    assert free is None or 0 <= free <= os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
