"""A folder of compiled networks: bounded, safe to share between processes and to delete at any time."""
import hashlib
import logging
import os
from pathlib import Path

from ..files import atomic_write
from ..version import __version__

LIMIT = 2 << 30  # bytes; the least recently used files above it go
logger = logging.getLogger(__name__)


def cache_dir():
    """`$MS_SEGFORMER_CACHE`, else `ms-segformer` in `$XDG_CACHE_HOME` or `~/.cache`. It need not exist."""
    if os.environ.get('MS_SEGFORMER_CACHE'):
        return Path(os.environ['MS_SEGFORMER_CACHE']).expanduser()
    return Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'ms-segformer'


def key_of(model, **what):
    """A name for what is compiled from a model: its weights, its settings, this package's version and `what`."""
    digest = hashlib.sha256(repr((__version__, model.settings, sorted(what.items()))).encode())
    for name, value in model.state_dict().items():
        digest.update(f'{name}{tuple(value.shape)}{value.dtype}'.encode())
        digest.update(value.detach().cpu().contiguous().numpy())
    return digest.hexdigest()[:40]


def read(name):
    """Content of a cached file, or None when it is not there or damaged (it is then removed)."""
    path = cache_dir() / name
    try:
        with open(path, 'rb') as file:
            digest, content = file.read(32), file.read()
    except OSError:
        return None
    if hashlib.sha256(content).digest() != digest:
        logger.warning('%s: damaged, made again', path)
        _remove(path)
        return None
    try:
        os.utime(path)
    except OSError:
        logger.debug('%s: cannot be marked as used', path)
    return content


def write(name, content):
    """Keep `content` (bytes) under a name; a folder that cannot be written to costs only the next start's time."""
    path = cache_dir() / name
    try:
        with atomic_write(path) as temporary, open(temporary, 'wb') as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
        _prune(path)
    except OSError as error:
        logger.warning('%s: not cached (%s); set MS_SEGFORMER_CACHE to a folder that can be written to', path, error)


def _prune(newest):
    """Remove the least recently used files until the folder is within `LIMIT`; `newest` stays in any case."""
    files = []
    for path in newest.parent.iterdir():
        try:
            status = path.stat()
        except OSError:  # removed by another process
            continue
        if path.is_file() and path != newest:
            files.append((status.st_mtime, status.st_size, path))
    total = newest.stat().st_size + sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= LIMIT:
            return
        _remove(path)
        total -= size


def _remove(path):
    try:
        path.unlink()
    except FileNotFoundError:
        logger.debug('%s: already gone', path)
