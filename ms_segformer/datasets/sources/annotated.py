"""What sources share whose regions stand in JSON files: label maps are painted while they are loaded."""

import json
import os
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from ...errors import one_line, some_of
from ...metainfo import IGNORE_INDEX
from ..errors import DatasetError
from ..image_file import read_bytes, read_image
from ..messages import name_some
from ..regions import check_size, decode_rle, fill_polygons, ring_of
from .classes import ClassNames, Colors
from .pairing import Folder, Pairing, read_split, walk
from .source import Source

MAX_REGIONS = 2**16  # of one image
OUTLINE, RUN_LENGTHS = 'polygons', 'rle'


class Annotated(NamedTuple):
    """An image of an annotation file.

    Attributes:
        name: as the file says it.
        size: [height, width] in pixels as the file says it.
        regions: (class name, kind, what it holds): see `AnnotationSource.paint`. Later ones lie over earlier ones.
        file: the annotation file, for messages.
    """

    name: str
    size: Any
    regions: Sequence[tuple[str, str, Any]]
    file: str


class AnnotationSource(Source):
    """Images, and annotation files of a tool for labeling.

    Regions are painted in order, later ones over earlier ones. A pixel in none is "not labeled" (255), or of the class
    `unlabeled`.

    Args:
        img_root: folder of the images. An image is the longest end of the name in the annotation file that is a path
            below this folder, else the one in its sub-folders whose path ends as the whole name does.
        label_root: the annotation file, or for LabelMe the folder of its files.
        split: text file with one name per line, with or without the image's ending (or a list of names): only these.
        classes: list of names, or a text file with one per line; the class id is the position, regions are found by
            their names. None: the names that the annotations have, see `class_names`.
        unlabeled: name of the class that pixels outside of all regions have; None: they are "not labeled".
        palette, to_float32: as for `SegSourceRaw`.
        ignore_index: id of a class that counts as "not labeled" besides 255.
        reduce_zero_label, raw_ids: for label maps; refused when true.
        check: raise when files are missing; False leaves them in `pairing`.

    Raises:
        DatasetError: a file is missing, damaged, or names a class that is not in the list.
    """

    def __init__(
        self,
        img_root: str | os.PathLike,
        label_root: str | os.PathLike,
        split: str | os.PathLike | Sequence[str] | None = None,
        classes: ClassNames = None,
        unlabeled: str | None = None,
        palette: Colors = None,
        ignore_index: int | None = IGNORE_INDEX,
        to_float32: bool = True,
        reduce_zero_label: bool = False,
        raw_ids: bool | None = None,
        check: bool = True,
    ) -> None:
        if reduce_zero_label or raw_ids:
            raise DatasetError('reduce_zero_label and raw_ids are for label maps; regions are found by class names')
        self.img_root, self.label_root = os.fspath(img_root), os.fspath(label_root)
        if not os.path.isdir(self.img_root):
            raise DatasetError(f'img_root {self.img_root} is not a folder (looked for from {os.getcwd()})')
        classes = self.class_names(self.label_root) if classes is None else classes
        super().__init__(classes, palette, False, ignore_index, to_float32)
        self.unlabeled = IGNORE_INDEX if unlabeled is None else self._id_of(unlabeled, 'unlabeled')
        self.pairing = Pairing()
        self._content: list[bytes] = []  # of each image, as JSON: a tenth of what the objects take
        self._pair(self.read_all(self.label_root), split)
        if check:
            self._require_all(split)

    @classmethod
    @abstractmethod
    def read_all(cls, path: str) -> Iterable[Annotated]:
        """Read the annotation file, or the folder of them."""

    @classmethod
    def class_names(cls, path: str) -> list[str]:
        """The class names that annotations have, in alphabetical order."""
        return sorted({name for image in cls.read_all(path) for name, _, _ in image.regions})

    def _id_of(self, name: str, where: str) -> int:
        try:
            return self.CLASSES.index(name)
        except ValueError:
            raise DatasetError(
                f'{where}: the class "{name[:80]}" is not among the {len(self.CLASSES)} classes '
                f'({some_of(self.CLASSES, 8)}). Correct the label, or give a list of classes with it'
            ) from None

    def _pair(self, images: Iterable[Annotated], split: str | os.PathLike | Sequence[str] | None) -> None:
        entries = read_split(split) if isinstance(split, (str, os.PathLike)) else split
        wanted = None if entries is None else dict.fromkeys(entries, False)
        files, taken = _Images(self.img_root), dict[str, str]()
        ids = {name: number for number, name in enumerate(self.CLASSES)}
        for image in images:
            if wanted is not None:
                own = next((name for name in (image.name, os.path.splitext(image.name)[0]) if name in wanted), None)
                if own is None:
                    continue
                wanted[own] = True
            paths = files.find(image.name)
            if len(paths) != 1:
                said = f' ({len(paths)} sub-folders have an image of this name)' if paths else ''
                self.pairing.missing_images.append(os.path.join(self.img_root, image.name) + said)
                continue
            (path,) = paths
            if path in taken:
                self.pairing.ambiguous.append((taken[path], image.name))
                continue
            taken[path] = image.name
            regions = [
                (ids[name] if name in ids else self._id_of(name, f'{image.file}, image {image.name}'), kind, content)
                for name, kind, content in image.regions
            ]
            self.pairing.names.append(os.path.splitext(os.path.relpath(path, self.img_root))[0])
            self.pairing.images.append(path)
            self.pairing.labels.append(f'{image.file} (image {image.name})')
            self._content.append(json.dumps([image.size, regions]).encode())
        self.pairing.missing_images += [name for name, found in (wanted or {}).items() if not found]

    def _require_all(self, split: object) -> None:
        if self.pairing.missing_images:
            what = self.label_root if split is None else f'{self.label_root} or the split file'
            raise DatasetError(
                f'{len(self.pairing.missing_images)} images that {what} lists do not exist: '
                f'{name_some(self.pairing.missing_images)}. Put them there, or correct img_root'
            )
        if self.pairing.ambiguous:
            raise DatasetError(
                f'{self.label_root} has several entries for one image: '
                f'{name_some([" and ".join(group) for group in self.pairing.ambiguous])}. Keep one of each'
            )
        if not self.pairing.images:
            raise DatasetError(f'{self.label_root} has no labeled images')

    def __len__(self) -> int:
        return len(self.pairing.images)

    @property
    def has_labels(self) -> bool:
        return True

    def without_labels(self) -> str:
        return f'{self.label_root} has no labels'

    def name(self, index: int) -> str:
        """Return the image's name relative to `img_root`."""
        return os.path.relpath(self.pairing.images[index], self.img_root)

    def image_path(self, index: int) -> str:
        """Return the path of an image."""
        return self.pairing.images[index]

    def label_path(self, index: int) -> str:
        """Return the annotation file and the image's name in it, for messages."""
        return self.pairing.labels[index]

    def read_raw_image(self, index: int) -> np.ndarray:
        """Return the H×W×3 uint8 BGR image."""
        return read_image(self.image_path(index))

    def stored_label(self, index: int) -> np.ndarray:
        """Paint the H×W uint8 label map of an image."""
        where = self.label_path(index)
        size, regions = json.loads(self._content[index])
        height, width = check_size(size, where)
        if len(regions) > MAX_REGIONS:
            raise DatasetError(f'{where}: {len(regions):,} regions; at most {MAX_REGIONS:,} are read of one image')
        label = np.full((height, width), self.unlabeled, np.uint8)
        for number, kind, content in regions:
            self.paint(label, number, kind, content, where)
        return label

    def paint(self, label: np.ndarray, number: int, kind: str, content: Any, where: str) -> None:
        """Set the pixels of a region to a class id; `content` is COCO's run lengths, or a list of polygons."""
        if kind == RUN_LENGTHS:
            mask = decode_rle(content, where)
            if mask.shape != label.shape:
                raise DatasetError(
                    f'{where}: a mask of {mask.shape[1]}×{mask.shape[0]} pixels in an image of '
                    f'{label.shape[1]}×{label.shape[0]} (width×height)'
                )
            label[mask > 0] = number
            return
        rings = [ring_of(points, where) for points in content]
        window = _window(rings, label.shape)
        part = label[window]
        shift = [window[1].start, window[0].start]
        part[
            fill_polygons([ring - shift for ring in rings], part.shape[0], part.shape[1], where, max(label.shape)) > 0
        ] = number


