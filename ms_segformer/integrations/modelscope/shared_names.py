"""The names under which ModelScope finds the classes of this package, and how they are shared with an installed EasyCV.

Under a name that both register, SegFormer gets our class and everything else EasyCV's, whichever is imported first.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ...config.recognition import is_segformer
from .changes import Change, Replace, Unexpected, class_of, function_of, like

Component = tuple[str, str, str]  # registry, group, name

# What ModelScope finds lazily -> module that registers it when imported.
COMPONENTS: dict[Component, str] = {
    ('MODELS', 'image-segmentation', 'Segformer'): 'ms_segformer.models.segformer',
    ('PREPROCESSORS', 'cv', 'segformer-preprocessor'): 'ms_segformer.preprocessors.segformer',
    ('PIPELINES', 'image-segmentation', 'easycv-segmentation'): 'ms_segformer.pipelines.image_segmentation',
    ('TRAINERS', 'default', 'easycv'): 'ms_segformer.trainers.easycv_trainer',
    ('CUSTOM_DATASETS', 'image-segmentation', 'SegDataset'): 'ms_segformer.datasets.seg_dataset',
    ('METRICS', 'default', 'EasyCVMetric'): 'ms_segformer.metrics.segmentation',
    ('HOOKS', 'default', 'AddLrLogHook'): 'ms_segformer.trainers.hooks',
    ('EXPORTERS', 'image-segmentation', 'Segformer'): 'ms_segformer.exporters.segformer_exporter',
}

_displaced: dict[Component, type] = {}  # the class of another package under the same name
_registered: dict[Component, tuple[Any, type]] = {}  # the registry and our class in it
_inside = threading.local()  # .depth: how many `own_names` blocks this thread is in


def is_segformer_model(model: object, revision: str | None = None) -> bool:
    """Whether a model (instance, directory, hub id, or a list of one of these) is SegFormer.

    A hub id is looked up by its configuration, which ModelScope has in its cache by the time this is asked.
    """
    if isinstance(model, (list, tuple)) and model:
        model = model[0]
    if not isinstance(model, (str, os.PathLike)):
        if type(model).__module__.startswith('ms_segformer.'):
            return True
        model = getattr(model, 'model_dir', None)
        if model is None:
            return False
    from modelscope.utils.hub import read_config  # imported late: importing this module imports nothing of ModelScope

    try:
        return is_segformer(read_config(str(model), **({'revision': revision} if revision else {})))
    except (OSError, ValueError):  # no configuration there: nothing of ours, and ModelScope words the error
        return False


@contextmanager
def own_names() -> Iterator[None]:
    """Inside it the names EasyCV shares with this package mean this package's classes.

    Only of consequence where pai-easycv is installed and imported. Metrics, hooks and data sets are built by name
    alone, so the trainer says whose they are: `with own_names(): build_metric('EasyCVMetric')`. Counted per thread, so
    that a trainer of EasyCV in another thread is not affected.
    """
    _inside.depth = getattr(_inside, 'depth', 0) + 1
    try:
        yield
    finally:
        _inside.depth -= 1


class _Registered:
    """Our classes in ModelScope's registries: put back after a `deactivate`, and taken out by it."""

    def make(self) -> None:
        for (_, group, name), (registry, ours) in _registered.items():
            registry.register_module(group, name, ours, force=True)

    def undo(self) -> None:
        for component, (registry, ours) in _registered.items():
            group = registry.modules.get(component[1], {})
            if group.get(component[2]) is ours:
                del group[component[2]]
                if component in _displaced:
                    group[component[2]] = _displaced[component]


def share_with_easycv(module: ModuleType) -> Iterator[Change]:
    """Under a name both packages use, SegFormer gets our class and everything else EasyCV's, in any import order."""
    registry = class_of(module, 'Registry')
    register = function_of(registry, '_register_module', 'group_key', 'module_name', 'module_cls', 'force')
    get = function_of(registry, 'get', 'module_key', 'group_key')
    if not {'_name', '_modules'} <= set(vars(registry('probe'))):
        raise Unexpected('Registry keeps its modules elsewhere')

    @like(register)
    def _register_module(
        self: Any,
        group_key: str = 'default',
        module_name: str | None = None,
        module_cls: Any = None,
        force: bool = False,
    ) -> Any:
        component = (self._name.upper(), group_key, module_name or getattr(module_cls, '__name__', None))
        if component in COMPONENTS:
            present = self._modules.get(group_key, {}).get(component[2])
            if _ours(module_cls):
                if present is not None and not _ours(present):
                    _displaced[component] = present
                _registered[component] = (self, module_cls)
                force = True
            elif _of_easycv(module_cls) and _ours(present):
                _displaced[component] = module_cls
                module_cls.group_key = group_key
                return None
        return register(self, group_key=group_key, module_name=module_name, module_cls=module_cls, force=force)

    @like(get)
    def lookup(self: Any, module_key: str, group_key: str = 'default') -> Any:
        found = get(self, module_key, group_key)
        component = (self._name.upper(), group_key, module_key)
        if component in _displaced and _ours(found):
            return _choose(component, found, _displaced[component])
        return found

    yield Replace(registry, '_register_module', _register_module)
    yield Replace(registry, 'get', lookup)
    yield _Registered()


def _choose(component: Component, ours: type, other: type) -> Any:
    """Return what stands for a shared name: a class, or a function that decides by the model it is built for."""
    if component[0] in ('METRICS', 'HOOKS', 'CUSTOM_DATASETS'):
        return ours if getattr(_inside, 'depth', 0) else other
    if component[0] not in ('PIPELINES', 'TRAINERS'):
        return ours

    def build(**arguments: Any) -> Any:
        chosen = ours if is_segformer_model(arguments.get('model'), arguments.get('model_revision')) else other
        return getattr(chosen, '_instantiate', chosen)(**arguments)

    build.__name__ = component[2]
    return build


def _ours(cls: object) -> bool:
    return getattr(cls, '__module__', '').split('.')[0] == 'ms_segformer'


def _of_easycv(cls: object) -> bool:
    return getattr(cls, '__module__', '').split('.')[0] == 'easycv'
