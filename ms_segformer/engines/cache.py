"""A folder of compiled networks: bounded, safe to share between processes and to delete at any time.

A compiled network is code: OpenVINO runs what it reads there. So the folder and its files are this user's alone, and
what another user owns or could have written is neither loaded nor written over. The folder is opened once and its files
through that descriptor, so that nobody can put another one in its place between the check and the use.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SegformerError
from ..models.fingerprint import add_weights
from ..version import __version__

if TYPE_CHECKING:
    from ..models.segformer import Segformer

LIMIT = 2 << 30  # bytes; the least recently used files above it go
FOLDER = 'compiled-networks'
NAME = re.compile(r'[0-9a-f]{40}(-[-x0-9]+)?\.(openvino|onnx-cached)')
UNFINISHED = re.compile(NAME.pattern + r'\.[0-9a-f]{16}')  # what a killed process leaves of a file
UNFINISHED_SECONDS = 3600
OTHERS_CAN_WRITE = stat.S_IWGRP | stat.S_IWOTH
_NO_LINKS = getattr(os, 'O_NOFOLLOW', 0) | getattr(os, 'O_CLOEXEC', 0) | getattr(os, 'O_BINARY', 0)
_NO_WAITING = getattr(os, 'O_NONBLOCK', 0)  # for a named pipe that somebody put there
_BY_DESCRIPTOR = {
    os.open,
    os.stat,
    os.unlink,
    os.utime,
    os.rename,
} <= os.supports_dir_fd and os.listdir in os.supports_fd
logger = logging.getLogger(__name__)
_told: set[Path | None] = set()  # folders that were warned about; once is enough


class _Unsafe(OSError):
    """A folder or file that somebody else owns or could have written."""


class NoHome(SegformerError, OSError):
    """There is no home directory that `~` in the cache's path could stand for."""


