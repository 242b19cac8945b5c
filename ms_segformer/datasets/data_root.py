"""Where the paths of a configuration lie: `${data_root}` is the folder that ModelScope downloaded a data set to.

EasyCV's converter wrote the paths of the machine that trained instead, `./data/coco_stuff164k/train2017/`: what is not
there is looked for below the data set's folder. Where an archive has one folder, which may have one folder again, what
is not beside it is looked for in it.
"""

import logging
import os
from pathlib import Path, PurePath
from typing import Any

from .errors import DatasetError
from .messages import tell

DATA_ROOT = '${data_root}'
_DEPTH = 4  # folders in one another of which each is the only one
PATHS = ('img_root', 'label_root', 'split', 'path')  # keys of a data_source


def locate_source(section: dict[str, Any], split_config: dict[str, str] | None) -> dict[str, Any]:
    """Return a `data_source` section with the paths of a downloaded data set.

    `${data_root}` is replaced; a relative path that does not exist is the longest end of it that exists below the data
    set's folder, and one log line says so.

    Args:
        section: of the configuration.
        split_config: as for `replace_data_root`.

    Raises:
        DatasetError: as `replace_data_root`.
    """
    roots = _roots(Path(next(iter(split_config.values())))) if split_config else []
    result = replace_data_root(section, {'train': str(_home(section, roots))} if roots else None)
    moved = {}
    for key in PATHS if roots else ():
        path = section.get(key)
        if not isinstance(path, (str, os.PathLike)):
            continue
        if DATA_ROOT in str(path):
            if not os.path.exists(result[key]):
                places = (replace_data_root(str(path), {'train': str(root)}) for root in roots)
                result[key] = next(filter(os.path.exists, places), result[key])
        elif found := _below(roots, path):
            moved[key] = found
    if 'label_root' in moved and moved['label_root'] == moved.get('img_root'):
        del moved['label_root']  # the images are no label maps: better none than these
    if moved:
        tell(
            logging.INFO,
            'not in %s, and taken from the data set in %s: %s',
            os.getcwd(),
            roots[0],
            ', '.join(f'{section[key]} ({key})' for key in moved),
        )
    return {**result, **moved}


def _roots(root: Path) -> list[Path]:
    """The data set's folder, the only folder in it, the only one in that, …"""
    roots = [root]
    while len(roots) <= _DEPTH and roots[-1].is_dir():
        inside = [path for path in roots[-1].iterdir() if not path.name.startswith(('.', '__MACOSX')) and path.is_dir()]
        if len(inside) != 1:
            break
        roots += inside
    return roots


def _home(section: dict[str, Any], roots: list[Path]) -> Path:
    """The folder that most of the paths with `${data_root}` exist in, the outermost of equal ones."""
    paths = [path for path in map(section.get, PATHS) if isinstance(path, str) and DATA_ROOT in path]
    return max(
        roots, key=lambda root: sum(os.path.exists(replace_data_root(path, {'train': str(root)})) for path in paths)
    )


def _below(roots: list[Path], path: str | os.PathLike) -> str | None:
    """The longest end of a relative path that exists below a folder; None where the path itself exists, or no end."""
    if os.path.isabs(path) or os.path.exists(path):
        return None
    parts = [part for part in PurePath(path).parts if part != os.pardir]
    ends = (os.path.join(root, *parts[start:]) for start in range(len(parts)) for root in roots)
    return next(filter(os.path.exists, ends), None)


def replace_data_root(value: Any, split_config: dict[str, str] | None) -> Any:
    """Return a section with `${data_root}` replaced by a folder, in nested values too.

    Args:
        value: section of a configuration (or any value in one).
        split_config: `{'train': folder}` or `{'validation': folder}`; None when no data set was downloaded.

    Raises:
        DatasetError: a value contains `${data_root}` and there is no `split_config`.
    """
    if isinstance(value, dict):
        return {key: replace_data_root(item, split_config) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [replace_data_root(item, split_config) for item in value]
    if not isinstance(value, str) or DATA_ROOT not in value:
        return value
    if not split_config:
        raise DatasetError(
            f'"{value}" contains {DATA_ROOT}, which stands for the folder of a downloaded data set; '
            'pass the data set (MsDataset.load(…)) or write the folder into the configuration'
        )
    return value.replace(DATA_ROOT, str(next(iter(split_config.values()))).rstrip('/'))
