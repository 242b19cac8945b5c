"""From a `data_source` section to the source it describes."""
import inspect
from typing import Any, TypeVar

from ...config.messages import shown
from ...config.schema import SOURCE, wrong_value
from ..errors import DatasetError
from .source import Source

SOURCES: dict[str, type[Source]] = {}
Kind = TypeVar('Kind', bound=type[Source])


def register(cls: Kind) -> Kind:
    """Make a source known by its class's name."""
    SOURCES[cls.__name__] = cls
    return cls


def build_source(cfg: Any, check: bool = True) -> Any:
    """Return the source that a `data_source` section describes.

    Args:
        cfg: `{'type': 'SegSourceRaw', …}`, or an object that already is a source (has `load`).
        check: raise when files are missing; False leaves them in `source.pairing`, for a report.

    Raises:
        DatasetError: unknown type or arguments, or files are missing.
    """
    if hasattr(cfg, 'load') and hasattr(cfg, '__len__'):
        return cfg
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise DatasetError('data_source is a dict with the key "type", e.g. {"type": "SegSourceRaw", "img_root": …}; '
                           f'got {cfg!r}')
    cls = SOURCES.get(cfg['type']) if isinstance(cfg['type'], str) else None
    if cls is None:
        raise DatasetError(f'unknown data source "{shown(cfg["type"], quoted=False)}"; known are: '
                           f'{", ".join(sorted(SOURCES))}')
    arguments = {key: value for key, value in cfg.items() if key != 'type'}
    names = list(inspect.signature(cls).parameters)
    unknown = sorted(set(arguments) - set(names))
    if unknown:
        raise DatasetError(f'{cfg["type"]} does not take {unknown}; its arguments are: {", ".join(names)}')
    wrong = wrong_value(arguments, SOURCE)
    if wrong:
        raise DatasetError(f'{cfg["type"]}: {wrong}')
    return cls(**arguments, **({} if check else {'check': False}))
