"""What a training run makes of a configuration before it starts, and what it writes into the trained model directory.

Two lines are enough to train on data of one's own: `classes` (a list of names, or a text file with one a line) and
`data_root`, a folder in one of the layouts of `datasets.layout.find_data_sources`.
"""

import json
import logging
import os
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.class_file import ClassFileError, ConfiguredClassFile
from ..config.jsonplus import decode_jsonplus, encode_jsonplus
from ..config.limits import as_list
from ..config.messages import shown
from ..datasets.data_root import DATA_ROOT, replace_data_root
from ..datasets.data_root import PATHS as SOURCE_PATHS
from ..datasets.errors import DatasetError
from ..datasets.layout import annotated_classes, find_data_sources, names_classes
from ..datasets.sources import read_classes
from ..files import atomic_write
from ..metainfo import METRIC, RUN_LOGGER, TASK
from . import class_list, confinement, distributed, hook_places
from .errors import TrainingError

logger = logging.getLogger(RUN_LOGGER)

# Class names, or the text file that holds them.
Classes = Sequence[str] | str | os.PathLike | ConfiguredClassFile


@dataclass(frozen=True)
class Prepared:
    """What `prepare` found out.

    Attributes:
        new_classes: the class list differs from the one that the configuration's weights were made for.
        unnamed: the folder whose label maps are taken to hold ids of the configuration's classes, for nothing names
            theirs; None where their classes are known.
    """

    new_classes: bool
    unnamed: str | os.PathLike | None


def locate_class_files(raw: dict, written: dict, path: str | os.PathLike | None) -> None:
    """Have the class files that a configuration file names read from beside it, and from nowhere else; in place.

    What the user set in code (`cfg_modify_fn`, `cfg_options`) is relative to the working directory and may lie
    anywhere, as with `classes=`; a value counts as the file's when it is the same as there.

    Args:
        raw: the configuration as it is to be used, before `prepare`.
        written: the configuration as it was read.
        path: of the file; None for a configuration that comes from none.
    """
    if path is None:
        return
    places = [(raw, written, 'CLASSES'), (raw, written, 'classes')]
    places += [
        (_data_source(raw, split) or {}, _data_source(deepcopy(written), split) or {}, 'classes')
        for split in ('train', 'val')
    ]
    for section, theirs, key in places:
        name = section.get(key)
        if isinstance(name, str) and name == theirs.get(key) and DATA_ROOT not in name:
            section[key] = ConfiguredClassFile(Path(path), name)


def prepare(
    raw: dict,
    classes: Classes | None = None,
    data_root: str | os.PathLike | None = None,
    written: dict | None = None,
    options: dict | None = None,
) -> Prepared:
    """Complete a configuration, in place, for a training run.

    Where the class list becomes another, what the file says about the old one goes, and the log says so in a line.

    Args:
        raw: the configuration as plain dicts and lists.
        classes: class names, or a text file with one a line; default `raw['classes']`, else what was set in code of
            `raw['CLASSES']` or the training data's section, else `classes.txt` in `data_root`, else those of the
            training data's section, else `raw['CLASSES']`.
        data_root: folder of the data, see `find_data_sources`, or what `${data_root}` stands for in the configuration;
            default `raw['data_root']`.
        written: the configuration as it was read; what differs from it was set in code and stays.
        options: `cfg_options`; what they name was set in code though it is the same as in the file.

    Returns:
        `Prepared`.

    Raises:
        DatasetError: the folder or the class list cannot be used, or two class lists were given.
        TrainingError: `train.hooks` has two hooks for the same thing, or the number of outputs that was set does not
            fit the classes.
    """
    for key, value in decode_jsonplus(dict(raw)).items():
        raw[key] = value
    configured = {key: raw.pop(key, None) for key in ('classes', 'data_root')}
    classes = configured['classes'] if classes is None else classes
    data_root = configured['data_root'] if data_root is None else data_root
    in_code = class_list.SetInCode(raw, written, options)
    classes, other_data = _given_classes(raw, classes, in_code), False
    if data_root is not None:
        if classes is None and os.path.lexists(Path(data_root) / 'classes.txt'):
            classes = str(Path(data_root) / 'classes.txt')
        elif classes is None and (named := annotated_classes(data_root)) is not None:
            known = _names(raw.get('CLASSES')) or []
            classes = None if set(named) <= set(known) else named  # a model's classes keep their ids
        other_data = _use_data_root(raw, data_root, _names(classes or raw.get('CLASSES')), in_code)
    changed = _use_classes(raw, classes, in_code)
    hook_places.refuse_two_of_a_kind(raw)
    hook_places.settle(raw)
    if changed:
        own = classes is None or classes is configured['classes']
        taken = class_list.forget(raw, in_code, raw['CLASSES'], own, other_data)
        if taken and distributed.is_first():
            logger.info(
                'other classes than the configuration was written for; left out, as of the former ones: %s',
                ', '.join(taken),
            )
    _merge_evaluation(raw)
    return Prepared(changed, data_root if other_data and classes is None and not names_classes(data_root) else None)


