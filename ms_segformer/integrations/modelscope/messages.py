"""ModelScope's progress messages, held back where they are not what was asked for."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back_messages(wanted: bool = True) -> Iterator[None]:
    """Inside it ModelScope logs errors only, unless the environment variable MODELSCOPE_LOG_LEVEL, a user's own choice,
    is set.

    A filter, not a level: ModelScope takes its level from the environment when imported, and keeps setting it. Those of
    its hub's client come from loggers below `modelscope_hub`, so there the handler has the filter.

    Args:
        wanted: False changes nothing.
    """
    if wanted and 'MODELSCOPE_LOG_LEVEL' not in os.environ:
        held = [logging.getLogger('modelscope'), _handler('modelscope_hub')]
    else:
        held = []
    for each in held:
        each.addFilter(_is_an_error)
    try:
        yield
    finally:
        for each in held:
            each.removeFilter(_is_an_error)


def _handler(name: str) -> logging.Handler:
    """A logger's first handler, made as the client makes it when there is none."""
    logger = logging.getLogger(name)
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())
        logger.propagate = False
    return logger.handlers[0]


def _is_an_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
