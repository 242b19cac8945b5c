"""Makes ModelScope resolve SegFormer models to this package; the only module that changes anything in ModelScope.

`activate()` is what `import ms_segformer` calls. It changes eight modules of ModelScope, each in the moment it is
imported (`autoload` waits for that), so that neither ModelScope nor torch is imported before the user
does so:

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
- `modelscope.hub.api`, `modelscope_hub.api`: the cached copy of a published model serves while the hub is out of
  reach. `HubApi` asks the hub even for what is cached, and retries for 7 to 32 seconds.

Whether a model is SegFormer is decided by its configuration (`is_segformer`), never by its id, so that local copies
and fine-tuned models resolve too, and every other model takes exactly the way it took before.
"""
import functools
import inspect
import os
import sys
import threading
import time
import warnings
from pathlib import Path

from ...errors import SegformerError
from .autoload import DISABLE_VARIABLE, activate, active, deactivate, disabled

__all__ = ['COMPONENTS', 'DISABLE_VARIABLE', 'HubUnreachable', 'activate', 'active', 'cached_copy', 'deactivate',
           'disabled', 'is_segformer', 'offline_copy', 'problems', 'serves', 'serving']

TESTED = '1.40.2'

# What ModelScope finds lazily: (registry, group, name) -> module that registers it when imported.
COMPONENTS = {
    ('MODELS', 'image-segmentation', 'Segformer'): 'ms_segformer.models.segformer',
    ('PREPROCESSORS', 'cv', 'segformer-preprocessor'): 'ms_segformer.preprocessors.segformer',
    ('PIPELINES', 'image-segmentation', 'easycv-segmentation'): 'ms_segformer.pipelines.image_segmentation',
    ('TRAINERS', 'default', 'easycv'): 'ms_segformer.trainers.easycv_trainer',
    ('CUSTOM_DATASETS', 'image-segmentation', 'SegDataset'): 'ms_segformer.datasets.seg_dataset',
    ('METRICS', 'default', 'EasyCVMetric'): 'ms_segformer.metrics.segmentation',
    ('HOOKS', 'default', 'AddLrLogHook'): 'ms_segformer.trainers.hooks',
    ('EXPORTERS', 'image-segmentation', 'Segformer'): 'ms_segformer.exporters.segformer_exporter',
}

_HUB_ANSWER_SECONDS = 60  # how long one look at the hub is believed
_LOOK_SECONDS = 8  # how long it may take

_changes = {}  # name of a changed ModelScope module -> the changes made in it
_problems = []  # what could not be changed, in words
_displaced = {}  # component -> the class of another package under the same name
_registered = {}  # component -> (registry, our class)
_hub_seen = {}  # endpoint -> (time of the look, why it cannot be reached or None)
_told_offline = set()
_inside = threading.local()  # .depth: how many `serving` blocks this thread is in


class HubUnreachable(SegformerError, ConnectionError):
    """A published model is asked for that is not in the cache while the hub cannot be reached."""


class _Unexpected(Exception):
    """ModelScope does not look as a change expects."""


def problems():
    """What this package expected of the imported ModelScope and did not find: a list of sentences."""
    return list(_problems)


def is_segformer(configuration):
    """Whether a configuration (a dict or ModelScope's `Config`) is that of a SegFormer model of EasyCV's making."""
    from ...config.recognition import type_in
    return (type_in(configuration, 'model') == 'Segformer'
            and type_in(configuration, 'pipeline') == 'easycv-segmentation')


def serves(model, revision=None):
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
    from modelscope.utils.hub import read_config
    try:
        return is_segformer(read_config(str(model), **({'revision': revision} if revision else {})))
    except (OSError, ValueError):  # no configuration there: nothing of ours, and ModelScope words the error
        return False


class serving:
    """Context manager: inside it the names EasyCV shares with this package mean this package's classes.

    Only of consequence where pai-easycv is installed and imported. Metrics, hooks and data sets are built by name
    alone, so the trainer says whose they are: `with plugin.serving(): build_metric('EasyCVMetric')`. Counted per
    thread, so that a trainer of EasyCV in another thread is not affected.
    """

    def __enter__(self):
        _inside.depth = getattr(_inside, 'depth', 0) + 1
        return self

    def __exit__(self, *error):
        _inside.depth -= 1


