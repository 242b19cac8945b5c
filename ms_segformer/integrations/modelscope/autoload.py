"""Waits for ModelScope to be imported and has `ms_segformer.integrations.modelscope.plugin` connect to it then.

`ms-segformer autoload on` runs this in every Python process of an environment, so it imports nothing that Python has
not imported at start-up, and is kept short.
"""
import os
import sys

DISABLE_VARIABLE = 'MS_SEGFORMER_DISABLE'
# The modules that `ms_segformer.integrations.modelscope.plugin` changes something in.
MODULES = frozenset({
    'modelscope.metainfo', 'modelscope.utils.import_utils', 'modelscope.utils.config', 'modelscope.utils.registry',
    'modelscope.utils.automodel_utils', 'modelscope.preprocessors.base', 'modelscope.hub.api', 'modelscope_hub.api'})


def disabled():
    """Whether the environment variable MS_SEGFORMER_DISABLE asks for ModelScope as it is."""
    return os.environ.get(DISABLE_VARIABLE, '').strip().lower() in ('1', 'true', 'yes', 'on')


def active():
    """Whether SegFormer models resolve to this package in this process."""
    return Watcher in sys.meta_path


def activate():
    """Make ModelScope resolve SegFormer models to this package. Returns whether it does.

    May be called any number of times, before or after `import modelscope`. Does nothing where the environment
    variable MS_SEGFORMER_DISABLE is 1, which hands SegFormer back to EasyCV.
    """
    if disabled():
        return False
    if not active():
        sys.meta_path.insert(0, Watcher)
        if not MODULES.isdisjoint(sys.modules):
            from .plugin import connect_imported
            connect_imported()
    return True


def deactivate():
    """Undo everything `activate` did: ModelScope is as it would be without this package."""
    if active():
        sys.meta_path.remove(Watcher)
        from .plugin import disconnect
        disconnect()


class Watcher:
    """Import hook: lets Python import a module as ever, then connects to it. Concerns no other module."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        """Return the spec the other finders make, with the connection after the module's own code."""
        if name not in MODULES:
            return None
        for finder in sys.meta_path:
            find = None if finder is cls else getattr(finder, 'find_spec', None)
            spec = find(name, path, target) if find else None
            if spec is not None:
                if hasattr(spec.loader, 'exec_module'):
                    _connect_after(spec.loader)
                return spec
        return None


def _connect_after(loader):
    execute = loader.exec_module

    def exec_module(module):
        execute(module)
        from .plugin import connect
        connect(module)

    loader.exec_module = exec_module
