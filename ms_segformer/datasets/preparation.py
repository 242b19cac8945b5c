"""Turn the official COCO-Stuff 164k download into what the published configurations train on.

From `stuffthingmaps/<split>2017/<id>.png` (ids 0-181 and 255) come, under the output folder,
`annotations/<split>2017/<id>_labelTrainIds.png` (ids 0-170 and 255) and `<split>.txt` with one id per line. Images and
label maps may be any subset of the data set; a pair counts when both of its files are there.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np

from ..files import atomic_write
from .coco_stuff import raw_label_to_train
from .errors import DatasetError
from .label_file import read_label
from .parallel import map_in_processes
from .sources import CONVERTED_SUFFIX, pair_files

IMAGE_SUFFIXES = ['.jpg', '.jpeg']
_UNFINISHED = '.unfinished'
Task: TypeAlias = tuple[str, str, str]  # name, official label map, converted one
SPLIT_FOLDERS = {'train2017': 'train', 'val2017': 'val', 'train': 'train', 'val': 'val'}


@dataclass
class Preparation:
    """What happened to one split.

    Attributes:
        split: train, val, or the folder's name.
        names: ids that are ready, in the split file.
        written, kept: label maps that were converted now, and that were finished before.
        without_label: images without a label map; they are not in the split file.
        failed: [(label map, reason)]; they are not in the split file either.
    """

    split: str
    names: list[str] = field(default_factory=list)
    written: int = 0
    kept: int = 0
    without_label: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


def prepare_coco_stuff(
    images: str | os.PathLike,
    stuffthingmaps: str | os.PathLike,
    output: str | os.PathLike,
    jobs: int | None = None,
    link_images: bool = True,
) -> list[Preparation]:
    """Convert label maps and write split files; finished ones are kept, so an interrupted run can be repeated.

    Args:
        images: folder with `train2017` and/or `val2017`, or one such folder itself.
        stuffthingmaps: folder with the label maps in the same subfolders, or one such folder itself.
        output: folder to write to.
        jobs: number of processes, None: one per available core.
        link_images: also link the image folders into `output`, which completes the layout of the configurations.

    Returns:
        List of `Preparation`, one per split.

    Raises:
        DatasetError: a folder does not exist, the output is a file, or no image has a label map.
    """
    output = Path(output)
    require_no_file(output)
    results = [
        _prepare_split(split, folder, maps, output, jobs)
        for split, folder, maps in _find_splits(Path(images), Path(stuffthingmaps))
    ]
    if not any(result.names or result.failed for result in results):
        raise DatasetError(
            f'no image under {images} has a label map <id>.png under {stuffthingmaps}; '
            'pass the folders that hold train2017 and val2017'
        )
    if link_images and any(result.names for result in results):
        for split, folder, _ in _find_splits(Path(images), Path(stuffthingmaps)):
            _link(folder, output / f'{split}2017')
    return results


def require_no_file(folder: Path) -> None:
    """Refuse to write into what is no folder.

    Raises:
        DatasetError: a file is in its place.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise DatasetError(f'{folder} is a file; choose a folder to write to, which need not exist')


def _find_splits(images: Path, maps: Path) -> list[tuple[str, Path, Path]]:
    """Return [(split, image folder, folder of official label maps)]."""
    for folder in (images, maps):
        if not folder.is_dir():
            raise DatasetError(
                f'{folder} is not a folder; pass the unpacked images and stuffthingmaps of COCO-Stuff 164k'
            )
    found = [
        (split, images / name, maps / name)
        for name, split in SPLIT_FOLDERS.items()
        if (images / name).is_dir() and (maps / name).is_dir()
    ]
    if found:
        return found
    name = images.resolve().name
    return [(SPLIT_FOLDERS.get(name, name), images, maps / name if (maps / name).is_dir() else maps)]


def _prepare_split(split: str, images: Path, maps: Path, output: Path, jobs: int | None) -> Preparation:
    pairing = pair_files(os.fspath(images), os.fspath(maps), IMAGE_SUFFIXES, ['.png'])
    pairing.require_distinct()
    folder = output / 'annotations' / f'{split}2017'
    for leftover in folder.glob(f'*{_UNFINISHED}'):  # of a run that was killed
        leftover.unlink()
    result = Preparation(split, without_label=[image for image, _ in pairing.missing_labels])
    tasks = [
        (name, label, os.fspath(folder / (name + CONVERTED_SUFFIX)))
        for name, label in zip(pairing.names, pairing.labels, strict=True)
    ]
    for outcomes in map_in_processes(_convert_some, None, tasks, jobs, f'{split}: label maps'):
        for (name, label, _), outcome, reason in outcomes:
            if outcome == 'failed':
                result.failed.append((label, reason))
                continue
            result.names.append(name)
            result.written += outcome == 'written'
            result.kept += outcome == 'kept'
    result.names.sort()
    result.failed.sort()
    if result.names:
        with atomic_write(output / f'{split}.txt') as temporary:
            temporary.write_text(''.join(f'{name}\n' for name in result.names), encoding='utf-8')
    return result


def _convert_some(_: None, tasks: Sequence[Task]) -> list[tuple[Task, str, str]]:
    return [(task, *_convert(task[1], task[2])) for task in tasks]


def _convert(source: str, target: str) -> tuple[str, str]:
    """Return ('written' | 'kept' | 'failed', reason or '') for one label map."""
    try:
        label = raw_label_to_train(read_label(source))
    except ValueError as error:
        return 'failed', str(error)
    if _is_finished(target, label):
        return 'kept', ''
    try:
        _write_png(target, label)
    except OSError as error:
        raise DatasetError(
            f'{target} cannot be written: {error}. What is finished is kept; make room or choose '
            'another output folder and run again'
        ) from error
    return 'written', ''


def _is_finished(target: str, label: np.ndarray) -> bool:
    """Return whether `target` holds exactly `label`; a damaged or outdated file is not finished."""
    if not os.path.exists(target):
        return False
    try:
        return np.array_equal(read_label(target), label)
    except DatasetError:
        return False


def _write_png(target: str, label: np.ndarray) -> None:
    """Write a label map under a temporary name and rename it.

    Nothing is flushed to the disk: after a power cut, the next run finds a file that is not whole and repeats it.
    """
    done, png = cv2.imencode('.png', label, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    if not done:
        raise DatasetError(f'OpenCV could not encode {target}')
    os.makedirs(os.path.dirname(target), exist_ok=True)
    temporary = f'{target}.{os.getpid()}{_UNFINISHED}'
    try:
        Path(temporary).write_bytes(png.tobytes())  # numpy's tofile says nothing when the disk is full
        os.replace(temporary, target)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _link(folder: Path, link: Path) -> None:
    """Make `link` a symbolic link to `folder`, unless something is there or links are not possible."""
    if link.exists() or link.is_symlink():
        return
    try:
        link.symlink_to(folder.resolve(), target_is_directory=True)
    except OSError as error:
        raise DatasetError(
            f'{link} cannot be linked to {folder} ({error}); the label maps and split files are ready. '
            f'Move or copy the images there, or run with --no-links'
        ) from error
