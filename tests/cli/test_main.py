"""The command as a whole: help, exit codes, messages."""
import os
import subprocess
import sys

import pytest

from ms_segformer.cli.main import COMMANDS, main

HEAVY = ('torch', 'numpy', 'cv2', 'PIL', 'modelscope', 'tqdm')


def test_help_names_every_command_and_imports_nothing_heavy():
    code = ('import sys\nfrom ms_segformer.cli.main import main\n'
            'try:\n    main(["--help"])\nexcept SystemExit as done:\n    assert done.code == 0\n'
            f'print([name for name in {HEAVY!r} if name in sys.modules])')
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


def test_the_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.delenv('MODELSCOPE_LOG_LEVEL', raising=False)
    assert main(['info', 'b9']) == 1
    assert 'MODELSCOPE_LOG_LEVEL' not in os.environ
