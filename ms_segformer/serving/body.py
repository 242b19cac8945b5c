"""The image of a request: read within its limits, from a raw body or a form, and never written to a disk."""

import asyncio
import re
from collections.abc import AsyncGenerator

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from ..errors import one_line
from .options import ServeOptions
from .problems import Problem

FORM = 'multipart/form-data'
RAW = 'application/octet-stream'
HELD_BODIES = 8  # bodies of the largest size that may be in the memory until they are decoded, all together
MOST_FIELDS = 16  # of a form
BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,\-./:=? ]{1,70}")  # of RFC 2046
DISCARDED = 2**26  # bytes that are still read of a body that is too large, so that the client reads the answer
DISCARD_SECONDS = 2.0


class _InMemory(MultiPartParser):
    """Starlette's parser, without its temporary files."""

    spool_max_size = 2**62


class Body:
    """The body of a request, which counts towards what all requests may hold until it is dropped.

    Attributes:
        content: the bytes; empty once it is dropped.
    """

    def __init__(self, reader: 'BodyReader') -> None:
        self.content = b''
        self._reader, self._size = reader, 0

    def grow(self, size: int) -> None:
        """Count so many bytes more.

        Raises:
            Problem: busy, there is no room for them.
        """
        self._reader.take(size)
        self._size += size

    def drop(self) -> None:
        """Let the bytes go."""
        self.content = b''
        self._reader.take(-self._size)
        self._size = 0


class BodyReader:
    """Reads the bodies of requests within one bound for all that are not decoded yet.

    Args:
        options: the limits.
    """

    def __init__(self, options: ServeOptions) -> None:
        self._options = options
        self._held = 0

    def take(self, size: int) -> None:
        """Hold so many bytes more, or less.

        Raises:
            Problem: busy, there is no room for them.
        """
        if size > 0 and self._held + size > HELD_BODIES * self._options.max_body:
            raise Problem('busy', 'too many large images are waiting; try again in 2 s', 2)
        self._held += size

    async def read(self, request: Request, body: Body) -> None:
        """Read the body of a request.

        Args:
            request: that has not been read from.
            body: takes the bytes; its owner drops it, also after an error.

        Raises:
            Problem: it is no image by its media type, too large, or too slow; too much is waiting.
            starlette.requests.ClientDisconnect: the client has gone away.
        """
        _check_media_type(request.headers)
        limit, seconds = self._options.max_body, self._options.body_seconds
        declared = request.headers.get('content-length', '')
        if declared.isdecimal() and int(declared) > limit:
            if 'expect' not in request.headers:  # a client that waits for our consent has sent nothing
                await _discard(request)
            raise _too_large(limit, f'{int(declared):,} bytes')
        content = bytearray()

        async def read() -> None:
            async for chunk in request.stream():
                body.grow(len(chunk))
                content.extend(chunk)
                if len(content) > limit:
                    return

        try:
            await asyncio.wait_for(read(), seconds)
            if len(content) > limit:
                size = len(content)
                content.clear()
                body.drop()
                await _discard(request)
                raise _too_large(limit, f'more than {size - 1:,} bytes')
            body.content = bytes(content)
        except asyncio.TimeoutError:
            raise Problem(
                'slow-body', f'{len(content):,} bytes came in {seconds:g} s; a request has to arrive within that time'
            ) from None


def _too_large(limit: int, given: str) -> Problem:
    return Problem('body-too-large', f'the request has {given}; accepted: {limit:,} at most (--max-body)', limit=limit)


async def _discard(request: Request) -> None:
    """Read on for a while: a connection that is closed with bytes unread takes the answer with it."""

    async def read() -> None:
        left = DISCARDED
        while left > 0:
            message = await request.receive()
            left -= len(message.get('body', b''))
            if message['type'] != 'http.request' or not message.get('more_body'):
                return

    try:
        await asyncio.wait_for(read(), DISCARD_SECONDS)
    except asyncio.TimeoutError:
        pass


def media_type_of(content_type: str) -> str:
    """Without its parameters."""
    return content_type.partition(';')[0].strip().lower()


def _check_media_type(headers: Headers) -> None:
    """Raise `Problem` unless a body is a form or an image, without an encoding on top of it."""
    if headers.get('content-encoding', 'identity').strip().lower() != 'identity':
        raise Problem('media-type', f'Content-Encoding is {headers["content-encoding"][:100]!r}; accepted: none')
    given = headers.get('content-type', RAW)
    media_type = media_type_of(given)
    if media_type in (FORM, RAW) or media_type.startswith('image/'):
        return
    raise Problem(
        'media-type',
        f'Content-Type is {given[:100]!r}; accepted: image/jpeg and the other kinds of images, {RAW}, or {FORM} with '
        "the image as file (curl -H 'Content-Type: image/jpeg' --data-binary @photo.jpg …)",
    )


def file_of(body: bytes, content_type: str) -> bytes:
    """The image in a body: the body itself, or the one file of a form. May take as long as decoding an image.

    Args:
        body: of a request.
        content_type: its header.

    Raises:
        Problem: the form cannot be read, or there is no image in it.
    """
    content = body
    if media_type_of(content_type) == FORM:
        content = asyncio.run(_from_form(content_type, body))
    if not content:
        raise Problem('not-an-image', 'the image is empty, 0 bytes; send the content of an image file')
    return content


async def _from_form(content_type: str, content: bytes) -> bytes:
    boundary = parse_options_header(content_type)[1].get(b'boundary', b'')
    if not BOUNDARY.fullmatch(boundary):
        raise Problem(
            'broken-body',
            f'Content-Type is {content_type[:100]!r}; expected {FORM}; boundary=… as HTTP clients write it',
        )
    # The client's own header would also name the codec of field values, and some codecs take minutes.
    headers = Headers({'content-type': f'{FORM}; boundary="{boundary.decode()}"'})

    async def stream() -> AsyncGenerator[bytes, None]:
        yield content

    try:
        form = await _InMemory(headers, stream(), max_files=1, max_fields=MOST_FIELDS).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        reason = one_line(error)
        raise Problem('broken-body', f'the form cannot be read ({reason}); expected one file in {FORM}') from None
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not files:
            raise Problem('not-an-image', 'the form has no file; expected an image in the field "file"')
        return await files[0].read()
    finally:
        await form.close()
