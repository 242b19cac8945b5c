"""How wide a progress bar may be."""

import os
import sys
from typing import Any

# `bar_format` of a text alone. The bar takes no room; without one, tqdm before 4.69 does not cut the text to the
# terminal's width.
LINE = '{desc}{bar:0}'


def screen() -> dict[str, Any]:
    """`tqdm`'s arguments for the size of the terminal at the standard error stream, as it changes.

    A terminal that does not know its size says 0, as in many containers; tqdm would hide its bars there. It is taken to
    have 80 columns.
    """
    try:
        unknown = os.get_terminal_size(sys.stderr.fileno()).columns == 0
    except (AttributeError, OSError, ValueError):  # no stream, no terminal, a stream that is no file
        unknown = False
    return {'ncols': 79, 'nrows': 24} if unknown else {'dynamic_ncols': True}
