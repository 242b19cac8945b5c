"""Processes that a command starts: Ctrl-C is the command's to hear, and none of them outlives it."""

import atexit
import logging
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from .errors import SegformerError, one_line

Item = TypeVar('Item')
Outcome = TypeVar('Outcome')
AT_A_TIME = 2  # items that a process has: the one it works on, and the next
UNFINISHED = 8  # items, times the number of processes, that the slowest one may keep back
TRIES = 2  # of an item whose process dies
# The limit of a container's memory and what is used of it, in the two versions of cgroups.
CGROUPS = (
    ('/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory.current'),
    ('/sys/fs/cgroup/memory/memory.limit_in_bytes', '/sys/fs/cgroup/memory/memory.usage_in_bytes'),
)
FORK_SERVER = 'forkserver'
STARTS = 3  # processes that may die one after the other before one is ready
SAFE_PATH = 'PYTHONSAFEPATH'  # environment variable of Python


class ProcessError(SegformerError, RuntimeError):
    """A process of several cannot start, or has met an error that is nobody's item's; the message says which."""


@dataclass(frozen=True)
class Died:
    """What becomes of an item at which a process dies each time.

    Attributes:
        code: the last one's exit code; negative: the number of the signal that ended it.
    """

    code: int | None

    def __str__(self) -> str:
        how = f'exit code {self.code}' if self.code is None or self.code >= 0 else f'signal {-self.code}'
        return f'the process that worked on it died {TRIES} times ({how}), perhaps for want of memory'