def _window(rings: Sequence[np.ndarray], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The part of an image that polygons lie in: rows and columns, a pixel at least."""
    points = np.concatenate([np.zeros((0, 2)), *rings])
    points = points[np.isfinite(points).all(1)]
    low, high = (points.min(0), points.max(0)) if len(points) else (np.zeros(2), np.zeros(2))
    slices = []
    for axis, side in ((1, shape[0]), (0, shape[1])):
        first = int(np.clip(low[axis] - 1, 0, side - 1))
        slices.append(slice(first, int(np.clip(high[axis] + 2, first + 1, side))))
    return slices[0], slices[1]


class _Images:
    """The images of a folder and its sub-folders, never of those above it, found by how their paths end."""

    def __init__(self, root: str) -> None:
        self._folder = Folder(root)
        self._by_name: dict[str, list[str]] | None = None  # once it is needed

    def find(self, name: str) -> list[str]:
        """The longest end of a name that is a path below the folder, else all that lie deeper and end as it does."""
        parts = [part for part in PurePosixPath(name.replace('\\', '/')).parts if part not in ('..', '/', '.')]
        for start in range(len(parts)):
            if path := self._folder.find('/'.join(parts[start:])):
                return [path]
        if not parts:
            return []
        if self._by_name is None:
            self._by_name = {}
            for file in walk(self._folder.root):
                self._by_name.setdefault(os.path.basename(file).lower(), []).append(file)
        end = '/' + '/'.join(parts).lower()
        deeper = self._by_name.get(parts[-1].lower(), [])
        return [os.path.join(self._folder.root, file) for file in deeper if _ends(file, end)]


def _ends(file: str, end: str) -> bool:
    return f'/{file.replace(os.sep, "/")}'.lower().endswith(end)


def read_json(path: str) -> Any:
    """Return the content of an annotation file.

    Raises:
        DatasetError: no such file, larger than a gigabyte, or not JSON.
    """
    content = read_bytes(path, 'annotation file').tobytes()
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise DatasetError(
            f'annotation file {path} is not JSON ({one_line(error)}); it is damaged, export it anew'
        ) from None


def expect(value: Any, kind: type | tuple[type, ...], where: str, what: str) -> Any:
    """Return a value if it is of a type.

    Raises:
        DatasetError: it is of another.
    """
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DatasetError(f'{where}: {what} is missing or of another kind; got {str(value)[:80]}')
    return value
