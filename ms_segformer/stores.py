"""Objects in stores (`s3://`, `oss://`, `gs://`, `hf://`, `memory://`, …): looked for, read and put through fsspec.

Who may do so is for the store's own environment to say: variables, files and roles that its package looks for. No URL
carries a password here, and values of the environment that look like secrets are taken out of error messages.
"""

import functools
import inspect
import io
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from glob import has_magic
from typing import TYPE_CHECKING, Any, TypeVar

from .download import CHUNK, DEADLINE_SECONDS, MAX_BYTES, Interruption, Version
from .errors import ArgumentError, SegformerError, one_line

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Result = TypeVar('Result')

AT_ONCE = 16  # requests of one kind
_SCHEME = re.compile(r'([A-Za-z][A-Za-z0-9+._-]*)://')
# What fsspec knows besides stores: files, what `download` fetches, archives, and layers over other file systems.
_NO_STORES = frozenset(
    'file local http https data zip tar libarchive reference dir generic dask cached filecache simplecache blockcache '
    'async_wrapper asyncwrapper asynclocal git dvc jupyter jlab pyscript'.split()
)
# In these `user@host` is usual.
_USERS_IN_URLS = frozenset('abfs abfss az adl wasb sftp ssh ftp smb webdav hdfs webhdfs'.split())
_SECRET = re.compile(r'KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL', re.IGNORECASE)
_SHORTEST_SECRET = 8  # letters; a shorter value would be found in ordinary words
_ETAGS = ('ETag', 'etag', 'blob_id')  # what stores call the name of a content
_TIMES = ('LastModified', 'last_modified', 'updated', 'mtime', 'created')


class StoreError(SegformerError):
    """A store does not do what it is asked; the message says why, without the object."""


@dataclass(frozen=True)
class StoredObject:
    """An object as a listing has it.

    Attributes:
        url: with the scheme.
        version: `size`, `etag` and `last_modified` as far as the listing has them.
        folder: nothing but the beginning of other objects' names.
    """

    url: str
    version: Version
    folder: bool = False


def scheme_of(location: str) -> str | None:
    """The scheme of a URL that names something in a store, lower case; None for anything else."""
    found = _SCHEME.match(location)
    scheme = found[1].lower() if found else None
    if scheme is None or scheme in _NO_STORES:
        return None
    from fsspec.registry import known_implementations, registry  # imported late: only where a URL is given

    return scheme if scheme in known_implementations or scheme in registry else None


def check_url(url: str) -> str:
    """Return a store's URL with its scheme in lower case, if it holds no password and its package is installed.

    Raises:
        ArgumentError: it does, or the package is not.
    """
    scheme, _, rest = url.partition('://')
    scheme = scheme.lower()
    user, at, _ = rest.partition('/')[0].rpartition('@')
    if at and (':' in user or scheme not in _USERS_IN_URLS):
        raise ArgumentError(
            f'{scheme}://…@{rest[len(user) + 1 :]}: a name or password stands before the @, and would be kept in '
            "manifests; give the URL without it, and the credentials in the store's own environment"
        )
    if not rest.strip('/'):
        raise ArgumentError(f'{url}: names no bucket; expected {scheme}://BUCKET/NAME')
    _class_of(scheme)
    return f'{scheme}://{rest}'


