"""The only door to OpenVINO, ONNX Runtime and NNCF: imports them without what they send or write on import.

- `import openvino` starts `openvino_telemetry`, which forks and reports the import to google-analytics.com. Without
  that package OpenVINO takes a stub of its own, in all its modules and for good, so hiding the package during the
  import is enough: the user's own `import openvino_telemetry` works before and after.
- `import onnxruntime` (1.32) opens a data base in `~/.cache/Microsoft`, writes a device id and `$TMPDIR/.ses`, and
  sends its events to Microsoft. It reads `ORT_DISABLE_TELEMETRY` while it is imported; its function
  `disable_telemetry_events` comes too late for the files.

- `import nncf` makes a sender of `openvino_telemetry` for all that is quantized later, and without that package a stub.
  It also makes its own class that of all loggers to come, which is put back.

What the user has imported before is as the user wants it and is left alone. Both ways act on the whole process while
the import lasts, a few seconds at the first use: another thread that imports `openvino_telemetry` in that time gets an
ImportError, and one that imports `openvino` itself at the same moment may find it silenced, or be first and not.
"""

import logging
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
            os.environ.pop(_SWITCH, None)


def import_nncf() -> ModuleType:
    """Return the `nncf` package; what it prints is not held back here.

    Raises:
        ImportError: it is not installed, or cannot be loaded; `pip install 'ms-segformer[quantize]'`.
    """
    import_openvino()
    with _lock:
        if 'nncf' in sys.modules:
            return import_module('nncf')
        logger_class = logging.getLoggerClass()
        try:
            with _hidden(_TELEMETRY):
                return import_module('nncf')
        finally:
            logging.setLoggerClass(logger_class)


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Let `import package` fail inside the block; afterwards its modules are as they were."""
    gone = ModuleType('gone')

    def taken() -> dict[str, ModuleType]:
        # From a copy, made in one step, and without `del`: other threads import, and remove, meanwhile.
        names = [name for name in list(sys.modules) if name == package or name.startswith(f'{package}.')]
        found = {name: sys.modules.pop(name, gone) for name in names}
        return {name: module for name, module in found.items() if module is not gone}

    before = taken()
    try:
        sys.modules[package] = None  # type: ignore[assignment]  # makes importing it fail
        yield
    finally:
        sys.modules.pop(package, None)  # first: nothing that follows may leave the package hidden for good
        taken()
        sys.modules.update(before)
