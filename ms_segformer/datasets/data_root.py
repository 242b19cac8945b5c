"""Where the paths of a configuration lie: `${data_root}` is the folder that ModelScope downloaded a data set to.

EasyCV's converter wrote the paths of the machine that trained instead, `./data/coco_stuff164k/train2017/`: what is not
there is looked for below the data set's folder. An archive with one folder, and everything in it, is that folder.
"""
import logging
import os
from pathlib import Path, PurePath
from typing import Any

from .errors import DatasetError

logger = logging.getLogger('modelscope')
DATA_ROOT = '${data_root}'
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
    root = _root(section, split_config) if split_config else None
    section = replace_data_root(section, root and {'train': str(root)})
    moved = {key: found for key in PATHS if root and (found := _below(root, section.get(key)))}
    if moved:
        from modelscope.utils.torch_utils import is_master
        if is_master():
            logger.info('not in %s, and taken from the data set in %s: %s', os.getcwd(), root,
                        ', '.join(f'{section[key]} ({key})' for key in moved))
    return {**section, **moved}


def _root(section: dict[str, Any], split_config: dict[str, str]) -> Path:
    """The data set's folder, or the only folder in it where nothing is found without."""
    root = Path(next(iter(split_config.values())))
    paths = [path for path in map(section.get, PATHS) if isinstance(path, str) and DATA_ROOT in path]
    if not paths or not root.is_dir() or any(os.path.exists(replace_data_root(path, split_config)) for path in paths):
        return root
    inside = [path for path in root.iterdir() if not path.name.startswith(('.', '__MACOSX'))]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else root


def _below(root: Path, path: Any) -> str | None:
    """The longest end of a relative path that exists below a folder; None where the path itself exists, or no end."""
    if not isinstance(path, (str, os.PathLike)) or os.path.isabs(path) or os.path.exists(path):
        return None
    parts = [part for part in PurePath(path).parts if part != os.pardir]
    ends = (os.path.join(root, *parts[start:]) for start in range(len(parts)))
    return next(filter(os.path.exists, ends), None)


def replace_data_root(value, split_config):
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
        raise DatasetError(f'"{value}" contains {DATA_ROOT}, which stands for the folder of a downloaded data set; '
                           'pass the data set (MsDataset.load(…)) or write the folder into the configuration')
    return value.replace(DATA_ROOT, str(next(iter(split_config.values()))).rstrip('/'))
