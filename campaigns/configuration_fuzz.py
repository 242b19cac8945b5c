"""Mutated configurations: each has to be used or refused in one line, in bounded time and memory, running nothing.

    python -m campaigns.configuration_fuzz --seed 1 --cases 6000

Bases: the six published configurations, the tiny model's, the demonstration model's; where ../shared is there, what
EasyCV's converter and trainer wrote. Mutations: values replaced by odd ones, keys removed, renamed, mistyped or added,
sections swapped, sizes that are too large, tuples in EasyCV's form around anything; in the text keys that stand twice,
depth, byte order marks, other encodings, ends cut off; and the same as options of a training.

A configuration is read, the preprocessor and the network are made (the large ones without memory for their numbers).
One of the tiny model also goes through ModelScope: `pipeline()` on its directory with a small picture, or the trainer,
with an iteration now and then. What another model's configuration would mean to ModelScope is not asked: where a
mutation left it no SegFormer of EasyCV's making, it is only read.
"""

import copy
import dataclasses
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from modelscope.pipelines import pipeline
from modelscope.trainers import build_trainer

from campaigns.frame import ROOT, TINY_MODEL, Campaign, Run, main
from ms_segformer.config.limits import WHOLE_PIXELS
from ms_segformer.config.reader import read_configuration
from ms_segformer.config.recognition import is_segformer
from ms_segformer.config.schema import check_file
from ms_segformer.errors import SegformerError
from ms_segformer.metainfo import TASK, VARIANTS, configuration_dir, demo_model_dir
from ms_segformer.models.segformer import Segformer
from ms_segformer.preprocessors.segformer import SegformerPreprocessor

sys.path.insert(0, str(ROOT / 'tests' / 'trainers'))

from tiny_run import CLASSES, make_data  # noqa: E402

ERRORS = (SegformerError, FileNotFoundError)
SMALL = WHOLE_PIXELS >> 6  # pixels of the network's input up to which the pipeline is run, for time's sake
LEARNING = 0.5  # of the trainers that could be made, how many are also run
ODD = [
    None,
    True,
    False,
    0,
    1,
    2,
    -1,
    3.5,
    10**6,
    10**20,
    -(10**20),
    1e300,
    -1e-300,
    float('nan'),
    float('inf'),
    '',
    'x',
    'x' * 10_000,
    '1',
    'é\x1b[2J\n',
    '\ud800',
    '\0',
    '../..',
    '/',
    [],
    {},
    [[]],
    [None],
    {'type': None},
    {'type': 'x'},
    {'a': {'b': {'c': []}}},
    ['x'] * 172,
    [0] * 4,
    [2, 2],
    [10**6] * 4,
    [64, 48],
    [4096, 4096],
    [float('nan')] * 3,
    [1, '1', None, 2.0],
    {'__class__': 'tuple', '__value__': [3, 3]},
    {'__class__': 'tuple', '__value__': 3},
    {'__class__': 'set'},
]


@dataclasses.dataclass
class Common:
    """Configurations to mutate, by name, as JSON has them; a model directory of tiny weights; data to train on."""

    bases: dict[str, dict]
    model: Path
    data: Path
    work: Path


def prepare(folder: Path) -> Common:
    """Read the bases; use each way of a case once, which imports what it takes."""
    torch.set_num_threads(1)
    model = Path(shutil.copytree(TINY_MODEL, folder / 'model'))
    files = [*(configuration_dir() / variant.model_name for variant in VARIANTS.values()), demo_model_dir()]
    shared = ROOT.parent / 'shared' / 'oracle'
    files += sorted(shared.glob('configuration/*.json')) + sorted(shared.glob('train/output_configuration.json'))
    bases = {str(file): _content(file) for file in files} | {'tiny': _small(_content(model))}
    common = Common(bases, model, make_data(folder / 'data'), folder / 'work')
    (model / 'configuration.json').write_text(json.dumps(bases['tiny']))
    read_all(model, large=False)
    segment(model)
    train(common, {}, learn=True)
    return common


def _content(path: Path) -> dict:
    return json.loads((path / 'configuration.json' if path.is_dir() else path).read_text())


def _small(raw: dict) -> dict:
    """A configuration that trains on small pictures in this process."""
    for step in raw['dataset']['train']['pipeline']:
        step.update(
            {
                'MMResize': {'img_scale': [96, 64]},
                'SegRandomCrop': {'crop_size': [64, 64]},
                'MMPad': {'size': [64, 64]},
            }.get(step['type'], {})
        )
    raw['dataset']['val']['pipeline'][0]['img_scale'] = [96, 64]
    raw['train'].update({'dataloader': {'batch_size_per_gpu': 8, 'workers_per_gpu': 0}, 'max_epochs': 1})
    raw['evaluation']['dataloader'] = {'batch_size_per_gpu': 2, 'workers_per_gpu': 0}
    raw['train']['lr_scheduler']['warmup'] = None
    return raw


