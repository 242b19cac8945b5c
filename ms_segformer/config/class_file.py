"""Class names from a text file, which a configuration or a user names."""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SegformerError

LIMIT = 1 << 20  # bytes; 255 names take a few thousand


class ClassFileError(SegformerError, ValueError):
    """A class file that cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class ConfiguredClassFile:
    """The class file that a configuration file names: one of its model directory, wherever that is copied to.

    Attributes:
        configuration: path of the configuration file.
        name: what it says, relative to itself.
    """

    configuration: Path
    name: str

    def read(self) -> list[str]:
        """The names; raises as `read_class_file` does.

        The directory may be of symbolic links into a folder that holds the content, as in a cache of the Hugging Face
        hub: what lies beside the content of the configuration is the directory's too.
        """
        folder = self.configuration.parent
        return read_class_file(folder / self.name, (folder, os.path.dirname(os.path.realpath(self.configuration))))


def read_class_file(path: str | os.PathLike, inside: Sequence[str | os.PathLike] = ()) -> list[str]:
    """Read a text file with one class name a line.

    Args:
        path: of a regular file in UTF-8, with or without a byte order mark, of at most 1 MiB.
        inside: folders, in one of which the file must lie, symbolic links followed; empty for any place.

    Returns:
        The names, without blank lines and surrounding spaces.

    Raises:
        FileNotFoundError: there is no such file.
        ClassFileError: it lies outside, is a pipe, device or folder, is too large or not UTF-8, or cannot be read.
    """
    path = Path(path)
    if not _can_be_a_name(path):
        raise FileNotFoundError(f'{str(path)!r}: no such file; this can be no file name')
    if inside and not any(Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)) for folder in inside):
        raise ClassFileError(f'{_shown(path)} lies outside {inside[0]}; copy the file there')
    try:
        return [line.strip() for line in _content(path).decode('utf-8-sig').splitlines() if line.strip()]
    except FileNotFoundError:
        raise FileNotFoundError(f'{_shown(path)}: no such file') from None
    except UnicodeDecodeError as error:
        raise ClassFileError(f'{_shown(path)} is not UTF-8 text ({error}); save it as UTF-8') from None
    except OSError as error:
        raise ClassFileError(f'{_shown(path)} cannot be read ({error.strerror or error})') from None


def _can_be_a_name(path: Path) -> bool:
    try:
        return b'\0' not in os.fsencode(path)
    except UnicodeEncodeError:  # a lone surrogate, which JSON can write
        return False


def _shown(path: Path) -> str:
    """A path as it may stand in a message: on one line."""
    return str(path) if str(path).isprintable() else repr(str(path))


def _content(path: Path) -> bytes:
    """The bytes of a regular file; opening never waits, as it would for the other end of a pipe."""
    _check(os.stat(path), path)  # a device may do something when it is opened
    flags = os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0) | getattr(os, 'O_BINARY', 0)
    with os.fdopen(os.open(path, flags), 'rb') as file:
        _check(os.fstat(file.fileno()), path)
        content = file.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise ClassFileError(f'{_shown(path)} has more than {LIMIT:,} bytes, which no list of class names has')
    return content


def _check(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ClassFileError(f'{_shown(path)} is not a regular file; class names stand in a text file, one a line')
