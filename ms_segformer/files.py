"""Writing files so that a reader never sees half of one, and reading those that anyone may have written."""

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # there are no locks then

TEMPORARY = '.ms-segformer-tmp-'  # how the name of every temporary file of this package begins
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
LONGEST_SUFFIX = 100  # bytes of a suffix that a temporary name keeps, so that it stays within 255 bytes
LFS_POINTER = b'version https://git-lfs'  # how a file begins that `git clone` left without its content
LFS_ADVICE = 'a Git LFS pointer, not the file: run `git lfs pull`, or download the file'

LARGEST_JSON = 64 << 20  # bytes; the report of `verify` on the demonstration model has 2 kB


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file that this package wrote, or that somebody took for one.

    A configuration is read by `config.read_configuration`, which says what is wrong with it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON in UTF-8, nested without end, or has more than `LARGEST_JSON` bytes.
    """
    with open(path, 'rb') as file:
        written = file.read(LARGEST_JSON + 1)
    if len(written) > LARGEST_JSON:
        raise ValueError(f'{path} has more than {LARGEST_JSON:,} bytes')
    try:
        return json.loads(written.decode())
    except RecursionError:
        raise ValueError(f'{path}: lists and mappings in one another without end') from None


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path to write to; what was written stands at `path` when the block ends without an error.

    A regular file is made in one step, by a rename in its own folder, which is created when missing. On an error the
    temporary file is removed and whatever stood at `path` is untouched. The data reach the disk before the rename, so
    a power cut leaves the old file or the new one. A symbolic link stays, and the file it leads to is replaced. A
    file that is replaced keeps its permissions. What is not a regular file, or is where this process's output goes
    (a device, a pipe, `/dev/stdout`), is not replaced: the data are written into it.

    The temporary name keeps the suffix of `path`, for writers that go by it; see `temporary_prefix`.

    Args:
        path: str or path-like.

    Raises:
        IsADirectoryError: a directory stands there.
        OSError: the file cannot be written; the system's reason.
    """
    status = _status(path)
    if status and stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, 'a directory stands where the file is to be written', str(path))
    descriptor = _own_output(status)
    if descriptor is not None or (status and not stat.S_ISREG(status.st_mode)):
        with _copied_into(path, descriptor) as temporary:
            yield temporary
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, mode, lock = _create(path, status.st_mode & 0o777 if status else None)
    try:
        yield temporary
        with open(temporary, 'rb') as written:
            os.fsync(written.fileno())
        os.chmod(temporary, mode)  # some writers replace the file by one with permissions of its own
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
        if lock is not None:
            os.close(lock)


def temporary_prefix(name: str) -> str:
    """How the temporary files for a file of this name begin: with it, what a killed process left can be told apart."""
    return f'{TEMPORARY}{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}-'


def remove_left(temporary: str | os.PathLike) -> None:
    """Remove a temporary file that a killed process has left; one that is being written stays, or may be (Windows)."""
    if not hasattr(os, 'O_NOFOLLOW'):
        return
    try:
        handle = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # written meanwhile, or not ours
        return
    try:
        if _lock(handle):
            os.unlink(temporary)
    except FileNotFoundError:
        pass
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    """Lock a file until its last descriptor is closed; the system does that, however a process ends."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # a file system without locks, or another process has it
        return False
    return True


@contextmanager
def locked(folder: str | os.PathLike, refusal: Exception) -> Iterator[None]:
    """Keep every other run out of a folder; the system drops the lock when the process ends, however it does.

    Where the system or the file system has no locks, nothing is kept out. A forked child does not hold the lock.

    Args:
        folder: created when missing.
        refusal: raised when another run has the lock.

    Raises:
        OSError: the folder cannot be created.
    """
    os.makedirs(folder, exist_ok=True)
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    _locks.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _unlock(descriptor)
        raise refusal from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        _unlock(descriptor)


_locks: set[int] = set()


def _unlock(descriptor: int) -> None:
    if descriptor in _locks:
        _locks.remove(descriptor)
        os.close(descriptor)


def _leave_locks_to_parent() -> None:
    """A loader's process that outlives a killed training for a moment would keep the next one out."""
    while _locks:
        os.close(_locks.pop())


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_leave_locks_to_parent)


def _status(path: str | os.PathLike) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:  # nothing there, or a link that leads to nothing yet
        return None


def _create(path: Path, mode: int | None) -> tuple[Path, int, int | None]:
    """Make a temporary file for `path`, and lock it where that can be done.

    Returns:
        Its path; the permissions it is to have, by default those the umask leaves; the lock, to be closed.
    """
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= LONGEST_SUFFIX else ''
    while True:
        temporary = path.with_name(f'{temporary_prefix(path.name)}{secrets.token_hex(6)}{suffix}')
        try:
            # O_CREAT applies the umask: to read it, a process would have to change it for all of its threads.
            handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666 if mode is None else mode | 0o600)
        except FileExistsError:
            continue
        mode = os.fstat(handle).st_mode & 0o777 if mode is None else mode
        if _lock(handle):
            return temporary, mode, handle
        os.close(handle)
        return temporary, mode, None


def _own_output(status: os.stat_result | None) -> int | None:
    """The descriptor of this process's output that a file is open as, or None."""
    for descriptor in (1, 2):
        try:
            if status and os.path.samestat(status, os.fstat(descriptor)):
                return descriptor
        except OSError:  # closed
            continue
    return None


@contextmanager
def _copied_into(path: str | os.PathLike, descriptor: int | None) -> Iterator[Path]:
    """Yield a temporary path elsewhere and write its content to a device, or to an output of this process."""
    with tempfile.TemporaryDirectory(prefix='ms-segformer-') as folder:
        temporary = Path(folder) / f'content{Path(path).suffix}'
        temporary.touch()
        yield temporary
        for stream in (sys.stdout, sys.stderr):  # what was printed before comes before
            if stream is not None:
                stream.flush()
        target = os.dup(descriptor) if descriptor is not None else os.open(path, os.O_WRONLY)
        with open(temporary, 'rb') as content, open(target, 'wb') as device:
            shutil.copyfileobj(content, device)


def is_text(name: str) -> bool:
    """Whether the bytes of a file's name are UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