def _given_classes(raw: dict, classes: Classes | None, in_code: class_list.SetInCode) -> Classes | None:
    """The class list that was given, as an argument or by setting one in code; None where there is none."""
    places: list[class_list.Place] = [
        ('CLASSES',),
        *(('dataset', split, 'data_source', 'classes') for split in ('train', 'val')),
    ]
    for place in filter(in_code, places):
        names = class_list.at(raw, place)
        if classes is not None and _names(names) != _names(classes):
            raise DatasetError(
                f'{".".join(map(str, place))} is set to {shown(names)}, and the classes that are '
                f'given besides are {shown(_names(classes))}; give the one or the other'
            )
        classes = names if classes is None else classes
    return classes


def _use_classes(raw: dict, classes: Classes | None, in_code: class_list.SetInCode) -> bool:
    """Put the class list into every section; returns whether it is another than the configuration's."""
    sections = [section for split in ('train', 'val') if (section := _data_source(raw, split)) is not None]
    known = in_code.written('CLASSES') if in_code(('CLASSES',)) else _names(raw.get('CLASSES'))
    if classes is None:
        classes = next((section['classes'] for section in sections if section.get('classes')), known)
    classes = _names(classes)
    if not classes:
        raise DatasetError('the configuration names no classes; pass classes=[…] (names by id), or CLASSES in the file')
    for section in sections:
        section['classes'] = list(classes)
    for evaluator in _evaluators(raw):
        evaluator['classes'] = list(classes)
    raw['CLASSES'] = list(classes)
    head = (raw.get('model') or {}).get('decode_head')
    if not isinstance(head, dict):
        raise TrainingError(f'model.decode_head is {head!r}; expected a mapping, see a published configuration')
    changed, fits = known is not None and known != classes, (len(classes), len(classes) + 1)
    if in_code(('model', 'decode_head', 'num_classes')):
        if head['num_classes'] not in fits:
            raise TrainingError(
                f'model.decode_head.num_classes is {head["num_classes"]!r}; accepted with '
                f'{len(classes)} classes: {fits[0]}, or {fits[1]} for one output that is no class. '
                'Where it is not set, it follows from the classes'
            )
    elif changed or head.get('num_classes') not in fits:
        head['num_classes'] = len(classes)
        changed = True
    return changed


def _names(classes: Classes | None) -> list[str] | None:
    if isinstance(classes, ConfiguredClassFile):
        try:
            return classes.read()
        except (FileNotFoundError, ClassFileError) as error:
            raise DatasetError(
                f'{classes.configuration}: classes are {classes.name!r}; expected a list of names, or a '
                'text file with one name a line (relative to the configuration; a file elsewhere can be '
                f'given in code, classes=…): {error}'
            ) from None
    if isinstance(classes, (list, tuple)):
        return [str(name) for name in classes]
    return None if classes is None else read_classes(classes)


def _data_source(raw: dict, split: str) -> dict | None:
    section = (raw.get('dataset') or {}).get(split)
    return section.setdefault('data_source', {}) if isinstance(section, dict) else None


def _evaluators(raw: dict) -> list[dict]:
    metrics = as_list((raw.get('evaluation') or {}).get('metrics'))
    return [
        evaluator
        for metric in metrics
        if isinstance(metric, dict)
        for evaluator in as_list(metric.get('evaluators'))
        if isinstance(evaluator, dict)
    ]


