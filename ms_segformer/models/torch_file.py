"""Reads and writes PyTorch's files without running what is in them.

A checkpoint is a pickle with raw numbers beside it. `torch.load` either unpickles it, which runs whatever its author
wrote, or (`weights_only`) refuses what published checkpoints hold besides tensors: mmcv's configuration, numpy numbers.
Here `pickle_interpreter` takes the tensors and the plain values out of it and sets everything else aside.

There are two formats: a zip of uncompressed entries (PyTorch 1.6 and later), whose checksums PyTorch itself does not
look at and this module does; and the one before (legacy), a row of pickles and then the raw numbers, without checksums.
Files that this package writes carry a SHA-256 of their bytes in the zip's comment, where other readers do not mind it.
"""

import hashlib
import io
import re
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..errors import one_line
from ..files import LFS_ADVICE, LFS_POINTER, atomic_write
from .pickle_interpreter import BYTES, CheckpointError, PickleInterpreter, shown

SEAL = b'ms-segformer sha256 '
_BIG_ENDIAN = 'written on a big-endian machine; save it again on another'
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_ZIP_END = struct.Struct('<4s4H2LH')  # end of central directory; the last field is the length of the comment


@dataclass(frozen=True)
class TorchFile:
    """What a file holds.

    Attributes:
        content: tensors (on the CPU) and plain values, usually a dict.
        set_aside: sorted names of the classes and functions that were not looked up; `SetAside` stands in their place.
        digest: the SHA-256 that this package wrote into the file, in hex; None for files of other programs.
    """

    content: Any
    set_aside: tuple[str, ...]
    digest: str | None


def read_torch_file(path: str | Path, values_only: bool = False) -> TorchFile:
    """Read a file that `torch.save` wrote, in either format.

    Args:
        path: of the file.
        values_only: of a zip, leave the tensors where they are, and the digest unread: they come as tensors of torch's
            device `meta`, which have no numbers.

    Raises:
        FileNotFoundError: there is no such file, or it is no regular one.
        CheckpointError: the file is truncated, damaged or none of PyTorch's; the message says what was found.
    """
    path = regular_file(path)
    size = path.stat().st_size
    try:
        with open(path, 'rb') as file:
            start = file.read(64)
            check_start(start)
            if start.startswith(b'PK\x03\x04'):
                digest = None if values_only else _verify_seal(file)
                return TorchFile(*_read_zip(file, size, values_only), digest)
            return TorchFile(*_read_legacy(io.BytesIO(start + file.read())), None)
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from None
    except Exception as error:  # damaged bytes make zipfile, pickletools and the machine stumble in many ways
        if isinstance(error, MemoryError) or 'allocate memory' in str(error):
            raise CheckpointError(f'{path}: not enough memory for what this file of {size} bytes holds') from None
        raise CheckpointError(
            f'{path}: a truncated or damaged checkpoint, or none at all, of {size} bytes '
            f'({shown(one_line(error))}); fetch it again'
        ) from None


def regular_file(path: str | Path) -> Path:
    """The path, after checking that a regular file is there.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it is a folder, or cannot be looked at.
    """
    path = Path(path)
    if '\0' in str(path):
        raise FileNotFoundError(f'{str(path)!r}: no such checkpoint file; this can be no file name')
    try:
        if path.is_dir():
            raise CheckpointError(f'{path}: a folder; expected a checkpoint file')
        found = path.is_file()
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise CheckpointError(f'{path}: {error.strerror}') from None
    if not found:
        raise FileNotFoundError(f'{path}: no such checkpoint file')
    return path


def check_start(start: bytes) -> None:
    """Refuse what often lies in the place of a checkpoint, by the first 64 bytes of the file.

    Raises:
        CheckpointError: the file is empty, a Git LFS pointer or a web page.
    """
    if not start:
        raise CheckpointError('the file is empty; fetch it again')
    if start.startswith(LFS_POINTER):
        raise CheckpointError(LFS_ADVICE)
    if re.match(rb'\s*<[!?A-Za-z][^\0]{5}', start):
        raise CheckpointError(
            f'a web page ({shown(start.lstrip()[:40].decode(errors="replace"))}), not a checkpoint; fetch it again'
        )


def write_torch_file(path: str | Path, content: Any) -> str:
    """Write tensors and plain values as `torch.save` does, atomically, with a digest of all bytes in the file.

    Returns:
        The digest in hex.

    Raises:
        OSError, RuntimeError: the file cannot be written; what stood there is untouched.
    """
    with atomic_write(path) as temporary, _checksums():
        torch.save(content, temporary)
        return _seal(temporary)


def digest_of(path: str | Path) -> str | None:
    """Return the digest that this package wrote into a file, after comparing it with the bytes; None without one.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the bytes are not those that were written.
    """
    path = regular_file(path)
    try:
        with open(path, 'rb') as file:
            return _verify_seal(file)
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from None


