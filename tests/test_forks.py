"""A forked Python is what a fresh one is, as far as tests look at it."""

import json
import os
import signal
import subprocess
import sys

import pytest
from forks import LIBRARIES, forks
from hub.fixtures import hub, python  # noqa: F401

pytestmark = pytest.mark.skipif(not hasattr(os, 'fork'), reason='there is no fork')

LOOK = """
import json, os, sys
print(json.dumps([__name__, sys.argv[1:], os.getcwd(), dict(os.environ), 'torch' in sys.modules,
                  [name for name in sys.modules if name.split('.')[0] in ('modelscope', 'ms_segformer', 'pip')]]))
print('to the other stream', file=sys.stderr)
sys.exit(3)
"""


@pytest.mark.parametrize('way', ['-c', '-m', 'script'])
def test_arguments_folder_environment_streams_and_exit_code(tmp_path, way):
    (tmp_path / 'look.py').write_text(LOOK)
    words = {'-c': ['-c', LOOK], '-m': ['-m', 'look'], 'script': [tmp_path / 'look.py']}[way]
    environment = {'PATH': os.environ['PATH'], 'PYTHONPATH': str(tmp_path)}
    done = forks(LIBRARIES).run([*words, '--lr', '0.1'], environment, tmp_path)
    name, arguments, folder, found, torch, others = json.loads(done.stdout)
    assert (name, arguments, folder) == ('__main__', ['--lr', '0.1'], str(tmp_path))
    assert {key: value for key, value in found.items() if key != 'LC_CTYPE'} == environment
    assert torch and others == []
    assert (done.returncode, done.stderr) == (3, 'to the other stream\n')


def test_errors_and_signals(tmp_path):
    done = forks(LIBRARIES).run(['-c', 'raise ValueError("mine")'], os.environ, tmp_path)
    assert done.returncode == 1 and done.stderr.endswith('ValueError: mine\n')
    process = forks(LIBRARIES).start(['-c', 'print("begun", flush=True)\nwhile True: pass'], os.environ)
    assert process.stdout.readline() == 'begun\n' and process.poll() is None
    process.terminate()
    process.communicate(60)
    assert process.returncode == -signal.SIGTERM


def test_one_that_does_not_end_is_killed():
    with pytest.raises(subprocess.TimeoutExpired):
        forks(LIBRARIES).run(['-c', 'while True: pass'], os.environ, timeout=0.2)


@pytest.mark.forked_python
def test_its_uses_of_pip_are_seen(python):  # noqa: F811
    python.run(code=f'import subprocess; subprocess.run([{sys.executable!r}, "-m", "pip", "--version"])')
    assert python.pip()
