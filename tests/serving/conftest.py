"""A service in a process of its own, as a user starts it."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

import pytest

SECONDS = 120  # for what takes a few on an idle machine
NEEDED = ('fastapi', 'fastapi_offline', 'uvicorn', 'httptools', 'prometheus_client', 'python_multipart', 'httpx')
MISSING = [name for name in NEEDED if find_spec(name) is None]

collect_ignore_glob = ['test_*.py'] if MISSING else []


def pytest_report_header():
    return f'tests/serving is left out: {", ".join(MISSING)} not installed' if MISSING else None


@dataclass
class Server:
    """A running service."""

    process: subprocess.Popen
    url: str

    def stop(self, number=signal.SIGTERM):
        """End it; returns (exit code, what it has printed to the error stream)."""
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, err


@contextmanager
def running(*words):
    """`ms-segformer serve` on a free port, ready."""
    process = subprocess.Popen(
        [sys.executable, '-m', 'ms_segformer', 'serve', '--port', '0', '--device', 'cpu', *words],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, 'OMP_NUM_THREADS': '2'},
        start_new_session=True,
    )
    try:
        line = process.stdout.readline()  # ends when the process does
        found = re.match(r'(http://\S+)', line)
        assert found, process.communicate(timeout=SECONDS)
        yield Server(process, found[1])
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def until(true, seconds=SECONDS):
    """Wait until something is true; returns it."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, 'it takes too long'
        time.sleep(0.02)
    return found


@pytest.fixture(scope='session')
def server():
    """With the demonstration model."""
    with running() as found:
        yield found