def in_background(work: Callable[[], Result]) -> 'Future[Result]':
    """Do something in a thread that the end of the process does not wait for."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:
            with suppress(InvalidStateError):  # nobody waits any more
                future.set_exception(error)
        else:
            with suppress(InvalidStateError):
                future.set_result(result)

    threading.Thread(target=run, name='ms-segformer-store', daemon=True).start()
    return future


class Store:
    """A file system of fsspec, whose errors are `StoreError`s. Any number of threads may use it.

    Args:
        url: of something in it.

    Raises:
        ArgumentError: its package is not installed.
        StoreError: it cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self.scheme = url.partition('://')[0]
        kind = _class_of(self.scheme)
        with in_words():
            self._system: AbstractFileSystem = kind(**kind._get_kwargs_from_urls(url))
        writing = getattr(self._system, '_pipe_file', self._system.pipe_file)
        self._creates = 'mode' in inspect.signature(writing).parameters
        self.at_once = AT_ONCE if self._system.async_impl else 1  # the others are not made for several threads

    @property
    def file_system(self) -> 'AbstractFileSystem':
        """fsspec's; its errors are those of the store's package."""
        return self._system

    def info(self, url: str) -> StoredObject | None:
        """What a URL names; None where nothing does, or is there."""
        with in_words():
            try:
                self._system.invalidate_cache()
                info = self._system.info(self._path(url))
            except FileNotFoundError:
                return None
        return _stored(url.rstrip('/') if info['type'] == 'directory' else url, info)

    def below(self, url: str, depth: int | None = None) -> list[StoredObject]:
        """The objects whose names begin with a folder's, sorted: one listing.

        Args:
            depth: how many folders to look into, this one included; None for all.
        """
        folder = url.rstrip('/')
        with in_words():
            self._system.invalidate_cache()  # of what another process has changed it knows nothing
            path = self._path(folder)
            found = self._system.find(path, maxdepth=depth, detail=True)
            self._system.invalidate_cache()  # which of many objects is large
        beginning = len(path.strip('/'))  # some file systems begin names with a slash that the path lacks
        return [
            _stored(folder + name.lstrip('/')[beginning:], info)
            for name, info in sorted(found.items())
            if info['type'] == 'file' and not name.endswith('/')
        ]

    def read(self, url: str, most: int = MAX_BYTES) -> bytes:
        """The content of an object, in one request.

        Raises:
            StoreError: also where it has more than `most` bytes, or needs more than `DEADLINE_SECONDS`.
        """

        content = self._beginning(url, most + 1)
        if len(content) > most:
            raise StoreError(f'larger than {most >> 20} MiB; fetch it yourself and pass the path')
        return content

    def holds(self, url: str, content: bytes) -> bool:
        """Whether an object has this content; of a larger one no more is read."""
        return self._beginning(url, len(content) + 1) == content

    def lines(self, url: str, longest: int) -> Iterator[bytes]:
        """The lines of an object, which may be larger than the memory; a longer one comes in pieces."""
        with in_words(), self._system.open(self._path(url), 'rb') as file:
            buffered = io.BufferedReader(file, CHUNK)  # fsspec's own files take no limit for a line
            while line := buffered.readline(longest):
                yield line

    def put(self, url: str, content: bytes, new: bool = False) -> None:
        """Make or replace an object, whole or not at all.

        Args:
            new: only if there is none. Where the store has no such request, it is looked for before.

        Raises:
            FileExistsError: there is one, and `new` was asked for.
        """
        path = self._path(url)
        with in_words():
            if not new:
                self._system.pipe_file(path, content)
            elif self._creates:
                self._system.pipe_file(path, content, mode='create')
            else:
                self._system.invalidate_cache()
                if self._system.exists(path):
                    raise FileExistsError(url)
                self._system.pipe_file(path, content)

    def remove(self, urls: list[str]) -> None:
        """Remove objects, and no others: fsspec takes some names for patterns."""
        paths = [self._path(url) for url in urls]
        plain = [path for path in paths if not has_magic(path)]
        with in_words():
            if plain:
                self._system.rm(plain)
            for path in paths:
                if has_magic(path):
                    self._system.rm_file(path)

    def each(self, work: Callable[[str], Result], urls: list[str]) -> list[Result]:
        """Do something with several URLs, as many at once as this store takes; results in order."""
        if self.at_once == 1:
            return [work(url) for url in urls]
        results: list[Result] = []
        for first in range(0, len(urls), self.at_once):
            running = [in_background(functools.partial(work, url)) for url in urls[first : first + self.at_once]]
            results += [future.result() for future in running]
        return results

    def _beginning(self, url: str, size: int) -> bytes:
        def fetch() -> bytes:
            path = self._path(url)
            with in_words():
                try:
                    return self._system.cat_file(path, start=0, end=size)
                except (FileNotFoundError, PermissionError):
                    raise
                except Exception:  # no part of nothing can be asked for
                    if self._system.info(path)['size'] == 0:
                        return b''
                    raise

        return _in_time(fetch)

    def _path(self, url: str) -> str:
        return self._system._strip_protocol(url)


