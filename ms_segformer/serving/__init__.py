"""The HTTP service: images in, segments, label maps and overlays out, and a page to look at them.

`create_app` makes the application for an ASGI server; `serve` runs it with the package's own. Both are imported when
they are first asked for: they bring FastAPI and torch, and the command line wants the options before.
"""

from typing import TYPE_CHECKING

from .options import ServeOptions

__all__ = ['ServeOptions', 'create_app', 'serve']

if TYPE_CHECKING:
    from .app import create_app
    from .server import serve
else:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f'module {__name__!r} has no attribute {name!r}; it offers {", ".join(__all__)}')
        from . import app, server  # imported late, see above

        return {'create_app': app.create_app, 'serve': server.serve}[name]
