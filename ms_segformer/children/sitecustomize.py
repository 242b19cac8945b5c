"""What Python runs first in every process that a script under `ms-segformer run` starts: SegFormer resolves there too.

It imports the package this folder belongs to, which imports neither ModelScope nor torch, takes this folder off the
path again, and goes on with the `sitecustomize` that Python would have run without it.
"""
import os
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))


def activate():
    try:
        import ms_segformer  # noqa: F401
    except ModuleNotFoundError as error:
        # Run from a checkout, the package is on the path of the process that started this one, not on this one's.
        # Another environment's Python may be too old for it, and is left alone.
        if error.name != 'ms_segformer' or sys.version_info < (3, 10):
            return
        from importlib import util
        package = os.path.dirname(FOLDER)
        spec = util.spec_from_file_location('ms_segformer', os.path.join(package, '__init__.py'),
                                            submodule_search_locations=[package])
        sys.modules['ms_segformer'] = module = util.module_from_spec(spec)
        spec.loader.exec_module(module)


def go_on():
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != FOLDER]
    this = sys.modules.pop('sitecustomize')
    try:
        import sitecustomize  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != 'sitecustomize':
            raise
        sys.modules['sitecustomize'] = this


if __name__ == 'sitecustomize':
    try:
        activate()
    finally:
        go_on()
