"""What a service is started with."""

from dataclasses import dataclass

from ..config.limits import as_integer
from ..errors import ArgumentError

MAX_BODY = 32 * 2**20  # bytes of a request
MAX_PIXELS = 2**25  # of an image: 33 megapixels, which take about a third of a gigabyte while they are worked on
PLACES = 32  # requests that are worked on or wait, of each worker
SECONDS = 60.0  # that a request may take from its last byte to its answer
BODY_SECONDS = 20.0  # that a request may take to arrive
HEADER_SECONDS = 10.0  # that its first lines may take


@dataclass(frozen=True)
class ServeOptions:
    """Of a service; it goes to other processes.

    Attributes:
        models: (name in the API, what `ms_segformer.load` opens) of each; the first answers where none is named.
        host: name or address to listen on.
        address: that the socket has; None: not known, `host` stands for it.
        port: to listen on; 0 takes a free one.
        workers: processes; each has the models, and its share of the threads.
        device, engine, precision: of `ms_segformer.load`.
        places: requests that a worker takes on at a time, those that wait among them; more are refused.
        max_body: bytes of a request.
        max_pixels: of an image.
        seconds: that a request may take from its last byte to its answer.
        body_seconds: that a request may take to arrive.
        header_seconds: that its first lines may take.
        verbose: workers show ModelScope's messages.

    Raises:
        ArgumentError: a number is out of range, or two models have one name.
    """

    models: tuple[tuple[str, str], ...]
    host: str = '127.0.0.1'
    address: str | None = None
    port: int = 8000
    workers: int = 1
    device: str = 'gpu'
    engine: str = 'auto'
    precision: str = 'float32'
    places: int = PLACES
    max_body: int = MAX_BODY
    max_pixels: int = MAX_PIXELS
    seconds: float = SECONDS
    body_seconds: float = BODY_SECONDS
    header_seconds: float = HEADER_SECONDS
    verbose: bool = False

    def __post_init__(self) -> None:
        names = [name for name, _ in self.models]
        if not all(
            name.isprintable() and name for name in names
        ):  # surrogates, which no answer can hold, are not either
            raise ArgumentError(f'a model is called {names!r}; accepted: names of letters, digits and signs')
        if not names:
            raise ArgumentError('no model was given; expected one at least')
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ArgumentError(f'two models are called {twice!r}; name one of them otherwise: NAME=DIR')
        for name in ('workers', 'places', 'max_body', 'max_pixels'):
            if (as_integer(getattr(self, name)) or 0) < 1:
                raise ArgumentError(f'{name} is {getattr(self, name)!r}; accepted: a positive integer')
        for name in ('seconds', 'body_seconds', 'header_seconds'):
            if not 0 < getattr(self, name) < float('inf'):
                raise ArgumentError(f'{name} is {getattr(self, name)!r}; accepted: a positive number of seconds')
        if not 0 <= (-1 if as_integer(self.port) is None else self.port) <= 65535:
            raise ArgumentError(f'port is {self.port!r}; accepted: 0 to 65535, 0 for a free one')
