"""Runs the application: one process, or several that share a port and are replaced when they die."""

import asyncio
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import uvicorn
from prometheus_client import multiprocess as shared_metrics
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import SegformerError, one_line
from ..processes import start_without_ctrl_c, when_the_parent_ends
from .app import Service, create_app
from .metrics import SHARED
from .options import ServeOptions
from .problems import MEDIA_TYPE, Problem

BACKLOG = 2048  # connections that the system holds until they are accepted
KEEP_ALIVE = 15  # seconds that a connection is kept without a request
SENDING_SECONDS = 10.0  # in which a client has to take something of an answer
SETTLE = 0.5  # seconds after the signal to stop in which connections that were on their way are still answered
OWN_METRICS = (
    'MS_SEGFORMER_METRICS_DIR'  # environment variable that tells workers the folder that goes with the command
)
LATE = 10.0  # seconds that a worker gets to end beyond the time that requests may take
LONGEST_PAUSE = 30.0  # seconds before another try to start a worker that dies before it is ready
logger = logging.getLogger(__name__)


class ServeError(SegformerError, RuntimeError):
    """The service cannot be started, or has ended by a fault; the message says why."""


def serve(options: ServeOptions, ready: Callable[[str], Any] = lambda _: None) -> None:
    """Serve until SIGTERM or Ctrl-C; what has been taken on by then is answered.

    Args:
        options: what and how.
        ready: called with the address of the page once all models are ready.

    Raises:
        ServeError: the address cannot be listened on, or a worker cannot start.
        SegformerError, OSError: a model cannot be opened.
    """
    with _listening(options) as listener:
        options = replace(options, address=listener.getsockname()[0])
        address = _address(options.host, listener.getsockname()[1])
        if options.workers == 1:
            _Server(options, lambda: ready(address)).run([listener])
        else:
            _Workers(options, listener, lambda: ready(address)).run()