# --- mutations -------------------------------------------------------------------------------------------------------


def _places(value: Any, place: tuple = ()) -> Iterator[tuple]:
    """Where something stands in a configuration, but for `plugins`, which only ModelScope reads, and class names."""
    if isinstance(value, dict):
        items = [(key, item) for key, item in value.items() if place or key != 'plugins']
    else:
        items = list(enumerate(value[:4])) if isinstance(value, list) else []
    for key, item in items:
        yield (*place, key)
        yield from _places(item, (*place, key))


def _parent(raw: Any, place: tuple) -> Any:
    for key in place[:-1]:
        raw = raw[key]
    return raw


def _some(random: np.random.Generator, choices: list) -> Any:
    return choices[random.integers(len(choices))]


def _odd(random: np.random.Generator, old: Any) -> Any:
    """An odd value; now and then one like the old."""
    if isinstance(old, (int, float)) and not isinstance(old, bool) and random.random() < 0.3:
        return _some(random, [old + 1, -old, old * 1000, old / 3, [old], str(old)])
    if isinstance(old, str) and random.random() < 0.3:
        return _some(random, [old.lower(), old + ' ', old[:-1], old[::-1], [old], {'type': old}])
    if isinstance(old, list) and random.random() < 0.3:
        return _some(random, [old * 3, old[:-1], old[::-1], [old], dict.fromkeys(map(str, old[:3]), 1), old and old[0]])
    return copy.deepcopy(_some(random, ODD))


def _mistyped(random: np.random.Generator, key: str) -> str:
    at = int(random.integers(len(key) + 1))
    return _some(
        random,
        [
            key[:at] + key[at + 1 :],
            key[:at] + 'x' + key[at:],
            key.upper(),
            key + 's',
            '',
            '__class__',
            'type',
            '_delete_',
            'x\n',
        ],
    )


def change(raw: dict, random: np.random.Generator) -> str:
    """Change a configuration in place, mostly once, else twice or three times; returns the kind of the last change."""
    for _ in range(_some(random, [1, 1, 1, 2, 3])):
        places = list(_places(raw))
        if not places:
            break
        place = _some(random, places)
        parent, key = _parent(raw, place), place[-1]
        kind = _some(random, ['values', 'values', 'values', 'keys', 'sections'])
        if kind == 'values':
            parent[key] = _odd(random, parent[key])
        elif kind == 'keys' and isinstance(parent, dict):
            what = random.random()
            value = parent[key] if what < 0.2 else parent.pop(key)
            if what < 0.7:
                parent[_mistyped(random, key)] = value
        else:
            kind, other = 'sections', _some(random, places)
            there = _parent(raw, other)
            parent[key], there[other[-1]] = copy.deepcopy(there[other[-1]]), copy.deepcopy(parent[key])
    return kind


def _text(raw: dict, random: np.random.Generator) -> bytes:
    """A configuration's text, mutated."""
    text = json.dumps(raw, indent=1)
    lines = text.split('\n')
    at = int(random.integers(len(lines)))
    depth = int(10 ** random.uniform(1, 5))
    opened, closed = _some(random, [('[', ']'), ('{"a": ', '}'), ('{"__class__": "tuple", "__value__": [', ']}')])
    nested = lines[:1] + [f'"nested": {opened * depth}1{closed * depth},'] + lines[1:]
    return _some(
        random,
        [
            lambda: '\n'.join(lines[:at] + lines[at : at + 1] * 2 + lines[at + 1 :]).encode(),
            lambda: '\n'.join(nested).encode(),
            lambda: (opened * depth).encode(),
            lambda: '\n'.join(lines[:at]).encode(),
            lambda: '\n'.join(lines[:at] + lines[at + 1 :]).encode(),
            lambda: b'\xef\xbb\xbf' + text.encode(),
            lambda: text.encode('utf-16'),
            lambda: text.encode().replace(b'e', b'\xff', 1),
            lambda: text.replace('32', '9' * depth, 1).encode(),
            lambda: text.replace(':', ': NaN //', 1).encode(),
            lambda: b'',
            lambda: b'null',
            lambda: b'[]',
            lambda: random.bytes(200),
        ],
    )()


