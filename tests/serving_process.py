"""A service in a process of its own, as a user starts it."""

import os
import re
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass

from forks import COMMANDS, Forked, forks

SECONDS = 120  # for what takes a few on an idle machine

# Options that the command line has not, and a place for what a test changes in the process.
SCRIPT = """
import ms_segformer
from ms_segformer.serving import ServeOptions, serve

{changes}
if __name__ == '__main__':
    ms_segformer.activate()
    serve(ServeOptions(**{options!r}), lambda address: print(address, flush=True))
"""


@dataclass
class Server:
    """A running service."""

    process: Forked
    url: str

    def stop(self, number=signal.SIGTERM):
        """End it; returns (exit code, what it has printed to the error stream)."""
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, err


@contextmanager
def running(*words, **environment):
    """`ms-segformer serve` on a free port, ready."""
    with started(['-m', 'ms_segformer', 'serve', '--port', '0', '--device', 'cpu', *words], environment) as process:
        yield _ready(process)


@contextmanager
def running_with(folder, changes='', wait=True, **options):
    """A service with `ServeOptions` of its own, after some lines of Python; unless `wait`, without waiting for it."""
    options = {'models': (('demo', 'demo'),), 'port': 0, 'device': 'cpu', **options}
    script = folder / 'service.py'
    script.write_text(SCRIPT.format(changes=changes, options=options))
    with started([str(script)], {}) as process:
        yield _ready(process) if wait else process


@contextmanager
def started(words, environment):
    """A Python process that is gone afterwards."""
    variables = {**os.environ, 'OMP_NUM_THREADS': '2', 'PYTHONPATH': os.pathsep.join(sys.path), **environment}
    process = forks(COMMANDS).start(words, variables)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def _ready(process):
    found = re.match(r'(http://\S+)', process.stdout.readline())  # ends when the process does
    assert found, process.communicate(timeout=SECONDS)
    return Server(process, found[1])


def until(true, seconds=SECONDS):
    """Wait until something is true; returns it."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, 'it takes too long'
        time.sleep(0.02)
    return found
