"""What is said while data are found."""

import logging
from collections.abc import Sequence
from typing import Any

from ..errors import some_of
from ..metainfo import RUN_LOGGER

logger = logging.getLogger(RUN_LOGGER)
_NAMED = 5  # files that a message names before it only counts


def tell(level: int, message: str, *arguments: Any) -> None:
    """Log for ModelScope's users, in one of several processes."""
    from modelscope.utils.torch_utils import is_master  # imports torch: late, as most data sets have nothing to say

    if is_master():
        logger.log(level, message, *arguments)


def name_some(items: Sequence[str]) -> str:
    """The first items, and how many more there are."""
    return some_of(items, _NAMED, count=True)
