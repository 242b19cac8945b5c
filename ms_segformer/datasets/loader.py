"""A `DataLoader` that hands on the errors of a data set as they are, also from its worker processes.

torch's own makes a new exception of the worker's, whose message is a traceback of the worker with ours at its end.
"""

import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Protocol

from torch.utils.data import DataLoader, Dataset

from .errors import DatasetError


class MapStyle(Protocol):
    """A data set of so many samples, each with its number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def worker_died(error: RuntimeError) -> bool:
    """Whether torch says that a loading process was killed: from the loader, or from a signal handler, wherever the
    main thread is then. It has no class of its own for it, so its words decide.
    """
    return 'DataLoader worker' in str(error)


class Loader(DataLoader):
    """Batches of a map-style data set; a `DatasetError` reaches the caller with the message it was raised with.

    Args:
        dataset: any map-style data set.
        collate_fn: joins a list of samples into a batch.
        options: those of torch's `DataLoader`.
    """

    def __init__(self, dataset: MapStyle, collate_fn: Callable[[list], Any], **options: Any) -> None:
        super().__init__(
            _ErrorsAsSamples(dataset),
            collate_fn=_ErrorsAsBatches(collate_fn),
            worker_init_fn=_silent_when_the_reader_ends,
            **options,
        )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch names a class of its own; one iterates
        for batch in super().__iter__():
            if isinstance(batch, DatasetError):
                raise batch
            yield batch


def _silent_when_the_reader_ends(_: int) -> None:
    """In a loading process: print nothing when the process that reads from it ends in the middle of a tensor.

    The thread of `multiprocessing.resource_sharer` that hands tensors on gives such an error to `sys.excepthook`, so
    that Ctrl-C would end now and then with the traceback of a broken connection. Nothing else of a loading process
    comes to that hook: torch sends a data set's errors to the reader.
    """

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if not issubclass(kind, (ConnectionError, EOFError)):
            sys.__excepthook__(kind, error, traceback)

    sys.excepthook = hook


class _ErrorsAsSamples(Dataset):
    """A data set whose samples may be its errors: what a worker returns is pickled as it is."""

    def __init__(self, dataset: MapStyle) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except DatasetError as error:
            return error


class _ErrorsAsBatches:
    """A `collate_fn` that returns the first error among its samples, or its own."""

    def __init__(self, collate: Callable[[list], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: list) -> Any:
        error = next((sample for sample in samples if isinstance(sample, DatasetError)), None)
        if error is not None:
            return error
        try:
            return self.collate(samples)
        except DatasetError as error:
            return error
