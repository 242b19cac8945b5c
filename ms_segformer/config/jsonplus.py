"""JSON as EasyCV's converter and ModelScope write it: tuples in a form of their own, text as keys, limited depth."""

import json
from pathlib import Path
from typing import Any

from . import limits
from .messages import ConfigurationError, shown


def decode_jsonplus(value: Any) -> Any:
    """Turn the JSON form of tuples, `{"__class__": "tuple", "__value__": [...]}`, back into tuples, at any depth."""
    if isinstance(value, dict):
        if value.get('__class__') == 'tuple' and isinstance(value.get('__value__'), (list, tuple)):
            return tuple(decode_jsonplus(item) for item in value['__value__'])
        return {key: decode_jsonplus(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(decode_jsonplus(item) for item in value)
    return value


def encode_jsonplus(value: Any) -> Any:
    """The inverse of `decode_jsonplus`."""
    if isinstance(value, dict):
        return {key: encode_jsonplus(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return {'__class__': 'tuple', '__value__': [encode_jsonplus(item) for item in value]}
    if isinstance(value, list):
        return [encode_jsonplus(item) for item in value]
    return value


def load_json(path: Path) -> dict:
    """The content of a configuration file, with tuples decoded."""
    try:
        with open(path, 'rb') as file:
            written = file.read(limits.CONFIGURATION_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f'{path} cannot be read ({error.strerror})') from None
    if len(written) > limits.CONFIGURATION_BYTES:
        raise ConfigurationError(
            f'{path} has more than {limits.CONFIGURATION_BYTES:,} bytes, which no configuration has'
        )
    try:
        text = written.decode()
        if text.startswith('\ufeff'):
            raise ValueError('it begins with a byte order mark; save it as UTF-8 without one')
        content = json.loads(text, object_pairs_hook=_mapping, parse_constant=_refuse_constant)
    except RecursionError:
        raise ConfigurationError(f'{path}: {_TOO_DEEP}') from None
    except ConfigurationError as error:
        raise ConfigurationError(f'{path}: {error}') from None
    except ValueError as error:  # not JSON, not UTF-8, a number of thousands of digits
        raise ConfigurationError(f'{path}: not a JSON file ({error})') from None
    if not isinstance(content, dict):
        raise ConfigurationError(f'{path}: the file must be a mapping, found {shown(content)}')
    return decode_jsonplus(plain(content, str(path)))


def _mapping(pairs: list[tuple[str, Any]]) -> dict:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise ConfigurationError(f'the key {shown(double)} stands twice in one mapping; leave one of them')
    # ModelScope would make objects of some other classes, and fail with most.
    if '__class__' in content and not (content['__class__'] == 'tuple' and isinstance(content.get('__value__'), list)):
        raise ConfigurationError(
            f'{shown(content)} stands for an object; accepted are tuples, {{"__class__": "tuple", "__value__": […]}}'
        )
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f'{name} is no number in JSON')


_TOO_DEEP = f'mappings and lists in one another are more than {limits.DEPTH} deep; accepted: up to {limits.DEPTH}'


def plain(value: Any, name: str, path: str = '', depth: int = 0) -> Any:
    """ModelScope's ConfigDict and friends to plain dicts and lists, whose keys are text and whose depth is limited."""
    if depth > limits.DEPTH:
        raise ConfigurationError(f'{name}: {_TOO_DEEP}')
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ConfigurationError(
                    f'{name}: the key {shown(key)}{path and f" in {path}"}; accepted: keys that are text'
                )
        return {key: plain(item, name, f'{path}.{key}' if path else key, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([plain(item, name, f'{path}[{i}]', depth + 1) for i, item in enumerate(value)])
    return value
