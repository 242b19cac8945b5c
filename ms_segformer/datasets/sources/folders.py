"""`SegSourceRaw`: images and label maps in folders."""

import logging
import os
from collections.abc import Sequence

import numpy as np

from ...metainfo import IGNORE_INDEX
from ..errors import DatasetError
from ..image_file import read_image
from ..label_file import read_label
from ..messages import name_some, tell
from .classes import ClassNames, Colors
from .label_ids import settle_ids
from .pairing import pair_files, suffixes
from .source import Source

CONVERTED_SUFFIX = '_labelTrainIds.png'  # of COCO-Stuff's label maps with training ids


def named_as_converted(label_suffix: Sequence[str]) -> bool:
    """Whether the names of label maps say that they hold COCO-Stuff's training ids."""
    return any('labelTrainIds' in suffix for suffix in label_suffix)


class SegSourceRaw(Source):
    """Images and label maps in two folders, paired by their relative name.

    Args:
        img_root: folder of the images, searched with its subfolders.
        label_root: folder of the label maps, laid out in the same way; None: images without labels.
        split: text file with one relative name per line, with or without the image's ending (or a list of names);
            None: every image under `img_root`.
        classes: list of names, or a text file with one per line; the class id is the position.
        img_suffix, label_suffix: file name ending or list of endings; case does not matter.
        reduce_zero_label: label 0 becomes "not labeled" and the others move down by one.
        raw_ids: for the classes of COCO-Stuff 164k: whether the label maps hold its official ids (0-181) in place of
            training ids (0-170). None: those named `_labelTrainIds.png` do not; of others as many as it takes, evenly
            spread, are looked at: 172-181 are official, 11, 25, 28, 29, 44, 65, 67, 68, 70, 82 and 90 are in no
            official map. What they show holds for all, and one that contradicts it is an error when it is read. Where
            none shows it, they are training ids, with a warning. With `reduce_zero_label`, official ids are those of
            COCO-Stuff 10k (1-182, 0 is "not labeled"); which of the two ways they count is looked at too.
        palette: one (red, green, blue) per class; None: COCO-Stuff's colors for its classes, random ones otherwise.
        ignore_index: value in the files for "not labeled" besides 255 (counted after `reduce_zero_label`); samples
            carry 255 in its place, the one value that padding, loss and metric ignore.
        to_float32: load images as float32, so that resizing does not round to gray levels, as in the original.
        num_processes, cache_at_init, cache_on_the_fly: accepted for published configurations, without effect: listing
            takes one process, and the operating system keeps files in memory.
        check: raise when files are missing; False leaves them in `pairing`.

    Raises:
        DatasetError: a folder or the split file does not exist, nothing is found, or an image or a label is missing.
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
        super().__init__(classes, palette, reduce_zero_label, ignore_index, to_float32)
        self.img_root, self.label_root = os.fspath(img_root), os.fspath(label_root) if label_root else None
        self.split = split
        self.img_suffix = suffixes(img_suffix, 'img_suffix')
        self.label_suffix = suffixes(label_suffix, 'label_suffix')
        self._check_folders()
        self.pairing = pair_files(self.img_root, self.label_root, self.img_suffix, self.label_suffix, split)
        renamed = self._take_official_names()
        if check:
            self._check_pairing()
        if raw_ids is None and named_as_converted(self.label_suffix):
            raw_ids = False
        settle_ids(self, raw_ids, doubtful=renamed)

    def _take_official_names(self) -> bool:
        """Use `<id>.png`, the names of the official label maps, where all of them are there and no converted one is."""
        if not self.is_coco_stuff or self.label_suffix != [CONVERTED_SUFFIX] or self.pairing.labels:
            return False
        pairing = pair_files(self.img_root, self.label_root, self.img_suffix, ['.png'], self.split)
        if not pairing.labels or pairing.missing_labels:
            return False
        self.pairing, self.label_suffix = pairing, ['.png']
        tell(logging.INFO, 'no *%s in %s: its *.png are taken', CONVERTED_SUFFIX, self.label_root)
        return True

    def _check_folders(self) -> None:
        for what, folder in (('img_root', self.img_root), ('label_root', self.label_root)):
            if folder and not os.path.isdir(folder):
                raise DatasetError(
                    f'{what} {folder} is not a folder (looked for from {os.getcwd()}). Put the data '
                    f'there, or set {what} in the data_source section to where they are'
                )

    def _check_pairing(self) -> None:
        pairing = self.pairing
        pairing.require_distinct()
        if pairing.missing_images:
            raise DatasetError(
                f'{len(pairing.missing_images)} images that the split file {self.split} lists do not '
                f'exist: {name_some(pairing.missing_images)}. Correct the split file, img_root or '
                f'img_suffix ({", ".join(self.img_suffix)})'
            )
        if pairing.missing_labels:
            wanted = [label for _, label in pairing.missing_labels]
            raise DatasetError(
                f'{len(wanted)} images have no label map; missing are {name_some(wanted)}. Add them, '
                'leave their images out of the split file, or correct label_root or label_suffix'
            )
        if not pairing.images:
            raise DatasetError(
                f'no images ending in {", ".join(self.img_suffix)} under {self.img_root}; '
                'correct img_root or img_suffix'
            )

    def __len__(self) -> int:
        return len(self.pairing.images)

    @property
    def has_labels(self) -> bool:
        """Whether samples carry a label map."""
        return self.label_root is not None

    def without_labels(self) -> str:
        """Return what to do about samples without label maps."""
        return f'the images in {self.img_root} have no label maps; set label_root in the data_source section'

    def name(self, index: int) -> str:
        """Return the image's name relative to `img_root`."""
        return os.path.relpath(self.pairing.images[index], self.img_root)

    def image_path(self, index: int) -> str:
        """Return the path of an image."""
        return self.pairing.images[index]

    def label_path(self, index: int) -> str | None:
        """Return the path of a label map, None without labels."""
        return self.pairing.labels[index] if self.has_labels else None

    def read_raw_image(self, index: int) -> np.ndarray:
        """Return the H×W×3 uint8 BGR image."""
        return read_image(self.image_path(index))

    def stored_label(self, index: int) -> np.ndarray:
        return read_label(self.pairing.labels[index])
