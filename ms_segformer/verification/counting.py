"""Counts the images of a data set into a `Progress`, in this process or in several.

Ctrl-C, SIGTERM and the death of a process end it at once: what was counted is written, and no process is left behind.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from ..datasets.loader import worker_died
from ..engines import create_engine
from ..errors import SegformerError
from ..models.segformer import Segformer
from ..processes import start_without_ctrl_c, when_the_parent_ends
from ..trainers import distributed
from ..trainers.evaluation import Evaluator, predictions
from .score import Progress, ScoreError, shares

SECONDS_TO_WRITE = 10  # that processes get when they are stopped


@dataclass(frozen=True)
class Task:
    """How a data set is counted; it goes to other processes.

    Attributes:
        open: opens the network, on the CPU, and the data set; the processes call it too, so it can be pickled.
        device: its name; None takes a GPU where there is one.
        engine, precision: of `engines.create_engine`.
        workers: loading processes of each process that counts.
    """

    open: Callable[[], tuple[Segformer, Any]]
    device: str | None = None
    engine: str = 'auto'
    precision: str = 'float32'
    workers: int = 0

    @property
    def on_gpus(self) -> bool:
        """Whether every GPU may take a share."""
        return torch.cuda.is_available() and self.device in (None, 'gpu', 'cuda')


def count_all(
    task: Task,
    network: Segformer,
    dataset: Any,
    progress: Progress,
    processes: int | None = None,
    seen: Callable[[int], Any] = lambda _: None,
) -> None:
    """Count the images that are left.

    Args:
        task: how; what it opens is the same as `network` and `dataset`.
        network, dataset: used when this process counts alone.
        progress: what earlier runs have counted; afterwards it holds all images.
        processes: that share the images out; None: one for each GPU, or this one alone.
        seen: called with the number of images that were counted since the last call.

    Raises:
        ScoreError: a process has failed; what was counted is kept, and the message says so.
        SystemExit: SIGTERM came; KeyboardInterrupt: Ctrl-C. What was counted is kept.
    """
    processes = processes or (torch.cuda.device_count() if task.on_gpus else 1)
    failed = ''
    if processes == 1:
        failed = _count(task, network, dataset, progress, progress.left(), task.device, seen)
    elif progress.left():
        with _terminated_in_order():
            failed = _count_in_processes(task, progress, processes, seen)
    progress.read()
    if failed or progress.left():
        raise ScoreError(
            f'{failed or "not every image was counted"} ({len(progress.left())} of {progress.images} '
            'images are not counted; the same command goes on)'
        )


@contextmanager
def _terminated_in_order() -> Iterator[None]:
    """SIGTERM ends the block by a SystemExit, so that it is left in order; the exit code is that of the signal."""

    def stop(number: int, _: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would end what the first has begun
        if hasattr(signal, 'SIGCHLD'):  # torch's handler raises when a loading process ends, as many do now
            signal.signal(signal.SIGCHLD, lambda *_: None)
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread() or (
        signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):  # whoever has set it knows what to do
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _count(
    task: Task,
    network: Segformer,
    dataset: Any,
    progress: Progress,
    indices: list[int],
    device: str | None,
    seen: Callable[[int], Any],
) -> str:
    """Count some images; what is counted is written at the end, and when it is stopped.

    Returns:
        Why it could not go on, or an empty text.
    """
    chosen = distributed.choose_device(device)
    engine = create_engine(network.to(chosen), task.engine, task.precision, chosen)
    progress.engine = f'{engine.name}, {engine.precision}, {chosen.type}'
    evaluator = Evaluator(network, chosen, network=engine)
    with _terminated_in_order():  # before, nothing is counted that could be lost
        try:
            for index, prediction, label in predictions(evaluator, dataset, indices, workers=task.workers):
                progress.count(index, prediction, label)
                seen(1)
        except RuntimeError as error:
            if not worker_died(error):
                raise
            return f'a loading process was killed: {error}'.splitlines()[0].rstrip(' .')
        finally:
            progress.write()
    return ''


def _count_in_processes(task: Task, progress: Progress, processes: int, seen: Callable[[int], Any]) -> str:
    """Count what is left in several processes, each with its share, its file, and its GPU or threads.

    Returns:
        Why one of them could not go on, or an empty text. The others are stopped then.
    """
    context = multiprocessing.get_context('spawn')  # CUDA does not survive a fork
    threads = max(1, torch.get_num_threads() // processes)
    workers: list[multiprocessing.process.BaseProcess] = []
    pipes: dict[Any, multiprocessing.process.BaseProcess] = {}
    try:
        for number, share in enumerate(shares(progress.left(), processes)):
            ours, theirs = context.Pipe(duplex=False)
            worker: multiprocessing.process.BaseProcess = context.Process(
                target=_child, args=(task, progress.folder, progress.digest, share, number, threads, theirs)
            )
            workers.append(worker)
            start_without_ctrl_c(worker)
            theirs.close()
            pipes[ours] = worker
        while pipes:
            ready: list[Any] = wait(list(pipes))
            for pipe in ready:
                try:
                    message = pipe.recv()
                except EOFError:  # this one has ended
                    worker = pipes.pop(pipe)
                    worker.join()
                    if worker.exitcode:
                        return f'a process was killed or has crashed (exit code {worker.exitcode})'
                    continue
                if isinstance(message, str):
                    return message
                seen(message)
        return ''
    finally:
        _stop(workers)


def _stop(workers: list[Any]) -> None:
    """End the processes that are running: they write what they have counted, unless they take too long."""
    running = [worker for worker in workers if worker.pid is not None]
    try:
        for worker in running:
            worker.terminate()
        for worker in running:
            worker.join(SECONDS_TO_WRITE)
    finally:  # a second Ctrl-C does not wait
        for worker in running:
            worker.kill()
            worker.join()


def _child(task: Task, folder: Any, digest: str, share: list[int], number: int, threads: int, pipe: Connection) -> None:
    """One of several processes: opens model and data itself, and sends 1 for every image, or a text when it fails."""
    when_the_parent_ends(_end_with_own)
    failed, code = '', 0
    try:
        torch.set_num_threads(threads)
        device = f'cuda:{number % torch.cuda.device_count()}' if task.on_gpus else task.device
        network, dataset = task.open()
        progress = Progress(folder, digest, len(dataset), dataset.num_classes)
        failed = _count(task, network, dataset, progress, share, device, pipe.send)
    except (SystemExit, KeyboardInterrupt, BrokenPipeError):
        code = 128 + signal.SIGTERM
    except Exception as error:  # whatever it is, the command says it
        failed = f'{error}' if isinstance(error, (SegformerError, OSError)) else f'{type(error).__name__}: {error}'
    if failed:
        pipe.send(failed)
    os._exit(code)  # at once: so many libraries take seconds to end


def _end_with_own() -> None:
    """End this process and its own when the command was killed: the next run may count the same images already."""
    for loading in multiprocessing.active_children():
        loading.kill()
    os._exit(1)
