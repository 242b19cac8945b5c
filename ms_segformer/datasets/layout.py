"""Find the splits of a data set: in a configuration's sections, or in the folders of a directory."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..config.jsonplus import load_json
from .coco_stuff import CLASSES
from .data_root import locate_source
from .errors import DatasetError
from .sources import (
    ANNOTATION_SOURCES,
    CONVERTED_SUFFIX,
    AnnotationSource,
    ClassNames,
    SegSourceRaw,
    Source,
    read_classes,
)
from .sources.pairing import walk

logger = logging.getLogger(__name__)
SPLITS = ('train', 'val', 'test')
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')

_LABEL_SUFFIXES = ('.png', '.npy', '.mat', '.bmp', '.tif', '.tiff')
_HEAD = 4096  # bytes of a JSON file that tell whose it is
# Folders, relative to the data root, where the images and the label maps of a split are looked for.
_IMAGE_FOLDERS = ('{split}2017', 'images/{split}2017', 'images/{split}', '{split}/images', 'img_dir/{split}', '{split}')
_LABEL_FOLDERS = (
    'annotations/{split}2017',
    'annotations/{split}',
    'labels/{split}',
    'masks/{split}',
    '{split}/labels',
    '{split}/annotations',
    '{split}/masks',
    'ann_dir/{split}',
)
_SINGLE_IMAGE_FOLDERS = ('images', 'img', 'JPEGImages')
_SINGLE_LABEL_FOLDERS = ('labels', 'annotations', 'masks', 'SegmentationClass')
# Annotation files of a split and of all images, as COCO, CVAT, Roboflow, Label Studio and `predict --format` name them.
_FILES = (
    'annotations/instances_{split}2017.json',
    'annotations/instances_{split}.json',
    'annotations/{split}.json',
    'instances_{split}.json',
    '{split}.json',
    '{split}/_annotations.coco.json',
    '{split}/annotations.json',
)
_SINGLE_FILES = (
    'annotations/instances_default.json',
    'annotations.json',
    'coco.json',
    'result.json',
    'labelstudio.json',
    'project-*.json',
)
_IMAGES_OF_FILES = ('images/default', *_SINGLE_IMAGE_FOLDERS, 'photos')


def find_data_sources(
    path: str | os.PathLike,
    classes: ClassNames = None,
    data_root: str | None = None,
    reduce_zero_label: bool = False,
    ignore_index: int = 255,
) -> dict[str, dict[str, Any]]:
    """Return the `data_source` section of each split.

    Args:
        path: a configuration file, a model directory with a `configuration.json`, or a folder with data. Such a folder
            holds, for each split, images in one of `train2017`, `images/train`, `train/images` … and label maps in
            `annotations/train2017`, `annotations/train`, `labels/train`, `train/labels` …, and `train.txt` where only
            part of it counts; or `images` and `labels` without splits. In place of label maps it may hold annotations:
            a COCO file (`annotations/instances_train2017.json`, `train.json`, `coco.json` …), an export of Label Studio
            (`project-….json`), or LabelMe's files, beside the images or in the folder of the label maps.
        classes: list of names or a text file with one per line, in place of the configuration's; for a folder, None:
            `classes.txt` in it, those that annotations name, or COCO-Stuff's when the label maps end in
            `_labelTrainIds.png`.
        data_root: folder that replaces `${data_root}` in a configuration, see `data_root.locate_source`.
        reduce_zero_label, ignore_index: for a folder: label 0, or another value, is "not labeled".

    Returns:
        Dict of split name (train, val, test, or all) to section.

    Raises:
        DatasetError: nothing usable there; the message says what was looked for.
        ConfigurationError: the configuration is no JSON file.
    """
    path = Path(path)
    configuration = path / 'configuration.json' if path.is_dir() else path
    if configuration.is_file():
        sections = _sections_of_configuration(configuration, data_root)
        if classes is not None:
            sections = {split: {**section, 'classes': read_classes(classes)} for split, section in sections.items()}
        return sections
    if not path.is_dir():
        raise DatasetError(f'{path} does not exist; give a configuration file, a model directory or a folder with data')
    labels = {'reduce_zero_label': reduce_zero_label, 'ignore_index': ignore_index}
    return _sections_of_folder(path, classes, labels)


def _sections_of_configuration(path: Path, data_root: str | None) -> dict[str, dict[str, Any]]:
    dataset = load_json(path).get('dataset') or {}
    sections = {
        split: dataset[split]['data_source']
        for split in SPLITS
        if isinstance(dataset.get(split), dict) and 'data_source' in dataset[split]
    }
    if not sections:
        raise DatasetError(f'{path} names no data: it has no dataset.train.data_source or dataset.val.data_source')
    split_config = {'train': data_root} if data_root else None
    return {
        split: {'ignore_index': dataset[split].get('ignore_index', 255), **locate_source(section, split_config)}
        for split, section in sections.items()
    }


def _sections_of_folder(root: Path, classes: ClassNames, labels_mean: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = {split: folders for split in SPLITS if (folders := _folders(root, split))}
    images, labels = _first(root, _SINGLE_IMAGE_FOLDERS), _first(root, _SINGLE_LABEL_FOLDERS)
    if not found and images and labels and not _has_annotations(labels):
        found = {'all': (images, labels)}
    if not found or any(_has_annotations(labels) for _, labels in found.values()):
        annotated = _annotations(root)
        if annotated:
            return _annotated_sections(root, annotated, classes, labels_mean)
    if not found:
        wanted = ', '.join(_IMAGE_FOLDERS).format(split='train')
        raise DatasetError(
            f'{root} has no images with label maps in known places. Looked for images in {wanted}, '
            f'{", ".join(_SINGLE_IMAGE_FOLDERS)} and label maps in '
            f'{", ".join(_LABEL_FOLDERS).format(split="train")}, {", ".join(_SINGLE_LABEL_FOLDERS)}; and for a COCO '
            f'file or an export of Label Studio at {", ".join((*_FILES, *_SINGLE_FILES)).format(split="train")}, and '
            "for LabelMe's files beside the images. "
            'Move the data, or describe them in a configuration'
        )
    return {split: _section(root, split, *folders, classes, labels_mean) for split, folders in found.items()}


def _folders(root: Path, split: str) -> tuple[Path, Path] | None:
    images = _first(root, [pattern.format(split=split) for pattern in _IMAGE_FOLDERS])
    labels = _first(root, [pattern.format(split=split) for pattern in _LABEL_FOLDERS])
    return (images, labels) if images and labels else None


def _first(root: Path, names: Iterable[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _section(
    root: Path, split: str, images: Path, labels: Path, classes: ClassNames, labels_mean: dict[str, Any]
) -> dict[str, Any]:
    converted = _has_file(labels, CONVERTED_SUFFIX)
    list_file = root / f'{split}.txt'
    section = {
        'type': 'SegSourceRaw',
        'img_root': os.fspath(images),
        'label_root': os.fspath(labels),
        'img_suffix': list(IMAGE_SUFFIXES),
        'label_suffix': CONVERTED_SUFFIX if converted else '.png',
        'classes': _classes(root, classes, converted),
        **labels_mean,
    }
    return {**section, 'split': os.fspath(list_file)} if list_file.is_file() else section


def _has_annotations(labels: Path) -> bool:
    """Whether a folder for label maps holds JSON files in their place."""
    names = list(walk(os.fspath(labels)))
    return any(name.endswith('.json') for name in names) and not any(name.endswith(_LABEL_SUFFIXES) for name in names)


def _annotations(root: Path) -> dict[str, tuple[str, Path, Path]]:
    """{split: (type of source, folder of the images, annotation file or folder of them)}, {} without any."""
    found = {}
    for split in SPLITS:
        images = _first(root, [pattern.format(split=split) for pattern in _IMAGE_FOLDERS])
        files = _first_file(root, [pattern.format(split=split) for pattern in _FILES])
        labels = _first(root, [pattern.format(split=split) for pattern in _LABEL_FOLDERS])
        if files:
            found[split] = (_kind(files), images or _first(root, _IMAGES_OF_FILES) or root, files)
        elif images and (labelme := next((each for each in (labels, images) if each and _is_labelme(each)), None)):
            found[split] = ('SegSourceLabelMe', images, labelme)
    if found:
        return found
    images, files = _first(root, _IMAGES_OF_FILES) or root, _first_file(root, _SINGLE_FILES)
    if files:
        return {'all': (_kind(files), images, files)}
    labels = _first(root, ('labelme', *_SINGLE_LABEL_FOLDERS))
    labelme = next((each for each in (labels, images, root) if each and _is_labelme(each)), None)
    return {'all': ('SegSourceLabelMe', images, labelme)} if labelme else {}


def _first_file(root: Path, patterns: Iterable[str]) -> Path | None:
    return next((path for pattern in patterns for path in sorted(root.glob(pattern)) if path.is_file()), None)


def _is_labelme(folder: Path) -> bool:
    """Whether the first JSON file below a folder is LabelMe's."""
    names = (name for name in walk(os.fspath(folder)) if name.endswith('.json') and not name.startswith('_'))
    name = next(names, None)
    if name is None:
        return False
    with open(folder / name, 'rb') as file:  # after the image, which may stand in it, or before
        head = file.read(_HEAD)
        file.seek(max(0, os.fstat(file.fileno()).st_size - _HEAD))
        return b'"shapes"' in head or b'"imagePath"' in file.read(_HEAD)


