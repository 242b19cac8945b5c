"""Takes from an iterator in another thread, so that what it does and what its consumer does overlap."""

import threading
from collections.abc import Generator, Iterator
from queue import Empty, Full, Queue
from typing import TypeVar

Item = TypeVar('Item')
LOOK = 0.1  # seconds after which a thread that waits for room looks whether it is still wanted


def read_ahead(items: Iterator[Item], depth: int) -> Generator[Item, None, None]:
    """Yield what an iterator gives, in order, while a thread takes the next ones from it.

    The thread starts with the first item that is asked for. It has ended when this generator has, closed early or
    not; a generator is closed in it.

    Args:
        items: used by that thread alone.
        depth: how many items may wait, besides the one the thread holds.

    Raises:
        BaseException: what the iterator raised, after the items before.
    """
    waiting: Queue[tuple[bool, Item | BaseException | None]] = Queue(depth)
    unwanted = threading.Event()

    def put(entry: tuple[bool, Item | BaseException | None]) -> None:
        while not unwanted.is_set():
            try:
                return waiting.put(entry, timeout=LOOK)
            except Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put((True, item))
                if unwanted.is_set():
                    break
            put((False, None))
        except BaseException as error:
            put((False, error))
        finally:
            if isinstance(items, Generator):
                items.close()

    thread = threading.Thread(target=work, name='ms-segformer-read-ahead', daemon=True)
    thread.start()
    try:
        while True:
            more, entry = waiting.get()
            if more:
                yield entry  # type: ignore[misc]  # an item
            elif entry is None:
                return
            else:
                raise entry  # type: ignore[misc]  # an error
    finally:
        unwanted.set()
        while thread.is_alive():
            try:
                waiting.get_nowait()
            except Empty:
                pass
            thread.join(LOOK)