# --- making and undoing the changes --------------------------------------------------------------------------------

def connect(module):
    """Make the changes in a ModelScope module that has just been imported; once, and only while active."""
    name = module.__name__
    if name in _changes or name not in _CHANGES or not active():
        return
    _changes[name] = made = []
    try:
        for change in _CHANGES[name](module):
            made.append(change)
            change.make()
    except Exception as error:  # whatever a new ModelScope makes go wrong here must not break importing it
        while made:
            made.pop().undo()
        _warn(f'{name}: {error}' if isinstance(error, _Unexpected) else f'{name}: {type(error).__name__}: {error}')


def connect_imported():
    """Make the changes in the ModelScope modules that were imported before activation."""
    for name in _CHANGES:
        if name in sys.modules:
            connect(sys.modules[name])
    for component, (registry, ours) in _registered.items():  # only after a `deactivate`
        registry.register_module(component[1], component[2], ours, force=True)


def disconnect():
    """Undo every change, and take our classes out of the registries."""
    for name in reversed(list(_changes)):
        for change in reversed(_changes.pop(name)):
            change.undo()
    for component, (registry, ours) in _registered.items():
        group = registry.modules.get(component[1], {})
        if group.get(component[2]) is ours:
            del group[component[2]]
            if component in _displaced:
                group[component[2]] = _displaced[component]
    _problems.clear()
    _hub_seen.clear()
    _told_offline.clear()


def _warn(problem):
    first = not _problems
    _problems.append(problem)
    if not first:  # `ms-segformer info` lists them all; one warning is enough
        return
    from modelscope.version import __version__ as version
    warnings.warn(
        f'ms-segformer could not connect to ModelScope {version} ({problem}). SegFormer models may not load by id. '
        f'It is tested with ModelScope {TESTED}: `pip install modelscope=={TESTED}`, or upgrade ms-segformer.',
        RuntimeWarning, stacklevel=2)


class _Replace:
    """One attribute of a ModelScope class, replaced until `undo`."""

    _missing = object()

    def __init__(self, owner, name, value):
        self.owner, self.name, self.value = owner, name, value

    def make(self):
        self.before = vars(self.owner).get(self.name, self._missing)
        setattr(self.owner, self.name, self.value)

    def undo(self):
        if vars(self.owner).get(self.name) is not self.value:
            return  # replaced by someone else since; putting ours back would break theirs
        if self.before is self._missing:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self.before)


class _Entry:
    """One entry added to a dict of ModelScope's until `undo`; nothing where it is there already."""

    def __init__(self, owner, key, value):
        self.owner, self.key, self.value = owner, key, value

    def make(self):
        self.added = self.key not in self.owner
        self.owner.setdefault(self.key, self.value)

    def undo(self):
        if self.added and self.owner.get(self.key) == self.value:
            del self.owner[self.key]


def _function(owner, name, *parameters):
    """Return a function of a ModelScope class after checking that it takes these parameters."""
    function = getattr(owner, name, None)
    if not callable(function):
        raise _Unexpected(f'{owner.__name__}.{name} is gone')
    accepted = inspect.signature(function).parameters
    for parameter in parameters:
        if parameter not in accepted:
            raise _Unexpected(f'{owner.__name__}.{name} no longer takes `{parameter}`')
    return function


def _class(module, name):
    found = getattr(module, name, None)
    if not isinstance(found, type):
        raise _Unexpected(f'class {name} is gone')
    return found


def _like(original):
    """Decorator: the name and docstring of what is replaced, for tracebacks and help()."""
    return functools.wraps(original)


# --- modelscope.metainfo --------------------------------------------------------------------------------------------

def _name_the_trainer(metainfo):
    trainers = _class(metainfo, 'Trainers')
    if getattr(trainers, 'easycv', None) != 'easycv':
        yield _Replace(trainers, 'easycv', 'easycv')


# --- modelscope.utils.import_utils ----------------------------------------------------------------------------------

