"""What options accept, as `type=` functions of argparse, and the parser that says a mistake in one line.

A mistake on the command line is said at once: neither this module nor what it imports brings torch or ModelScope.
"""

import argparse
import difflib
import math
import os
import re
import tempfile
from collections.abc import Callable
from typing import NoReturn

from ..config.limits import EPOCHS, LARGEST_SEED, SMALLEST_SIDE, WORKERS
from ..errors import ArgumentError
from ..files import FULL_DISK
from ..metainfo import ENGINES, ONNX_OPSETS, PRECISIONS

MODES = ('whole', 'slide')
LARGEST_SCALE = 10.0  # of `eval --scales`
LONGEST_NUMBER = 18  # digits; what has more is a mistake, and Python may refuse to read it


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'error: {message.removeprefix("argument ")} (see {self.prog} --help)\n')


def add_engine_arguments(parser: argparse.ArgumentParser, purpose: str = '') -> None:
    """Add `--device`, `--engine` and `--precision`; the engine's help begins with its purpose."""
    engines = ('auto', *ENGINES)
    parser.add_argument('--device', type=device, help='cpu, gpu or cuda:N; default: a GPU where there is one')
    parser.add_argument(
        '--engine',
        type=one_of(engines),
        choices=engines,
        default='auto',
        metavar='NAME',
        help=f'{purpose}{", ".join(engines[:-1])} or {engines[-1]} (default: %(default)s)',
    )
    parser.add_argument(
        '--precision', type=one_of(PRECISIONS), choices=PRECISIONS, default='float32', help='default: %(default)s'
    )


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    return _whole(text, 1)


def epochs(text: str) -> int:
    """A number of epochs."""
    number = positive_int(text)
    if number > EPOCHS:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of epochs, {EPOCHS:,} at most')
    return number


def number_of_processes(text: str, least: int = 1) -> int:
    """A number of processes of this machine."""
    number = _whole(text, least)
    if number > WORKERS:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of processes, {WORKERS} at most')
    return number


def workers(text: str) -> int:
    """A number of processes that load data; 0 stands for the process itself."""
    return number_of_processes(text, 0)


def side(text: str) -> int:
    """A height or width in pixels that the network can take."""
    return _whole(text, SMALLEST_SIDE, 'pixels, the least that the network takes')


def label_value(text: str) -> int:
    """A value of an 8-bit label map."""
    if not (text.isdecimal() and int(text) <= 255):
        raise argparse.ArgumentTypeError(f'{text!r} is not a value of a label map, 0 to 255')
    return int(text)


def opset(text: str) -> int:
    """An ONNX operator set that the network can be written in."""
    if not (text.isdecimal() and int(text) in ONNX_OPSETS):
        raise argparse.ArgumentTypeError(f'{text!r} is not an operator set from {ONNX_OPSETS[0]} to {ONNX_OPSETS[-1]}')
    return int(text)


def scale(text: str) -> float:
    """A factor above 0, of `LARGEST_SCALE` at most."""
    return _number(text, lambda value: 0 < value <= LARGEST_SCALE, f'a factor above 0, {LARGEST_SCALE:g} at most')


def frames_a_second(text: str) -> float:
    """A frame rate above 0."""
    return _number(text, lambda value: 0 < value <= 1000, 'a number of frames a second above 0, 1000 at most')


def percentage(text: str) -> float:
    """A share in percent, 0 to 100, as a fraction, 0 to 1; a `%` may follow."""
    return _number(text.removesuffix('%'), lambda value: 0 <= value <= 100, 'a share in percent, 0 to 100') / 100


def pixels(text: str) -> float:
    """A distance of at least 0 pixels, fractions among them."""
    return _number(text, lambda value: 0 <= value <= 1000, 'a distance in pixels, 0 to 1000')


def pixel_count(text: str) -> int:
    """A number of pixels of at least 0."""
    return _whole(text, 0, 'pixels')


def port_number(text: str) -> int:
    """A TCP port; 0 stands for a free one."""
    if not (text.isdecimal() and len(text) <= 5 and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f'{text!r} is not a port, 0 to 65535')
    return int(text)


def byte_count(text: str) -> int:
    """A number of bytes, with K, M or G behind it for powers of 1024."""
    found = re.fullmatch(r'([0-9]{1,12})([KMG]?)', text.upper())
    if not found or not int(found[1]):
        raise argparse.ArgumentTypeError(f'{text!r} is not a number of bytes, such as 500000, 32M or 1G')
    return int(found[1]) * 1024 ** ' KMG'.index(found[2] or ' ')


