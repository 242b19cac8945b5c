"""`ms-segformer verify` is stopped while several processes count: it ends, keeps what it has, and goes on from it."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from forks import COMMANDS, Forked, forks
from small_evaluation import evaluated, random_pairs

from ms_segformer.cli import verify as command

IMAGES = 30
SECONDS = 180  # for what takes a few on an idle machine

# In every process of the command: an image takes a while, and is written at once.
SLOW = """
import sys
import time

from ms_segformer.verification import score

count = score.Progress.count


def slowly(*of_an_image):
    count(*of_an_image)
    time.sleep(0.2)


score.SECONDS = 0
score.Progress.count = slowly
if __name__ == '__main__':
    from ms_segformer.cli import main, verify
    verify._look_at_photographs = lambda *_: None
    sys.exit(main.main(sys.argv[1:]))
"""

pytestmark = pytest.mark.skipif(not os.path.isdir('/proc/self/task'), reason='finds processes in /proc')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return random_pairs(tmp_path_factory.mktemp('stopped_data'), [str(i) for i in range(IMAGES)])


@pytest.fixture(autouse=True)
def no_photographs(monkeypatch):
    """They take longer than all the rest."""
    monkeypatch.setattr(command, '_look_at_photographs', lambda *_: None)


@pytest.fixture
def start(model, data, tmp_path):
    """Starts the command in a session of its own, and waits until some images are counted."""
    started = []

    def run(*words):
        (tmp_path / 'slow.py').write_text(SLOW)
        process = forks(COMMANDS).start(
            [
                tmp_path / 'slow.py',
                'verify',
                model,
                '--data',
                data,
                '--device',
                'cpu',
                '-o',
                tmp_path / 'report.json',
                *words,
            ],
            {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
        )
        started.append(process)
        until(lambda: process.poll() is not None or counted(tmp_path) > 1)
        assert process.poll() is None, process.communicate()
        return process

    yield run
    for process in started:
        if members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def until(true):
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, 'it takes too long'
        time.sleep(0.01)


def counted(folder):
    """Number of images in the progress."""
    total = 0
    for path in (folder / 'report.json.progress').glob('[!.]*.npz'):
        with np.load(path) as part:
            total += int(part['done'].sum())
    return total


def status(pid):
    """(state, parent, session) of a process; of one that is gone, ('', 0, 0)."""
    try:
        state, parent, _, session = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[:4]
    except (FileNotFoundError, ProcessLookupError):
        return '', 0, 0
    return state, int(parent), int(session)


def members(session):
    """The processes of a session that are running."""
    found = {int(path.name): status(path.name) for path in Path('/proc').glob('[0-9]*')}
    return [pid for pid, (state, _, its) in found.items() if its == session and state not in 'ZX']


def children(pid):
    """The processes that a process has started, those that track its resources left out."""
    found = [path for path in Path('/proc').glob('[0-9]*') if status(path.name)[1] == pid]
    return [int(path.name) for path in found if b'resource_tracker' not in (path / 'cmdline').read_bytes()]


def goes_on(verify, model, data, tmp_path):
    """The next run counts the rest only, and comes to what `eval` comes to."""
    found = counted(tmp_path)
    assert 0 < found < IMAGES
    code, report, printed = verify(model, '--data', data)
    assert code == 0 and f'{found} of {IMAGES} images were counted by an earlier run' in printed.err
    expected = evaluated(model, data, tmp_path)
    assert report['score']['mIoU'] == pytest.approx(100 * expected['mIoU'], abs=1e-9)
    assert report['score']['aAcc'] == pytest.approx(100 * expected['aAcc'], abs=1e-9)
    assert not (tmp_path / 'report.json.progress').exists()


def to_all(number):
    return lambda process: os.killpg(process.pid, number)


@pytest.mark.parametrize(
    'words, stop, code',
    [
        (['--processes', '2'], Forked.terminate, 143),
        (['--processes', '2', '--workers', '1'], to_all(signal.SIGTERM), 143),
        (['--processes', '2', '--workers', '1'], to_all(signal.SIGINT), 130),
        (['--workers', '2'], to_all(signal.SIGTERM), 143),
    ],
    ids=['SIGTERM', 'SIGTERM to all', 'Ctrl-C', 'SIGTERM to loading processes too'],
)
def test_a_signal_ends_it_in_order(start, verify, model, data, tmp_path, words, stop, code):
    process = start(*words)
    stop(process)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == code and 'Traceback' not in err and out == '', err
    until(lambda: not members(process.pid))
    goes_on(verify, model, data, tmp_path)


@pytest.mark.parametrize('words', [['--processes', '2'], ['--workers', '2']], ids=' '.join)
def test_a_child_that_is_killed_ends_it_with_a_line(start, verify, model, data, tmp_path, words):
    process = start(*words)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1 and 'Traceback' not in err and out == '', err
    assert 'killed' in err and 'the same command goes on' in err.splitlines()[-1]
    until(lambda: not members(process.pid))
    goes_on(verify, model, data, tmp_path)


def test_nothing_counts_on_when_the_command_is_killed(start, verify, model, data, tmp_path):
    process = start('--processes', '2', '--workers', '1')
    process.kill()
    process.wait()
    until(lambda: not members(process.pid))
    assert 'Traceback' not in process.communicate()[1]
    goes_on(verify, model, data, tmp_path)
