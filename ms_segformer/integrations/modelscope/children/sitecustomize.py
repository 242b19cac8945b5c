"""What Python runs first in every process that a script under `ms-segformer run` starts: SegFormer resolves there too.

It imports the package this folder belongs to, which imports neither ModelScope nor torch, takes this folder off the
path again, and goes on with the `sitecustomize` that Python would have run without it.
"""

import os
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))


def activate() -> None:
    if sys.version_info < (3, 10):  # noqa: UP036  (another environment may have a Python too old for the package)
        return
    root = os.path.abspath(os.path.join(FOLDER, *[os.pardir] * 4))
    sys.path.insert(0, root)  # a checkout, or another environment's packages: not to be seen by the rest of the process
    try:
        import ms_segformer  # noqa: F401
    finally:
        sys.path.remove(root)


def go_on() -> None:
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != FOLDER]
    this = sys.modules.pop('sitecustomize')
    try:
        __import__('sitecustomize')
    except ModuleNotFoundError as error:
        if error.name != 'sitecustomize':
            raise
        sys.modules['sitecustomize'] = this


if __name__ == 'sitecustomize':
    try:
        activate()
    finally:
        go_on()
