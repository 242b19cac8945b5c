"""What of a configuration belongs to its class list, and goes when another list takes its place.

A model directory says more about its classes than their names: their weights in the loss, their colors, which label
value stands for "not labeled". None of it holds for other classes, and most of it does not even fit their number.
"""

from collections.abc import Iterator
from typing import Any

from ..config.class_file import ConfiguredClassFile
from ..config.jsonplus import decode_jsonplus

_MISSING = object()
_PER_CLASS = ('IoU', 'Acc', 'Dice', 'Fscore', 'Precision', 'Recall')  # results by class, e.g. IoU.road
Place = tuple[str | int, ...]


class SetInCode:
    """Whether the user set a value of a configuration in code, as a function of its place.

    Args:
        raw: the configuration as it is to be used, as plain dicts and lists.
        written: the configuration as it was read; None takes everything for the file's.
        options: `cfg_options`; without them a value counts as the file's when it is the same as there.
    """

    def __init__(self, raw: dict, written: dict | None, options: dict | None = None) -> None:
        self._raw, self._written = raw, raw if written is None else decode_jsonplus(written)
        self._said = dotted(options or {})

    def __call__(self, place: Place) -> bool:
        value = at(self._raw, place)
        if value is _MISSING or value is None or isinstance(value, ConfiguredClassFile):
            return False
        return '.'.join(map(str, place)) in self._said or value != at(self._written, place)

    def written(self, key: str) -> Any:
        """The list under a key of the file, empty where it has none."""
        value = self._written.get(key)
        return list(map(str, value)) if isinstance(value, (list, tuple)) else []


def dotted(options: dict, above: str = '') -> set[str]:
    """The keys of nested options, each with all that are above it: `{'a.b': {'c': 1}}` names a.b and a.b.c."""
    keys = set()
    for key, value in options.items():
        keys.add(above + key)
        keys |= dotted(value, f'{above}{key}.') if isinstance(value, dict) else set()
    return keys


def forget(raw: dict, in_code: SetInCode, classes: list[str], own: bool, other_data: bool) -> list[str]:
    """Take out, in place, what a configuration file says about the classes that it no longer has.

    Args:
        raw: the configuration as plain dicts and lists, with the new list and `model.decode_head.num_classes`.
        in_code: what was set in code, which stays.
        classes: the new names.
        own: the configuration itself says the new list: then what fits its length is meant for it.
        other_data: the label maps are others than those that the configuration was written for.

    Returns:
        The dotted names of what was taken out.
    """
    taken = []
    for place in list(_places(raw, len(classes), own, other_data)):
        if not in_code(place):
            del at(raw, place[:-1])[place[-1]]
            taken.append('.'.join(map(str, place)))
    best = at(raw, ('train', 'checkpoint', 'best'))
    value, separator, name = str(best.get('metric_key') if isinstance(best, dict) else '').partition('.')
    if separator and value in _PER_CLASS and name not in classes:
        best['metric_key'] = f'm{value}'
        taken.append(f'train.checkpoint.best.metric_key (m{value} now, for {value}.{name})')
    return taken


def _places(raw: dict, count: int, own: bool, other_data: bool) -> Iterator[Place]:
    """Where something stands that belongs to the old list."""
    outputs = raw['model']['decode_head']['num_classes']
    yield from [('PALETTE',)] if 'PALETTE' in raw else []
    for place, value in _values(raw.get('model'), ('model',)):
        if place[-1] == 'class_weight' and not (value is None or own and _length(value) == outputs):
            yield place
        elif place[-1] == 'ignore_index' and not own and _is_a_class(value, count):
            yield place
    for place, value in _values(raw.get('evaluation'), ('evaluation',)):
        if place[-1] == 'ignore_index' and not own and _is_a_class(value, count):
            yield place
    for split in ('train', 'val'):
        for place, value in _values((raw.get('dataset') or {}).get(split), ('dataset', split)):
            if place[2:] == ('data_source', 'palette') and value is not None and not (own and _length(value) == count):
                yield place
            elif place[2:] == ('data_source', 'raw_ids') and value and not own:
                yield place
            elif (
                other_data
                and not own
                and (
                    place[2:] == ('data_source', 'reduce_zero_label')
                    and value
                    or place[2:] == ('ignore_index',)
                    and _is_a_class(value, count)
                )
            ):
                yield place


def _values(value: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    """(place, value) of everything below a section, lists included."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, item in items:
        yield (*place, key), item
        yield from _values(item, (*place, key))


def at(section: Any, place: Place) -> Any:
    """What stands at a place; a value of its own kind where there is nothing."""
    for key in place:
        if isinstance(section, dict):
            section = section.get(key, _MISSING)
        elif isinstance(section, (list, tuple)) and isinstance(key, int) and key < len(section):
            section = section[key]
        else:
            return _MISSING
    return section


def _length(value: Any) -> int | None:
    return len(value) if isinstance(value, (list, tuple)) else None


def _is_a_class(value: Any, count: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count
