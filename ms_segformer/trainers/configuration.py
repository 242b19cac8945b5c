"""What a training run makes of a configuration before it starts, and what it writes into the trained model directory.

Two lines are enough to train on data of one's own: `classes` (a list of names, or a text file with one a line) and
`data_root`, a folder in one of the layouts of `find_splits`.
"""
import os
from collections import Counter
from copy import deepcopy
from pathlib import Path

from ..config import decode_jsonplus
from ..datasets.errors import DatasetError
from ..metainfo import METRIC, TASK

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
SPLITS = {'train': ('train2017', 'train', 'training'), 'val': ('val2017', 'val', 'validation', 'valid', 'test')}
LABEL_FOLDERS = ('annotations', 'labels', 'masks', 'label', 'mask', 'gt')
IMAGE_FOLDERS = ('images', 'image', 'img', 'imgs')
_SOURCE_PATHS = ('img_root', 'label_root', 'split', 'path')


def prepare(raw, classes=None, data_root=None):
    """Complete a configuration, in place, for a training run.

    Args:
        raw: the configuration as plain dicts and lists.
        classes: class names, or a text file with one a line; default `raw['classes']`, else those of the training
            data's section, else `raw['CLASSES']`.
        data_root: folder of the data, see `find_splits`; default `raw['data_root']`.

    Returns:
        Whether the class list differs from the one the configuration's weights were made for.

    Raises:
        DatasetError: the folder or the class list cannot be used.
    """
    for key, value in decode_jsonplus(dict(raw)).items():
        raw[key] = value
    configured = {key: raw.pop(key, None) for key in ('classes', 'data_root')}
    classes = configured['classes'] if classes is None else classes
    data_root = configured['data_root'] if data_root is None else data_root
    if data_root is not None:
        _use_data_root(raw, data_root)
    changed = _use_classes(raw, classes)
    _merge_evaluation(raw)
    return changed


def _use_classes(raw, classes):
    sections = [section for split in ('train', 'val') if (section := _data_source(raw, split)) is not None]
    known = _names(raw.get('CLASSES'))
    if classes is None:
        classes = next((section['classes'] for section in sections if section.get('classes')), None) or known
    classes = _names(classes)
    if not classes:
        raise DatasetError('the configuration names no classes; pass classes=[…] (names by id), or CLASSES in the file')
    for section in sections:
        section['classes'] = list(classes)
    for evaluator in _evaluators(raw):
        evaluator['classes'] = list(classes)
    raw['CLASSES'] = list(classes)
    head = raw['model']['decode_head']
    changed = known is not None and known != classes
    if changed or head.get('num_classes') not in (len(classes), len(classes) + 1):
        head['num_classes'] = len(classes)
        changed = True
    if changed:
        raw.pop('PALETTE', None)
    return changed


def _names(classes):
    if isinstance(classes, (str, os.PathLike)):
        from ..datasets.sources import read_classes
        return list(read_classes(classes))
    return None if classes is None else [str(name) for name in classes]


def _data_source(raw, split):
    section = (raw.get('dataset') or {}).get(split)
    return section.setdefault('data_source', {}) if isinstance(section, dict) else None


def _evaluators(raw):
    metrics = (raw.get('evaluation') or {}).get('metrics') or []
    metrics = [metrics] if isinstance(metrics, dict) else metrics
    return [evaluator for metric in metrics if isinstance(metric, dict)
            for evaluator in _as_list(metric.get('evaluators')) if isinstance(evaluator, dict)]


def _as_list(value):
    return value if isinstance(value, (list, tuple)) else [] if value is None else [value]


def _merge_evaluation(raw):
    evaluation = raw.setdefault('evaluation', {})
    if not evaluation.get('metrics'):
        evaluation['metrics'] = {'type': METRIC, 'evaluators': [
            {'type': 'SegmentationEvaluator', 'classes': list(raw['CLASSES']), 'metric_names': ['mIoU']}]}
    evaluation.setdefault('dataloader', {'batch_size_per_gpu': 1, 'workers_per_gpu': 0})


def _use_data_root(raw, data_root):
    dataset = raw.setdefault('dataset', {})
    for split, found in find_splits(data_root).items():
        section = dataset.setdefault(split, {'type': 'SegDataset', 'ignore_index': 255})
        source = dict(section.get('data_source') or {})
        kept = {key: source[key] for key in ('classes', 'palette', 'reduce_zero_label') if key in source}
        section['data_source'] = {'type': 'SegSourceRaw', **kept, **found}


