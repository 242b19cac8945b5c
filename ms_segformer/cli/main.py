"""The `ms-segformer` command. Each sub-command is a module of this package, imported in full only when it runs."""

import importlib.util
import io
import logging
import os
import re
import sys
from collections.abc import Sequence
from types import ModuleType

from ..errors import ArgumentError, SegformerError
from ..integrations.modelscope.autoload import DISABLE_VARIABLE, disabled
from ..integrations.modelscope.messages import held_back_messages
from ..version import __version__
from .arguments import Parser

COMMANDS = (
    'predict',
    'serve',
    'train',
    'eval',
    'verify',
    'export',
    'quantize',
    'check-data',
    'prepare',
    'fetch',
    'info',
    'run',
    'autoload',
)
# Commands whose output is their own: ModelScope's progress messages are held back unless --verbose is given.
QUIET = ('predict', 'serve', 'eval', 'verify', 'export', 'quantize', 'check-data', 'prepare', 'fetch', 'info')
# Commands that have ModelScope build a model.
OPENING = ('predict', 'serve', 'train', 'eval', 'verify', 'export', 'quantize')


def build_parser() -> Parser:
    """The command line as a parser."""
    parser = Parser(
        prog='ms-segformer', description='SegFormer semantic segmentation for ModelScope: B0 to B5, COCO-Stuff 164k.'
    )
    parser.add_argument('--version', action='version', version=f'ms-segformer {__version__}')
    parser.add_argument('-v', '--verbose', action='store_true', help="show ModelScope's messages, and tracebacks")
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    for name in COMMANDS:
        module = _module(name)
        sub = commands.add_parser(name, help=module.HELP, description=module.HELP[0].upper() + module.HELP[1:] + '.')
        module.add_arguments(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 failed with a message, 2 wrong usage, 130 interrupted."""
    args = build_parser().parse_args(argv)
    args.from_terminal = argv is None  # else a program has called this
    logging.basicConfig(format='%(levelname)s: %(message)s', level=logging.INFO if args.verbose else logging.WARNING)
    try:
        if args.command != 'run':  # a script's output is its own
            _escape_what_cannot_be_shown()
        with held_back_messages(args.command in QUIET and not args.verbose):
            _check_who_serves(args.command)
            return _module(args.command).run(args)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (SegformerError, OSError) as error:
        if args.verbose:
            raise
        print(f'error: {_text(error)}', file=sys.stderr)
        return 1


def _check_who_serves(command: str) -> None:
    """Refuse what would make ModelScope look for EasyCV, which it would have pip install."""
    if command in OPENING and disabled() and importlib.util.find_spec('easycv') is None:
        raise ArgumentError(
            f'{DISABLE_VARIABLE} is set, which leaves SegFormer to EasyCV, and EasyCV is not '
            f'installed; unset it for ms-segformer {command}'
        )


def _escape_what_cannot_be_shown() -> None:
    """Names of files and classes may hold letters that the terminal's encoding lacks: they come as escape sequences."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == 'strict':
            stream.reconfigure(errors='backslashreplace')


def _text(error: BaseException) -> str:
    """What an error says, without the class names that ModelScope's registry puts before it, one a level."""
    text, cause = str(error), error.__cause__ or error.__context__  # the latter in old ModelScope
    while type(cause) is type(error) and re.fullmatch(r'\w+: ' + re.escape(str(cause)), text):
        text, cause = str(cause), cause.__cause__ or cause.__context__
    return text


def _module(command: str) -> ModuleType:
    return importlib.import_module(f'ms_segformer.cli.{command.replace("-", "_")}')


if __name__ == '__main__':
    sys.exit(main())