class _IndexEntries:
    """Our entries in the index of lazily imported modules, in memory only: its file on disk is never touched."""

    def __init__(self):
        self.index = None

    def make(self):
        pass  # on first use of the index: loading it for nothing would cost every `import modelscope` 50 ms

    def add_to(self, index):
        if self.index is index:
            return
        self.index = index
        folder = str(Path(__file__).absolute().parents[2])
        for component, module in COMPONENTS.items():
            path = os.path.join(folder, *module.split('.')[1:]) + '.py'
            index[component] = {'filepath': path, 'imports': [], 'module': module}

    def undo(self):
        for component, module in COMPONENTS.items():
            if self.index is not None and self.index.get(component, {}).get('module') == module:
                del self.index[component]


def _index_our_modules(import_utils):
    lazy = _class(import_utils, 'LazyImportModule')
    _function(lazy, 'import_module', 'signature')
    entries = _IndexEntries()
    read_already = getattr(lazy, 'AST_INDEX', None)  # ModelScope before 1.22 reads it with the class
    if isinstance(read_already, dict):
        entries.add_to(read_already['index'])
        yield entries
        return
    original = _function(lazy, 'get_ast_index')

    @_like(original)
    def get_ast_index():
        index = original()
        try:
            entries.add_to(index['index'])
        except (KeyError, TypeError) as error:
            if entries.index is None and not _problems:
                _warn(f'{import_utils.__name__}: the index of modules has another form ({error!r})')
        return index

    yield entries
    yield _Replace(lazy, 'get_ast_index', staticmethod(get_ast_index))


# --- modelscope.utils.config ----------------------------------------------------------------------------------------

def _read_segformer_configurations(config):
    """`pipeline`, `build_trainer`, `Model` and `Preprocessor.from_pretrained` all read through `Config.from_file`."""
    owner = _class(config, 'Config')
    original = _function(owner, 'from_file', 'filename')
    from ...config.jsonplus import load_json
    from ...config.recognition import check_pipeline

    @_like(original)
    def from_file(filename, *args, **kwargs):
        try:
            configuration = original(filename, *args, **kwargs)
        except (ValueError, TypeError, RecursionError):
            if str(filename).endswith('.json') and os.path.exists(filename):
                load_json(Path(filename))  # says what is wrong with the file where it is no configuration of anybody's
            raise
        check_pipeline(configuration, str(filename))
        if is_segformer(configuration):
            _serve(configuration)
            _complete(configuration)
        return configuration

    yield _Replace(owner, 'from_file', staticmethod(from_file))


def _complete(configuration):
    """Say what ModelScope's builders ask for and the file of a SegFormer need not say."""
    for key, value in (('task', 'image-segmentation'), ('framework', 'pytorch')):  # ModelScope's builders need both
        if configuration.get(key) is None:
            configuration[key] = value


def _serve(configuration):
    from ...config.recognition import is_dead_plugin, plugins_of
    others = [name for name in plugins_of(configuration) if not is_dead_plugin(name)]
    if others:
        configuration['plugins'] = others
    elif configuration.get('plugins'):
        configuration.pop('plugins')


# --- modelscope.utils.automodel_utils -------------------------------------------------------------------------------

def _know_directories(automodel_utils):
    """A relative directory of two names, such as `run/output`, is no id to ask the hub for the publisher of."""
    looks_like_an_id = getattr(automodel_utils, '_is_valid_hub_model_id', None)
    if looks_like_an_id is None:
        return  # a ModelScope that does not ask

    @_like(looks_like_an_id)
    def _is_valid_hub_model_id(model_id):
        return looks_like_an_id(model_id) and not (os.path.isdir(model_id) and serves(model_id))

    yield _Replace(automodel_utils, '_is_valid_hub_model_id', _is_valid_hub_model_id)


# --- modelscope.preprocessors.base ----------------------------------------------------------------------------------

def _know_the_preprocessor(base):
    known = getattr(base, 'PREPROCESSOR_MAP', None)
    if not isinstance(known, dict):
        raise _Unexpected('PREPROCESSOR_MAP is gone')
    yield _Entry(known, ('Segformer', 'image-segmentation'), 'segformer-preprocessor')