def _kind(path: Path) -> str:
    """The type of source of an annotation file: an export of Label Studio is a list."""
    with open(path, 'rb') as file:
        return 'SegSourceLabelStudio' if file.read(_HEAD).lstrip()[:1] == b'[' else 'SegSourceCoco'


def _annotated_sections(
    root: Path, found: dict[str, tuple[str, Path, Path]], classes: ClassNames, labels_mean: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    if classes is None and os.path.lexists(root / 'classes.txt'):
        classes = root / 'classes.txt'
    names = _names_of(found) if classes is None else read_classes(classes)
    sections = {}
    for split, (kind, images, annotations) in found.items():
        section = {
            'type': kind,
            'img_root': os.fspath(images),
            'label_root': os.fspath(annotations),
            'classes': names,
            **labels_mean,
        }
        list_file = root / f'{split}.txt'
        sections[split] = {**section, 'split': os.fspath(list_file)} if list_file.is_file() else section
    return sections


def _names_of(found: dict[str, tuple[str, Path, Path]]) -> list[str]:
    """The classes that the annotations of all splits name: the first split's, then those that only others have."""
    return list(
        dict.fromkeys(
            name
            for kind, _, annotations in found.values()
            for name in ANNOTATION_SOURCES[kind].class_names(os.fspath(annotations))
        )
    )


def annotated_classes(path: str | os.PathLike) -> list[str] | None:
    """The classes that the annotations in a folder name; None where it has none, or has label maps.

    Raises:
        DatasetError: the annotations are damaged.
    """
    if not os.path.isdir(path) or names_classes(path):
        return None
    try:
        sections = find_data_sources(path)
    except DatasetError as error:
        if _annotations(Path(path)):
            raise error
        return None
    first = next(iter(sections.values()))
    return first['classes'] if first['type'] in ANNOTATION_SOURCES else None


def _has_file(folder: Path, suffix: str) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.endswith(suffix) for entry in entries)


