"""Processes that a command starts: Ctrl-C is the command's to hear, and none of them outlives it."""

import multiprocessing
import signal
import threading
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import Any


def start_without_ctrl_c(process: Any) -> None:
    """Start a process of `multiprocessing` that Ctrl-C does not reach, from its first moment on.

    This one hears it, and ends the other.
    """
    if not hasattr(signal, 'pthread_sigmask'):
        process.start()
        return
    resource_tracker.ensure_running()  # before: its start unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def when_the_parent_ends(do: Callable[[], Any]) -> None:
    """Have a function called, in a thread, when the process that has started this one is gone.

    Args:
        do: ends this process.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        do()

    threading.Thread(target=watch, daemon=True).start()
