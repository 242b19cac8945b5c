"""Makes ModelScope resolve SegFormer models to this package: every change in ModelScope is in the list `PATCHES`.

`ms_segformer.activate()`, which `import ms_segformer` calls, has eight modules of ModelScope changed, each in the
moment it is imported (`autoload` waits for that), so that neither ModelScope nor torch is imported before the user does
so; `ms_segformer.deactivate()` undoes all of it:

- `modelscope.metainfo`: `Trainers.easycv = 'easycv'`. The name was removed after ModelScope 1.5.2; the cards use it.
- `modelscope.utils.import_utils`: entries in the index of lazily imported modules, in memory. `build_from_cfg` imports
  what this index names before it looks into a registry.
- `modelscope.utils.config`: a SegFormer configuration is read without `plugins: ["pai-easycv"]`, for which
  `register_plugins_repo` would run pip on every load; the package can no longer be installed.
  A SegFormer with that plugin and another pipeline is refused.
- `modelscope.utils.automodel_utils`: the hub is not asked for the publisher of a directory such as `run/output`, which
  looks like an id; a published model of that name could otherwise vouch for it.
- `modelscope.preprocessors.base`: an entry in `PREPROCESSOR_MAP`. The published `preprocessor` section is empty
  (EasyCV's predictor prepared the images), and `Preprocessor.from_pretrained` then goes by this map.
- `modelscope.utils.registry`: EasyCV and this package may both register the names they share; `Registry` would raise
  KeyError on the second registration, whichever it is.
- `modelscope.hub.api`, `modelscope_hub.api`: the cached copy of a published model is taken while the hub is out of
  reach. `HubApi` asks the hub even for what is cached, and retries for 7 to 32 seconds.

Whether a model is SegFormer is decided by its configuration (`is_segformer`), never by its id, so that local copies
and fine-tuned models resolve too, and every other model takes exactly the way it took before.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ...config.jsonplus import load_json
from ...config.recognition import check_pipeline, is_dead_plugin, is_segformer, plugins_of
from ...metainfo import TASK
from . import offline_hub, shared_names
from .changes import Change, Entry, Patch, Replace, Unexpected, class_of, function_of, like
from .shared_names import COMPONENTS, Component, is_segformer_model

TESTED = '1.40.2'

_made: dict[str, list[Change]] = {}  # name of a changed ModelScope module -> the changes made in it
_problems: list[str] = []  # what could not be changed, in words


def problems() -> list[str]:
    """What this package expected of the imported ModelScope and did not find: a list of sentences."""
    return list(_problems)


def patch(module: ModuleType) -> None:
    """Make the changes in a ModelScope module that has just been imported; once."""
    name = module.__name__
    if name in _made:
        return
    for each in PATCHES:
        if each.module == name:
            _made[name] = _make(each, module)


def patch_imported() -> None:
    """Make the changes in the ModelScope modules that were imported before activation."""
    for each in PATCHES:
        if each.module in sys.modules:
            patch(sys.modules[each.module])


def undo_all() -> None:
    """Undo every change; our classes are taken out of the registries with them."""
    for name in reversed(list(_made)):
        for change in reversed(_made.pop(name)):
            change.undo()
    _problems.clear()
    offline_hub.forget()


def _make(given: Patch, module: ModuleType) -> list[Change]:
    """The changes of a patch, made; none of them where one does not fit this ModelScope."""
    made: list[Change] = []
    try:
        for change in given.changes(module):
            made.append(change)
            change.make()
    except Exception as error:  # whatever a new ModelScope makes go wrong here must not break importing it
        while made:
            made.pop().undo()
        what = str(error) if isinstance(error, Unexpected) else f'{type(error).__name__}: {error}'
        _warn(f'{given.module}: {what}')
    return made


def _warn(problem: str) -> None:
    first = not _problems
    _problems.append(problem)
    if not first:  # `ms-segformer info` lists them all; one warning is enough
        return
    from modelscope.version import __version__ as version  # imported late: importing this module imports no ModelScope

    warnings.warn(
        f'ms-segformer could not connect to ModelScope {version} ({problem}). SegFormer models may not load by id. '
        f'It is tested with ModelScope {TESTED}: `pip install modelscope=={TESTED}`, or upgrade ms-segformer.',
        RuntimeWarning,
        stacklevel=2,
    )


# --- modelscope.metainfo --------------------------------------------------------------------------------------------


def _name_the_trainer(metainfo: ModuleType) -> Iterator[Change]:
    trainers = class_of(metainfo, 'Trainers')
    if getattr(trainers, 'easycv', None) != 'easycv':
        yield Replace(trainers, 'easycv', 'easycv')


# --- modelscope.utils.import_utils ----------------------------------------------------------------------------------


class _IndexEntries:
    """Our entries in the index of lazily imported modules, in memory only: its file on disk is never touched."""

    def __init__(self) -> None:
        self.index: dict[Component, dict] | None = None

    def make(self) -> None:
        pass  # on first use of the index: loading it for nothing would cost every `import modelscope` 50 ms

    def add_to(self, index: dict[Component, dict]) -> None:
        if self.index is index:
            return
        self.index = index
        folder = str(Path(__file__).absolute().parents[2])
        for component, module in COMPONENTS.items():
            path = os.path.join(folder, *module.split('.')[1:]) + '.py'
            index[component] = {'filepath': path, 'imports': [], 'module': module}

    def undo(self) -> None:
        for component, module in COMPONENTS.items():
            if self.index is not None and self.index.get(component, {}).get('module') == module:
                del self.index[component]


def _index_our_modules(import_utils: ModuleType) -> Iterator[Change]:
    lazy = class_of(import_utils, 'LazyImportModule')
    function_of(lazy, 'import_module', 'signature')
    entries = _IndexEntries()
    read_already = getattr(lazy, 'AST_INDEX', None)  # ModelScope before 1.22 reads it with the class
    if isinstance(read_already, dict):
        entries.add_to(read_already['index'])
        yield entries
        return
    original = function_of(lazy, 'get_ast_index')

    @like(original)
    def get_ast_index() -> dict[str, Any]:
        index = original()
        try:
            entries.add_to(index['index'])
        except (KeyError, TypeError) as error:
            if entries.index is None and not _problems:
                _warn(f'{import_utils.__name__}: the index of modules has another form ({error!r})')
        return index

    yield entries
    yield Replace(lazy, 'get_ast_index', staticmethod(get_ast_index))


# --- modelscope.utils.config ----------------------------------------------------------------------------------------


def _read_segformer_configurations(config: ModuleType) -> Iterator[Change]:
    """`pipeline`, `build_trainer`, `Model` and `Preprocessor.from_pretrained` all read through `Config.from_file`."""
    owner = class_of(config, 'Config')
    original = function_of(owner, 'from_file', 'filename')

    @like(original)
    def from_file(filename: str, *args: Any, **kwargs: Any) -> Any:
        try:
            configuration = original(filename, *args, **kwargs)
        except (ValueError, TypeError, RecursionError):
            if str(filename).endswith('.json') and os.path.exists(filename):
                load_json(Path(filename))  # says what is wrong with the file where it is no configuration of anybody's
            raise
        check_pipeline(configuration, str(filename))
        if is_segformer(configuration):
            drop_dead_plugin(configuration)
            _complete(configuration)
        return configuration

    yield Replace(owner, 'from_file', staticmethod(from_file))


def _complete(configuration: Any) -> None:
    """Say what ModelScope's builders ask for and the file of a SegFormer need not say."""
    for key, value in (('task', TASK), ('framework', 'pytorch')):
        if configuration.get(key) is None:
            configuration[key] = value


