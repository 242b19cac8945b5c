"""What all sources share."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import cv2
import numpy as np

from .. import coco_stuff
from ..errors import DatasetError
from ..sample import Sample
from .classes import ClassNames, Colors, make_palette, read_classes
from .label_values import bad_values, label_table

DO_NOT_MIX = 'Convert the official ones with "ms-segformer prepare coco-stuff" and do not mix the two'


class Source(ABC):
    """What all sources share: classes, colors, and loading a pair with its checks.

    Attributes:
        official: the label maps hold COCO-Stuff's official ids (0-181), which are turned into training ids.
        ids_unknown: nothing shows whether they do, and nobody has said it; they are taken for training ids.
    """

    def __init__(
        self, classes: ClassNames, palette: Colors, reduce_zero_label: bool, ignore_index: int | None, to_float32: bool
    ) -> None:
        self.CLASSES = read_classes(classes)
        self.PALETTE = make_palette(palette, self.CLASSES)
        self.reduce_zero_label = reduce_zero_label
        self.ignore_index = ignore_index
        self._table = label_table(reduce_zero_label, ignore_index)
        self.to_float32 = to_float32
        self.official = self.ids_unknown = False

    @property
    def is_coco_stuff(self) -> bool:
        """Whether the classes are COCO-Stuff's."""
        return list(self.CLASSES) == list(coco_stuff.CLASSES)

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    @property
    @abstractmethod
    def has_labels(self) -> bool:
        """Whether samples carry a label map."""

    @abstractmethod
    def without_labels(self) -> str:
        """Return what to do about samples without label maps."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Return a name of a sample for messages."""

    @abstractmethod
    def image_path(self, index: int) -> str:
        """Return the path of an image, or a name for messages where it has none."""

    @abstractmethod
    def label_path(self, index: int) -> str | None:
        """Return the path of a label map, or a name for messages; None without labels."""

    @abstractmethod
    def read_raw_image(self, index: int) -> np.ndarray:
        """Return the H×W×3 uint8 BGR image."""

    @abstractmethod
    def stored_label(self, index: int) -> np.ndarray:
        """Return the H×W uint8 label map as it is stored."""

    def spread(self, most: int) -> list[int]:
        """Return at most so many numbers of samples, spread evenly over all of them."""
        return sorted({len(self) * number // most for number in range(most)} if len(self) > most else range(len(self)))

    def read_raw_label(self, index: int) -> np.ndarray:
        """Return the H×W uint8 ids of a label map, whether there are such classes or not; 255 is "not labeled".

        `reduce_zero_label` is applied, `ignore_index` is 255, and COCO-Stuff's official ids are training ids.
        """
        label = self.stored_label(index)
        label = label if self._table is None else cv2.LUT(label, self._table)
        if not self.official:
            return label
        try:
            return coco_stuff.raw_label_to_train(label)
        except ValueError as error:
            raise DatasetError(
                f'label map {self.label_path(index)}: {error}. {DO_NOT_MIX}; where none is official, '
                'set raw_ids to false'
            ) from error

    def load_label(self, index: int) -> np.ndarray:
        """Return the H×W uint8 label map of a sample: class ids, and 255 where nothing is labeled.

        Raises:
            DatasetError: the file cannot be used, or holds other values.
        """
        label = self.read_raw_label(index)
        count = len(self.CLASSES)
        bad = bad_values(label, count)
        if bad:
            raise DatasetError(
                f'label map {self.label_path(index)} holds the values {sorted(bad)} '
                f'({sum(bad.values())} pixels); the {count} classes are 0-{count - 1} and '
                f'255 is "not labeled". {self.hint(bad)}'
            )
        return label

    def ids_outside(self, most: int = 64) -> tuple[dict[int, int], str | None]:
        """Look at label maps spread evenly over the samples for values that are neither a class id nor 255.

        Args:
            most: label maps that are opened, at most.

        Returns:
            ({value: number of label maps that hold it}, path of the first such label map or None). One that cannot be
            read counts as none: it is an error when its turn comes.
        """
        found: dict[int, int] = {}
        first = None
        for index in self.spread(most):
            try:
                label = self.read_raw_label(index)
            except DatasetError:
                continue
            for value in bad_values(label, len(self.CLASSES)):
                found[value] = found.get(value, 0) + 1
                first = first or self.label_path(index)
        return dict(sorted(found.items())), first

    def hint(self, bad: Iterable[int]) -> str:
        """Return what to do about values of label maps that are no class ids."""
        if max(bad) == len(self.CLASSES) and not self.reduce_zero_label:
            return 'If 0 means background, set reduce_zero_label to true'
        if self.is_coco_stuff and max(bad) < coco_stuff.NUM_RAW_IDS:
            return (
                'These look like the official COCO-Stuff ids: convert them with "ms-segformer prepare coco-stuff" '
                'and set label_suffix to "_labelTrainIds.png"'
            )
        return 'Correct the label map or the list of classes; if the value means "not labeled", set ignore_index to it'

    def load(self, index: int) -> Sample:
        """Return a sample for the transforms.

        Raises:
            DatasetError: a file is missing, unreadable, of another size than its partner, or holds wrong values.
        """
        img = self.read_raw_image(index)
        sample: Sample = {
            'filename': self.image_path(index),
            'ori_filename': self.name(index),
            'img_fields': ['img'],
            'img_shape': img.shape,
            'ori_shape': img.shape,
            'pad_shape': img.shape,
            'seg_fields': [],
        }
        path = self.label_path(index)
        if path is not None:
            label = self.load_label(index)
            if label.shape != img.shape[:2]:
                raise DatasetError(
                    f'label map {path} is {label.shape[1]}×{label.shape[0]} pixels '
                    f'and its image {self.image_path(index)} is {img.shape[1]}×{img.shape[0]} '
                    '(width×height, upright after EXIF rotation). Both must agree: correct or remove '
                    'the pair'
                )
            sample.update({'seg_filename': path, 'gt_semantic_seg': label, 'seg_fields': ['gt_semantic_seg']})
        sample['img'] = img.astype(np.float32) if self.to_float32 else img
        return sample
