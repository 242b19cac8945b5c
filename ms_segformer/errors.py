"""The base of this package's errors, and the texts of others as they may stand in its messages.

Each package defines its own errors beside what raises them, all below `SegformerError`; where a builtin says the same,
that is a second base, so that `except ValueError` catches them as well.
"""

from collections.abc import Sequence

LONGEST = 300  # characters


class SegformerError(Exception):
    """What was asked for cannot be done; the message says what was given, what was expected and what to do."""


class ArgumentError(SegformerError, ValueError):
    """An argument, an option or a combination of them is not accepted."""


def one_line(text: object) -> str:
    """A text or an exception in one line of at most `LONGEST` characters, harmless to a terminal.

    White space is joined, what cannot be printed becomes an escape sequence, and an exception without a text is named
    by its class.
    """
    line = ' '.join(str(text).split()) or type(text).__name__
    line = ''.join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line[: LONGEST + 1])
    return line if len(line) <= LONGEST else f'{line[: LONGEST - 1]}…'


def some_of(items: Sequence[str], most: int, count: bool = False) -> str:
    """The first items, separated by commas, and that there are more; with `count`, how many more."""
    more = len(items) - most
    return ', '.join(items[:most]) + ('' if more <= 0 else f' and {more} more' if count else ', …')
