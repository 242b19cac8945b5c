"""The command as a whole: help, exit codes, messages."""

import os
import subprocess
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from ms_segformer.cli.main import COMMANDS, main
from ms_segformer.errors import ArgumentError

ROOT = Path(__file__).parents[2]
HEAVY = ('torch', 'numpy', 'cv2', 'PIL', 'modelscope', 'tqdm')


def test_help_names_every_command_and_imports_nothing_heavy():
    code = (
        'import sys\nfrom ms_segformer.cli.main import main\n'
        'try:\n    main(["--help"])\nexcept SystemExit as done:\n    assert done.code == 0\n'
        f'print([name for name in {HEAVY!r} if name in sys.modules])'
    )
    output = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert all(command in output for command in COMMANDS)
    assert output.splitlines()[-1] == '[]'


@pytest.mark.parametrize('command', COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as done:
        main([command, '--help'])
    assert done.value.code == 0
    assert f'usage: ms-segformer {command}' in capsys.readouterr().out


def test_wrong_usage_is_exit_code_2(capsys):
    for wrong in ([], ['segment'], ['predict'], ['predict', 'a.jpg', '--model', 'demo', '--batchsize', '2']):
        with pytest.raises(SystemExit) as done:
            main(wrong)
        said = capsys.readouterr().err
        assert done.value.code == 2 and said.startswith('error: ') and said.count('\n') == 1


@pytest.mark.parametrize('encoding', ['ascii', 'utf-8'])
def test_what_the_terminal_cannot_show_is_escaped(encoding, tmp_path):
    """The file's name is Latin-1: no text in UTF-8, and no ASCII either."""
    data = tmp_path / 'data'
    subprocess.run(
        [sys.executable, '-m', 'ms_segformer', 'prepare', 'example', '-o', str(data)], check=True, capture_output=True
    )
    (data / 'images' / 'val' / os.fsdecode(b'caf\xe9.jpg')).write_bytes(b'no picture')
    (data / 'annotations' / 'val' / os.fsdecode(b'caf\xe9.png')).write_bytes(b'no picture')
    done = subprocess.run(
        [sys.executable, '-m', 'ms_segformer', 'check-data', str(data)],
        capture_output=True,
        env={**os.environ, 'PYTHONIOENCODING': encoding},
    )
    assert done.returncode == 1 and done.stderr == b''
    assert rb'caf\udce9.jpg' in done.stdout


@pytest.mark.parametrize('words', [['predict', 'a.jpg', '--model', 'demo'], ['export', 'demo', '-o', 'out']])
def test_a_command_that_would_have_modelscope_install_easycv_is_refused(words, monkeypatch, capsys):
    monkeypatch.setenv('MS_SEGFORMER_DISABLE', '1')
    monkeypatch.setitem(sys.modules, 'easycv', None)
    monkeypatch.setattr(f'ms_segformer.cli.{words[0]}.run', lambda args: 0)
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: MS_SEGFORMER_DISABLE is set')
    assert line.endswith(f'unset it for ms-segformer {words[0]}')
    installed = types.ModuleType('easycv')
    installed.__spec__ = ModuleSpec('easycv', None)
    monkeypatch.setitem(sys.modules, 'easycv', installed)
    assert main(words) == 0


def test_modelscope_is_heard_again_after_a_quiet_command(tmp_path):
    """Which imported it, in a process of its own; a Ctrl-C or an error ends the command as well."""
    code = (
        'import os\nfrom ms_segformer.cli.main import main\n'
        'assert main(["export", "demo", "-o", "out", "--format", "openvino", "--size", "64", "64"]) in (0, 1)\n'
        'assert "MODELSCOPE_LOG_LEVEL" not in os.environ\n'
        'from modelscope.utils.logger import get_logger\nget_logger().info("heard again")'
    )
    environment = {name: value for name, value in os.environ.items() if name != 'MODELSCOPE_LOG_LEVEL'}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**environment, 'PYTHONPATH': str(ROOT)},
    )
    said = done.stderr.splitlines()
    assert 'heard again' in said[-1] and not [line for line in said[:-1] if ' - INFO - ' in line]


@pytest.mark.parametrize('error', [ArgumentError('of the user'), FileNotFoundError('of the user')])
def test_what_the_user_can_mend_is_one_line(error, monkeypatch, capsys):
    monkeypatch.setattr('ms_segformer.cli.info.run', _raise(error))
    assert main(['info']) == 1
    assert capsys.readouterr().err == 'error: of the user\n'


def test_a_bug_is_not_taken_for_a_mistake_of_the_user(monkeypatch):
    monkeypatch.setattr('ms_segformer.cli.info.run', _raise(ValueError('of this package')))
    with pytest.raises(ValueError, match='of this package'):
        main(['info'])


def _raise(error):
    def run(_):
        raise error

    return run