def start_without_ctrl_c(process: Any) -> None:
    """Start a process of `multiprocessing` that Ctrl-C does not reach, from its first moment on.

    This one hears it, and ends the other.
    """
    with _without_ctrl_c():
        process.start()


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Processes that are started inside it do not get Ctrl-C."""
    if not hasattr(signal, 'pthread_sigmask'):
        yield
        return
    resource_tracker.ensure_running()  # before: its start unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def prepare_processes(modules: Iterable[str]) -> None:
    """Have modules imported, in another process, that those of `work_in_processes` are forked from; it returns at once.

    They start the faster, and share the memory of what is imported. Nothing is done where that cannot be, or where such
    a process is running already.

    Args:
        modules: their names. They must start no threads that a fork would harm.
    """
    if FORK_SERVER not in multiprocessing.get_all_start_methods() or sys.version_info < (3, 11):
        return  # Python 3.10 would take modules of the current folder for them
    multiprocessing.get_context(FORK_SERVER).set_forkserver_preload(list(modules))
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = '1'  # it is started by `python -c`, which would look into the current folder first
    try:
        with suppress(OSError), _without_ctrl_c():  # such as a path of the temporary folder that is too long
            forkserver.ensure_running()
            atexit.register(_end_fork_server)
    finally:
        del os.environ[SAFE_PATH]
        if before is not None:
            os.environ[SAFE_PATH] = before


def _end_fork_server() -> None:
    """End the process that others are forked from, which otherwise first finishes its imports."""
    pid = getattr(getattr(forkserver, '_forkserver', None), '_forkserver_pid', None)
    if pid:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def free_memory() -> int | None:
    """Bytes that processes may still take: of the machine and, in a container, of its limit; None if not known."""
    found = []
    try:
        lines = Path('/proc/meminfo').read_text(encoding='ascii').splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith('MemAvailable:')]
    except (OSError, ValueError, IndexError):
        pass
    for limit, used in CGROUPS:
        try:
            found.append(
                max(0, int(Path(limit).read_text(encoding='ascii')) - int(Path(used).read_text(encoding='ascii')))
            )
        except (OSError, ValueError):  # 'max', or another version of cgroups
            continue
    return min(found, default=None)


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


def work_in_processes(
    open_work: Callable[[int], Callable[[Item], Outcome]], items: Iterable[Item], processes: int
) -> Generator[Outcome | Died, None, None]:
    """Work on items in several processes, each on one after the other; what becomes of them comes in their order.

    A process that dies is replaced. What it worked on is tried once more, and given up if that process dies too; what
    it had not begun goes to the others. `concurrent.futures` gives up everything then. The processes end with this
    generator, however it ends.

    Args:
        open_work: called with its number, from 0, in each process, it returns what works on an item there. Like the
            items and what becomes of them it is pickled.
        items: taken as they are needed, some ahead.
        processes: their number.

    Yields:
        What `open_work`'s function returned for each item, or `Died`.

    Raises:
        ProcessError: it has raised an exception, or process after process dies before it is ready.
    """
    pool = _Pool(open_work, enumerate(items), processes)
    try:
        yield from pool.outcomes()
    finally:
        pool.end()


@dataclass(frozen=True)
class _Failed:
    """In place of what becomes of an item: why working on it has raised an exception."""

    reason: str


class _Pool(Generic[Item, Outcome]):
    """The processes of `work_in_processes`, and which item is where."""

    def __init__(
        self, open_work: Callable[[int], Callable[[Item], Outcome]], items: Iterator[tuple[int, Item]], processes: int
    ) -> None:
        self._open_work, self._items = open_work, items
        self._again: deque[tuple[int, Item]] = deque()  # from processes that died
        self._tries: Counter[int] = Counter()
        self._done: dict[int, Outcome | Died | _Failed] = {}
        self._next, self._taken = 0, 0  # the item to yield, and the number of those taken
        self._most = UNFINISHED * processes
        self._dead_at_start = 0
        # Threads of torch do not survive a fork of this process.
        methods = multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context(FORK_SERVER if FORK_SERVER in methods else 'spawn')
        self._processes = processes
        self._running: list[_Process] = []

    def outcomes(self) -> Iterator[Outcome | Died]:
        for number in range(self._processes):
            self._running.append(self._start(number))
        while True:
            self._hand_out()
            if not any(process.items for process in self._running):
                return
            pipes: dict[Any, _Process] = {process.pipe: process for process in self._running}
            for pipe in wait(list(pipes)):
                self._hear(pipes[pipe])
            while self._next in self._done:
                done = self._done.pop(self._next)
                if isinstance(done, _Failed):
                    raise ProcessError(done.reason)
                yield done
                self._next += 1

    def end(self) -> None:
        for process in self._running:
            process.process.kill()  # it writes nothing that would be left half done
        for process in self._running:
            process.process.join()

    def _start(self, number: int) -> '_Process[Item]':
        if multiprocessing.current_process().daemon:
            raise ProcessError('a daemonic process starts no others; leave --processes out')
        ours, theirs = self._context.Pipe()
        try:
            process = self._begin(number, theirs)
        except (EOFError, OSError):  # the process that they are forked from has died, or cannot be
            self._context = multiprocessing.get_context('spawn')
            try:
                process = self._begin(number, theirs)
            except (EOFError, OSError) as error:
                raise ProcessError(f'a process cannot be started ({one_line(error)}); leave --processes out') from None
        theirs.close()
        return _Process(number, process, ours)

    def _begin(self, number: int, pipe: Connection) -> Any:
        process = self._context.Process(target=_work, args=(self._open_work, number, pipe), daemon=True)
        start_without_ctrl_c(process)
        return process

    def _hand_out(self) -> None:
        for count in range(AT_A_TIME):  # first one for each
            for process in self._running:
                if len(process.items) <= count and (entry := self._take()) is not None:
                    process.give(entry)

    def _take(self) -> tuple[int, Item] | None:
        if self._again:
            return self._again.popleft()
        if self._taken - self._next >= self._most:
            return None
        entry = next(self._items, None)
        if entry is not None:
            self._taken += 1
        return entry

    def _hear(self, process: '_Process[Item]') -> None:
        try:
            said, content = process.pipe.recv()
        except (EOFError, OSError):
            self._replace(process)
            return
        if said == 'unable':
            raise ProcessError(content)
        if said == 'ready':
            process.ready, self._dead_at_start = True, 0
            return
        index, _ = process.items.popleft()
        self._done[index] = content

    def _replace(self, process: '_Process[Item]') -> None:
        process.process.join()
        code = process.process.exitcode
        self._running.remove(process)
        if process.ready and process.items:
            index, _ = process.items[0]
            self._tries[index] += 1
            if self._tries[index] >= TRIES:
                process.items.popleft()
                self._done[index] = Died(code)
        self._again.extendleft(reversed(process.items))
        self._dead_at_start += not process.ready
        if self._dead_at_start < STARTS:
            self._running.append(self._start(process.number))
        elif not any(other.ready for other in self._running):  # else those go on without it
            why = 'perhaps for want of memory: use fewer --processes' if code is None or code < 0 else 'see above'
            raise ProcessError(
                f'{STARTS} processes died one after the other before they were ready (exit code {code}), {why}'
            )


class _Process(Generic[Item]):
    """A process of several, as the one that has started it sees it."""

    def __init__(self, number: int, process: Any, pipe: Connection) -> None:
        self.number, self.process, self.pipe = number, process, pipe
        self.items: deque[tuple[int, Item]] = deque()
        self.ready = False

    def give(self, entry: tuple[int, Item]) -> None:
        self.items.append(entry)
        try:
            self.pipe.send(entry[1])
        except OSError:  # it has died, which is heard next
            pass


def _work(open_work: Callable[[int], Callable[[Any], Any]], number: int, pipe: Connection) -> None:
    """One of several processes: works on what comes through the pipe until the pipe's other end is gone."""
    given: SimpleQueue[Any] = SimpleQueue()

    def receive() -> None:
        try:
            while True:
                given.put(pipe.recv())
        except Exception:  # the other end is gone; at once, also out of a long run of the network
            os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it comes through all the same
    logging.basicConfig(format='%(levelname)s: %(message)s', level=logging.WARNING)
    if number:  # the first one's warnings do
        logging.getLogger('ms_segformer').setLevel(logging.ERROR)
        warnings.simplefilter('ignore')
    threading.Thread(target=receive, daemon=True).start()
    try:
        try:
            work = open_work(number)
        except Exception as error:  # whatever it is, the command says it
            pipe.send(('unable', _text(error)))
            return
        pipe.send(('ready', None))
        while True:
            try:
                outcome = work(given.get())
            except Exception as error:  # of whatever kind
                outcome = _Failed(_text(error))
            pipe.send(('done', outcome))
    except OSError:  # the other end is gone
        os._exit(1)


def _text(error: Exception) -> str:
    """What the command says of an exception."""
    logging.getLogger(__name__).debug('a process fails', exc_info=error)
    return str(error) if isinstance(error, (SegformerError, OSError)) else f'{type(error).__name__}: {one_line(error)}'