def limit_checkpoints(raw: dict, count: int | None) -> None:
    """Keep the newest checkpoints and the best one only, in place, where a prepared configuration does not say.

    Args:
        raw: what `prepare` completed.
        count: how many of the newest; None changes nothing.
    """
    checkpoint = raw['train'].get('checkpoint') or {}
    period = checkpoint.get('period')
    if count is None or not isinstance(period, dict):
        return
    period.setdefault('max_checkpoint_num', count)
    metrics = raw['evaluation']['metrics']
    reported = all('mIoU' in as_list(evaluator.get('metric_names') or 'mIoU') for evaluator in _evaluators(raw))
    evaluates = raw['evaluation'].get('period') is not None and (raw.get('dataset') or {}).get('val') is not None
    ours = isinstance(metrics, dict) and metrics.get('type') == METRIC
    if ours and reported and evaluates and 'best' not in checkpoint:
        checkpoint['best'] = {'metric_key': 'mIoU'}


def _merge_evaluation(raw: dict) -> None:
    evaluation = raw.setdefault('evaluation', {})
    if not evaluation.get('metrics'):
        evaluation['metrics'] = {
            'type': METRIC,
            'evaluators': [
                {'type': 'SegmentationEvaluator', 'classes': list(raw['CLASSES']), 'metric_names': ['mIoU']}
            ],
        }
    evaluation.setdefault('dataloader', {'batch_size_per_gpu': 1, 'workers_per_gpu': 0})


def _use_data_root(
    raw: dict, data_root: str | os.PathLike, classes: list[str] | None, in_code: class_list.SetInCode
) -> bool:
    """Point the configuration's data sections at a folder; returns whether they meant another one.

    What was set in code of a section counts before what the folder's layout says.
    """
    dataset = raw.setdefault('dataset', {})
    meant = {
        split: replace_data_root(section, {'train': str(data_root)})
        for split, section in dataset.items()
        if DATA_ROOT in json.dumps(section, default=str)
    }
    if 'train' in meant and os.path.isdir((meant['train'].get('data_source') or {}).get('img_root') or ''):
        dataset.update(meant)
        return False
    found = find_data_sources(data_root, classes)
    sources = {'train': found.get('train') or found.get('all'), 'val': found.get('val') or found.get('test')}
    for split, source in sources.items():
        if split == 'val' and dataset.get('val', {}) is None:
            continue  # null: not to be evaluated
        section = dataset.get(split) or {'type': 'SegDataset', 'ignore_index': 255}
        theirs = section.get('data_source') or {}
        said = [key for key in theirs if in_code(('dataset', split, 'data_source', key))]
        if source is None and said:
            raise DatasetError(
                f'{data_root} has no images and label maps for {split}: dataset.{split}.data_source.'
                f'{said[0]} would have no effect; leave it out, or add them'
            )
        dataset[split] = section if source is not None or split == 'train' else None
        if source is None:
            continue
        if in_code(('dataset', split, 'ignore_index')):
            del source['ignore_index']  # the section's own counts
        kept = {
            key: value
            for key, value in theirs.items()
            if key in said or key in ('palette', 'reduce_zero_label', 'raw_ids')
        }
        section['data_source'] = {**source, **kept}
    return True


def exported(raw: dict, palette: Sequence[Sequence[int]] | None = None) -> dict:
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
        result['PALETTE'] = [[int(value) for value in color] for color in palette]
    for split in ('train', 'val'):
        section = (result.get('dataset') or {}).get(split)
        if isinstance(section, dict):
            for key in ('mode', 'preprocessor', 'split_config', 'datasets'):
                section.pop(key, None)
            source = section.get('data_source') or {}
            for key in SOURCE_PATHS:
                if isinstance(source.get(key), str) and os.path.isabs(source[key]):
                    source.pop(key)
    train = result.get('train') or {}
    folder = train.get('work_dir')
    for place, section in hook_places.sections(result):
        if place == 'train.hooks':
            confinement.change_paths(section, lambda path: folder and confinement.relative(path, folder))
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


def write_exported(cfg: Any, dataset: Any, folder: str | os.PathLike) -> None:
    """Write the configuration of the trained model directory.

    Args:
        cfg: ModelScope's configuration of the run.
        dataset: the training data; its `PALETTE` counts where the configuration has none.
        folder: the model directory.
    """
    raw = exported(cfg._cfg_dict.to_dict(), getattr(dataset, 'PALETTE', None))
    with atomic_write(Path(folder) / 'configuration.json') as temporary:
        # Tuples are written as EasyCV writes them: its transforms refuse lists.
        temporary.write_text(
            json.dumps(encode_jsonplus(raw), indent=2, default=str, ensure_ascii=False), encoding='utf-8'
        )
