"""What stands in a configuration besides the network: one table of sections, keys, types and ranges.

`config` reads what prediction needs and refuses what it cannot use. Training needs more, and takes options from the
command line or from code, where a mistyped key would change nothing and say nothing. Here

- `merged` puts options into a configuration, and refuses one whose key is none, with the nearest one in the message. A
  key that the configuration file itself has is accepted; so is anything in a hook, and in the section of an optimizer
  or of a learning-rate policy that another package brings.
- `check_sections` refuses values of another type or out of range. Of keys in a file that are not read it warns, once:
  converters and users leave more there than is needed. Only a data loader refuses them, for PyTorch's takes no others.
"""

import inspect
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..metainfo import IGNORE_INDEX, MODEL
from . import limits
from .jsonplus import decode_jsonplus, load_json, plain
from .messages import ConfigurationError, nearest, shown, warn_once
from .reader import BACKBONE_KEYS, HEAD_KEYS, LOSS_KEYS, MODEL_KEYS, TEST_KEYS, is_number
from .recognition import check_pipeline, type_in

OPTIONS = 'cfg_options (--options)'


# --- kinds of values -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """What a value may be, in words and as a test; null is always accepted and means that the key is not there."""

    words: str
    accepts: Callable[[Any], bool]


@dataclass(frozen=True)
class Section:
    """A mapping.

    Attributes:
        keys: what its keys may be; or a function from the section to that, None for a section of another package's.
        unknown: what a key means that is none of them, in a file: `warn`, `refuse`, or `accept` (others say so).
    """

    keys: dict | Callable[[dict], dict | None]
    unknown: str = 'warn'

    def known(self, values: dict) -> dict | None:
        return self.keys(values) if callable(self.keys) else self.keys


@dataclass(frozen=True)
class Sections:
    """A list of mappings of one kind."""

    each: Section


Node = Kind | Section | Sections


def integer(low: int, high: int) -> Kind:
    return Kind(f'an integer from {low} to {high}', lambda value: is_number(value, int) and low <= value <= high)


def number(low: float, high: float) -> Kind:
    return Kind(f'a number from {low:g} to {high:g}', lambda value: is_number(value, float) and low <= value <= high)


def one_of(*accepted: str) -> Kind:
    return Kind(' or '.join(map(repr, accepted)), lambda value: isinstance(value, str) and value in accepted)


def either(*kinds: Kind) -> Kind:
    return Kind(' or '.join(kind.words for kind in kinds), lambda value: any(kind.accepts(value) for kind in kinds))


def several(kind: Kind, count: int | None = None) -> Kind:
    return Kind(
        f'a list of {count} values, each {kind.words}' if count else f'a list, each {kind.words}',
        lambda value: (
            isinstance(value, (list, tuple)) and count in (None, len(value)) and all(map(kind.accepts, value))
        ),
    )


def wrong_value(values: dict, kinds: dict[str, Kind]) -> str | None:
    """What is wrong with the first of some arguments that is not of its kind, in words; null is always right."""
    for key, kind in kinds.items():
        value = values.get(key)
        if value is not None and not kind.accepts(value):
            return f'{key} is {shown(value)}; accepted: {kind.words}'
    return None


ANY = Kind('anything', lambda value: True)
FLAG = Kind('true or false', lambda value: isinstance(value, bool))
TEXT = Kind('text', lambda value: isinstance(value, str))
MAPPING = Kind('a mapping', lambda value: isinstance(value, dict))
COUNT = integer(1, 10**9)
FACTOR = number(0, 1e6)
SHARE = number(0, 1)


# --- the table -------------------------------------------------------------------------------------------------------

