"""What a configuration names and this package does not have, taken from EasyCV or mmcv 1.x where they are installed.

Hooks, learning-rate policies, optimizers and transforms: `foreign` finds their class, and `build_hook`,
`build_lr_hook`, `build_optimizer` and `transform` make what fits our trainer of it. Their hooks see a `Runner`, mmcv's
view of the trainer; what that needs of the trainer stands in `HookedTrainer`. Neither package is imported before a name
of theirs is asked for: importing EasyCV takes seconds and several hundred megabytes. The other way round,
`register_in_easycv` puts our network into EasyCV's own registries.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import ImageFile

from ...errors import SegformerError
from ...files import atomic_write

if TYPE_CHECKING:
    import torch

INSTALL = 'docs/en/easycv.md, in the source of ms-segformer, says how to install them (Python 3.10 at most)'

# kind -> where to look, in this order: (package, module to import, registry or namespace in it)
SOURCES: dict[str, tuple[tuple[str, str, str | None], ...]] = {
    'hook': (('easycv', 'easycv.hooks', 'HOOKS'), ('mmcv', 'mmcv.runner.hooks', 'HOOKS')),
    # EasyCV adds its policies to mmcv's registry when it is imported, so the cheaper package is asked first.
    'lr_policy': (('mmcv', 'mmcv.runner.hooks', 'HOOKS'), ('easycv', 'easycv.hooks', 'runner.hooks.HOOKS')),
    'optimizer': (('easycv', 'easycv.core.optimizer', None), ('mmcv', 'mmcv.runner.optimizer', 'OPTIMIZERS')),
    'transform': (('easycv', 'easycv.datasets', 'registry.PIPELINES'),),
}

_LR_HOOK = 'LrUpdaterHook'

# Hooks of theirs that do what the trainer does itself, or that take part in no training stage.
REFUSED = {
    'OptimizerHook': 'the trainer steps the optimizer itself; clipping goes into train.optimizer.options',
    'AMPFP16OptimizerHook': 'the trainer steps the optimizer itself; set train.amp to fp16',
    'Fp16OptimizerHook': 'the trainer steps the optimizer itself; set train.amp to fp16',
    'GradientCumulativeOptimizerHook': 'set train.optimizer.options.cumulative_iters',
    'GradientCumulativeFp16OptimizerHook': 'set train.optimizer.options.cumulative_iters and train.amp',
    'TensorboardLoggerHookV2': 'it needs the runner of EasyCV; use TensorboardHook',
    'WandbLoggerHookV2': 'it needs the runner of EasyCV; use TensorboardHook',
    'MixupCollateHook': 'it mixes classification labels while batches are collated and is no training hook',
}


class BridgeError(SegformerError, ValueError):
    """A name is known neither here nor in EasyCV or mmcv, or the package that has it is missing or does not load."""


def available() -> dict[str, str | None]:
    """Versions of the installed packages, read from their metadata: nothing is imported.

    Returns:
        `{'easycv': version or None, 'mmcv': version or None}`.
    """
    return {'easycv': _version('easycv', 'pai-easycv'), 'mmcv': _version('mmcv', 'mmcv', 'mmcv-full', 'mmcv-lite')}


def foreign(kind: str, name: str) -> Any:
    """Return what EasyCV or mmcv registered under a name.

    Args:
        kind: 'hook', 'lr_policy', 'optimizer' or 'transform'.
        name: as the configuration writes it, e.g. 'EMAHook', 'CosineAnnealing', 'LARS', 'Rotate'.

    Returns:
        The class, with that package's own interface; see `build_hook`, `build_lr_hook`, `build_optimizer` and
        `transform` for what fits ours.

    Raises:
        BridgeError: naming what was looked for and where, and how to get it.
    """
    wanted = _lr_hook_name(name) if kind == 'lr_policy' else name
    tried: list[str] = []
    failed: list[ImportError] = []
    known: list[str] = []
    for package, module, attribute in SOURCES[kind]:
        if not _installed(package):
            continue
        tried.append(package)
        try:
            names = _names(_load(package, module), attribute)
        except ImportError as error:
            failed.append(error)
            continue
        if wanted in names:
            return names[wanted]
        known += names
    raise BridgeError(_not_found(kind, name, wanted, tried, failed, known)) from (failed[0] if failed else None)


def build_hook(cfg: Mapping[str, Any]) -> Any:
    """Return a ModelScope hook that runs a hook of EasyCV or mmcv.

    Args:
        cfg: the entry of `train.hooks`: `{'type': 'EMAHook', **arguments}`; `priority` is ModelScope's.

    Raises:
        BridgeError: unknown, or a hook that does what the trainer does itself.
    """
    arguments = dict(cfg)
    name, priority = arguments.pop('type'), arguments.pop('priority', 'BELOW_NORMAL')
    if name in REFUSED:
        raise BridgeError(f'the hook {name!r} of EasyCV and mmcv does not go with this trainer: {REFUSED[name]}')
    return _adapt(_construct('hook', name, foreign('hook', name), arguments), priority)


def build_lr_hook(cfg: Mapping[str, Any]) -> Any:
    """Return a ModelScope hook that sets the learning rate by a policy of EasyCV or mmcv.

    Args:
        cfg: the section `train.lr_scheduler`: `{'policy': 'CosineAnnealing', 'min_lr': 0, 'by_epoch': False, …}`,
            `warmup` and its companions among the arguments; `options` is ModelScope's and ignored.

    Raises:
        BridgeError: unknown policy, or arguments it does not take.
    """
    arguments = {key: value for key, value in cfg.items() if key not in ('policy', 'options', 'type')}
    # Before everything else in an iteration, as mmcv's runner orders it.
    return _adapt(_construct('lr_policy', cfg['policy'], foreign('lr_policy', cfg['policy']), arguments), 'VERY_HIGH')


def build_optimizer(
    cfg: Mapping[str, Any], params: Iterable[torch.nn.Parameter] | Iterable[dict[str, Any]]
) -> torch.optim.Optimizer:
    """Return an optimizer of EasyCV or mmcv, e.g. `{'type': 'LARS', 'lr': 0.1}`.

    Args:
        cfg: type and arguments, without `options` and `paramwise_options`.
        params: iterable of parameters or of parameter groups, as torch's optimizers take them.

    Raises:
        BridgeError: unknown optimizer, or arguments it does not take.
    """
    arguments = dict(cfg)
    name = arguments.pop('type')
    built: torch.optim.Optimizer = _construct(
        'optimizer', name, foreign('optimizer', name), {'params': params, **arguments}
    )
    return built


def transform(name: str) -> type | None:
    """Return EasyCV's transform class of a name, or None where there is none: the `fallback` of `datasets.transforms`.

    The class gets images as float32, as EasyCV's data sources hand them out.

    Raises:
        BridgeError: EasyCV is installed but does not load.
    """
    if not _installed('easycv'):
        return None
    _, module, attribute = SOURCES['transform'][0]
    try:
        found = _names(_load('easycv', module), attribute).get(name)
    except ImportError as error:
        raise BridgeError(
            f"transform {name!r} might be EasyCV's, which is installed but does not load: {error}"
        ) from error
    return None if found is None else _on_float_images(found)


def register_in_easycv() -> list[str]:
    """Put our network into EasyCV's registries and return the names: see `ms_segformer.models.easycv_registry`.

    Raises:
        BridgeError: EasyCV is not installed or does not load.
    """
    if not _installed('easycv'):
        raise BridgeError(f'EasyCV is not installed; {INSTALL}')
    try:
        _load('easycv', 'easycv.models')
        from ...models import easycv_registry  # imported late: it needs EasyCV, and registers our network there
    except ImportError as error:
        raise BridgeError(f'EasyCV is installed but does not load: {error}') from error
    return easycv_registry.NAMES


# --- finding --------------------------------------------------------------------------------------------------------


def _installed(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None  # a mere folder of that name on the path has no origin


def _version(module: str, *distributions: str) -> str | None:
    if not _installed(module):
        return None
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return 'unknown'


def _load(package: str, module: str) -> ModuleType:
    """Import a module of theirs, without what their import does to the rest of the process."""
    if package == 'easycv' and not _installed('cityscapesscripts'):
        raise ImportError('its import would run `pip install cityscapesscripts`; install that package first')
    truncated = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(f'{error}{_mmcv_hint(package)}') from error
    except (AttributeError, AssertionError, RuntimeError) as error:  # an incompatible numpy, torch or mmcv._ext
        raise ImportError(f'{type(error).__name__}: {error}') from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = truncated


def _mmcv_hint(package: str) -> str:
    version = available()['mmcv'] if package == 'mmcv' else None
    return f' (mmcv {version}; hooks and optimizers were last in 1.7.2)' if version else ''


def _names(module: ModuleType, attribute: str | None) -> dict[str, Any]:
    """Return {name: class} of a registry, or of a module that serves as one."""
    if attribute is None:
        return {name: value for name, value in vars(module).items() if isinstance(value, type)}
    if attribute == 'runner.hooks.HOOKS':
        module, attribute = importlib.import_module('mmcv.runner.hooks'), 'HOOKS'
    registry: Any = module
    for part in attribute.split('.'):
        registry = getattr(registry, part)
    return dict(registry._module_dict)


def _lr_hook_name(policy: str) -> str:
    # Their rule: a policy in lower case gets a capital, any other is taken as it stands.
    return (policy.title() if policy == policy.lower() else policy) + _LR_HOOK


def _not_found(
    kind: str, name: str, wanted: str, tried: Sequence[str], failed: Sequence[ImportError], known: Collection[str]
) -> str:
    what = _what(kind, name)
    if failed:
        return (
            f"{what} is not one of ms-segformer's or ModelScope's; {' and '.join(tried)} might have it and "
            f'{"is" if len(tried) == 1 else "are"} installed, but does not load: {failed[0]}'
        )
    if not tried:
        return (
            f"{what} is not one of ms-segformer's or ModelScope's, and EasyCV and mmcv 1.x, which might have it, "
            f'are not installed. Correct the name; {INSTALL}'
        )
    if kind == 'lr_policy':
        known = [item[: -len(_LR_HOOK)] for item in known if item.endswith(_LR_HOOK)]
        wanted = name
    written = {item.lower(): item for item in known}
    close = [written[item] for item in difflib.get_close_matches(wanted.lower(), sorted(written), n=3, cutoff=0.5)]
    hint = f' Did you mean {", ".join(close)}?' if close else ''
    return (
        f'{what} is known neither to ms-segformer and ModelScope nor to the installed '
        f'{" and ".join(f"{package} {available()[package]}" for package in tried)}.{hint}'
    )


def _what(kind: str, name: str) -> str:
    return f'{kind.replace("lr_policy", "learning-rate policy")} {name!r}'


def _construct(kind: str, name: str, cls: type, arguments: Mapping[str, Any]) -> Any:
    try:
        return cls(**arguments)
    except (TypeError, ValueError, AssertionError) as error:
        given = {key: value for key, value in arguments.items() if key != 'params'}
        takes = [key for key in inspect.signature(cls).parameters if key != 'params']
        raise BridgeError(
            f'{_what(kind, name)} of {cls.__module__.split(".")[0]} does not take {given}'
            f'{f": {error}" if str(error) else ""}. It takes {", ".join(takes)}'
        ) from error


# --- hooks ----------------------------------------------------------------------------------------------------------

# mmcv's stages; ModelScope calls them by the same names and at the same moments.
STAGES = (
    'before_run',
    'before_train_epoch',
    'before_train_iter',
    'after_train_iter',
    'after_train_epoch',
    'before_val_epoch',
    'before_val_iter',
    'after_val_iter',
    'after_val_epoch',
    'after_run',
)

# trainer -> the Runner all its foreign hooks share
_runners: weakref.WeakKeyDictionary[HookedTrainer, Runner] = weakref.WeakKeyDictionary()


class HookedTrainer(Protocol):
    """What the `Runner` below needs of the trainer; ModelScope's `EpochBasedTrainer` has all of it."""

    hooks: list
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    data_loader: torch.utils.data.DataLoader
    train_outputs: dict[str, Any]
    _metric_values: dict[str, float] | None  # of the last evaluation, a new dict each; None before the first

    @property
    def epoch(self) -> int: ...

    @property
    def iter(self) -> int: ...

    @property
    def max_epochs(self) -> int: ...

    @property
    def max_iters(self) -> int: ...