@contextmanager
def _checksums() -> Iterator[None]:
    """With the zip entries' checksums, also where a program has switched them off in torch (2.6 and later)."""
    before = getattr(torch.serialization, 'get_crc32_options', lambda: True)()
    if not before:
        torch.serialization.set_crc32_options(True)
    try:
        yield
    finally:
        if not before:
            torch.serialization.set_crc32_options(False)


def _seal(path: Path) -> str:
    with open(path, 'r+b') as file:
        file.seek(-_ZIP_END.size, io.SEEK_END)
        *fields, comment_length = _ZIP_END.unpack(file.read())
        if fields[0] != b'PK\x05\x06' or comment_length:
            raise RuntimeError(f'torch.save of torch {torch.__version__} ends its file in another way than expected')
        file.seek(-_ZIP_END.size, io.SEEK_END)
        file.write(_ZIP_END.pack(*fields, len(SEAL) + 64))
        digest = _sha256(file, file.tell())
        file.write(SEAL + digest.encode())
    return digest


def _verify_seal(file: BinaryIO) -> str | None:
    """Leaves the file at its start."""
    end = file.seek(0, io.SEEK_END) - len(SEAL) - 64
    digest = None
    if end > 0:
        file.seek(end)
        found = re.fullmatch(SEAL + rb'([0-9a-f]{64})', file.read())
        digest = found and found[1].decode()
        if digest and _sha256(file, end) != digest:
            raise CheckpointError(
                'damaged: its bytes are not those that were written (their SHA-256 differs from the one in the file)'
            )
    file.seek(0)
    return digest


def _sha256(file: BinaryIO, end: int) -> str:
    """Digest of the first `end` bytes; leaves the file there."""
    digest = hashlib.sha256()
    file.seek(0)
    while file.tell() < end:
        digest.update(file.read(min(1 << 20, end - file.tell())))
    return digest.hexdigest()


# --- The two formats -------------------------------------------------------------------------------------------------


def _read_zip(file: BinaryIO, size: int, values_only: bool) -> tuple[Any, tuple[str, ...]]:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len(entries) != len(archive.infolist()):
            raise CheckpointError('two entries of one name; refused')
        for entry in entries.values():
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise CheckpointError(
                    f'the entry {shown(entry.filename)} is compressed, which PyTorch never does; refused'
                )
        if sum(entry.file_size for entry in entries.values()) > size:
            raise CheckpointError('its entries are larger than the file; refused')
        pickle = next((name for name in entries if name.count('/') == 1 and name.endswith('/data.pkl')), None)
        if pickle is None:
            raise CheckpointError(
                f"a zip file without a data.pkl, none of PyTorch's (it has {', '.join(map(shown, list(entries)[:4]))})"
            )
        root = pickle.removesuffix('data.pkl')
        if f'{root}byteorder' in entries and archive.read(f'{root}byteorder') != b'little':
            raise CheckpointError(_BIG_ENDIAN)

        def storage(dtype: torch.dtype, key: str, count: int) -> torch.Tensor:
            if values_only:
                return torch.empty(count, dtype=dtype, device='meta')
            data = archive.read(f'{root}data/{key}')  # compares the checksum
            if len(data) != count * BYTES[dtype]:
                raise CheckpointError(f'storage {shown(key)} has {len(data)} bytes, not {count} × {dtype}')
            return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)

        interpreter = PickleInterpreter(storage)
        content = interpreter.run(io.BytesIO(archive.read(pickle)))
    return content, interpreter.set_aside()


def _read_legacy(stream: io.BytesIO) -> tuple[Any, tuple[str, ...]]:
    storages: dict[str, torch.Tensor] = {}
    free = len(stream.getbuffer())

    def storage(dtype: torch.dtype, key: str, count: int) -> torch.Tensor:
        nonlocal free
        free -= count * BYTES[dtype]
        if free < 0:
            raise CheckpointError('truncated: its storages are larger than the file')
        storages[key] = torch.zeros(count, dtype=dtype)  # the numbers come after the pickle
        return storages[key]

    interpreter = PickleInterpreter(storage)
    try:
        magic = interpreter.run(stream)
    except Exception:  # whatever bytes that are no pickle lead to
        magic = None
    if type(magic) is not int or magic != _LEGACY_MAGIC:
        raise CheckpointError('not a PyTorch checkpoint')
    interpreter.run(stream)  # version of the format
    system = interpreter.run(stream)
    if isinstance(system, dict) and system.get('little_endian') is False:
        raise CheckpointError(_BIG_ENDIAN)
    content = interpreter.run(stream)
    keys = interpreter.run(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise CheckpointError('truncated, or its storages are not the ones its tensors name')
    for key in keys:
        values = storages[key]
        (count,) = struct.unpack('<q', stream.read(8))
        data = bytearray(stream.read(values.numel() * values.element_size()))
        if count != len(values) or len(data) != values.numel() * values.element_size():
            raise CheckpointError(f'truncated, or storage {shown(key)} has another size')
        if data:
            values.copy_(torch.frombuffer(data, dtype=values.dtype))
    return content, interpreter.set_aside()