def cache_dir() -> Path:
    """The folder of compiled networks; it need not exist.

    Returns:
        `compiled-networks` below `$MS_SEGFORMER_CACHE`, else below `ms-segformer` in `$XDG_CACHE_HOME` or `~/.cache`.

    Raises:
        NoHome: `~` stands for no folder, as for a user id without an account; set `MS_SEGFORMER_CACHE`.
    """
    given = os.environ.get('MS_SEGFORMER_CACHE')
    folder = Path(given or Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache') / 'ms-segformer')
    try:
        return folder.expanduser() / FOLDER
    except RuntimeError as error:
        raise NoHome(f'{folder}: {str(error).rstrip(".")}') from None


def key_of(model: Segformer, **what: object) -> str:
    """A name for what is compiled from a model: its weights, its settings, this package's version and `what`."""
    digest = hashlib.sha256(repr((__version__, model.settings, sorted(what.items()))).encode())
    add_weights(digest, model)
    return digest.hexdigest()[:40]


def read(name: str) -> bytes | None:
    """Content of a cached file.

    Args:
        name: as `NAME` has it: a key, and a suffix that says what is in the file.

    Returns:
        None when the file is not there, is damaged (it is then removed), or may be somebody else's work (a warning
        says so once).
    """
    try:
        with _Folder() as folder:
            digest, content = folder.read(name)
            if hashlib.sha256(content).digest() == digest:
                folder.mark_used(name)
                return content
            logger.warning('%s: damaged, made again', folder.path / name)
            folder.remove(name)
    except FileNotFoundError:
        logger.debug('%s: not in the cache', name)
    except OSError as error:
        _warn(error)
    return None


def has(name: str) -> bool:
    """Whether `read` would look into a file of this name; it may still find that it is of no use."""
    try:
        with _Folder() as folder:
            folder.look(name)
    except OSError:
        return False
    return True


def write(name: str, content: bytes) -> None:
    """Keep a file; a folder that cannot be used costs only the next start's time, and a warning.

    Args:
        name: as for `read`.
        content: of the file.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f'{name!r} is no name of a cached file, which is one that {NAME.pattern} describes')
    try:
        with _Folder(create=True) as folder:
            folder.replace(name, hashlib.sha256(content).digest(), content)
            folder.prune(name)
    except OSError as error:
        _warn(error)


class _Folder:
    """`cache_dir()`, opened and found to be this user's alone; raises `_Unsafe` or another OSError where it is not."""

    def __init__(self, create: bool = False) -> None:
        self.path = cache_dir()
        self._create = create
        # Windows has no descriptors of folders, and other owners and modes than are checked.
        self._descriptor: int | None = None

    def __enter__(self) -> _Folder:
        if self._create:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=True)
        if _BY_DESCRIPTOR:
            if self.path.is_symlink():
                raise _Unsafe(f'{self.path} is a symbolic link')
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | _NO_LINKS)
            try:
                _check_owner(os.fstat(descriptor), self.path)
            except _Unsafe:
                os.close(descriptor)
                raise
            self._descriptor = descriptor
        return self

    def __exit__(self, *error: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _at(self, name: str) -> dict[str, Any]:
        return {'path': self.path / name} if self._descriptor is None else {'path': name, 'dir_fd': self._descriptor}

    def look(self, name: str) -> None:
        """Raise the `OSError` that keeps a file from being read."""
        _check(os.stat(follow_symlinks=False, **self._at(name)), self.path / name)  # says it better than open's errors

    def read(self, name: str) -> tuple[bytes, bytes]:
        """The digest that a file begins with, and the rest of it."""
        self.look(name)
        with os.fdopen(os.open(flags=os.O_RDONLY | _NO_LINKS | _NO_WAITING, **self._at(name)), 'rb') as file:
            _check(os.fstat(file.fileno()), self.path / name)
            return file.read(32), file.read()

    def mark_used(self, name: str) -> None:
        try:
            os.utime(**self._at(name))
        except OSError as error:  # a read-only file system
            logger.debug('%s: cannot be marked as used (%s)', name, error)

    def remove(self, name: str) -> None:
        try:
            os.unlink(**self._at(name))
        except FileNotFoundError:
            logger.debug('%s: already gone', name)

    def replace(self, name: str, *parts: bytes) -> None:
        """Write a file whole or not at all; never over what is not this user's."""
        try:
            _check(os.stat(follow_symlinks=False, **self._at(name)), self.path / name)
        except FileNotFoundError:
            pass
        temporary = f'{name}.{secrets.token_hex(8)}'
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINKS
            with os.fdopen(os.open(flags=flags, mode=0o600, **self._at(temporary)), 'wb') as file:
                file.writelines(parts)
            source, target = self._at(temporary)['path'], self._at(name)['path']
            os.replace(source, target, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        except BaseException:
            self.remove(temporary)
            raise

    def _own(self) -> Iterator[tuple[str, os.stat_result]]:
        """The files of this module's naming, and only those that are safe to touch."""
        for name in os.listdir(self.path if self._descriptor is None else self._descriptor):
            if NAME.fullmatch(name) or UNFINISHED.fullmatch(name):
                try:
                    status = os.stat(follow_symlinks=False, **self._at(name))
                    _check(status, self.path / name)
                except OSError:  # removed by another process, or not this user's
                    continue
                yield name, status

    def prune(self, newest: str) -> None:
        """Remove the least recently used files until the rest is within `LIMIT`; `newest` stays in any case."""
        files, total = [], 0
        for name, status in self._own():
            if UNFINISHED.fullmatch(name) and time.time() - status.st_mtime > UNFINISHED_SECONDS:
                self.remove(name)
                continue
            total += status.st_size
            if NAME.fullmatch(name) and name != newest:
                files.append((status.st_mtime, status.st_size, name))
        for _, size, name in sorted(files):
            if total <= LIMIT:
                return
            self.remove(name)
            total -= size


def _check(status: os.stat_result, path: Path) -> None:
    """Raise `_Unsafe` unless this is a regular file of this user's that nobody else can write to."""
    if not stat.S_ISREG(status.st_mode):
        raise _Unsafe(f'{path} is not a regular file')
    _check_owner(status, path)


def _check_owner(status: os.stat_result, path: Path) -> None:
    if not hasattr(os, 'geteuid'):
        return
    if status.st_uid != os.geteuid():
        raise _Unsafe(f'{path} belongs to another user (id {status.st_uid}; this process runs as {os.geteuid()})')
    if status.st_mode & OTHERS_CAN_WRITE:
        raise _Unsafe(f'{path} can be written to by others (mode {stat.S_IMODE(status.st_mode):o})')


def _warn(error: OSError) -> None:
    folder = None if isinstance(error, NoHome) else cache_dir()
    if folder not in _told:
        _told.add(folder)
        where = '' if folder is None else f' in {folder}'
        logger.warning(
            'compiled networks are not kept%s: %s. What others could have written is not used. Remove it, '
            'or set MS_SEGFORMER_CACHE to a folder of your own that you can write to',
            where,
            error,
        )
