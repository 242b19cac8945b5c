"""`ms-segformer run SCRIPT [ARGUMENTS]`: run a model card's script unmodified."""

import argparse
import os
import runpy
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..integrations.modelscope.autoload import DISABLE_VARIABLE, activate

HELP = (
    'run a Python script, such as the code of a model card, with SegFormer models resolved to this package, in the '
    'processes it starts too'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('script', help='path of the script')
    parser.add_argument('arguments', nargs=argparse.REMAINDER, help='what the script finds in sys.argv')


def run(args: argparse.Namespace) -> int:
    from .autoload import autoload_file

    script = os.path.abspath(args.script)
    if not os.path.isfile(script):
        raise FileNotFoundError(f'{args.script} is not a file; give the path of a Python script')
    if not activate():
        print(f'{DISABLE_VARIABLE} is set: ModelScope runs as it is', file=sys.stderr)
    elif sys.flags.ignore_environment and not autoload_file().is_file():
        print(
            'this Python ignores its environment (-E or -I), and so do the processes that the script starts: '
            'SegFormer will not resolve to this package in them. Leave the option out, or first run '
            '"ms-segformer autoload on"',
            file=sys.stderr,
        )
    sys.argv = [args.script, *args.arguments]
    sys.path.insert(0, os.path.dirname(script))
    try:
        with _active_in_children():
            runpy.run_path(script, run_name='__main__')
    except Exception as error:  # of the script, whose traceback its author wants, without this function in it
        _print_traceback(error, script)
        return 1
    return 0


@contextmanager
def _active_in_children() -> Iterator[None]:
    """Have every Python process that is started inside the block begin with `sitecustomize.py` of
    `ms_segformer/integrations/modelscope/children`.

    By PYTHONPATH, which multiprocessing's spawned workers, `subprocess` and torchrun all hand on. A Python that ignores
    its environment (`-E`, `-I`) starts its workers with the same option, so nothing set here reaches them.
    """
    before = os.environ.get('PYTHONPATH')
    folder = str(Path(__file__).parents[1] / 'integrations' / 'modelscope' / 'children')
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [folder, before]))  # an empty entry would be the cwd
    try:
        yield
    finally:
        if before is None:
            os.environ.pop('PYTHONPATH', None)
        else:
            os.environ['PYTHONPATH'] = before


def _print_traceback(error: BaseException, script: str) -> None:
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != script:
        frames = frames.tb_next
    traceback.print_exception(type(error), error, frames or error.__traceback__)
    sys.stderr.flush()
