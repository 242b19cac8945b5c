"""The HTTP service: images in, segments, label maps and overlays out, and a page to look at them.

`create_app` makes the application for an ASGI server; `serve` runs it with the package's own.
"""

from .app import create_app
from .options import ServeOptions
from .server import serve

__all__ = ['ServeOptions', 'create_app', 'serve']