# --- modelscope.utils.registry --------------------------------------------------------------------------------------

def _share_names_with_easycv(module):
    """Under a name both packages use, SegFormer gets our class and everything else EasyCV's, in any import order."""
    registry = _class(module, 'Registry')
    register = _function(registry, '_register_module', 'group_key', 'module_name', 'module_cls', 'force')
    get = _function(registry, 'get', 'module_key', 'group_key')
    if not {'_name', '_modules'} <= set(vars(registry('probe'))):
        raise _Unexpected('Registry keeps its modules elsewhere')

    @_like(register)
    def _register_module(self, group_key='default', module_name=None, module_cls=None, force=False):
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

    @_like(get)
    def lookup(self, module_key, group_key='default'):
        found = get(self, module_key, group_key)
        component = (self._name.upper(), group_key, module_key)
        if component in _displaced and _ours(found):
            return _choose(component, found, _displaced[component])
        return found

    yield _Replace(registry, '_register_module', _register_module)
    yield _Replace(registry, 'get', lookup)


def _choose(component, ours, other):
    """Return what stands for a shared name: a class, or a function that decides by the model it is built for."""
    if component[0] in ('METRICS', 'HOOKS', 'CUSTOM_DATASETS'):
        return ours if getattr(_inside, 'depth', 0) else other
    if component[0] not in ('PIPELINES', 'TRAINERS'):
        return ours

    def build(**arguments):
        chosen = ours if serves(arguments.get('model'), arguments.get('model_revision')) else other
        return getattr(chosen, '_instantiate', chosen)(**arguments)

    build.__name__ = component[2]
    return build


def _ours(cls):
    return getattr(cls, '__module__', '').split('.')[0] == 'ms_segformer'


def _of_easycv(cls):
    return getattr(cls, '__module__', '').split('.')[0] == 'easycv'


# --- modelscope.hub.api, modelscope_hub.api: the cached copy while the hub is out of reach -------------------------

def cached_copy(model_id, revision=None):
    """Return the directory of a complete cached copy of a hub model, or None. Never asks the network.

    Complete means a configuration, a checkpoint, and no file that a broken download left unfinished. Needs a
    ModelScope that brings `modelscope_hub` (1.38 and later); before that the answer is None.
    """
    try:
        from modelscope_hub.api import HubApi
        from modelscope_hub.errors import CacheNotFound
    except ImportError:
        return None
    try:
        folder = str(HubApi().download_repo(model_id, 'model', revision=revision, local_files_only=True))
    except CacheNotFound:
        return None
    names = os.listdir(folder)
    checkpoint = any(name.endswith(('.pt', '.pth', '.bin', '.safetensors')) for name in names)
    unfinished = any('.incomplete' in name or name.endswith('.parallel_tmp') for name in names)
    return folder if 'configuration.json' in names and checkpoint and not unfinished else None


def _answer_without_the_hub(hub_api):
    """`modelscope.hub.api.HubApi`: what `pipeline`, `build_trainer` and the trainers ask before they look at files."""
    from importlib.util import find_spec
    if find_spec('modelscope_hub') is None:
        return  # ModelScope before 1.38 keeps its cache otherwise; without the hub it needs the directory, not the id
    owner = _class(hub_api, 'HubApi')
    get_model = _function(owner, 'get_model', 'model_id', 'revision')

    @_like(get_model)
    def answer(self, model_id, revision=None, *args, **kwargs):
        if _offline(model_id, revision):
            # `is_official_hub_path` wants to know that the model exists. No `Owner` on purpose:
            # `is_model_from_trusted_source` must not trust a publisher on the word of a local folder.
            return {'Name': model_id.split('/')[1]}
        return get_model(self, model_id, revision, *args, **kwargs)

    yield _Replace(owner, 'get_model', answer)