def _options(raw: dict, random: np.random.Generator) -> dict:
    """Options of a training that fit a configuration, or nearly."""
    options = {}
    for place in (_some(random, list(_places(raw))) for _ in range(_some(random, [1, 1, 1, 2, 3]))):
        old = _parent(raw, place)[place[-1]]
        keys = list(map(str, place))
        if random.random() < 0.2:
            keys[-1] = _mistyped(random, keys[-1])
        value = old if random.random() < 0.1 else _odd(random, old)
        if random.random() < 0.2:
            options[keys[0]] = {keys[1]: value} if len(keys) > 1 else value
        else:
            options[('..' if random.random() < 0.03 else '.').join(keys)] = value
    if random.random() < 0.05:
        options[_some(random, [3, '', 'train', 'model.backbone'])] = _some(random, [{3: 4}, {'type': {3: 3}}, 3])
    return options


# --- cases -----------------------------------------------------------------------------------------------------------


def make(random: np.random.Generator, common: Common) -> tuple[str, Run]:
    """A model directory with a mutated configuration, or options, and what uses them."""
    tiny = random.random() < 0.7
    raw = copy.deepcopy(common.bases['tiny' if tiny else _some(random, list(common.bases))])
    way, learn = random.random(), random.random() < LEARNING
    file = common.model / 'configuration.json'
    if tiny and way < 0.3:
        file.write_text(json.dumps(raw))
        options = _options(raw, random)
        return 'options', lambda: train(common, options, learn)
    if random.random() < 0.15:
        kind = 'text'
        file.write_bytes(_text(raw, random))
    else:
        kind = change(raw, random)
        file.write_text(json.dumps(raw))
    if random.random() < 0.1 and kind != 'text':
        return kind, lambda: _read_dict(_with_odd_keys(raw, random))
    if tiny and way < 0.65:
        return kind, lambda: segment(common.model)
    if tiny and way < 0.9:
        return kind, lambda: train(common, {}, learn)
    return kind, lambda: read_all(common.model, large=not tiny)


def _with_odd_keys(raw: dict, random: np.random.Generator) -> dict:
    place = _some(random, list(_places(raw)) or [('x',)])
    parent = _parent(raw, place)
    if isinstance(parent, dict):
        parent[_some(random, [3, None, (1, 2), 2.5, True])] = 1
    return raw


def _read_dict(raw: dict) -> str:
    read_configuration(raw)
    return 'read'


def read_all(model: Path, large: bool) -> str:
    """Read the configuration of a directory, make its preprocessor and its network."""
    settings = read_configuration(model)
    picture = np.zeros((48, 64, 3), np.uint8)
    if np.prod(settings.preprocess.scale) <= SMALL:
        SegformerPreprocessor(settings=settings.preprocess)(picture)
    with torch.device('meta' if large else 'cpu'):
        Segformer(**settings.model_section)
    return 'read'


def segment(model: Path) -> str:
    """The pipeline over a directory; what it refuses, reading the configuration refuses too."""
    try:
        raw = json.loads((model / 'configuration.json').read_bytes())
    except (ValueError, RecursionError):
        pipeline(TASK, str(model), device='cpu', engine='torch')
        raise AssertionError('the pipeline reads what is no JSON') from None
    if not is_segformer(raw):
        return read_all(model, large=False)
    segmenter = pipeline(TASK, str(model), device='cpu', engine='torch')
    if np.prod(read_configuration(model).preprocess.scale) > SMALL:
        return 'pipeline made'
    result = segmenter(np.full((48, 64, 3), 100, np.uint8))
    if result['seg_map'].shape != (48, 64):
        raise AssertionError(f'a label map of {result["seg_map"].shape} for a picture of (48, 64)')
    return 'segmented'


def train(common: Common, options: dict, learn: bool) -> str:
    """Make a trainer with a directory's configuration, and let it train when nothing is large."""
    shutil.rmtree(common.work, ignore_errors=True)
    check_file(common.model / 'configuration.json')  # as the command line does: ModelScope runs pip for other models
    trainer = build_trainer(
        'easycv',
        {
            'model': str(common.model),
            'data_root': str(common.data),
            'classes': list(CLASSES),
            'device': 'cpu',
            'work_dir': str(common.work),
            'max_epochs': 1,
            'cfg_options': options,
        },
    )
    small = all(
        trainer.cfg.safe_get(f'{section}.dataloader.{key}') == value
        for section, key, value in (
            ('train', 'workers_per_gpu', 0),
            ('evaluation', 'workers_per_gpu', 0),
            ('train', 'batch_size_per_gpu', 8),
        )
    )
    if not learn or not small or trainer.bare_model.settings.parameters > 10**6:
        return 'trainer made'
    trainer.train()
    return 'trained'


CAMPAIGN = Campaign('configurations', prepare, make, ERRORS, cases=3000)

if __name__ == '__main__':
    sys.exit(main(CAMPAIGN))
