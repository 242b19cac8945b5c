"""`ms-segformer run`: the script runs as if Python had been given it."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from contextlib import suppress
from pathlib import Path

import pytest
from hub.fixtures import MODEL_ID

from ms_segformer.cli import run

ROOT = Path(__file__).parents[2]
CHILDREN_FOLDER = Path(run.__file__).parents[1] / 'integrations' / 'modelscope' / 'children'


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['ms-segformer'])
    monkeypatch.setattr(sys, 'path', list(sys.path))

    def write(text):
        path = tmp_path / 'card.py'
        path.write_text(text)
        return str(path)

    return write


def test_arguments_folder_and_name_are_the_scripts(script, tmp_path, capsys):
    (tmp_path / 'beside.py').write_text('value = 7\n')
    path = script('import sys, beside\nprint(__name__, sys.argv[1:], beside.value, __file__)\n')
    assert run.run(Namespace(script=path, arguments=['--epochs', '3'])) == 0
    assert capsys.readouterr().out.split('\n')[0] == f"__main__ ['--epochs', '3'] 7 {path}"


def test_the_plugin_is_active_in_it(script, capsys):
    path = script('from modelscope.metainfo import Trainers\nprint(Trainers.easycv)\n')
    assert run.run(Namespace(script=path, arguments=[])) == 0
    assert capsys.readouterr().out.split()[-1] == 'easycv'


def test_its_error_has_its_traceback_and_no_other(script, capsys):
    path = script('def card():\n    raise ValueError("of the card")\n\ncard()\n')
    assert run.run(Namespace(script=path, arguments=[])) == 1
    error = capsys.readouterr().err
    assert 'ValueError: of the card' in error and path in error and 'runpy' not in error and 'cli/run' not in error


@pytest.mark.parametrize('code, status', [('raise SystemExit(3)', 3), ('raise SystemExit', None)])
def test_its_exit_code_is_kept(script, code, status):
    with pytest.raises(SystemExit) as exit:
        run.run(Namespace(script=script(code), arguments=[]))
    assert exit.value.code == status


def test_a_missing_script_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere.py is not a file'):
        run.run(Namespace(script=str(tmp_path / 'nowhere.py'), arguments=[]))


def test_options_after_the_script_are_the_scripts():
    from argparse import ArgumentParser

    parser = ArgumentParser()
    run.add_arguments(parser)
    args = parser.parse_args(['card.py', '--lr', '0.1', 'x'])
    assert (args.script, args.arguments) == ('card.py', ['--lr', '0.1', 'x'])


CHILDREN = """
import json, multiprocessing, os, subprocess, sys

def load(way, results):
    from modelscope.models import Model
    results.put([way, type(Model.from_pretrained({model!r})).__module__])

if __name__ == '__main__':
    found = []
    for way in ('spawn', 'forkserver'):
        context = multiprocessing.get_context(way)
        results = context.Queue()
        process = context.Process(target=load, args=(way, results))
        process.start()
        found.append(results.get(timeout=240))
        process.join()
    code = 'import sys; from modelscope.models import Model; print(type(Model.from_pretrained(sys.argv[1])).__module__)'
    done = subprocess.run([sys.executable, '-c', code, {model!r}], capture_output=True, text=True, check=True)
    found.append(['subprocess', done.stdout.split()[-1]])
    print(json.dumps(found))
"""


def test_the_processes_it_starts_resolve_here_too(python, hub, tmp_path):
    """Loading by id in a spawned worker, a forkserver's and a subprocess, in none of which ModelScope runs pip."""
    path = tmp_path / 'card.py'
    path.write_text(CHILDREN.format(model=MODEL_ID))
    done = python.run('-m', 'ms_segformer.cli.main', 'run', path, cwd=ROOT)
    ours = 'ms_segformer.models.segformer'
    assert json.loads(done.stdout.splitlines()[-1]) == [['spawn', ours], ['forkserver', ours], ['subprocess', ours]]
    assert python.pip() == []


LOOK = """
import json, sys
print(json.dumps([*(name in sys.modules for name in ('ms_segformer', 'modelscope', 'torch')),
                  getattr(sys.modules.get('sitecustomize'), '__file__', None), sys.path]))
"""


def look(python_path, python=sys.executable):
    """What a Python started with these folders on PYTHONPATH begins with."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith('MS_SEGFORMER_')}
    environment.update(PYTHONPATH=os.pathsep.join(map(str, python_path)), PYTHONDONTWRITEBYTECODE='1')
    done = subprocess.run([python, '-c', LOOK], cwd='/', capture_output=True, text=True, check=True, env=environment)
    return *json.loads(done.stdout), done.stderr


def test_a_child_begins_with_the_package_and_nothing_heavy(tmp_path):
    """The package is found beside its folder, though it is on no path of the child's, which stays as it was."""
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', tmp_path / 'bare'], check=True)
    bare = tmp_path / 'bare' / 'bin' / 'python'
    active, modelscope, torch, _, path, error = look([CHILDREN_FOLDER], bare)
    assert (active, modelscope, torch, error) == (True, False, False, '')
    untouched = look([], bare)
    assert not untouched[0] and path == untouched[4]


def test_the_next_sitecustomize_runs_too(tmp_path):
    theirs = tmp_path / 'sitecustomize.py'
    theirs.write_text('import sys, sitecustomize as s\nprint("theirs", s.__file__ == __file__, file=sys.stderr)\n')
    active, *_, file, path, error = look([CHILDREN_FOLDER, tmp_path])
    assert active and file == str(theirs) and error == 'theirs True\n'
    assert str(tmp_path) in path and str(CHILDREN_FOLDER) not in path
    theirs.write_text('import nothing_like_it')
    active, *_, error = look([CHILDREN_FOLDER, tmp_path])
    assert active and 'Error in sitecustomize' in error and 'nothing_like_it' in error


def test_the_variable_switches_children_off():
    code = 'from ms_segformer.integrations.modelscope.autoload import active; print(active())'
    for value, expected in (('1', 'False'), ('0', 'True')):
        done = subprocess.run(
            [sys.executable, '-c', code],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, 'PYTHONPATH': str(CHILDREN_FOLDER), 'MS_SEGFORMER_DISABLE': value},
        )
        assert done.stdout.split() == [expected]


@pytest.mark.parametrize('before', [None, '', os.pathsep.join(['/a', '/b'])])
@pytest.mark.parametrize('end', ['', 'raise SystemExit(3)', 'raise ValueError("of the card")'])
def test_the_environment_is_afterwards_as_it_was(script, monkeypatch, capsys, before, end):
    if before is None:
        monkeypatch.delenv('PYTHONPATH', raising=False)
    else:
        monkeypatch.setenv('PYTHONPATH', before)
    path = script(f'import os\nprint(os.environ["PYTHONPATH"])\n{end}\n')
    with suppress(SystemExit):
        run.run(Namespace(script=path, arguments=[]))
    assert capsys.readouterr().out.split()[0] == os.pathsep.join(filter(None, [str(CHILDREN_FOLDER), before]))
    assert os.environ.get('PYTHONPATH') == before


@pytest.mark.parametrize('option, said', [('-E', True), ('-I', True), ('-B', False)])
def test_a_python_that_ignores_its_environment_is_told_of(script, option, said):
    path = script('print("ran")\n')
    start = f'import sys; sys.path.insert(0, {str(ROOT)!r}); from ms_segformer.cli.main import main; sys.exit(main())'
    done = subprocess.run([sys.executable, option, '-c', start, 'run', path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, 'ran\n'), done.stderr
    assert done.stderr.count('"ms-segformer autoload on"') == said, done.stderr
