"""From a `data_source` section to the source it describes."""

import inspect
from typing import Any, TypeAlias

from ...config.messages import shown
from ...config.schema import SOURCE, wrong_value
from ..errors import DatasetError
from .annotated import AnnotationSource
from .coco_json import SegSourceCoco
from .coco_stuff import SegSourceCocoStuff10k, SegSourceCocoStuff164k
from .folders import SegSourceRaw
from .label_studio import SegSourceLabelStudio
from .labelme import SegSourceLabelMe
from .voc import SegSourceVoc2010, SegSourceVoc2012

FileSource: TypeAlias = SegSourceRaw | AnnotationSource  # what has a `pairing`
ANNOTATION_SOURCES: dict[str, type[AnnotationSource]] = {
    cls.__name__: cls for cls in (SegSourceCoco, SegSourceLabelMe, SegSourceLabelStudio)
}
_CLASSES: tuple[type[FileSource], ...] = (
    SegSourceRaw,
    SegSourceCocoStuff164k,
    SegSourceCocoStuff10k,
    SegSourceVoc2010,
    SegSourceVoc2012,
    *ANNOTATION_SOURCES.values(),
)
SOURCES: dict[str, type[FileSource]] = {cls.__name__: cls for cls in _CLASSES}


def build_source(cfg: dict[str, Any], check: bool = True) -> FileSource:
    """Return the source that a `data_source` section describes.

    Args:
        cfg: `{'type': 'SegSourceRaw', …}`.
        check: raise when files are missing; False leaves them in `source.pairing`, for a report.

    Raises:
        DatasetError: unknown type or arguments, or files are missing.
    """
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise DatasetError(
            f'data_source is a dict with the key "type", e.g. {{"type": "SegSourceRaw", "img_root": …}}; got {cfg!r}'
        )
    cls = SOURCES.get(cfg['type']) if isinstance(cfg['type'], str) else None
    if cls is None:
        raise DatasetError(
            f'unknown data source "{shown(cfg["type"], quoted=False)}"; known are: {", ".join(sorted(SOURCES))}'
        )
    arguments = {key: value for key, value in cfg.items() if key != 'type'}
    names = list(inspect.signature(cls).parameters)
    unknown = sorted(set(arguments) - set(names))
    if unknown:
        raise DatasetError(f'{cfg["type"]} does not take {unknown}; its arguments are: {", ".join(names)}')
    wrong = wrong_value(arguments, SOURCE)
    if wrong:
        raise DatasetError(f'{cfg["type"]}: {wrong}')
    return cls(**arguments if check else {**arguments, 'check': False})
