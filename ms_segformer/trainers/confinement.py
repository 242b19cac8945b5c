"""Keeps what the hooks of a configuration file write inside the work directory: a file may come from anywhere."""

import os
import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any, NoReturn

from ..config.jsonplus import decode_jsonplus
from . import hook_places
from .class_list import dotted
from .errors import TrainingError

# How the name of a key ends that says where to write.
_A_PATH = re.compile(r'(dir|path|file|folder|root)(_?name)?$|(^|_)(out|output|log|save_to)$')
_BELOW_ANOTHER = ('output_sub_dir', 'save_file_name')  # of `save_dir`


def confine(raw: dict, written: dict, base: str | None, options: dict | None = None) -> None:
    """Make the hooks of a configuration file write into the work directory only, in place.

    A file may come from anywhere. What the user set in code is as the user wants it: what `options` name, and otherwise
    (`cfg_modify_fn`) a value that is another than the file's. The file's relative paths are taken below the work
    directory.

    Args:
        raw: what `prepare` completed, with `train.work_dir`.
        written: the configuration as it was read.
        base: folder that a `train.work_dir` of the file has to be in; None when it was given in code.
        options: `cfg_options`.

    Raises:
        TrainingError: the file names a place outside, or uploads; the message names the key. Or it has two best savers.
    """
    written = decode_jsonplus(deepcopy(written))
    folder, said = raw['train']['work_dir'], dotted(options or {})
    if base is not None and 'train.work_dir' not in said and folder == (written.get('train') or {}).get('work_dir'):
        _inside(folder, base, 'train.work_dir')
        if os.path.abspath(folder) == os.path.abspath(base):
            _refuse('train.work_dir', folder, 'is the present folder itself')
    hook_places.refuse_two_best(written)
    for place, section in hook_places.sections(raw):
        # What the file says of such a hook may stand in either place: which one was taken is not asked.
        theirs = [other for name, other in hook_places.sections(written) if name == place]
        if place != 'train.hooks' or place not in said:
            name = place if place != 'train.hooks' else f'train.hooks, {section.get("type")}'
            _confine_section(section, theirs, folder, name, said)


def _confine_section(section: dict, theirs: list, folder: str, name: str, said: set[str]) -> None:
    """`theirs`: the sections of the file that this one may come from; `said`: keys that the user set."""
    for key, value in section.items():
        same = [other[key] for other in theirs if isinstance(other, dict) and key in other]
        if isinstance(value, dict):
            _confine_section(value, same, folder, f'{name}.{key}', said)
        elif value not in same or key in ('type', 'metric_key', 'hub_token') or f'{name}.{key}' in said:
            continue
        elif key == 'push_to_hub' and value:
            _refuse(f'{name}.{key}', value, 'uploads the model')
        else:
            section[key] = _below(value, folder, f'{name}.{key}', key)


def relocatable(raw: dict) -> dict:
    """Return a run's configuration as `confine` takes it: what its hooks write below the work directory is relative.

    Other paths become absolute, so that they are never taken for ones below it.
    """
    result = deepcopy(raw)
    folder = result['train']['work_dir']
    for _, section in hook_places.sections(result):
        change_paths(section, lambda path: relative(path, folder) or os.path.abspath(path))
    return result


def relative(path: str, folder: str) -> str | None:
    """A path relative to the folder that it is in; None where it is not."""
    relative = os.path.relpath(path, folder)
    return None if relative.split(os.sep)[0] == os.pardir else relative


def change_paths(section: dict, change: Callable[[str], str | None]) -> None:
    """Replace the paths in a hook's section, in place; None takes the key (or the item of a list) out."""
    for key in list(section):
        section[key] = _changed(section[key], key, change)
        if section[key] is None:
            del section[key]


def _changed(value: Any, key: str, change: Callable[[str], str | None]) -> Any:
    if isinstance(value, dict):
        change_paths(value, change)
    elif isinstance(value, (list, tuple)):
        return type(value)(new for item in value if (new := _changed(item, key, change)) is not None)
    elif isinstance(value, str) and value and _is_path(key):
        return change(value)
    return value


def _is_path(key: str) -> bool:
    return _A_PATH.search(key) is not None and key not in _BELOW_ANOTHER


def _below(value: Any, folder: str, name: str, key: str) -> Any:
    """The file's value of a key, its texts inside a folder or refused; a relative path as one below the folder."""
    if isinstance(value, dict):
        return {inner: _below(item, folder, f'{name}.{inner}', inner) for inner, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_below(item, folder, name, key) for item in value)
    if not isinstance(value, str):
        return value
    _inside(value, folder, name)
    return os.path.join(folder, value) if value and _is_path(key) else value


def _inside(path: str, folder: str, key: str) -> None:
    """Refuse a path that is not in a folder."""
    absolute = os.path.normpath(os.path.join(os.path.abspath(folder), path))
    if (
        path.startswith('~')
        or '://' in path
        or os.path.commonpath([absolute, os.path.abspath(folder)]) != os.path.abspath(folder)
    ):
        _refuse(key, path, f'is outside {folder}')


def _refuse(key: str, value: Any, why: str) -> NoReturn:
    raise TrainingError(
        f'the configuration file says {key} = {value!r}, which {why}. A file may come from anywhere: '
        'it is not followed in this. If you want it, say so in code (cfg_options={…}, --options or '
        'cfg_modify_fn), or take it out of the file'
    )
