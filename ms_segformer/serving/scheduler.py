"""The work on requests: decoding, network and encoding in threads of their own, over a bounded number of places."""

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeVar

from ..errors import SegformerError
from .metrics import Metrics
from .problems import Problem

T = TypeVar('T')
THREADS = {'decode': 2, 'network': 1, 'encode': 2}
IN_WORK = 6  # requests between the begin of decoding and the answer; decoded images are larger than their files
SMOOTHING = 0.1  # weight of the newest request in the mean time between answers


class GoneError(SegformerError):
    """Whoever asked does not wait any more: the client has gone away, or the time is up."""


@dataclass
class Job:
    """A request that has a place.

    Attributes:
        seconds: that its phases have taken, by their names.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    _gone: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise `GoneError` once nobody waits for the answer; called by long phases, in their threads."""
        if self._gone.is_set():
            raise GoneError

    def end(self) -> None:
        """Nobody waits for the answer any more."""
        self._gone.set()


class Scheduler:
    """Takes on so many requests and no more.

    Args:
        places: requests that are worked on or wait at a time.
        metrics: told how long the phases take.

    Attributes:
        active: requests that have a place.
    """

    def __init__(self, places: int, metrics: Metrics) -> None:
        self.places, self.active = places, 0
        self._metrics = metrics
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._free: dict[str, asyncio.Semaphore] = {}
        self._in_work = asyncio.Semaphore(IN_WORK)
        self._seconds_each = 0.2  # between answers while there is work
        self._last = 0.0

    def start(self) -> None:
        """Make the threads."""
        self._pools = {name: ThreadPoolExecutor(count, f'segformer-{name}') for name, count in THREADS.items()}
        self._free = {name: asyncio.Semaphore(count) for name, count in THREADS.items()}
        self._in_work = asyncio.Semaphore(IN_WORK)

    def retry_after(self) -> int:
        """Seconds after which those that have a place now are likely to be answered."""
        return min(60, max(1, math.ceil(self.active * self._seconds_each)))

    def take_place(self) -> Job:
        """Take on a request; `leave` gives the place back.

        Raises:
            Problem: busy.
        """
        self.check_room()
        if self.active == 0:
            self._last = perf_counter()
        self.active += 1
        self._metrics.places.inc()
        return Job()

    def check_room(self) -> None:
        """Raise `Problem` (busy) unless there is a place."""
        if self.active >= self.places:
            wait = self.retry_after()
            raise Problem(
                'busy',
                f'{self.active} requests are worked on or wait, which is all that are taken on; try again in {wait} s',
                wait,
            )

    def leave(self, job: Job, answered: bool) -> None:
        """Give a place back."""
        job.end()
        self.active -= 1
        self._metrics.places.dec()
        if answered:
            now = perf_counter()
            self._seconds_each += SMOOTHING * (now - self._last - self._seconds_each)
            self._last = now

    @asynccontextmanager
    async def work(self) -> AsyncIterator[None]:
        """Around the phases of a request: waits until few enough others are between decoding and answer."""
        with self._metrics.phase('wait'):
            await self._in_work.acquire()
        try:
            yield
        finally:
            self._in_work.release()

    async def run(self, phase: str, job: Job, function: Callable[..., T], *arguments: Any) -> T:
        """Run a phase in its threads. Canceled before it begins, it is not begun.

        Nothing waits inside the pool, which would keep the arguments of a canceled request: a thread is free first.

        Args:
            phase: of `THREADS`.
            job: whose phase it is.
        """
        loop, free = asyncio.get_running_loop(), self._free[phase]

        def release(_: Any) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(free.release)

        def work() -> T:
            job.check()
            start = perf_counter()
            try:
                return function(*arguments)
            finally:
                job.seconds[phase] = perf_counter() - start
                self._metrics.phases.labels(phase).observe(job.seconds[phase])

        with self._metrics.phase('wait'):
            await free.acquire()
        try:
            future = self._pools[phase].submit(work)
        except BaseException:
            free.release()
            raise
        # When the thread has ended, which a request that is canceled does not wait for.
        future.add_done_callback(release)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """End the threads; what has not begun is dropped."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