def _download_without_the_hub(api):
    """`modelscope_hub.api.HubApi`: where `snapshot_download` and `model_file_download` end up."""
    owner = _class(api, 'HubApi')
    download = _function(owner, 'download_repo', 'repo_id', 'repo_type', 'revision', 'local_files_only')
    resolve = _function(owner, 'resolve_endpoint_for_read', 'repo_id')

    @_like(download)
    def download_repo(self, repo_id, repo_type, **kwargs):
        plain = not any(kwargs.get(name) for name in ('local_files_only', 'local_dir', 'cache_dir'))
        if plain and str(repo_type) == 'model' and _offline(repo_id, kwargs.get('revision')):
            kwargs['local_files_only'] = True
        return download(self, repo_id, repo_type, **kwargs)

    @_like(resolve)
    def resolve_endpoint_for_read(self, repo_id, **kwargs):
        if str(kwargs.get('repo_type', 'model')) == 'model' and _published(repo_id) and _why_unreachable():
            return _endpoint()
        return resolve(self, repo_id, **kwargs)

    yield _Replace(owner, 'download_repo', download_repo)
    yield _Replace(owner, 'resolve_endpoint_for_read', resolve_endpoint_for_read)


def _offline(model_id, revision):
    """Whether a published model is to be taken from the cache because the hub cannot be reached.

    Raises:
        HubUnreachable: the hub cannot be reached and the model is not in the cache.
    """
    return _published(model_id) and offline_copy(model_id, revision) is not None


def offline_copy(model_id, revision=None):
    """Return the directory of a model's cached copy while the hub cannot be reached; None while it can.

    Needs a ModelScope that brings `modelscope_hub` (1.38 and later); before that the answer is None.

    Raises:
        HubUnreachable: the hub cannot be reached and the model is not in the cache.
    """
    from importlib.util import find_spec
    why = _why_unreachable() if find_spec('modelscope_hub') else None
    if why is None:
        return None
    folder = cached_copy(model_id, revision)
    if folder is None:
        raise HubUnreachable(
            f'{model_id} (revision {revision or "master"}) is not in the cache of this machine, and the hub '
            f'{_endpoint()} cannot be reached ({why}). Run `ms-segformer fetch {model_id}` where there is a network '
            f'and pass the directory it prints in place of the id, or set HTTPS_PROXY or MODELSCOPE_ENDPOINT.')
    if folder not in _told_offline:
        _told_offline.add(folder)
        import logging
        logging.getLogger('ms_segformer').warning(
            '%s cannot be reached (%s); %s is taken from %s', _endpoint(), why, model_id, folder)
    return folder


def _published(model_id):
    from ...metainfo import variant_of_hub_id
    return isinstance(model_id, str) and variant_of_hub_id(model_id) is not None


def _why_unreachable():
    """Return why the hub cannot be reached, or None when it answers; asks at most once a minute.

    One HEAD request without retries, through the user's proxy settings; any HTTP answer counts as reachable.
    """
    endpoint = _endpoint()
    when, why = _hub_seen.get(endpoint, (None, None))
    if when is None or time.monotonic() - when > _HUB_ANSWER_SECONDS:
        why = _look_at(endpoint)
        _hub_seen[endpoint] = (time.monotonic(), why)
    return why


def _look_at(endpoint):
    """Why there is no answer, or None; in a thread, for no timeout of a request bounds how long its name is looked up.
    """
    import requests
    found = []

    def look():
        try:
            requests.head(endpoint, timeout=(3, 5), allow_redirects=False).close()
            found.append(None)
        except (requests.RequestException, OSError, ValueError) as error:
            found.append(type(error).__name__)

    thread = threading.Thread(target=look, name='ms-segformer-hub', daemon=True)
    thread.start()
    thread.join(_LOOK_SECONDS)
    return found[0] if found else f'no answer within {_LOOK_SECONDS} seconds'


def _endpoint():
    from modelscope_hub.config import get_default_config
    return get_default_config().endpoint or 'https://modelscope.cn'


_CHANGES = {
    'modelscope.metainfo': _name_the_trainer,
    'modelscope.utils.import_utils': _index_our_modules,
    'modelscope.utils.config': _read_segformer_configurations,
    'modelscope.utils.automodel_utils': _know_directories,
    'modelscope.preprocessors.base': _know_the_preprocessor,
    'modelscope.utils.registry': _share_names_with_easycv,
    'modelscope.hub.api': _answer_without_the_hub,
    'modelscope_hub.api': _download_without_the_hub,
}
