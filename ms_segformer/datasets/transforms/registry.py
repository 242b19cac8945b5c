"""The transforms by name."""

from collections.abc import Callable
from typing import Any, TypeVar

TRANSFORMS: dict[str, type] = {}
OWN: set[type] = set()  # those of this package, whose arguments and random draws are known
Class = TypeVar('Class', bound=type)
Fallback = Callable[[str], Callable[..., Any] | None]  # from a name unknown here to a class from elsewhere


def register(cls: Class) -> Class:
    """Make a transform of this package known by its class's name."""
    TRANSFORMS[cls.__name__] = cls
    OWN.add(cls)
    return cls