_PATH = Kind('a path', lambda value: isinstance(value, (str, os.PathLike)) and '\0' not in os.fspath(value))
_TEXTS = either(TEXT, several(TEXT))
_NAMES = Kind(
    'a list of names, or the path of a text file', either(_PATH, several(either(TEXT, number(-1e9, 1e9)))).accepts
)
SOURCE = {
    'type': TEXT,
    'path': _PATH,
    'img_root': _PATH,
    'label_root': _PATH,
    'split': either(_PATH, several(TEXT)),
    'classes': _NAMES,
    'img_suffix': _TEXTS,
    'label_suffix': _TEXTS,
    'reduce_zero_label': FLAG,
    'raw_ids': FLAG,
    'palette': several(several(integer(0, 255), 3)),
    'ignore_index': integer(0, IGNORE_INDEX),
    'to_float32': FLAG,
    'num_processes': integer(0, limits.WORKERS),
    'cache_at_init': FLAG,
    'cache_on_the_fly': FLAG,
    'image_column': TEXT,
    'label_column': TEXT,
    'unlabeled': TEXT,
}
_DATASET = Section(
    {
        'type': TEXT,
        'data_source': Section(SOURCE, 'accept'),
        'pipeline': ANY,
        'mode': ANY,
        'split_config': ANY,
        'ignore_index': integer(0, IGNORE_INDEX),
        'preprocessor': ANY,
        'seed': integer(0, limits.LARGEST_SEED),
        'profiling': ANY,
    },
    'accept',
)
_LOADER = Section(
    {
        'batch_size_per_gpu': integer(1, limits.BATCH),
        'workers_per_gpu': integer(0, limits.WORKERS),
        'shuffle': FLAG,
        'drop_last': FLAG,
        'persistent_workers': FLAG,
        'pin_memory': FLAG,
        'prefetch_factor': integer(1, limits.BATCH),
        'timeout': number(0, 86_400),
        'multiprocessing_context': one_of('fork', 'forkserver', 'spawn'),
        'pin_memory_device': TEXT,
    },
    'refuse',
)
_EVERY = {'interval': integer(0, 10**9), 'by_epoch': FLAG}
_CHECKPOINT = {
    **_EVERY,
    'save_strategy': TEXT,
    'save_dir': TEXT,
    'output_dir': TEXT,
    'output_sub_dir': TEXT,
    'save_last': FLAG,
    'max_checkpoint_num': COUNT,
    'push_to_hub': FLAG,
    'hub_repo_id': TEXT,
    'hub_token': TEXT,
    'private_hub': FLAG,
    'hub_revision': TEXT,
    'upload_strategy': TEXT,
    'save_trainer_state': FLAG,
}
_BEST = {
    **_CHECKPOINT,
    'metric_key': TEXT,
    'save_best': FLAG,
    'rule': one_of('max', 'min'),
    'save_file_name': TEXT,
    'restore_best': FLAG,
}
_WARMUP = {
    'policy': TEXT,
    'type': TEXT,
    'by_epoch': FLAG,
    'warmup': TEXT,
    'warmup_iters': integer(0, 10**9),
    'warmup_ratio': FACTOR,
    'warmup_by_epoch': FLAG,
    'options': ANY,
}
_POLICIES = {
    'fixed': {},
    'poly': {'power': FACTOR, 'min_lr': FACTOR},
    'exp': {'gamma': FACTOR},
    'cosine': {'min_lr': FACTOR, 'min_lr_ratio': SHARE},
    'step': {'step': either(COUNT, several(COUNT)), 'gamma': FACTOR, 'min_lr': FACTOR},
}
_STEPS = {'cumulative_iters': COUNT, 'grad_clip': MAPPING, 'loss_keys': ANY}
PARAMWISE = {  # besides `custom_keys`: mmcv's, by the kind of layer; other keys are patterns of names
    **dict.fromkeys(
        ('bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'dwconv_decay_mult', 'dcn_offset_lr_mult'), FACTOR
    ),
    'bypass_duplicate': FLAG,
}
_MULTIPLIERS = Section({'lr_mult': FACTOR, 'decay_mult': FACTOR, 'weight_decay_mult': FACTOR}, 'refuse')


def policy_name(section: Mapping[str, Any]) -> str:
    """The lower-case policy of a `train.lr_scheduler` section, else ''.

    `policy: poly` and `type: PolyLrUpdaterHook` are the same.
    """
    name = section.get('policy')
    if name is None:
        match = re.fullmatch(r'(\w+)LrUpdaterHook', str(section.get('type', '')))
        name = match[1] if match else ''
    name = str(name).lower()
    return {'cosineannealing': 'cosine', 'cosineannealinglr': 'cosine'}.get(name, name)


def _schedule(section: dict) -> dict | None:
    own = _POLICIES.get(policy_name(section)) if type(section.get('policy')) in (str, type(None)) else {}
    return None if own is None else {**_WARMUP, **own}


def _optimizer(section: dict) -> dict | None:
    import torch  # imported late: a configuration is read without it

    name = section.get('type', 'AdamW')
    cls = getattr(torch.optim, name, None) if isinstance(name, str) else None
    if not inspect.isclass(cls) or not issubclass(cls, torch.optim.Optimizer):
        return None
    arguments = {
        key: _like_default(parameter.default)
        for key, parameter in inspect.signature(cls).parameters.items()
        if key != 'params'
    }
    return {
        **arguments,
        'type': TEXT,
        'lr': FACTOR,
        'weight_decay': FACTOR,
        'options': Section(_STEPS),
        'paramwise_options': Section(_paramwise),
        'paramwise_cfg': Section(_paramwise),
    }


def _like_default(default: Any) -> Kind:
    """The kind of an argument of torch's optimizers, which trip over other kinds in their own ways."""
    amount = Kind('a number', number(-1e9, 1e9).accepts)
    if isinstance(default, tuple):
        return several(Kind(amount.words, lambda value: value is None or amount.accepts(value)), len(default))
    return FLAG if isinstance(default, bool) else amount if isinstance(default, (int, float)) else either(FLAG, amount)


def _paramwise(section: dict) -> dict:
    patterns = dict.fromkeys(section, _MULTIPLIERS)
    return {**patterns, 'custom_keys': Section(lambda keys: dict.fromkeys(keys, _MULTIPLIERS)), **PARAMWISE}


_LOGGING = {
    'interval': COUNT,
    'by_epoch': FLAG,
    'ignore_last': FLAG,
    'reset_flag': FLAG,
    'out_dir': TEXT,
    'ignore_rounding_keys': ANY,
    'rounding_digits': integer(0, 100),
}
_PERIOD = {'interval': COUNT, 'by_epoch': FLAG, 'eval_strategy': TEXT, 'start_idx': integer(0, 10**9)}
_HOOKS = {  # that have a place of their own, where their values are checked
    'CheckpointHook': _CHECKPOINT,
    'BestCkptSaver': _BEST,
    'BestCkptSaverHook': _BEST,
    'TextLoggerHook': _LOGGING,
    'EvaluationHook': _PERIOD,
}


def _hook(section: dict) -> dict | None:
    known = _HOOKS.get(section['type'])
    return known and dict.fromkeys(('type', *known), ANY)


_TRAIN = Section(
    {
        'work_dir': TEXT,
        'max_epochs': integer(0, limits.EPOCHS),
        'train_iters_per_epoch': COUNT,
        'dataloader': _LOADER,
        'optimizer': Section(_optimizer),
        'optimizer_hook': Section(_STEPS, 'accept'),
        'lr_scheduler': Section(_schedule),
        'lr_scheduler_hook': MAPPING,
        'hooks': Sections(Section(_hook, 'accept')),
        'checkpoint': Section({'period': Section(_CHECKPOINT), 'best': Section(_BEST)}),
        'logging': Section(_LOGGING),
        'amp': either(TEXT, FLAG),
        'ema': either(SHARE, FLAG),
        'loss_at_logits_size': FLAG,
        'deterministic': FLAG,
    }
)
_EVALUATION = Section({'dataloader': _LOADER, 'metrics': ANY, 'val_iters_per_epoch': COUNT, 'period': Section(_PERIOD)})
# Types and ranges of the model are `config`'s to read.
_NORM = Section(dict.fromkeys(('type', 'requires_grad', 'eps', 'momentum'), ANY), 'accept')
_ACTIVATION = Section({'type': ANY}, 'accept')
_MODEL = Section(
    {
        **dict.fromkeys(MODEL_KEYS, ANY),
        'backbone': Section({**dict.fromkeys(BACKBONE_KEYS, ANY), 'norm_cfg': _NORM, 'act_cfg': _ACTIVATION}, 'accept'),
        'decode_head': Section(
            {
                **dict.fromkeys(HEAD_KEYS, ANY),
                'norm_cfg': _NORM,
                'act_cfg': _ACTIVATION,
                'loss_decode': Section(dict.fromkeys(LOSS_KEYS, ANY), 'accept'),
            },
            'accept',
        ),
        'test_cfg': Section(dict.fromkeys(TEST_KEYS, ANY), 'accept'),
    },
    'accept',
)
SCHEMA = Section(
    {
        'task': TEXT,
        'framework': TEXT,
        'plugins': either(_TEXTS, MAPPING),
        'preprocessor': MAPPING,
        'test_pipeline': ANY,
        'pipeline': Section({'type': TEXT}, 'accept'),
        **dict.fromkeys(('CLASSES', 'PALETTE', 'classes'), ANY),
        'data_root': _PATH,
        'load_from': _PATH,
        'model': _MODEL,
        'dataset': Section({'train': _DATASET, 'val': _DATASET}, 'accept'),
        'train': _TRAIN,
        'evaluation': _EVALUATION,
    },
    'accept',
)


# --- options ---------------------------------------------------------------------------------------------------------


def merged(configuration: dict, options: dict) -> dict:
    """Return a configuration with options merged into it.

    Mappings are merged key by key, a number in a key picks an entry of a list, and anything else replaces what was
    there, lists as a whole. Only the hooks in `train.hooks` are told apart by their type, as ModelScope does it: a list
    with one hook changes or adds that one. `"_delete_": true` in a mapping replaces the one before as a whole.

    Args:
        configuration: plain dicts and lists, with tuples decoded.
        options: `{'train.max_epochs': 3}` or `{'train': {'max_epochs': 3}}`.

    Raises:
        ConfigurationError: an unknown key (the message has the nearest one), or one in something that has no keys.
    """
    options = decode_jsonplus(plain(options, OPTIONS))
    trees = []
    for key, value in options.items():
        for part in reversed(key.split('.')):
            value = {part: value}
        trees.append(value)
    result = configuration
    for tree in trees:
        result = _merged(result, tree, '')
    for tree in trees:
        _check_keys(tree, SCHEMA, configuration, result, '')
    return result


def _merged(old: Any, new: Any, path: str) -> Any:
    if path == 'train.hooks' and _are_typed(old) and _are_typed(new):
        return _merged_hooks(old, new)
    if not isinstance(new, dict):
        return _like(new, old)
    if new.get('_delete_'):
        return {key: value for key, value in new.items() if key != '_delete_'}
    if isinstance(old, (list, tuple)) and all(key.isdecimal() for key in new):
        items = list(old)
        for key, value in new.items():
            if int(key) >= len(items):
                raise ConfigurationError(
                    f'{OPTIONS}: {_join(path, key)} does not exist; {path} has {len(items)} entries, counted from 0'
                )
            items[int(key)] = _merged(items[int(key)], value, _join(path, key))
        return type(old)(items)
    old = {} if old is None else old
    if not isinstance(old, dict):
        raise ConfigurationError(
            f'{OPTIONS}: {path} is {shown(old)} in the configuration, which has no key '
            f'{shown(next(iter(new), ""))}; give {path} as a whole'
        )
    return {**old, **{key: _merged(old.get(key), value, _join(path, key)) for key, value in new.items()}}


def _merged_hooks(old: list | tuple, new: list | tuple) -> list:
    rest, hooks = list(new), []
    for hook in old:
        same = next((one for one in rest if one['type'] == hook['type']), None)
        if same is not None:
            rest.remove(same)
        hooks.append(hook if same is None else _merged(hook, same, 'train.hooks.'))
    return hooks + rest


def _like(new: Any, old: Any) -> Any:
    """Lists and tuples as the configuration has them: EasyCV's transforms refuse lists in the place of tuples."""
    if isinstance(new, dict) and isinstance(old, dict):
        return {key: _like(item, old.get(key)) for key, item in new.items()}
    if not isinstance(new, (list, tuple)) or not isinstance(old, (list, tuple)):
        return new
    before = {item['type']: item for item in old if _are_typed([item])}
    return type(old)(_like(item, before.get(item['type']) if _are_typed([item]) else None) for item in new)


def _are_typed(items: Any) -> bool:
    return isinstance(items, (list, tuple)) and all(
        isinstance(item, dict) and isinstance(item.get('type'), str) for item in items
    )


def _join(path: str, key: str) -> str:
    return f'{path}.{key}' if path else key


def _check_keys(tree: dict, section: Section, before: Any, after: Any, path: str) -> None:
    """Refuse keys of an option that neither the table nor the file has; `before` and `after` it was merged."""
    before, after = ({} if not isinstance(value, dict) else value for value in (before, after))
    known = section.known(after)
    if known is None:
        return
    for key, value in tree.items():
        if key not in known and key not in before and key != '_delete_':
            raise ConfigurationError(f'{OPTIONS}: {_unknown(_join(path, key), key, known)}')
        node, old, new, below = known.get(key), before.get(key), after.get(key), _join(path, key)
        if isinstance(node, Sections) and _are_typed(new):
            _check_keys_of_list(value, node.each, old, new, below)
        elif isinstance(value, dict) and isinstance(node, Section):
            _check_keys(value, node, old, new, below)


def _check_keys_of_list(tree: Any, each: Section, before: Any, after: list | tuple, path: str) -> None:
    """`tree`: the new mappings, or some of them by their number."""
    before = {item['type']: item for item in before} if _are_typed(before) else {}
    whole = {item['type']: item for item in after}
    numbered = isinstance(tree, dict)
    for number, item in tree.items() if numbered else enumerate(tree):
        if isinstance(item, dict):
            kind = (after[int(number)] if numbered else item)['type']
            _check_keys(item, each, before.get(kind), whole[kind], f'{path}[{number}]')


def _unknown(path: str, key: str, known: dict) -> str:
    text = ', '.join(sorted(known))
    return f'unknown key {shown(path, quoted=False)}{nearest(key, known)}; accepted: {text}'


# --- sections --------------------------------------------------------------------------------------------------------


def check_sections(raw: dict, name: str) -> None:
    """Refuse what cannot be used of a configuration's `dataset`, `train` and `evaluation` sections.

    Args:
        raw: the configuration as plain dicts and lists, with tuples decoded.
        name: of its file, for messages.

    Raises:
        ConfigurationError: a value of another type or out of range, or a section that is no mapping.
    """
    _check_shape(raw, name)
    _check(SCHEMA, raw, name, '')


def check_file(path: str | os.PathLike) -> None:
    """Refuse a configuration file that ModelScope's trainer would trip over before it asks this package.

    Raises:
        ConfigurationError: it is not JSON, a section is no mapping, or the model is no SegFormer: for another one of
            EasyCV's ModelScope would run pip.
    """
    if not os.fspath(path).endswith('.json'):
        return
    raw = load_json(Path(path))
    _check_shape(raw, os.fspath(path))
    if type_in(raw, 'model') != MODEL:
        _refuse(os.fspath(path), 'model.type', type_in(raw, 'model'), repr(MODEL))
    check_pipeline(raw, os.fspath(path))


def _check_shape(raw: dict, name: str) -> None:
    for section in ('model', 'dataset', 'train', 'evaluation'):
        if (section in raw or section == 'model') and not isinstance(raw.get(section), dict):
            _refuse(name, section, raw.get(section), MAPPING.words)
    hooks = raw.get('train', {}).get('hooks', [])
    if not _are_typed(hooks):
        _refuse(name, 'train.hooks', hooks, 'a list of mappings, each with its type')


def _check(node: Node, value: Any, name: str, path: str) -> None:
    if value is None:
        return
    if isinstance(node, Kind):
        if not node.accepts(value):
            _refuse(name, path, value, node.words)
    elif isinstance(node, Sections):
        if not _are_typed(value):
            _refuse(name, path, value, 'a list of mappings, each with its type')
        for index, item in enumerate(value):
            _check(node.each, item, name, f'{path}[{index}]')
    elif not isinstance(value, dict):
        _refuse(name, path, value, MAPPING.words)
    else:
        _check_section(node, value, name, path)


def _check_section(section: Section, values: dict, name: str, path: str) -> None:
    known = section.known(values)
    if known is None:
        return
    for key, value in values.items():
        if key in known:
            _check(known[key], value, name, _join(path, key))
        elif section.unknown == 'refuse':
            raise ConfigurationError(f'{name}: {_unknown(_join(path, key), key, known)}')
        elif section.unknown == 'warn':
            warn_once(f'{name}: {shown(_join(path, key), quoted=False)} is not read{nearest(key, known)}')


def _refuse(name: str, path: str, value: Any, accepted: str) -> None:
    found = 'missing or null' if value is None else shown(value)
    raise ConfigurationError(f'{name}: {path} is {found}; accepted: {accepted}')
