"""`modelscope segformer …`: this package's command inside ModelScope's."""

import argparse

import pytest

from ms_segformer.cli.modelscope_command import SegformerCommand


@pytest.mark.parametrize('arguments', [['predict', 'a.jpg', '--output', 'out'], ['info', '--json'], []])
def test_the_arguments_and_the_exit_code_pass_through(monkeypatch, arguments):
    received = []
    monkeypatch.setattr('ms_segformer.cli.main.main', lambda argv: received.append(argv) or 3)
    parser = argparse.ArgumentParser()
    SegformerCommand.register(parser.add_subparsers())
    args = parser.parse_args(['segformer', *arguments])
    with pytest.raises(SystemExit) as exit:
        args._command(args).execute()
    assert received == [arguments] and exit.value.code == 3
