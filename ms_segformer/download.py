"""Fetches what a URL names, in bounded time and memory."""

import base64
import hashlib
import http.client
import os
import socket
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict, overload

from .errors import SegformerError, one_line
from .files import atomic_write
from .progress import screen

TIMEOUT_SECONDS = 30  # without a byte
DEADLINE_SECONDS = 300  # for the whole transfer, redirects included: a server that drips could hold a reader for ever
FILE_DEADLINE_SECONDS = 4 * 3600  # for a file that the user waits for, over a slow line
MAX_BYTES = 2**28
CHUNK = 2**20


class DownloadError(SegformerError, OSError):
    """What a URL names cannot be had; the message says why, without the URL."""


class Version(TypedDict, total=False):
    """What tells a content from a later one of the same URL: the server's names for it are there as far as it sends
    them."""

    size: int  # bytes
    sha256: str
    etag: str
    last_modified: str


@dataclass(frozen=True)
class Download:
    """The content that a URL gave, and its version."""

    content: bytes
    version: Version


@overload
def download(url: str, known: None = None) -> Download: ...
@overload
def download(url: str, known: Version | None) -> Download | None: ...
def download(url: str, known: Version | None = None) -> Download | None:
    """Fetch an http or https URL, through the proxies that the environment names.

    Args:
        url: the address; `user:password@` before the host is sent as basic authentication.
        known: `version` of an earlier `Download` of it: asks the server for the content only if it has changed.

    Returns:
        The download, or None when it is still the `known` one.

    Raises:
        DownloadError: it cannot be reached, says anything but 200, needs more than `DEADLINE_SECONDS` or has more
            than `MAX_BYTES`.
    """
    deadline = _Deadline(DEADLINE_SECONDS)
    try:
        with deadline, _opener(deadline).open(_request(url, known), timeout=TIMEOUT_SECONDS) as answer:
            content = _read(answer)
            deadline.check()
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 304 and known:
            return None
        raise DownloadError(one_line(error)) from None
    except (http.client.HTTPException, OSError, ValueError) as error:
        deadline.check()
        raise DownloadError(one_line(error)) from None
    version = _version(answer.headers, content)
    if known and (known.get('size'), known.get('sha256')) == (version['size'], version['sha256']):
        return None
    return Download(content, version)


def download_file(
    url: str, path: str | os.PathLike, max_bytes: int, check: Callable[[Path], None] | None = None
) -> int:
    """Fetch what a URL names into a file, which is there whole or not at all. A terminal sees the progress.

    Args:
        url: as for `download`.
        path: of the file; its folder is made.
        max_bytes: a larger one is refused.
        check: is called with the path of the complete file before it takes its place; raises `DownloadError`.

    Returns:
        Its size in bytes.

    Raises:
        DownloadError: as for `download`, and when the file cannot be written.
    """
    deadline = _Deadline(FILE_DEADLINE_SECONDS)
    try:
        with atomic_write(path) as temporary:
            with deadline, _opener(deadline).open(_request(url, None), timeout=TIMEOUT_SECONDS) as answer:
                with open(temporary, 'wb') as file, _progress(os.path.basename(path), answer.length) as advance:
                    for chunk in _chunks(answer, max_bytes):
                        file.write(chunk)
                        advance(len(chunk))
                    size = file.tell()
                deadline.check()
            if check is not None:
                check(temporary)
            return size
    except (http.client.HTTPException, OSError, ValueError) as error:
        deadline.check()
        raise DownloadError(one_line(error)) from None


@contextmanager
def _progress(name: str, size: int | None) -> Iterator[Callable[[int], object]]:
    """Yield what is told how many bytes came; it draws a bar where the standard error stream is a terminal."""
    if not (sys.stderr and sys.stderr.isatty()):
        yield lambda count: None
        return
    from tqdm import tqdm  # imported late: only where a bar is drawn

    with tqdm(total=size, desc=name, unit='B', unit_scale=True, leave=False, **screen()) as bar:
        yield bar.update


