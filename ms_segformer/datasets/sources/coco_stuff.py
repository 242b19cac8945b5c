"""COCO-Stuff in the folders of its two releases."""

import os
from collections.abc import Sequence

from ...metainfo import IGNORE_INDEX
from .. import coco_stuff
from .classes import ClassNames, Colors
from .folders import SegSourceRaw, named_as_converted
from .pairing import suffixes


class SegSourceCocoStuff164k(SegSourceRaw):
    """COCO-Stuff 164k with its official label maps or with converted ones.

    Without `classes`, the label maps are the official ones (`stuffthingmaps`, ids 0-181 and 255), unless `label_suffix`
    is `_labelTrainIds.png`, and are turned into training ids while loading. The arguments are those of `SegSourceRaw`.
    """

    def __init__(
        self,
        img_root: str | os.PathLike,
        label_root: str | os.PathLike | None = None,
        split: str | os.PathLike | Sequence[str] | None = None,
        classes: ClassNames = None,
        img_suffix: str | Sequence[str] = '.jpg',
        label_suffix: str | Sequence[str] = '.png',
        reduce_zero_label: bool = False,
        palette: Colors = None,
        ignore_index: int | None = IGNORE_INDEX,
        to_float32: bool = True,
        num_processes: int | None = None,
        cache_at_init: bool = False,
        cache_on_the_fly: bool = False,
        raw_ids: bool | None = None,
        check: bool = True,
    ) -> None:
        if raw_ids is None and classes is None:
            raw_ids = not named_as_converted(suffixes(label_suffix, 'label_suffix'))
        super().__init__(
            img_root,
            label_root,
            split,
            list(coco_stuff.CLASSES) if classes is None else classes,
            img_suffix,
            label_suffix,
            reduce_zero_label,
            palette,
            ignore_index,
            to_float32,
            raw_ids=raw_ids,
            check=check,
        )


class SegSourceCocoStuff10k(SegSourceRaw):
    """COCO-Stuff 10k: images, and `.mat` label maps (key `S`, 0 unlabeled, 1-182) or PNGs, listed in a file.

    The arguments not listed here are those of `SegSourceRaw`.

    Args:
        path: the list of sample names (`imageLists/train.txt`).
        classes: None: `unlabeled` and the 182 raw names, ids as stored.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        img_root: str | os.PathLike,
        label_root: str | os.PathLike | None = None,
        classes: ClassNames = None,
        img_suffix: str | Sequence[str] = '.jpg',
        label_suffix: str | Sequence[str] = '.mat',
        reduce_zero_label: bool = False,
        palette: Colors = None,
        ignore_index: int | None = IGNORE_INDEX,
        to_float32: bool = True,
        num_processes: int | None = None,
        cache_at_init: bool = False,
        cache_on_the_fly: bool = False,
        check: bool = True,
    ) -> None:
        names = ['unlabeled', *coco_stuff.RAW_NAMES][1 if reduce_zero_label else 0 :]
        super().__init__(
            img_root,
            label_root,
            path,
            classes or names,
            img_suffix,
            label_suffix,
            reduce_zero_label,
            palette,
            ignore_index,
            to_float32,
            check=check,
        )
