"""Pairs images with label maps by their names, without opening any of them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DatasetError
from ..messages import name_some


@dataclass
class Pairing:
    """Images with their label maps, and what has no partner.

    Attributes:
        names: relative name of each pair, without suffix.
        images, labels: paths, one per pair; `labels` is empty for a source without labels.
        missing_images: entries of the split file (and the path looked for) that no image exists for.
        missing_labels: image paths without a label map, with the path looked for.
        ambiguous: groups of images that one name, and so one label map, stands for; at most the first of them is used.
    """

    names: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    missing_images: list[str] = field(default_factory=list)
    missing_labels: list[tuple[str, str]] = field(default_factory=list)
    ambiguous: list[tuple[str, ...]] = field(default_factory=list)

    def require_distinct(self) -> None:
        """Raise `DatasetError` where a name stands for more than one image."""
        if self.ambiguous:
            raise DatasetError(
                f'images that differ in their ending only take the same label map: '
                f'{name_some([" and ".join(group) for group in self.ambiguous])}. Rename or remove all '
                'but one, or set img_suffix to the ending that counts'
            )


class Folder:
    """File names of a root and its subfolders, each folder listed once, found whatever their case."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._listings: dict[str, dict[str, str]] = {}

    def find(self, name: str) -> str | None:
        """Return the path of the file `name` (relative), preferring its own case, or None."""
        folder, base = os.path.split(name)
        listing = self._listing(folder)
        actual = listing.get(base) or listing.get(base.lower())
        return os.path.join(self.root, folder, actual) if actual else None

    def _listing(self, folder: str) -> dict[str, str]:
        if folder not in self._listings:
            path = os.path.join(self.root, folder)
            names = os.listdir(path) if os.path.isdir(path) else []
            self._listings[folder] = {**{name.lower(): name for name in names}, **{name: name for name in names}}
        return self._listings[folder]


def walk(root: str) -> list[str]:
    """Return the sorted relative names of all files under `root`, hidden ones left out."""
    names = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith('.')]
        relative = os.path.relpath(folder, root)
        names += [os.path.normpath(os.path.join(relative, name)) for name in files if not name.startswith('.')]
    return sorted(names)


def suffixes(value: str | Sequence[str], what: str) -> list[str]:
    """File name endings as a list."""
    endings = [value] if isinstance(value, str) else list(value)
    if not endings or not all(isinstance(ending, str) and ending for ending in endings):
        raise DatasetError(f'{what} is a file name ending such as ".jpg", or a list of them; got {value!r}')
    return endings


def _strip_suffix(name: str, suffixes: list[str]) -> str | None:
    """Return `name` without the first of `suffixes` that it ends with (any case), or None when it ends with none."""
    for suffix in suffixes:
        if name.lower().endswith(suffix.lower()) and len(os.path.basename(name)) > len(suffix):
            return name[: -len(suffix)]
    return None


def read_split(path: str | os.PathLike) -> list[str]:
    """Return the non-empty lines of a split file, one relative sample name each.

    Raises:
        DatasetError: no such file, not UTF-8 text, or nothing in it.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetError(
            f'split file {path} does not exist; correct "split" in the data_source section, '
            'or leave it out to take every image under img_root'
        )
    try:
        text = path.read_text(encoding='utf-8-sig')  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        raise DatasetError(f'split file {path} is not UTF-8 text ({error}); save it as UTF-8') from None
    entries = [line.strip() for line in text.splitlines() if line.strip()]
    if not entries:
        raise DatasetError(f'split file {path} is empty; it holds one sample name per line')
    return entries


def pair_files(
    img_root: str,
    label_root: str | None,
    img_suffix: list[str],
    label_suffix: list[str],
    split: str | os.PathLike | Sequence[str] | None = None,
) -> Pairing:
    """Pair images with label maps by their relative name, without opening any of them.

    Args:
        img_root, label_root: folders; `label_root` None: images only.
        img_suffix, label_suffix: lists of file name endings, tried in order; case does not matter.
        split: path of a text file with one relative name per line, with or without the image's ending, or a list of
            such names; None: every image under `img_root`.

    Returns:
        A `Pairing`.
    """
    images, labels = Folder(img_root), Folder(label_root) if label_root else None
    pairing = Pairing()
    taken: dict[str, str] = {}  # label map, or image without one -> the image that takes it
    for name, own in _names(img_root, img_suffix, split):
        found = _images(images, name, own, img_suffix)
        if not found:
            pairing.missing_images.append(os.path.join(img_root, name + img_suffix[0]))
            continue
        image, label = found[0], None
        if labels and label_root:
            label = next(filter(None, (labels.find(name + suffix) for suffix in label_suffix)), None)
            if label is None:
                pairing.missing_labels.append((image, os.path.join(label_root, name + label_suffix[0])))
                continue
        first = taken.setdefault(label or os.path.join(img_root, name), image)
        if first != image or len(found) > 1:
            pairing.ambiguous.append(tuple(dict.fromkeys([first, *found])))
            if first != image:
                continue
        if label:
            pairing.labels.append(label)
        pairing.names.append(name)
        pairing.images.append(image)
    return pairing


def _names(
    img_root: str, img_suffix: list[str], split: str | os.PathLike | Sequence[str] | None
) -> list[tuple[str, str | None]]:
    """(name without ending, name with the ending it was given with or None) of every sample."""
    if split is None:
        names = ((_strip_suffix(name, img_suffix), name) for name in walk(img_root))
        return [(stem, name) for stem, name in names if stem is not None]
    entries = read_split(split) if isinstance(split, (str, os.PathLike)) else split
    stems = ((_strip_suffix(entry, img_suffix), entry) for entry in entries)
    return [(entry, None) if stem is None else (stem, entry) for stem, entry in stems]


def _images(folder: Folder, name: str, own: str | None, suffixes: list[str]) -> list[str]:
    """The images that a name means: the one with the ending it was given with, else those with any of the endings."""
    exact = own and folder.find(own)
    if exact:
        return [exact]
    return list(dict.fromkeys(filter(None, (folder.find(name + suffix) for suffix in suffixes))))
