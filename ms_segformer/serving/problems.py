"""Errors of the service as problem documents (RFC 9457): what was given, and what is accepted."""

import http
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..errors import SegformerError, one_line

MEDIA_TYPE = 'application/problem+json'

# Status and title by the last part of a problem's type, `urn:ms-segformer:…`.
KINDS = {
    'busy': (503, 'The server is busy'),
    'starting': (503, 'The server is starting'),
    'stopping': (503, 'The server is stopping'),
    'timeout': (503, 'The answer took too long'),
    'not-acceptable': (406, 'No answer of this kind'),
    'media-type': (415, 'Not an image by its media type'),
    'body-too-large': (413, 'The body is too large'),
    'slow-body': (408, 'The body took too long to arrive'),
    'broken-body': (400, 'The body cannot be read'),
    'broken-request': (400, 'Not an HTTP request'),
    'not-an-image': (422, 'The image cannot be read'),
    'too-many-pixels': (422, 'The image has too many pixels'),
    'invalid-option': (422, 'An option is not accepted'),
    'foreign-page': (403, 'A page of another site asked'),
    'foreign-host': (421, 'This host is not served here'),
    'not-found': (404, 'There is no such path'),
    'method': (405, 'The path does not take this method'),
    'internal': (500, 'The server has failed'),
}


class Problem(SegformerError):
    """A request that is refused.

    Args:
        kind: of `KINDS`.
        detail: for people: what was given, what is accepted, what to do.
        retry_after: seconds after which another try makes sense.
        more: further members of the document.
    """

    def __init__(self, kind: str, detail: str, retry_after: int | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.retry_after, self.more = kind, detail, retry_after, more

    @property
    def status(self) -> int:
        """Of HTTP."""
        return KINDS[self.kind][0]

    def response(self) -> JSONResponse:
        """The document, which closes the connection where bytes of the request may still be on their way."""
        status, title = KINDS[self.kind]
        headers = {}
        if self.retry_after is not None:
            headers['Retry-After'] = str(self.retry_after)
        if self.kind in ('body-too-large', 'slow-body', 'broken-body', 'stopping'):
            headers['Connection'] = 'close'
        content = {
            'type': f'urn:ms-segformer:{self.kind}',
            'title': title,
            'status': status,
            'detail': self.detail,
            **self.more,
        }
        return JSONResponse(content, status, headers, MEDIA_TYPE)


SCHEMA = {
    'type': 'object',
    'required': ['type', 'title', 'status', 'detail'],
    'properties': {
        'type': {'type': 'string', 'enum': [f'urn:ms-segformer:{kind}' for kind in KINDS]},
        'title': {'type': 'string'},
        'status': {'type': 'integer'},
        'detail': {'type': 'string', 'description': 'What was given, what is accepted, and what to do.'},
    },
}


def documented(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """The responses of some kinds for FastAPI's `responses`, those of one status together."""
    found: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        status, title = KINDS[kind]
        if status in found:
            found[status]['description'] += f'; {title.lower()}'
            continue
        found[status] = {'description': title, 'content': {MEDIA_TYPE: {'schema': SCHEMA}}}
        if status == 503:
            found[status]['headers'] = {
                'Retry-After': {'description': 'Seconds to wait', 'schema': {'type': 'integer', 'minimum': 1}}
            }
    return found


def _fault(fault: dict[str, Any]) -> dict[str, str]:
    """What pydantic says of an option, with what was given."""
    option = one_line('.'.join(str(part) for part in fault['loc'][1:]))[:100]
    if fault['type'] == 'extra_forbidden':
        return {'option': option, 'reason': 'there is no such option; /docs lists those there are'}
    given = one_line(repr(fault.get('input')))[:100]
    return {'option': option, 'reason': f'{one_line(fault["msg"])}; given: {given}'}


def install(app: FastAPI) -> None:
    """Have an application answer every error as a problem document."""

    @app.exception_handler(Problem)
    async def ours(_: Request, problem: Problem) -> JSONResponse:
        return problem.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = [_fault(fault) for fault in error.errors()]
        detail = '; '.join(f'{fault["option"]}: {fault["reason"]}' for fault in faults[:5])
        return Problem('invalid-option', detail, faults=faults[:20]).response()

    @app.exception_handler(HTTPException)
    async def of_starlette(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 404:
            problem = Problem('not-found', f'{one_line(request.url.path)}: no such path; /docs lists those there are')
        elif error.status_code == 405:
            allowed = (error.headers or {}).get('Allow', '')
            problem = Problem('method', f'{request.method} is not accepted here; accepted: {allowed}')
        else:
            phrase = http.HTTPStatus(error.status_code).phrase
            problem = Problem(
                'internal' if error.status_code >= 500 else 'broken-body', one_line(error.detail or phrase)
            )
        response = problem.response()
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def whatever(_: Request, error: Exception) -> JSONResponse:
        return Problem('internal', 'the log of the server says why; other requests are served as before').response()
