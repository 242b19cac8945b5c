"""The one `openvino.Core` that everything in this package compiles with; it lives as long as the process.

A second one would be a danger: the CPU plugin of a Core (OpenVINO 2026.4) gives the thread that loads it a signal stack
of its own and, if that is still the current one, puts the former one back when it is unloaded. Of two Cores that are
dropped in the order they were made in, the second puts back the stack of the first, which is no longer mapped, and the
next signal that Python handles (Ctrl-C, a child that ends) kills the process.

The threads of a network that is no longer used go to a pool of the process, from which the next network takes them. A
forked child has the pool but not the threads, and would wait for them for ever; so the pool is emptied before a fork.
"""

import os

from .silent_import import import_openvino

CORE = import_openvino().Core()


def _empty_the_pool() -> None:
    """Load the CPU plugin once more and unload it at once, which ends the idle threads of all (1 ms)."""
    import_openvino().Core().get_property('CPU', 'FULL_DEVICE_NAME')


if hasattr(os, 'register_at_fork'):  # not on Windows
    os.register_at_fork(before=_empty_the_pool)