def _classes(root: Path, classes: ClassNames, converted: bool) -> list[str]:
    if classes is not None:
        return read_classes(classes)
    if os.path.lexists(root / 'classes.txt'):
        return read_classes(root / 'classes.txt')
    if converted:
        return list(CLASSES)
    raise DatasetError(
        f'the classes of {root} are not known: write their names, one per line, into '
        f'{root / "classes.txt"} or name such a file with --classes'
    )


def names_classes(path: str | os.PathLike) -> bool:
    """Whether a configuration file, a model directory or a folder with data says itself which classes it has."""
    return os.path.isfile(path) or any(
        os.path.lexists(os.path.join(path, name)) for name in ('configuration.json', 'classes.txt')
    )


def say_that_ids_are_taken_as_they_are(source: Source, path: str | os.PathLike) -> None:
    """Warn that values in label maps are taken as the ids of a model's classes, unless they are COCO-Stuff's for sure.

    Args:
        source: a data source with the model's classes.
        path: its folder, which names no classes.
    """
    if (
        source.official
        or isinstance(source, AnnotationSource)
        or isinstance(source, SegSourceRaw)
        and CONVERTED_SUFFIX in source.label_suffix
    ):
        return
    logger.warning(
        "%s names no classes: the values in its label maps are taken as the ids of the model's %d classes (0 %s, …). "
        'If they mean others, write the names into %s, one a line',
        path,
        len(source.CLASSES),
        source.CLASSES[0],
        os.path.join(path, 'classes.txt'),
    )
