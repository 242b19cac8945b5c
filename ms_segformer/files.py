"""Writing files so that a reader never sees half of one."""
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path):
    """Yield a temporary path in `path`'s folder; rename it to `path` when the block ends without an error.

    The folder is created when missing. The temporary name keeps the suffix of `path`, for writers that go by it.
    On an error the temporary file is removed and whatever stood at `path` is untouched. The data reach the disk
    before the rename, so a power cut leaves the old file or the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f'.{path.stem}.', suffix=path.suffix, dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o666 & ~_umask())  # mkstemp's file is private, and some writers replace it by another such
        with open(name, 'rb') as written:
            os.fsync(written.fileno())
        os.replace(name, path)
    finally:
        if os.path.exists(name):
            os.unlink(name)


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
