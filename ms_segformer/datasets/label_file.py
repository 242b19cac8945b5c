"""Reads label maps: H×W uint8, the class id of each pixel."""

import io
import os
import zlib

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from ..errors import one_line
from ..metainfo import IGNORE_INDEX
from ..preprocessors.image import MAX_PIXELS, ImageError, open_image
from .errors import DatasetError
from .image_file import read_bytes
from .mat_file import MatFileError, read_matrix

LARGEST_ID = 254  # 255 is "not labeled"
_REPAIR = 'restore or remove it'


def read_label(path: str | os.PathLike) -> np.ndarray:
    """Decode a label map as it is stored: class ids, not colors.

    Args:
        path: PNG (gray of any depth, palette), or another lossless image with one 8-bit channel; `.npy`; `.mat` of
            version 5 to 7 (the matrix `S` of COCO-Stuff 10k).

    Returns:
        H×W uint8 array.

    Raises:
        DatasetError: no such file, not decodable, colored, lossy, ids above 255, or more than 134 megapixels.
    """
    data = read_bytes(path, 'label map')
    suffix = os.path.splitext(path)[1].lower()
    if suffix == '.mat':
        return as_label(_from_mat(data, path), path)
    if suffix == '.npy':
        return as_label(_from_npy(data, path), path)
    return decode_label(data, path)


def decode_label(data: np.ndarray, where: object) -> np.ndarray:
    """Like `read_label`, for the content of an image file as uint8; `where` is its name in messages."""
    header = data[:32].tobytes()
    if header[:4] == b'\x89PNG':
        if not _is_sound(data.data):
            raise DatasetError(f'label map {where} is truncated or damaged (a checksum is wrong or missing); {_REPAIR}')
        _check_size(int.from_bytes(header[16:20], 'big'), int.from_bytes(header[20:24], 'big'), where)
        if header[24:26] == b'\x08\x00':  # 8 bits, gray
            label = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
            if label is not None:
                return label
    if header[:3] == b'\xff\xd8\xff':
        raise _lossy('JPEG', where)
    if header[8:16] == b'WEBPVP8 ':
        raise _lossy('WebP', where)
    try:
        with open_image(io.BytesIO(data.data), f'label map {where}') as image:
            _check_size(*image.size, where)
            label = label_from_pillow(image, depth=header[24] if image.format == 'PNG' else 8)
    except ImageError as error:
        raise DatasetError(f'{error}; {_REPAIR}') from None
    return as_label(label, where)


def _lossy(kind: str, where: object) -> DatasetError:
    return DatasetError(
        f'label map {where} is a lossy {kind}, which changes class ids; make the label maps anew and save them as PNG'
    )


def label_of_image(image: Image.Image, where: object) -> np.ndarray:
    """Like `read_label`, for a Pillow image; `where` is its name in messages."""
    if image.format == 'JPEG':
        raise _lossy('JPEG', where)
    return as_label(label_from_pillow(image, _depth_of(image)), where)


def label_from_pillow(image: Image.Image, depth: int = 8) -> np.ndarray:
    """Return the class ids of a Pillow image: palette indices, not colors.

    Args:
        image: of mode L, P, 1 or I; RGB when its three channels are equal.
        depth: bits per pixel of the gray PNG it comes from: Pillow stretches 2 and 4 bits to 0-255.
    """
    label = np.array(image)
    if image.mode == 'L' and depth in (2, 4):
        label //= 255 // (2**depth - 1)
    return label


def _depth_of(image: Image.Image) -> int:
    """Bits per pixel of the PNG file that a Pillow image was opened from; 8 for anything else."""
    if not isinstance(image, PngImageFile) or image.mode != 'L' or not os.path.isfile(image.filename):
        return 8
    with open(image.filename, 'rb') as file:
        return file.read(32)[24]


def as_label(label: object, where: object) -> np.ndarray:
    """Return an array as H×W uint8 class ids, or raise.

    Args:
        label: H×W, or H×W×1, 1×H×W, H×W×3 or ×4 with equal channels; whole numbers of 0-255 in any numeric type.
        where: its name in messages.

    Raises:
        DatasetError: it is anything else.
    """
    try:
        array = np.asarray(label)
    except ValueError as error:
        raise DatasetError(f'label map {where} is no array: {error}') from None
    if (
        array.ndim == 3
        and array.shape[2] in (3, 4)
        and all(np.array_equal(array[..., 0], array[..., channel]) for channel in (1, 2))
    ):
        array = array[..., 0]
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    elif array.ndim == 3 and array.shape[0] == 1 and array.shape[2] > 4:
        array = array[0]
    if array.ndim == 3:
        raise DatasetError(
            f'label map {where} has the shape {array.shape}: it holds colors. A label map has one '
            'channel with the class id of each pixel; convert the colors to ids'
        )
    if array.ndim != 2 or array.dtype.kind not in 'buif':
        raise DatasetError(
            f'label map {where} holds {array.dtype} of the shape {array.shape}; expected a class id for each pixel, H×W'
        )
    height, width = array.shape
    _check_size(width, height, where)
    if array.dtype == bool or array.dtype == np.uint8:
        return array.astype(np.uint8)
    low, high = array.min(), array.max()
    if low >= 0 and high <= 255:  # not so when there are NaN
        ids = array.astype(np.uint8)
        if array.dtype.kind != 'f' or np.array_equal(ids, array):
            return ids
    raise DatasetError(
        f'label map {where} holds values from {low} to {high}; class ids are whole numbers of '
        f'0-{LARGEST_ID}, and {IGNORE_INDEX} for "not labeled"'
    )


def _check_size(width: int, height: int, where: object) -> None:
    if width * height > MAX_PIXELS:
        raise DatasetError(f'label map {where} has {width}×{height} pixels; at most {MAX_PIXELS:,} are read')
    if not width or not height:
        raise DatasetError(f'label map {where} has {width}×{height} pixels, which is nothing; {_REPAIR}')


def _is_sound(data: memoryview) -> bool:
    """Whether the checksums of what counts in a PNG are right, and its end is there: decoders pass over both."""
    at = 8
    while at + 12 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], 'big'), bytes(data[at + 4 : at + 8])
        end = at + 8 + length
        if end + 4 > len(data):
            return False
        if name[:1].isupper() and zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], 'big'):
            return False
        if name == b'IEND':
            return True
        at = end + 4
    return False


def _from_mat(data: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    try:
        return read_matrix(data.data, 'S')
    except MatFileError as error:
        raise DatasetError(f'label map {path} cannot be read: {error}') from None


def _from_npy(data: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    """The array of an `.npy` file, over its content: a header that claims more takes no memory."""
    file = io.BytesIO(data.data)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read(file)
        if dtype.hasobject:
            raise ValueError('it holds Python objects')
        return np.ndarray(shape, dtype, data, file.tell(), order='F' if fortran_order else 'C')
    except Exception as error:  # of numpy's parser of the header, and of Python's, which it uses
        raise DatasetError(
            f'label map {path} is not a whole .npy file of numbers ({one_line(error)}); {_REPAIR}'
        ) from None
