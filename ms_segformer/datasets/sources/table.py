"""`SegSourcePairs`: pairs from a table in memory."""

import os
from typing import Any

import numpy as np

from ...metainfo import IGNORE_INDEX
from ...preprocessors.image import load_image
from ..errors import DatasetError
from ..label_file import as_label, decode_label, label_of_image, read_label
from .classes import ClassNames, Colors
from .label_ids import settle_ids
from .source import Source

IMAGE_COLUMNS = ('img', 'image', 'image:FILE', 'pixel_values')
LABEL_COLUMNS = ('label', 'gt_semantic_seg', 'annotation', 'mask', 'segmentation_mask', 'label:FILE', 'seg_map')
NOT_A_TABLE = (
    'Name the column of the label maps with label_column in the data_source section. Files in folders '
    '(train2017, annotations, …) make no such table: give the folder itself, data_root=…, in place of the '
    'data sets (of a data set on the hub the one that dataset_snapshot_download returns)'
)


class SegSourcePairs(Source):
    """Pairs from a table in memory: a `datasets.Dataset`, an `MsDataset` over one, or a list.

    Args:
        pairs: sequence of (image, label) or of dicts. An image is whatever `load_image` takes (PIL image, path, bytes,
            RGB array …); a label map is a PIL image, an H×W integer array, a path or bytes.
        classes, palette, reduce_zero_label, ignore_index, to_float32, raw_ids: as for `SegSourceRaw`.
        image_column, label_column: keys of the dicts; None: the first of the usual names that is there.
    """

    def __init__(
        self,
        pairs: Any,
        classes: ClassNames,
        palette: Colors = None,
        reduce_zero_label: bool = False,
        ignore_index: int | None = IGNORE_INDEX,
        to_float32: bool = True,
        image_column: str | None = None,
        label_column: str | None = None,
        raw_ids: bool | None = None,
    ) -> None:
        super().__init__(classes, palette, reduce_zero_label, ignore_index, to_float32)
        self._pairs = _plain_table(pairs)
        if not len(self._pairs):
            raise DatasetError('the data set has no samples')
        self._image_key, self._label_key = _keys(self._pairs[0], image_column, label_column)
        if self.has_labels and isinstance(self._pairs[0][self._label_key], (int, float)):
            raise DatasetError(f'the column "{self._label_key}" holds numbers, not label maps. {NOT_A_TABLE}')
        self._pairs = _with_stored(self._pairs, self._label_key)
        self._last: tuple[int | None, Any] = (None, None)
        settle_ids(self, raw_ids)

    def __len__(self) -> int:
        return len(self._pairs)

    def _row(self, index: int) -> Any:
        """Return a sample of the table; the last one is kept, since a table decodes it on every access."""
        if self._last[0] != index:
            self._last = (index, self._pairs[index])
        return self._last[1]

    @property
    def has_labels(self) -> bool:
        """Whether samples carry a label map."""
        return self._label_key is not None

    def without_labels(self) -> str:
        """Return what to do about samples without label maps."""
        first = self._row(0)
        columns = ', '.join(map(str, first)) if isinstance(first, dict) else 'the image'
        return f'the table holds no label maps (its columns: {columns}). {NOT_A_TABLE}'

    def name(self, index: int) -> str:
        """Return a name for messages: the file's where it is known, `sample N` otherwise."""
        return self.image_path(index)

    def image_path(self, index: int) -> str:
        """Return the image's file name where it has one, `sample N` otherwise."""
        image = self._row(index)[self._image_key]
        path = image if isinstance(image, (str, os.PathLike)) else getattr(image, 'filename', None)
        return os.fspath(path) if path else f'sample {index}'

    def label_path(self, index: int) -> str | None:
        """Return a name of the label map for messages."""
        return f'of {self.image_path(index)}' if self.has_labels else None

    def read_raw_image(self, index: int) -> np.ndarray:
        """Return the H×W×3 uint8 BGR image."""
        image = self._row(index)[self._image_key]
        if isinstance(image, dict):
            image = image.get('bytes') or image.get('path')
        try:
            return np.ascontiguousarray(load_image(image)[..., ::-1])
        except (ValueError, OSError) as error:
            raise DatasetError(f'image of sample {index} cannot be decoded: {error}') from error

    def stored_label(self, index: int) -> np.ndarray:
        label = self._row(index)[self._label_key]
        if isinstance(label, dict):
            label = label.get('bytes') or label.get('path')
        if label is None:
            raise DatasetError(
                f'label map {self.label_path(index)} is empty: the column "{self._label_key}" holds '
                'nothing there; add it, or leave the row out'
            )
        if isinstance(label, (str, os.PathLike)):
            return read_label(os.fspath(label))
        if isinstance(label, (bytes, bytearray)):
            return decode_label(np.frombuffer(label, np.uint8), self.label_path(index))
        if hasattr(label, 'mode') and hasattr(label, 'getbands'):
            return label_of_image(label, self.label_path(index))
        return as_label(label, self.label_path(index))


def _plain_table(pairs: Any) -> Any:
    """Return a sequence of samples: the table inside an MsDataset, without an output format."""
    if hasattr(pairs, 'to_hf_dataset'):
        pairs = pairs.to_hf_dataset()
    if hasattr(pairs, 'with_format'):
        pairs = pairs.with_format(None)
    if not hasattr(pairs, '__len__') or not hasattr(pairs, '__getitem__'):
        raise DatasetError(
            f'a {type(pairs).__name__} has no length or no index; pass a datasets.Dataset or a list of '
            '(image, label) pairs'
        )
    return pairs


def _with_stored(table: Any, column: str | int | None) -> Any:
    """Return a `datasets.Dataset` whose images in a column come as the files they are, other tables as they are.

    Decoded, gray PNGs of 2 or 4 bits have other values, and lossy files look like others.
    """
    feature: Any = getattr(table, 'features', {}).get(column)
    if type(feature).__name__ != 'Image' or not hasattr(table, 'cast_column'):
        return table
    stored = table.cast_column(column, type(feature)(decode=False))
    return stored if all(_is_stored(stored[index][column]) for index in (0, len(stored) - 1)) else table


def _is_stored(cell: Any) -> bool:
    """Whether a cell holds a file's content, or the path of one on this machine."""
    return not isinstance(cell, dict) or bool(cell.get('bytes')) or os.path.isfile(cell.get('path') or '')


def _keys(sample: Any, image_column: str | None, label_column: str | None) -> tuple[str | int, str | int | None]:
    """Where in a sample of the table its image and its label map are."""
    if isinstance(sample, (list, tuple)):
        return 0, 1 if len(sample) > 1 else None
    if not isinstance(sample, dict):
        raise DatasetError(f'a sample is an (image, label) pair or a dict, got {type(sample).__name__}')
    image = image_column or next((name for name in IMAGE_COLUMNS if name in sample), None)
    label = label_column or next((name for name in LABEL_COLUMNS if name in sample), None)
    for key in (image, label_column and label):
        if key is not None and key not in sample:
            raise DatasetError(f'the samples have no column "{key}"; they have {sorted(sample)}')
    if image is None:
        raise DatasetError(
            f'none of the columns {sorted(sample)} is known as the image; name it with image_column '
            f'(known names: {", ".join(IMAGE_COLUMNS)})'
        )
    return image, label
