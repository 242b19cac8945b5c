"""Whether label maps of COCO-Stuff hold its official ids or training ids, by what they are seen to hold."""

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np

from ...metainfo import IGNORE_INDEX
from .. import coco_stuff
from ..errors import DatasetError
from ..messages import tell
from .source import DO_NOT_MIX, Source

_LOOKED_AT = 128  # label maps, at most, before their ids count as unknown


def share_ids(sources: Iterable[Any]) -> None:
    """Let the splits of a data set whose label maps show no ids of theirs count as those of another split do.

    Args:
        sources: what `build_source` returns, or anything else, which is left alone.
    """
    ours = [source for source in sources if isinstance(source, Source)]
    for source in [source for source in ours if source.ids_unknown]:
        if any(other.official and other.reduce_zero_label == source.reduce_zero_label for other in ours):
            source.official, source.ids_unknown = True, False
            tell(
                logging.INFO,
                'label map %s and others of its split: official ones of COCO-Stuff, too, as those of '
                'the other split are',
                source.label_path(0),
            )


def say_if_255_looks_like_a_class(source: Any, most: int = 16) -> None:
    """Warn where label maps, evenly spread, hold nothing but 0 and 255, as masks of one thing do.

    Args:
        source: what `build_source` returns; anything else is left alone.
        most: label maps that are opened, at most.
    """
    if not isinstance(source, Source) or not source.has_labels or len(source.CLASSES) < 2:
        return
    found: set[int] = set()
    for index in source.spread(most):
        try:
            found |= set(np.flatnonzero(np.bincount(source.read_raw_label(index).ravel(), minlength=256)).tolist())
        except DatasetError:  # an error when its turn comes
            continue
        if found - {0, IGNORE_INDEX}:
            return
    if IGNORE_INDEX in found:
        tell(
            logging.WARNING,
            'label map %s and others hold nothing but 0 and 255: 255 is "not labeled", so no pixel '
            'is %s. Where 255 means that class, write 1 in its place',
            source.label_path(0),
            source.CLASSES[1],
        )


def settle_ids(source: Source, raw_ids: bool | None, doubtful: bool = False) -> None:
    """Find out whether the label maps hold COCO-Stuff's official ids; `doubtful`: refuse what does not show it."""
    if raw_ids and not source.is_coco_stuff:
        raise DatasetError(
            f'raw_ids is for the {len(coco_stuff.CLASSES)} classes of COCO-Stuff 164k; these are '
            f'{len(source.CLASSES)} others. Leave it out'
        )
    if raw_ids is not None:
        source.official = bool(raw_ids)
    elif source.is_coco_stuff and source.has_labels and len(source):
        _look_at_ids(source, doubtful)


def _look_at_ids(source: Source, doubtful: bool) -> None:
    """Decide by what label maps, evenly spread, are seen to hold: until one way of counting is left."""
    against: dict[str, tuple[int, int]] = {}  # kind -> number of a label map, and a value in it that the kind lacks
    possible = list(coco_stuff.KINDS)
    for index in source.spread(_LOOKED_AT):
        try:
            values = _values(source, index)
        except DatasetError:  # an error when its turn comes
            continue
        for kind, value in coco_stuff.foreign_ids(values, source.reduce_zero_label).items():
            against.setdefault(kind, (index, value))
        possible = [kind for kind in possible if kind not in against]
        if IGNORE_INDEX in values and not source.reduce_zero_label and possible != [coco_stuff.FROM_ONE]:
            possible = [kind for kind in possible if kind != coco_stuff.FROM_ONE]  # there 0 is "not labeled"
        if len(possible) <= 1:
            break
    _decide(source, possible, against, doubtful)


def _decide(source: Source, possible: list[str], against: dict[str, tuple[int, int]], doubtful: bool) -> None:
    """Decide by the kinds that are left, and by what speaks against the others."""
    if not possible:
        raise DatasetError(
            f'{_shown(source, against[coco_stuff.TRAINING])}, which only official label maps of '
            f'COCO-Stuff do, and {_shown(source, against[coco_stuff.OFFICIAL])}, which none of them '
            f'does. {DO_NOT_MIX}'
        )
    if coco_stuff.TRAINING not in possible:
        wanted = coco_stuff.FROM_ONE if source.reduce_zero_label else coco_stuff.OFFICIAL
        seen = _shown(source, against[coco_stuff.TRAINING])
        if possible != [wanted]:
            sure = (
                f'{_shown(source, against[wanted])}, so they count from {0 if source.reduce_zero_label else 1}'
                if wanted not in possible
                else 'nothing shows whether they count from 0 or from 1'
            )
            raise DatasetError(
                f'{seen}: the label maps hold official ids of COCO-Stuff, and {sure}. In the data_source section '
                'set reduce_zero_label to true if they are those of 10k (1-182, 0 is "not labeled"), or to false '
                'with raw_ids set to true if they are those of 164k (0-181, 0 is a person)'
            )
        source.official = True
        counted = '1-182' if source.reduce_zero_label else '0-181'
        tell(
            logging.INFO,
            '%s: the label maps are the official ones of COCO-Stuff (ids %s); they are turned into training ids',
            seen,
            counted,
        )
    elif len(possible) > 1:
        unknown = (
            f'nothing in label map {source.label_path(0)} and others shows whether they hold training ids '
            '(0-170) or the official ids of COCO-Stuff (0-181)'
        )
        if doubtful:
            raise DatasetError(
                f'{unknown}; set raw_ids to false or true in the data_source section, or convert '
                'them with "ms-segformer prepare coco-stuff"'
            )
        source.ids_unknown = True
        tell(
            logging.WARNING,
            '%s; they are taken for training ids. Convert official ones with "ms-segformer '
            'prepare coco-stuff", or set raw_ids to true in the data_source section',
            unknown,
        )


def _values(source: Source, index: int) -> list[int]:
    """The values in a label map as stored, without the one that `ignore_index` means."""
    values = np.flatnonzero(np.bincount(source.stored_label(index).ravel(), minlength=256)).tolist()
    ignored = None if source.ignore_index in (None, IGNORE_INDEX) else source.ignore_index + source.reduce_zero_label
    return [value for value in values if value != ignored]


def _shown(source: Source, seen: tuple[int, int]) -> str:
    return f'label map {source.label_path(seen[0])} holds {seen[1]}'
