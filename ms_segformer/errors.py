"""Texts of others, such as servers and decoders, as they may stand in a message of this package."""

LONGEST = 300  # characters


def one_line(text: object) -> str:
    """A text or an exception in one line of at most `LONGEST` characters, harmless to a terminal.

    White space is joined, what cannot be printed becomes an escape sequence, and an exception without a text is named
    by its class.
    """
    line = ' '.join(str(text).split()) or type(text).__name__
    line = ''.join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line[:LONGEST + 1])
    return line if len(line) <= LONGEST else f'{line[:LONGEST - 1]}…'