class Runner:
    """A ModelScope trainer as hooks of mmcv and EasyCV see it: the attributes of mmcv's runner.

    What hooks set stays here and is seen by the other hooks; everything else is the trainer's.
    """

    def __init__(self, trainer: HookedTrainer) -> None:
        self.trainer: HookedTrainer = weakref.proxy(trainer)
        self.meta: dict[str, Any] = {'hook_msgs': {}}
        self._evaluations: list[tuple[dict[str, float], dict[str, float]]] = []

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(self.trainer, name)
        except AttributeError:
            raise AttributeError(
                f"neither the trainer nor what stands for mmcv's runner here has {name!r}, which a "
                'hook of EasyCV or mmcv asks for'
            ) from None

    @property
    def hooks(self) -> list:
        return [getattr(hook, 'foreign', hook) for hook in self.trainer.hooks]

    @property
    def outputs(self) -> dict[str, Any]:
        """Outputs of the last training step, `num_samples` among them."""
        outputs = dict(self.trainer.train_outputs)
        outputs.setdefault('num_samples', getattr(self.trainer.data_loader, 'batch_size', 1))
        outputs.setdefault('log_vars', {})
        return outputs

    @property
    def rank(self) -> int:
        return _process()[0]

    @property
    def world_size(self) -> int:
        return _process()[1]

    _rank = rank
    _hooks = hooks

    @property
    def _max_epochs(self) -> int:
        return self.trainer.max_epochs

    @property
    def _max_iters(self) -> int:
        return self.trainer.max_iters

    @property
    def eval_res(self) -> dict[str, list[dict[str, float]]]:
        """Every evaluation so far as EasyCV keeps them: `{'evaluation': [{'runner_epoch': …, metric: value}]}`."""
        values = self.trainer._metric_values
        if values and not any(seen is values for seen, _ in self._evaluations):
            self._evaluations.append((values, {'runner_epoch': self.trainer.epoch, **values}))
        return {'evaluation': [record for _, record in self._evaluations]}

    def save_checkpoint(
        self,
        out_dir: str,
        filename_tmpl: str = 'epoch_{}.pth',
        save_optimizer: bool = True,
        meta: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Write weights (and optimizer state) into a folder in mmcv's layout, as the hooks that save ask for it."""
        from mmcv.runner import save_checkpoint  # optional

        path = os.path.join(out_dir, filename_tmpl.format(self.trainer.epoch + 1))
        optimizer = self.trainer.optimizer if save_optimizer else None
        meta = {'epoch': self.trainer.epoch + 1, 'iter': self.trainer.iter, **(meta or {})}
        with atomic_write(path) as temporary:
            save_checkpoint(self.trainer.model, str(temporary), optimizer, meta)


def _process() -> tuple[int, int]:
    import torch.distributed as dist  # imported late: what is installed is told without torch

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def _adapt(hook: Any, priority: str | int) -> Any:
    """Wrap a hook of theirs as one of ModelScope's."""
    # Imported late: all but hooks does without ModelScope.
    from modelscope.trainers.hooks.hook import Hook
    from modelscope.trainers.hooks.priority import get_priority

    def stage(name: str) -> Callable[[Any, HookedTrainer], None]:
        def run(self: Any, trainer: HookedTrainer) -> None:
            runner = _runners.get(trainer)
            if runner is None:
                runner = _runners[trainer] = Runner(trainer)
            method = getattr(self.foreign, name, None)
            if method is not None:
                method(runner)

        run.__name__ = name
        return run

    # One class per kind of hook, so that ModelScope's overview of the hooks names it and the stages it takes part in.
    members = {name: stage(name) for name in _stages_of(hook)}
    cls = type(type(hook).__name__, (Hook,), {**members, '__module__': __name__, 'PRIORITY': get_priority(priority)})
    adapter = cls()
    adapter.foreign = hook
    return adapter


def _stages_of(hook: Any) -> Iterable[str]:
    triggered = getattr(hook, 'get_triggered_stages', None)
    return triggered() if triggered else [name for name in STAGES if hasattr(hook, name)]


# --- transforms -----------------------------------------------------------------------------------------------------


def _on_float_images(cls: type) -> type:
    """Subclass of a transform of theirs that is called with float32 images."""

    def call(self: Any, results: dict[str, Any]) -> Any:
        for key in results.get('img_fields', ['img']):
            image = results.get(key)
            if isinstance(image, np.ndarray) and image.dtype == np.uint8:
                results[key] = image.astype(np.float32)
        return cls.__call__(self, results)

    return type(cls.__name__, (cls,), {'__call__': call, '__module__': cls.__module__, '__doc__': cls.__doc__})