def open_store(url: str) -> Store:
    """The store of a URL; those of one server are one."""
    scheme = url.partition('://')[0]
    kind = _class_of(scheme)
    with in_words():
        options = kind._get_kwargs_from_urls(url)
    key = (scheme, *sorted((name, repr(value)) for name, value in options.items()))
    with _opening:
        if key not in _stores:
            _stores[key] = Store(url)
        return _stores[key]


_stores: dict[tuple, Store] = {}
_opening = threading.Lock()


def _class_of(scheme: str) -> 'type[AbstractFileSystem]':
    from fsspec.registry import get_filesystem_class, known_implementations  # imported late: only where a URL is given

    try:
        return get_filesystem_class(scheme)
    except ImportError as error:
        package = str(known_implementations.get(scheme, {}).get('class', '')).partition('.')[0]
        what = f'`pip install {package}`' if package not in ('', 'fsspec') else one_line(error)
        raise ArgumentError(f'{scheme}:// needs a package that is not installed, or does not load: {what}') from None


def _stored(url: str, info: 'dict[str, Any]') -> StoredObject:
    if info['type'] == 'directory':
        return StoredObject(url, Version(), folder=True)
    version = Version()
    if isinstance(info.get('size'), int):
        version['size'] = info['size']
    etag = next((str(info[name]).strip('"') for name in _ETAGS if info.get(name)), None)
    time = next((info[name] for name in _TIMES if info.get(name)), None)
    if etag is not None:
        version['etag'] = etag
    elif time is not None:  # a copy has another time and the same etag, so it is looked at only where there is none
        version['last_modified'] = _one_form(time)
    return StoredObject(url, version)


def _one_form(time: object) -> str:
    """A time of an object: some stores have it as seconds in listings and as a date elsewhere."""
    if isinstance(time, (int, float)):
        time = datetime.fromtimestamp(time, timezone.utc)
    return time.astimezone(timezone.utc).isoformat() if isinstance(time, datetime) else str(time)


@contextmanager
def in_words() -> Iterator[None]:
    """Inside it, whatever goes wrong is a `StoreError`: each store's package has exceptions of its own."""
    try:
        yield
    except (SegformerError, FileExistsError):
        raise
    except Exception as error:
        raise StoreError(_words(error)) from None


def _words(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return 'there is no such object, or no such bucket'
    text = without_secrets(one_line(error))
    if isinstance(error, PermissionError) or 'credential' in text.lower():
        return f"the store refuses it ({text}); it takes credentials from its own environment, see the guide 'Predict'"
    return text if isinstance(error, OSError) else f'{type(error).__name__}: {text}'


def without_secrets(text: str) -> str:
    """A text without the values of variables that are called a key, a token and the like."""
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, '***')
    return text


class _Waiting:
    """A wait that another thread can end."""

    def __init__(self, future: 'Future[Any]') -> None:
        self._future = future

    def interrupt(self) -> None:
        with suppress(InvalidStateError):
            self._future.set_exception(StoreError('interrupted'))


def _in_time(work: Callable[[], Result]) -> Result:
    """Wait for work that has `DEADLINE_SECONDS`, and which `download.Interruption` ends."""
    future = in_background(work)
    Interruption.watch(_Waiting(future))
    try:
        return future.result(DEADLINE_SECONDS)
    except FutureTimeoutError:
        advice = 'fetch it yourself and pass the path'
        raise StoreError(f'not complete after {DEADLINE_SECONDS} seconds; {advice}') from None
    finally:
        Interruption.watch(None)
