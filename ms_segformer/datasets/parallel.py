"""Work on many files in all processes of the machine, with a progress bar."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import cv2
from tqdm import tqdm

from ..progress import screen
from .errors import DatasetError

_CHUNK = 16
Item = TypeVar('Item')
State = TypeVar('State')
Result = TypeVar('Result')
_state: Any = None


def available_cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def map_in_processes(
    function: Callable[[State, Sequence[Item]], Result],
    state: State,
    items: Sequence[Item],
    jobs: int | None = None,
    description: str = '',
) -> Iterator[Result]:
    """Yield `function(state, chunk)` for consecutive chunks of `items`, in the order they finish.

    Args:
        function: module-level function of (state, list of items).
        state: picklable, sent to each process once.
        items: sequence.
        jobs: number of processes; None: one per available core; 1: this process.
        description: shown in front of the progress bar (on a terminal only), which counts items.

    Raises:
        DatasetError: a process was killed, usually for want of memory.
    """
    jobs = jobs or available_cores()
    chunks = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
    with tqdm(total=len(items), desc=description, unit='file', disable=None, **screen()) as bar:
        results = _in_processes if jobs > 1 and len(chunks) > 1 else _here
        for chunk, result in results(function, state, chunks, min(jobs, len(chunks))):
            bar.update(len(chunk))
            yield result


def _here(
    function: Callable[[State, Sequence[Item]], Result], state: State, chunks: list[Sequence[Item]], jobs: int
) -> Iterator[tuple[Sequence[Item], Result]]:
    for chunk in chunks:
        yield chunk, function(state, chunk)


def _in_processes(
    function: Callable[[State, Sequence[Item]], Result], state: State, chunks: list[Sequence[Item]], jobs: int
) -> Iterator[tuple[Sequence[Item], Result]]:
    queue = iter(chunks)
    with ProcessPoolExecutor(jobs, initializer=_start, initargs=(state,)) as pool:
        running: dict[Future[Result], Sequence[Item]] = {}
        try:
            while True:
                for chunk in _take(queue, 2 * jobs - len(running)):
                    running[pool.submit(_call, function, chunk)] = chunk
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            raise DatasetError(
                'a worker process was killed, usually for want of memory; what is finished is kept. '
                'Run again with fewer --jobs'
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _take(iterator: Iterator[Item], count: int) -> Iterator[Item]:
    for _, item in zip(range(count), iterator, strict=False):
        yield item


def _start(state: Any) -> None:
    global _state
    cv2.setNumThreads(0)  # no threads; 1 would hang in a forked process, where OpenCV waits for its pool to end
    _state = state


def _call(function: Callable[[Any, Sequence[Item]], Result], chunk: Sequence[Item]) -> Result:
    return function(_state, chunk)