def without_userinfo(url: str) -> str:
    """An http or https URL as it may be shown and kept: without a user's name and password. Else what was given."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return url
    if parts.scheme.lower() not in ('http', 'https') or '@' not in parts.netloc:
        return url
    return parts._replace(netloc=parts.netloc.rpartition('@')[2]).geturl()


def _request(url: str, known: Version | None) -> urllib.request.Request:
    """What asks for a URL as a user writes it: with spaces, other scripts, and a name and password before the host."""
    parts = urllib.parse.urlsplit(url)
    userinfo, _, host = parts.netloc.rpartition('@')
    if parts.port == 0:  # asking raises ValueError where it is no number, or one that is taken modulo 65536 later
        raise DownloadError('port 0 is no port')
    host = host if host.isascii() else host.encode('idna').decode()
    path, query = (urllib.parse.quote(os.fsencode(text), safe="%/:@!$&'()*+,;=?~") for text in parts[2:4])
    request = urllib.request.Request(
        urllib.parse.urlunsplit((parts.scheme, host, path, query, '')), headers={'User-Agent': 'ms-segformer'}
    )
    if userinfo:
        token = base64.b64encode(urllib.parse.unquote_to_bytes(userinfo)).decode()
        request.add_unredirected_header('Authorization', f'Basic {token}')  # for this host alone
    if known and 'etag' in known:
        request.add_header('If-None-Match', known['etag'])
    elif known and 'last_modified' in known:
        request.add_header('If-Modified-Since', known['last_modified'])
    return request


def _read(answer: http.client.HTTPResponse) -> bytes:
    return b''.join(_chunks(answer, MAX_BYTES))


def _chunks(answer: http.client.HTTPResponse, max_bytes: int) -> Iterator[bytes]:
    total = 0
    while chunk := answer.read(CHUNK):
        total += len(chunk)
        if total > max_bytes:
            raise DownloadError(f'larger than {max_bytes >> 20} MiB; fetch it yourself and pass the path')
        yield chunk
    if answer.length:  # of the announced bytes these never came
        raise DownloadError(f'broken off, {answer.length} bytes are missing')


def _version(headers: http.client.HTTPMessage, content: bytes) -> Version:
    version = Version(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    etag, last_modified = headers.get('ETag'), headers.get('Last-Modified')
    if etag is not None:
        version['etag'] = etag
    if last_modified is not None:
        version['last_modified'] = last_modified
    return version


class Interruptible(Protocol):
    """Something that a thread waits for."""

    def interrupt(self) -> None: ...


class Interruption:
    """Ends, from another thread, the download that a thread is in, and those that it begins later."""

    _of_thread = threading.local()

    def __init__(self) -> None:
        self._lock, self._over = threading.Lock(), False
        self._current: Interruptible | None = None

    def bind(self) -> None:
        """Take the downloads of the calling thread, one at a time, from now on."""
        self._of_thread.bound = self

    def interrupt(self) -> None:
        """End them. One that is still being connected ends after `TIMEOUT_SECONDS` at the latest."""
        with self._lock:
            self._over = True
            if self._current:
                self._current.interrupt()

    @classmethod
    def watch(cls, deadline: Interruptible | None) -> None:
        """Note what the calling thread is in now."""
        bound = getattr(cls._of_thread, 'bound', None)
        if bound:
            with bound._lock:
                bound._current = deadline
                if deadline and bound._over:
                    deadline.interrupt()


class _Deadline:
    """Shuts the connections given to it down when the time is over, so that whatever waits for them goes on."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.end = seconds, time.monotonic() + seconds
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._shut_down)
        self._timer.daemon = True

    def check(self) -> None:
        """Raise `DownloadError` when the time is over: what was read until then may be a part that looks whole."""
        if time.monotonic() >= self.end:
            raise DownloadError(
                f'not complete after {self.seconds:g} seconds; fetch it yourself and pass the path'
            ) from None

    def interrupt(self) -> None:
        """Let the time be over now."""
        self.seconds, self.end = 0, time.monotonic()
        self._shut_down()

    def __enter__(self) -> '_Deadline':
        self._timer.start()
        Interruption.watch(self)
        return self

    def __exit__(self, *_: object) -> None:
        Interruption.watch(None)
        self._timer.cancel()
        self._timer.join()
        with self._lock:
            for watched in self._sockets:
                watched.close()
            self._sockets.clear()

    def watch(self, connected: socket.socket) -> None:
        with self._lock:
            self._sockets.append(connected.dup())  # TLS takes the original over
        if time.monotonic() >= self.end:
            self._shut_down()

    def _shut_down(self) -> None:
        with self._lock:
            for watched in self._sockets:
                try:
                    watched.shutdown(socket.SHUT_RDWR)
                except OSError:  # the other side was faster
                    continue


class _Watched:
    """What an `http.client` connection is besides: its socket is known to a `_Deadline` from its first byte on."""

    deadline: _Deadline
    _sock: socket.socket | None

    @property
    def sock(self) -> socket.socket | None:
        return self._sock

    @sock.setter
    def sock(self, value: socket.socket | None) -> None:
        self._sock = value
        if type(value) is socket.socket:  # not the TLS one, which goes over the same connection
            self.deadline.watch(value)


class _Connection(_Watched, http.client.HTTPConnection):
    pass


class _SecureConnection(_Watched, http.client.HTTPSConnection):
    pass


def _opener(deadline: _Deadline) -> urllib.request.OpenerDirector:
    """An opener for http and https, and nothing else that a redirection may lead to."""

    def connection(host: str, **options: Any) -> _Connection:
        made = _Connection(host, **options)
        made.deadline = deadline
        return made

    def secure_connection(host: str, **options: Any) -> _SecureConnection:
        made = _SecureConnection(host, **options)
        made.deadline = deadline
        return made

    class Handler(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(connection, request)

    class SecureHandler(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(secure_connection, request)

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        Handler,
        SecureHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener
