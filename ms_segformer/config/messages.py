"""What is said of a configuration that cannot be used, or not as it is meant."""

import difflib
import logging
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from ..errors import SegformerError

logger = logging.getLogger(__name__)


class ConfigurationError(SegformerError, ValueError):
    """A configuration that cannot be used; the message names the file, the key, what was found and what is accepted."""


def nearest(key: str, accepted: Iterable[str]) -> str:
    """` (did you mean …?)` with the accepted key that is most like a mistyped one; '' where none is."""
    found = difflib.get_close_matches(key, accepted, n=1)
    return f' (did you mean {found[0]}?)' if found else ''


@lru_cache(maxsize=1024)
def warn_once(message: str) -> None:
    """Log a warning the first time it is given."""
    logger.warning('%s', message)


def shown(value: Any, quoted: bool = True) -> str:
    """A value as it may stand in a message: on one line and not long."""
    if value is None:
        return 'missing'
    try:
        text = value if isinstance(value, str) and not quoted and value.isprintable() else repr(value)
    except ValueError:  # an integer of thousands of digits
        text = f'a {type(value).__name__} too large to be shown'
    return text if len(text) <= 120 else text[:117] + '…'