def find_splits(data_root):
    """Find the images and label maps of a data set by the usual layouts.

    Below `data_root`, with S one of `train2017`, `train`, `training` and `val2017`, `val`, `validation`, `valid`,
    `test`: `S/` and `annotations/S/` (COCO-Stuff), `images/S/` and `annotations/S/` or `labels/S/` or `masks/S/`, or
    `S/images/` and `S/labels/`. Where label maps end in `_labelTrainIds.png` only those are used. A `train.txt` or
    `val.txt` in `data_root` says which images belong to the split.

    Returns:
        {'train': section, 'val': section} of arguments of `SegSourceRaw`; `val` is left out when there is none.

    Raises:
        DatasetError: there is no such folder, or no training images and label maps in it.
    """
    root = Path(data_root)
    if not root.is_dir():
        raise DatasetError(f'{root}: no such folder; data_root is the folder that holds images and label maps')
    found = {split: section for split, names in SPLITS.items()
             if (section := _find_split(root, split, names)) is not None}
    if 'train' not in found and 'val' not in found:
        have = ', '.join(sorted(path.name for path in root.iterdir())[:12]) or 'nothing'
        raise DatasetError(f'{root}: no images with label maps in a layout known here (found: {have}); expected for '
                           'example images/train and annotations/train, train2017 and annotations/train2017, or '
                           'train/images and train/labels; otherwise name img_root and label_root in dataset.train')
    return found


def _find_split(root, split, names):
    for name in names:
        pairs = [(root / name, root / labels / name) for labels in LABEL_FOLDERS]
        pairs += [(root / images / name, root / labels / name) for images in IMAGE_FOLDERS for labels in LABEL_FOLDERS]
        pairs += [(root / name / images, root / name / labels) for images in IMAGE_FOLDERS for labels in LABEL_FOLDERS]
        for images, labels in pairs:
            if images.is_dir() and labels.is_dir() and not (labels.parent == images):
                return _source_section(root, split, images, labels)
    return None


def _source_section(root, split, images, labels):
    suffixes = Counter(os.path.splitext(name)[1].lower() for _, _, files in os.walk(images) for name in files)
    kinds = [suffix for suffix in IMAGE_SUFFIXES if suffixes[suffix]]
    converted = any(name.endswith('_labelTrainIds.png') for _, _, files in os.walk(labels) for name in files)
    section = {'img_root': str(images), 'label_root': str(labels), 'img_suffix': kinds or ['.jpg'],
               'label_suffix': '_labelTrainIds.png' if converted else '.png'}
    listing = root / f'{split}.txt'
    if listing.is_file():
        section['split'] = str(listing)
    return section


def exported(raw, palette=None):
    """Return the configuration of the trained model directory.

    It opens and trains on without the training data of this run: class names stand in it, the ImageNet URL and the
    absolute paths of this machine do not.

    Args:
        raw: the run's configuration as plain dicts and lists.
        palette: [red, green, blue] by class, where `raw` has none.
    """
    result = deepcopy(raw)
    result['task'] = TASK
    result.setdefault('framework', 'pytorch')
    if not (result.get('pipeline') or {}).get('type'):
        result['pipeline'] = {'type': 'easycv-segmentation'}
    result['model'] = {**result['model'], 'pretrained': None}
    if palette is not None and not result.get('PALETTE'):
        result['PALETTE'] = [[int(value) for value in colour] for colour in palette]
    for split in ('train', 'val'):
        section = (result.get('dataset') or {}).get(split)
        if isinstance(section, dict):
            for key in ('mode', 'preprocessor', 'split_config', 'datasets'):
                section.pop(key, None)
            source = section.get('data_source') or {}
            for key in _SOURCE_PATHS:
                if isinstance(source.get(key), str) and os.path.isabs(source[key]):
                    source.pop(key)
    train = result.get('train') or {}
    train['work_dir'] = None
    for section in ((train.get('checkpoint') or {}).get('period'), (train.get('checkpoint') or {}).get('best')):
        for key in ('save_dir', 'output_dir', 'hub_token', 'push_to_hub', 'hub_repo_id', 'private_hub'):
            if isinstance(section, dict):
                section.pop(key, None)
    if isinstance(train.get('logging'), dict):
        train['logging'].pop('out_dir', None)
    for key in ('load_from', 'resume_from'):
        result.pop(key, None)
    result.setdefault('__easycv_meta__', {'reserved_keys': ['CLASSES', 'PALETTE']})
    return result
