"""The only door to OpenVINO and ONNX Runtime: imports them without what they send or write on import.

- `import openvino` starts `openvino_telemetry`, which forks and reports the import to google-analytics.com. Without
  that package OpenVINO takes a stub of its own, in all its modules and for good, so hiding the package during the
  import is enough: the user's own `import openvino_telemetry` works before and after.
- `import onnxruntime` (1.32) opens a data base in `~/.cache/Microsoft`, writes a device id and `$TMPDIR/.ses`, and
  sends its events to Microsoft. It reads `ORT_DISABLE_TELEMETRY` while it is imported; its function
  `disable_telemetry_events` comes too late for the files.

What the user has imported before is as the user wants it and is left alone.
"""
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

_TELEMETRY = 'openvino_telemetry'
_SWITCH = 'ORT_DISABLE_TELEMETRY'
_lock = threading.Lock()


def import_openvino() -> ModuleType:
    """Return the `openvino` package.

    Raises:
        ImportError: it is not installed, or cannot be loaded; `pip install 'ms-segformer[openvino]'`.
    """
    with _lock:
        if 'openvino' in sys.modules:
            return import_module('openvino')
        with _hidden(_TELEMETRY):
            return import_module('openvino')


def import_onnxruntime() -> ModuleType:
    """Return the `onnxruntime` package.

    Raises:
        ImportError: it is not installed, or cannot be loaded; `pip install 'ms-segformer[onnx]'`.
    """
    with _lock:
        if 'onnxruntime' in sys.modules or _SWITCH in os.environ:
            return import_module('onnxruntime')
        os.environ[_SWITCH] = '1'
        try:
            return import_module('onnxruntime')
        finally:
            del os.environ[_SWITCH]


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Let `import package` fail inside the block; afterwards its modules are as they were."""
    def named() -> list[str]:
        return [name for name in sys.modules if name == package or name.startswith(f'{package}.')]

    before = {name: sys.modules.pop(name) for name in named()}
    sys.modules[package] = None
    try:
        yield
    finally:
        for name in named():
            del sys.modules[name]
        sys.modules.update(before)
