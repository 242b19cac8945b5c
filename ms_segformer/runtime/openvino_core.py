"""The one `openvino.Core` of this process."""
import threading
from typing import TYPE_CHECKING

from .silent_import import import_openvino

if TYPE_CHECKING:
    import openvino

_lock = threading.Lock()
_core: 'openvino.Core | None' = None


def openvino_core() -> 'openvino.Core':
    """Return the `Core` that everything in this package compiles with; it lives as long as the process.

    A second one would be a danger: the CPU plugin of a Core (OpenVINO 2026.4) gives the thread that loads it a signal
    stack of its own and puts the former one back when it is unloaded. Of two Cores that are dropped in the order they
    were made in, the second puts back the stack of the first, which is no longer mapped, and the next signal that
    Python handles (Ctrl-C, a child that ends) kills the process.

    Raises:
        ImportError: OpenVINO is not installed, or cannot be loaded; `pip install 'ms-segformer[openvino]'`.
    """
    global _core
    openvino = import_openvino()
    with _lock:
        if _core is None:
            _core = openvino.Core()
        return _core
