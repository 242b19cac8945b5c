"""The log file of a run that cannot be written."""

import functools
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unwritable_raises(logger: logging.Logger, folder: str | os.PathLike) -> Iterator[None]:
    """Inside it, a line that a logger cannot write to a file below a folder is an `OSError` with the file's name.

    Otherwise `logging` prints a traceback for every such line, and the run goes on.
    """
    below = os.path.join(os.path.abspath(folder), '')
    handlers = [
        handler
        for handler in logger.handlers
        if isinstance(handler, logging.FileHandler)
        and handler.baseFilename.startswith(below)
        and 'handleError' not in vars(handler)
    ]
    for handler in handlers:
        setattr(handler, 'handleError', functools.partial(_fail, handler))  # noqa: B010 mypy refuses to assign methods
    try:
        yield
    finally:
        for handler in handlers:
            del handler.handleError


def _fail(handler: logging.FileHandler, record: logging.LogRecord) -> None:
    """In place of `logging.Handler.handleError`, which is called while the error is being handled."""
    error = sys.exc_info()[1]
    if isinstance(error, OSError) and error.errno is not None:
        raise OSError(error.errno, error.strerror, handler.baseFilename) from None
    logging.Handler.handleError(handler, record)