@contextmanager
def _listening(options: ServeOptions) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ':' in options.host else socket.AF_INET
    try:
        listener = socket.create_server((options.host, options.port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise ServeError(
            f'{options.host}, port {options.port}: cannot be listened on ({reason}); name another --port '
            '(0 takes a free one) or --host'
        ) from None
    with listener:
        yield listener


def _address(host: str, port: int) -> str:
    shown = {'0.0.0.0': '127.0.0.1', '::': '[::1]'}.get(host, f'[{host}]' if ':' in host else host)
    return f'http://{shown}:{port}'


class _Protocol(H11Protocol):
    """Ends connections that keep others waiting: whose request line and headers do not come in time (bodies have a time
    of their own), and whose other side does not take the answer.
    """

    header_seconds: float  # of the subclass that a server makes

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_waiting():
            self._await_head()
        elif self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.loop.call_later(SENDING_SECONDS, self._check_sending, self.transport.get_write_buffer_size())

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP request; the application never sees it."""
        problem = Problem('broken-request', f'{msg} Expected HTTP/1.1, with 64 KB of request line and headers at most')
        body = bytes(problem.response().body)
        head = f'HTTP/1.1 400 Bad Request\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n'
        self.transport.write(f'{head}Connection: close\r\n\r\n'.encode() + body)
        self.transport.close()

    def _is_waiting(self) -> bool:
        """Whether no request is worked on."""
        return self.cycle is None or self.cycle.response_complete

    def _await_head(self) -> None:
        """Give the next request its time, which further bytes of it do not extend."""
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.header_seconds, self._too_late)

    def _too_late(self) -> None:
        self._deadline = None
        if self._is_waiting() and not self.transport.is_closing():
            self.transport.close()

    def _check_sending(self, unsent: int) -> None:
        """End the connection if nothing of an answer was taken since the last time; it may be closing already."""
        left = self.transport.get_write_buffer_size()
        if left and left >= unsent:
            self.transport.abort()
        elif left:
            self.loop.call_later(SENDING_SECONDS, self._check_sending, left)


class _Server(uvicorn.Server):
    """Ends in order: after the signal it accepts connections for a moment to refuse them in words, and answers what it
    has taken on.

    Args:
        options: of the service.
        ready: called once the models are ready.
        at_once: accept connections before, and say that the models are being made ready.
    """

    def __init__(self, options: ServeOptions, ready: Callable[[], Any], at_once: bool = True) -> None:
        self._application = create_app(options, at_once)
        self._service: Service = self._application.state.service
        self._ready: Callable[[], Any] | None = ready
        self._stop_since: float | None = None
        super().__init__(
            uvicorn.Config(
                self._application,
                http=type('Protocol', (_Protocol,), {'header_seconds': options.header_seconds}),
                ws='none',
                loop='asyncio',
                lifespan='on',
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                log_level='warning' if options.verbose else 'error',
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=int(2 * SENDING_SECONDS),
                backlog=BACKLOG,
            )
        )

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal.

        Raises:
            Exception: what kept the models from being made ready.
        """
        _more_files()
        logging.getLogger('python_multipart').setLevel(logging.ERROR)  # it tells of every malformed form
        super().run(sockets)
        if self._service.failure is not None:
            raise self._service.failure

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take nothing on any more; Ctrl-C again does not wait for answers."""
        if self._stop_since is None:
            self._stop_since = time.monotonic()
            self._service.stopping = True
        elif sig == signal.SIGINT:
            self.force_exit = self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to end."""
        if self._service.failure is not None:
            return True
        if self._ready is not None and self._service.models.ready:
            self._ready()
            self._ready = None
        if self._stop_since is not None and time.monotonic() > self._stop_since + SETTLE:
            self.should_exit = self.should_exit or self._service.under_way == 0
        return await super().on_tick(counter)


def _more_files() -> None:
    """Raise this process's limit of open files, and with it of connections, to what the system allows."""
    try:
        import resource  # not on Windows

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (ImportError, OSError, ValueError):
        pass


class _Workers:
    """Several processes that accept connections from one socket; one that dies is replaced.

    Args:
        options: of the service.
        listener: the socket.
        ready: called once all workers are ready.
    """

    def __init__(self, options: ServeOptions, listener: socket.socket, ready: Callable[[], Any]) -> None:
        self._options, self._listener = options, listener
        self._ready: Callable[[], Any] | None = ready
        self._context = multiprocessing.get_context('spawn')  # threads of torch do not survive a fork
        self._running: list[_Worker] = []
        self._signal = 0

    def run(self) -> None:
        """Serve until a signal.

        Raises:
            ServeError: a worker could not start.
        """
        with _shared_metrics(), self._signals() as wake:
            try:
                for _ in range(self._options.workers):
                    self._running.append(self._start(0.0))
                while not self._signal:
                    self._watch(wake)
            finally:
                self._stop()

    def _watch(self, wake: socket.socket) -> None:
        """Wait until something happens to a worker, or a signal comes."""
        what = [wake, *(part for worker in self._running for part in (worker.process.sentinel, worker.pipe))]
        happened = wait([part for part in what if part is not None], 1.0)
        if self._signal:
            return
        for number, worker in enumerate(self._running):
            if worker.pipe in happened:
                worker.hear()
            self._check(worker)
            if worker.process.sentinel in happened:
                worker.process.join()
                worker.hear()
                self._check(worker)
                self._running[number] = self._replace(worker)
        if self._ready is not None and all(worker.ready for worker in self._running):
            self._ready()
            self._ready = None

    def _check(self, worker: '_Worker') -> None:
        """Raise `ServeError` if one of the first workers could not start; what a later one lacks may come back."""
        if worker.failure is not None and not worker.replaced:
            raise ServeError(worker.failure)

    def _replace(self, worker: '_Worker') -> '_Worker':
        pid, code = worker.process.pid, worker.process.exitcode
        if pid is not None:
            shared_metrics.mark_process_dead(pid)
        pause = 0.0 if worker.ready else min(LONGEST_PAUSE, max(1.0, 2 * worker.pause))
        reason = f'; {worker.failure}' if worker.failure else ''
        logger.warning('worker %s has died (exit code %s%s); another one is started', pid, code, reason)
        return self._start(pause, replaced=True)

    def _start(self, pause: float, replaced: bool = False) -> '_Worker':
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve_in_worker,
            args=(self._options, self._listener, theirs, pause, not replaced),
            name='ms-segformer-worker',
        )
        start_without_ctrl_c(process)
        theirs.close()
        return _Worker(process, ours, pause, replaced)

    def _stop(self) -> None:
        """End the workers: they answer what they have taken on."""
        for worker in self._running:
            worker.process.terminate()
        end = time.monotonic() + self._options.seconds + self._options.body_seconds + LATE
        self._signal = 0
        for worker in self._running:
            while worker.process.is_alive() and time.monotonic() < end and self._signal != signal.SIGINT:
                worker.process.join(0.2)
            worker.process.kill()
            worker.process.join()

    @contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """Yield a socket that can be read from once SIGTERM or Ctrl-C has come; by themselves they end nothing."""
        reader, writer = socket.socketpair()

        def note(number: int, _: Any) -> None:
            self._signal = number
            with suppress(OSError):
                writer.send(b'.')

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with reader, writer:
                yield reader
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Worker:
    """A process that serves, as the one that has started it sees it."""

    def __init__(self, process: Any, pipe: Connection, pause: float, replaced: bool) -> None:
        self.process, self.pause, self.replaced = process, pause, replaced
        self.pipe: Connection | None = pipe
        self.ready = False
        self.failure: str | None = None

    def hear(self) -> None:
        """Take what the process has said."""
        try:
            while self.pipe is not None and self.pipe.poll():
                said, text = self.pipe.recv()
                self.ready = self.ready or said == 'ready'
                self.failure = text if said == 'failed' else self.failure
        except (EOFError, OSError):
            self.pipe = None


def _serve_in_worker(
    options: ServeOptions, listener: socket.socket, pipe: Connection, pause: float, at_once: bool
) -> None:
    """A worker: serves with its share of the threads, until a signal or until the process that has started it ends.

    One that takes the place of another accepts nothing before it is ready: the others do.
    """
    logging.basicConfig(format='%(levelname)s: %(message)s', level=logging.WARNING)
    when_the_parent_ends(_end_in_order)
    time.sleep(pause)
    torch.set_num_threads(max(1, torch.get_num_threads() // options.workers))
    try:
        _Server(options, lambda: pipe.send(('ready', '')), at_once).run([listener])
    except Exception as error:  # whatever it is, the command says it
        ours = isinstance(error, (SegformerError, OSError))
        pipe.send(('failed', str(error) if ours else f'{type(error).__name__}: {one_line(error)}'))
        sys.exit(1)


def _end_in_order() -> None:
    """End this worker when the command was killed, and remove what that has left."""
    shutil.rmtree(os.environ.get(OWN_METRICS, ''), ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _shared_metrics() -> Iterator[None]:
    """Give the workers a folder by which each answers for all; in memory where the system has such a place."""
    if SHARED in os.environ:
        yield
        return
    memory = Path('/dev/shm')
    folder = tempfile.mkdtemp(prefix='ms-segformer-', dir=memory if os.access(memory, os.W_OK) else None)
    os.environ[SHARED] = os.environ[OWN_METRICS] = folder
    try:
        yield
    finally:
        del os.environ[SHARED], os.environ[OWN_METRICS]
        shutil.rmtree(folder, ignore_errors=True)
