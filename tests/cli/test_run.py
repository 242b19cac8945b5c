"""`ms-segformer run`: the script runs as if Python had been given it."""
import sys
from argparse import Namespace

import pytest

from ms_segformer.cli import run


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
