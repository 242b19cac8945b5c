"""What a patch is made of: one change in a module of ModelScope, made and undone; and a look whether it fits there."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

from ...errors import SegformerError


class Change(Protocol):
    """Something that can be done to ModelScope and undone."""

    def make(self) -> None: ...

    def undo(self) -> None: ...


@dataclass(frozen=True)
class Patch:
    """What is changed in one module of ModelScope, in the moment it has been imported.

    Attributes:
        module: its name.
        changes: function that yields the changes in the module it is given, each made before the next is asked for.
    """

    module: str
    changes: Callable[[ModuleType], Iterator[Change]]


class Unexpected(SegformerError):
    """ModelScope does not look as a change expects."""


class Replace:
    """One attribute of a ModelScope class or module, replaced until `undo`."""

    _missing = object()

    def __init__(self, owner: type | ModuleType, name: str, value: object) -> None:
        self.owner, self.name, self.value = owner, name, value
        self.before = self._missing

    def make(self) -> None:
        self.before = vars(self.owner).get(self.name, self._missing)
        setattr(self.owner, self.name, self.value)

    def undo(self) -> None:
        if vars(self.owner).get(self.name) is not self.value:
            return  # replaced by someone else since; putting ours back would break theirs
        if self.before is self._missing:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self.before)


class Entry:
    """One entry added to a dict of ModelScope's until `undo`; nothing where it is there already."""

    def __init__(self, owner: dict, key: object, value: object) -> None:
        self.owner, self.key, self.value = owner, key, value
        self.added = False

    def make(self) -> None:
        self.added = self.key not in self.owner
        self.owner.setdefault(self.key, self.value)

    def undo(self) -> None:
        if self.added and self.owner.get(self.key) == self.value:
            del self.owner[self.key]


def class_of(module: ModuleType, name: str) -> Any:  # a class of ModelScope's, which has no types
    """Return a class of a ModelScope module.

    Raises:
        Unexpected: it is gone.
    """
    found = getattr(module, name, None)
    if not isinstance(found, type):
        raise Unexpected(f'class {name} is gone')
    return found


def function_of(owner: type, name: str, *parameters: str) -> Callable[..., Any]:
    """Return a function of a ModelScope class after checking that it takes these parameters.

    Raises:
        Unexpected: it is gone, or takes them no longer.
    """
    function = getattr(owner, name, None)
    if not callable(function):
        raise Unexpected(f'{owner.__name__}.{name} is gone')
    accepted = inspect.signature(function).parameters
    for parameter in parameters:
        if parameter not in accepted:
            raise Unexpected(f'{owner.__name__}.{name} no longer takes `{parameter}`')
    return function


like = functools.wraps  # decorator: name and docstring of what is replaced, for tracebacks and help()