def seconds(text: str) -> float:
    """A time in seconds, above 0 and a day at most."""
    return _number(text, lambda value: 0 < value <= 86400, 'a time in seconds, above 0')


def learning_rate(text: str) -> float:
    """A number of at least 0."""
    return _number(text, lambda value: 0 <= value < math.inf, 'a learning rate: a number of at least 0')


def seed(text: str) -> int:
    """A whole number that numpy's and torch's generators take."""
    if not text.isdecimal() or int(text) > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 0 to {LARGEST_SEED}')
    return int(text)


def device(text: str) -> str:
    """A device as ModelScope names it: `cpu`, `gpu`, `cuda` or `cuda:N`."""
    if not re.fullmatch(r'(cpu|gpu|cuda)(:[0-9]{1,3})?', text.lower()):
        raise argparse.ArgumentTypeError(f'{text!r} is no device; accepted: cpu, gpu, cuda, or cuda:N for the GPU N')
    return text.lower()


def one_of(names: tuple[str, ...]) -> Callable[[str], str]:
    """What takes one of some names, and for another says which is near."""

    def choose(text: str) -> str:
        if text not in names:
            near = difflib.get_close_matches(text, names, 1)
            meant = f'; did you mean {near[0]}?' if near else ''
            raise argparse.ArgumentTypeError(f'{text!r} is not one of {", ".join(names)}{meant}')
        return text

    return choose


def input_folder(text: str) -> str:
    """A folder that is there."""
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(
            f'{text} is not a folder' if os.path.lexists(text) else f'{text}: no such folder'
        )
    return text


def folder_to_be(text: str) -> str:
    """A folder that is there, or could be by its name; whether it can be written is for the command to say."""
    if not text:
        raise argparse.ArgumentTypeError('an empty text is no folder; name a folder to write to')
    there = _existing(text)
    if not os.path.isdir(there):
        raise argparse.ArgumentTypeError(f'{there} is not a folder; name a folder to write to')
    return text


def output_folder(text: str) -> str:
    """A folder that is there or can be made, and in which files can be made."""
    return _writable(text, folder_to_be(text))


def output_place(text: str) -> str:
    """A folder as for `output_folder`, or the URL of one in a store, which is looked at later."""
    if '://' not in text:
        return output_folder(text)
    from ..stores import check_url, scheme_of  # fsspec, only where a URL is given

    if scheme_of(text) is None:
        raise argparse.ArgumentTypeError(
            f'{text.partition("://")[0]}:// is no store that results are written to; expected a folder, or a URL such '
            'as s3://BUCKET/NAME'
        )
    try:
        return check_url(text)
    except ArgumentError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def output_file(text: str) -> str:
    """A file in a folder that is there; `-` stands for the terminal where a command has it."""
    folder = os.path.dirname(text) or os.curdir
    if os.path.isdir(text):
        raise argparse.ArgumentTypeError(f'{text} is a folder; name a file')
    if not os.path.isdir(folder):
        raise argparse.ArgumentTypeError(f'{text} cannot be written: there is no folder {folder}; make it first')
    return written_file(text)


def written_file(text: str) -> str:
    """A file that can be written, and its folder made; what is no file, as a pipe, is not looked into."""
    real = os.path.realpath(text)
    if text == '-' or text.startswith('/dev/') or (os.path.lexists(real) and not os.path.isfile(real)):
        return text
    return _writable(text, os.path.dirname(real))


def _writable(text: str, folder: str) -> str:
    """Return a text if a file can be made in a folder, or in what there is of its path; the file is gone at once.

    A full disk is no hindrance here: what a command does there may take no room.
    """

    there = _existing(folder)
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise argparse.ArgumentTypeError(
                f'{text} cannot be written: no file can be made in {there} ({error.strerror}); name another place'
            ) from None
    return text


def _existing(path: str) -> str:
    """A path, or the nearest above it that is there."""
    while path and not os.path.lexists(path):
        path = os.path.dirname(path.rstrip(os.sep))
    return path or os.curdir


def _whole(text: str, least: int, what: str = '') -> int:
    digits = text.removeprefix('-')
    if not (digits.isdecimal() and len(digits) <= LONGEST_NUMBER and int(text) >= least):
        shown = text if len(text) <= 20 else f'{text[:20]}…'
        raise argparse.ArgumentTypeError(f'{shown!r} is not a whole number of at least {least}{what and " "}{what}')
    return int(text)


def _number(text: str, accepted: Callable[[float], bool], expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not accepted(value):
        raise argparse.ArgumentTypeError(f'{text!r} is not {expected}')
    return value
