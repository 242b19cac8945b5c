"""What every request passes: who may ask, the headers of every answer, and the count of answers."""

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics
from .options import ServeOptions
from .problems import Problem

CLIENT_GONE = 499  # the status, by which nginx counts them too, of requests whose client did not wait
HEADERS = {
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Content-Security-Policy': "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
# Swagger's page starts itself by a script within the page, and sets styles.
DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Door:
    """ASGI middleware.

    A service on the loopback interface answers to loopback names only: a page of another site whose name was made to
    lead to this machine has another `Host`. No page of another site may have anything segmented either; it could not
    read the answer, but it could keep the server busy.

    Args:
        app: behind it.
        options: of the service.
        metrics: told the answers.
        counted: path whose answers are counted.
    """

    def __init__(self, app: ASGIApp, options: ServeOptions, metrics: Metrics, counted: str) -> None:
        self._app, self._metrics, self._counted = app, metrics, counted
        self._host = options.host
        self._only_loopback = is_loopback(options.address or options.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] != 'http':
            await self._app(scope, receive, send)
            return
        status = CLIENT_GONE

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message['type'] == 'http.response.start':
                status = message['status']
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope['path'] == '/docs':
                    headers['Content-Security-Policy'] = DOCS_POLICY
            await send(message)

        problem = self._refusal(scope)
        inside = {**scope, 'method': 'GET'} if scope['method'] == 'HEAD' else scope  # the server leaves the body out
        try:
            await (problem.response() if problem else self._app)(inside, receive, send_with_headers)
        except BaseException:
            status = 500 if status == CLIENT_GONE else status
            raise
        finally:
            if scope['path'] == self._counted:
                self._metrics.requests.labels(str(status), scope.get('segformer_model', '')).inc()

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        host = headers.get('host', '')
        if self._only_loopback and host and _name(host) != self._host and not is_loopback(_name(host)):
            return Problem(
                'foreign-host',
                f'Host is {host[:200]!r}; this service listens on the loopback interface and answers to localhost only '
                '(--host 0.0.0.0 serves other machines)',
            )
        if scope['method'] not in ('GET', 'HEAD') and _is_of_another_site(headers):
            return Problem('foreign-page', 'a page of another site asked; only pages of this service may')
        return None


def _is_of_another_site(headers: Headers) -> bool:
    """Whether a page of another site has sent a request, by what browsers say of it."""
    site, origin = headers.get('sec-fetch-site'), headers.get('origin')
    if site is not None:  # browsers say it to services over HTTPS and on the same machine
        return site not in ('same-origin', 'none')
    return origin is not None and origin.partition('://')[2] != headers.get('host')


def _name(host: str) -> str:
    """The name in a `Host` header, without the port."""
    try:
        return urlsplit(f'//{host}').hostname or ''
    except ValueError:
        return ''


def is_loopback(host: str) -> bool:
    """Whether a name or address leads to the machine itself only."""
    if host == 'localhost' or host.endswith('.localhost'):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
