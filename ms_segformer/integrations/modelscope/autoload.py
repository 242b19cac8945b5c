"""Waits for ModelScope to be imported and has `ms_segformer.integrations.modelscope.patches` change it then.

`ms-segformer autoload on` runs this in every Python process of an environment, so it imports nothing that Python has
not imported at start-up, and is kept short.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # what type checkers take for true; `typing` is not imported at start-up
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

DISABLE_VARIABLE = 'MS_SEGFORMER_DISABLE'
# The modules of the patches there, by name: importing them here would cost every Python process.
MODULES = frozenset(
    {
        'modelscope.metainfo',
        'modelscope.utils.import_utils',
        'modelscope.utils.config',
        'modelscope.utils.registry',
        'modelscope.utils.automodel_utils',
        'modelscope.preprocessors.base',
        'modelscope.hub.api',
        'modelscope_hub.api',
    }
)


def disabled() -> bool:
    """Whether the environment variable MS_SEGFORMER_DISABLE asks for ModelScope as it is."""
    return os.environ.get(DISABLE_VARIABLE, '').strip().lower() in ('1', 'true', 'yes', 'on')


def active() -> bool:
    """Whether SegFormer models resolve to this package in this process."""
    return Watcher in sys.meta_path


def activate() -> bool:
    """Make ModelScope resolve SegFormer models to this package. Returns whether it does.

    May be called any number of times, before or after `import modelscope`. Does nothing where the environment
    variable MS_SEGFORMER_DISABLE is 1, which hands SegFormer back to EasyCV.
    """
    if disabled():
        return False
    if not active():
        sys.meta_path.insert(0, Watcher)
        if not MODULES.isdisjoint(sys.modules):
            from .patches import patch_imported  # imported late: it costs every Python process

            patch_imported()
    return True


def deactivate() -> None:
    """Undo everything `activate` did: ModelScope is as it would be without this package."""
    if active():
        sys.meta_path.remove(Watcher)
        from .patches import undo_all  # imported late, as above

        undo_all()


class Watcher:
    """Import hook: lets Python import a module as ever, then has it changed. Concerns no other module."""

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec the other finders make, with the changes after the module's own code."""
        if name not in MODULES:
            return None
        for finder in sys.meta_path:
            find = None if finder is cls else getattr(finder, 'find_spec', None)
            spec = find(name, path, target) if find else None
            if spec is not None:
                if hasattr(spec.loader, 'exec_module'):
                    _patch_after(spec.loader)
                return spec
        return None


def _patch_after(loader: Any) -> None:  # whichever loader: its `exec_module` is replaced
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        if active():
            from .patches import patch  # imported late, as above

            patch(module)

    loader.exec_module = exec_module