def drop_dead_plugin(configuration: Any) -> None:
    """Take pai-easycv out of the plugins that a configuration names, in whatever form."""
    others = [name for name in plugins_of(configuration) if not is_dead_plugin(name)]
    if others:
        configuration['plugins'] = others
    elif configuration.get('plugins'):
        configuration.pop('plugins')


# --- modelscope.utils.automodel_utils -------------------------------------------------------------------------------


def _know_directories(automodel_utils: ModuleType) -> Iterator[Change]:
    """A relative directory of two names, such as `run/output`, is no id to ask the hub for the publisher of."""
    looks_like_an_id = getattr(automodel_utils, '_is_valid_hub_model_id', None)
    if looks_like_an_id is None:
        return  # a ModelScope that does not ask

    @like(looks_like_an_id)
    def _is_valid_hub_model_id(model_id: str) -> bool:
        return looks_like_an_id(model_id) and not (os.path.isdir(model_id) and is_segformer_model(model_id))

    yield Replace(automodel_utils, '_is_valid_hub_model_id', _is_valid_hub_model_id)


# --- modelscope.preprocessors.base ----------------------------------------------------------------------------------


def _know_the_preprocessor(base: ModuleType) -> Iterator[Change]:
    known = getattr(base, 'PREPROCESSOR_MAP', None)
    if not isinstance(known, dict):
        raise Unexpected('PREPROCESSOR_MAP is gone')
    yield Entry(known, ('Segformer', 'image-segmentation'), 'segformer-preprocessor')


PATCHES = (
    Patch('modelscope.metainfo', _name_the_trainer),
    Patch('modelscope.utils.import_utils', _index_our_modules),
    Patch('modelscope.utils.config', _read_segformer_configurations),
    Patch('modelscope.utils.automodel_utils', _know_directories),
    Patch('modelscope.preprocessors.base', _know_the_preprocessor),
    Patch('modelscope.utils.registry', shared_names.share_with_easycv),
    Patch('modelscope.hub.api', offline_hub.answer_without_the_hub),
    Patch('modelscope_hub.api', offline_hub.download_without_the_hub),
)
