"""A data set small enough to train on in a test."""

import json
import logging
import socket
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `tiny_run`, which the processes that tests start need too
from tiny_run import make_data, run_options  # noqa: E402


@pytest.fixture(scope='session')
def tiny_data(tmp_path_factory):
    """A folder `images/{train,val}`, `annotations/{train,val}`: 8 + 5 pictures of discs between sky and grass."""
    return make_data(tmp_path_factory.mktemp('tiny_data'))


@pytest.fixture
def options(tiny_data, tiny_model_dir, tmp_path):
    """Arguments of `build_trainer` for a run of seconds; a test changes what it is about."""
    return run_options(tiny_model_dir, tiny_data, tmp_path / 'run')


@pytest.fixture
def messages(monkeypatch):
    """What ModelScope's logger says, as a list of strings."""
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger('modelscope')
    logger.addHandler(handler)
    yield said
    logger.removeHandler(handler)


class Runs:
    """Trains in processes of their own, see `run_training`."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        self.server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name('run_training.py'))],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __call__(self, options, environments=({},)):
        """Train once, or in several processes with a dict of environment variables each.

        Returns:
            (exit codes, output of the first process)
        """
        self.count += 1
        output = self.folder / f'output{self.count}_'
        options = {key: value for key, value in options.items() if key != 'cfg_modify_fn'}
        self.server.stdin.write(
            json.dumps({'options': options, 'output': str(output), 'environments': list(environments)}) + '\n'
        )
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline()), output.read_text()


@pytest.fixture(scope='session')
def runs(tmp_path_factory):
    """`runs(options, environments)` trains in processes of their own."""
    made = Runs(tmp_path_factory.mktemp('runs'))
    yield made
    made.server.stdin.close()
    made.server.wait(10)


@pytest.fixture
def two():
    """The environments of two processes, as torchrun makes them."""
    return environments_of(2)


@pytest.fixture
def eight():
    """The environments of eight processes, as torchrun makes them."""
    return environments_of(8)


def environments_of(count):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    return [
        {
            'RANK': str(rank),
            'LOCAL_RANK': str(rank),
            'WORLD_SIZE': str(count),
            'MASTER_ADDR': '127.0.0.1',
            'MASTER_PORT': str(port),
        }
        for rank in range(count)
    ]
