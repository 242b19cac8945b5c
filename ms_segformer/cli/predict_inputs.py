"""The part of `ms-segformer predict` that is about lists of inputs, and about stores."""

import os
import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from ..errors import ArgumentError

if TYPE_CHECKING:
    from ..results import Input

LONGEST_LINE = 2**22  # bytes, as in the manifest; a `data:` URL may be long


def all_named(images: list[str], list_file: str | None) -> list[str]:
    """The inputs of the command line, and those of a list after them.

    Args:
        list_file: `-` stands for the standard input; None for no list.

    Raises:
        ArgumentError: there are none, or the file is no list.
    """
    named = images + ([] if list_file is None else read_list(list_file))
    if not named:
        raise ArgumentError(
            'no images were named; give files, folders, patterns or URLs, or a list of them with --from'
            if list_file is None
            else f'{_name(list_file)}: holds no line that names an image'
        )
    return named


def read_list(path: str) -> list[str]:
    """The lines of a list of inputs; empty ones, and those of nothing but blanks, are left out.

    Raises:
        ArgumentError: it cannot be read, or is no text with a name a line.
    """
    lines: list[str] = []
    try:
        if path == '-' and sys.stdin is None:
            raise ValueError('it is closed')
        with open(sys.stdin.fileno() if path == '-' else path, 'rb', closefd=path != '-') as file:
            while line := file.readline(LONGEST_LINE):
                if b'\0' in line or len(line) == LONGEST_LINE:
                    raise ArgumentError(
                        f'{_name(path)}: line {len(lines) + 1} is no name of an image; --from takes a text with one '
                        'input a line, and images are named without it'
                    )
                lines.append(os.fsdecode(line.rstrip(b'\r\n').removeprefix(b'\xef\xbb\xbf' if not lines else b'')))
    except (OSError, ValueError) as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f'{_name(path)}: cannot be read ({getattr(error, "strerror", None) or error})') from None
    return [line for line in lines if line.strip()]


def _name(path: str) -> str:
    return 'the list from the standard input' if path == '-' else path


def check_store(args: Namespace, inputs: 'list[Input]') -> None:
    """Refuse before anything runs what cannot be written into a store.

    Raises:
        ArgumentError: `--format`, or a video.
    """
    if '://' not in args.output:
        return
    if args.formats:
        raise ArgumentError(
            f'--format writes to a folder, not into a store; copy {args.output} to a folder, or leave it out'
        )
    videos = [each.name for each in inputs if each.video and not each.refusal]
    if videos:
        raise ArgumentError(f'{videos[0]}: the files of a video are written to a folder, not into a store; give -o one')


def say_left_out(results: int, quiet: bool) -> None:
    """Say how many results of earlier runs were found in place of images."""
    if results and not quiet:
        print(f'note: {results} results of earlier runs are not taken for images', file=sys.stderr)
