"""`ms-segformer autoload on|off|status`: SegFormer models resolve in every Python process of an environment."""

import argparse
import sysconfig
from pathlib import Path

from ..files import atomic_write
from ..integrations.modelscope.autoload import DISABLE_VARIABLE, disabled

HELP = 'resolve SegFormer models in every Python process of this environment, without `import ms_segformer`'
FILE = 'ms_segformer_autoload.pth'
# Python runs a .pth line that begins with `import` at start-up. It says nothing when the package was uninstalled and
# the file stayed behind; any other error is shown, as it would be for `import ms_segformer`.
LINE = (
    "import sys; exec('try:\\n import ms_segformer\\nexcept ModuleNotFoundError as e:"
    '\\n if e.name != "ms_segformer": raise\')\n'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('switch', choices=('on', 'off', 'status'))


def run(args: argparse.Namespace) -> int:
    path = autoload_file()
    if args.switch == 'on':
        _turn_on(path)
    elif args.switch == 'off':
        _turn_off(path)
    print(status())
    return 0


def autoload_file() -> 'Path':
    """Path of the file that Python reads at start-up, in the site-packages of the running interpreter's environment."""
    return Path(sysconfig.get_path('purelib')) / FILE


def status() -> str:
    """One line: whether autoload is on, and through which file."""

    path = autoload_file()
    if not path.is_file():
        return f'autoload is off ({path} does not exist)'
    if path.read_text(encoding='utf-8') != LINE:
        return f'autoload is on, through a file of another version: run `ms-segformer autoload on` again ({path})'
    if disabled():
        return f'autoload is on ({path}), but {DISABLE_VARIABLE} is set'
    return f'autoload is on ({path})'


def _turn_on(path: 'Path') -> None:

    try:
        with atomic_write(path) as temporary:
            temporary.write_text(LINE, encoding='utf-8')
    except PermissionError as error:
        raise PermissionError(
            f'{path.parent} cannot be written ({error.strerror}). Use a virtual environment, run this as the owner of '
            f'that folder, or write `import ms_segformer` above your code instead.'
        ) from error


def _turn_off(path: 'Path') -> None:
    try:
        path.unlink(missing_ok=True)
    except PermissionError as error:
        raise PermissionError(f'{path} cannot be removed ({error.strerror}); run this as its owner') from error
