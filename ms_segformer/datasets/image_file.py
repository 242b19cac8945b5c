"""Reads the images of a data set."""

import io
import os

import cv2
import numpy as np

from ..files import LFS_ADVICE, LFS_POINTER
from ..preprocessors.image import BYTES_PER_PIXEL, MAX_PIXELS, ImageError, load_image, open_regular
from .errors import DatasetError

LARGEST_FILE = 2**30  # bytes: an uncompressed image of the most pixels that are read takes less
_OPENCV_PIXELS = MAX_PIXELS * 7 // BYTES_PER_PIXEL['progressive JPEG']  # larger ones are read in parts


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Decode an image file.

    Args:
        path: file in any format the pipeline reads; EXIF orientation is applied.

    Returns:
        H×W×3 uint8 BGR array.

    Raises:
        DatasetError: no such file, no image, a truncated one, or one of more pixels than `load_image` reads.
    """
    data = read_bytes(path, 'image')
    if _is_plain_jpeg(data) and b'\xff\xd9' in data[-4096:].tobytes():  # decoders fill in a missing end without a word
        img = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if img is not None:
            return img
    return _decode_with_pillow(data, path)


def read_bytes(path: str | os.PathLike, what: str) -> np.ndarray:
    """The content of a file as uint8.

    Args:
        what: what it is, for messages: 'image' or 'label map'.

    Raises:
        DatasetError: no such file, a device or folder, an empty file, a Git LFS pointer, one that cannot be read or is
            too large.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > LARGEST_FILE:
                raise DatasetError(f'{what} {path} has {size:,} bytes; at most {LARGEST_FILE:,} are read')
            data = np.frombuffer(file.read(), np.uint8)
    except FileNotFoundError:
        raise DatasetError(f'{what} {path} does not exist') from None
    except ImageError as error:
        raise DatasetError(f'{what} {error}') from None
    except OSError as error:
        raise DatasetError(f'{what} {path} cannot be read: {error.strerror}') from error
    if not data.size:
        raise DatasetError(f'{what} {path} is an empty file; restore or remove it')
    if data[:64].tobytes().startswith(LFS_POINTER):
        raise DatasetError(f'{what} {path} is {LFS_ADVICE}')
    return data


def _is_plain_jpeg(data: np.ndarray) -> bool:
    """Whether a file is a JPEG that OpenCV reads well: not CMYK, which it converts in its own way, and not huge."""
    header = data[:65536].tobytes()
    if header[:3] != b'\xff\xd8\xff':
        return False
    position = 2
    while position + 9 < len(header) and header[position] == 0xFF:
        marker, length = header[position + 1], int.from_bytes(header[position + 2 : position + 4], 'big')
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (int.from_bytes(header[at : at + 2], 'big') for at in (position + 5, position + 7))
            return header[position + 9] in (1, 3) and height * width <= _OPENCV_PIXELS  # the first: components
        position += 2 + length
    return False


def _decode_with_pillow(data: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    file = io.BytesIO(data.data)
    file.name = os.fspath(path)  # for messages
    try:
        return np.ascontiguousarray(load_image(file)[..., ::-1])
    except ValueError as error:
        reason = str(error).removeprefix(f'{file.name}: ')
        raise DatasetError(f'image {path} cannot be decoded: {reason}; restore or remove it') from error
