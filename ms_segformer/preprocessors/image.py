"""Turns whatever a user calls an image into an H×W×3 uint8 RGB array, upright."""

import base64
import functools
import io
import logging
import os
import stat
import struct
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..config.limits import as_integer
from ..download import DownloadError, download, without_userinfo
from ..errors import SegformerError, one_line

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

MAX_PIXELS = 2**27  # 134 megapixels: a file of a few kilobytes can claim to be larger, and would fill the memory
# Files of these kinds take more memory for a pixel while they are decoded than the 7 bytes of the others, and may have
# accordingly fewer pixels when `max_pixels` is the default.
BYTES_PER_PIXEL = {'AVIF': 10, 'progressive JPEG': 12, 'WEBP': 16, 'JPEG2000': 20}
LARGE_TIFF = 2**26  # pixels from which on Pillow may warn of it, or refuse it, when it is decoded
LARGEST_OVERSHOOT = 1.1  # of floats meant as 0–1, which interpolation may take above 1
BAND = 2**20  # pixels that are converted at a time
SUFFIXES = ('.jpg', '.jpeg', '.jpe', '.png', '.bmp', '.gif', '.webp', '.tif', '.tiff', '.ppm', '.pgm', '.jp2', '.avif')
# Pillow's decoders of these. Of the others some decode before the size is known (ICO, ICNS), one runs a program (EPS).
FORMATS = ('JPEG', 'PNG', 'BMP', 'GIF', 'WEBP', 'TIFF', 'PPM', 'JPEG2000', 'AVIF')
ANIMATED = ('PNG', 'GIF', 'WEBP', 'TIFF', 'AVIF')  # a JPEG may hold a preview or a gain map besides, which is no page


class Readable(Protocol):
    """A binary file object, as far as an image needs it."""

    def read(self) -> bytes: ...


# What `load_image` takes; a dict is a row of a data set.
ImageSource: TypeAlias = (
    'str | os.PathLike | bytes | bytearray | memoryview | Readable | Image.Image | '
    'np.ndarray | torch.Tensor | dict[str, Any]'
)

_pillow_limit = threading.Lock()


class ImageError(SegformerError, ValueError):
    """An image that cannot be read or is not one; the message says which and what is accepted."""


class ImageMemoryError(ImageError, MemoryError):
    """There is not enough memory to decode the image; another time there may be."""


class TooManyPixelsError(ImageError):
    """An image larger than `max_pixels` allows."""


class DamagedImageError(ImageError):
    """The content itself is at fault: reading it again, or with other limits, gives the same."""


def load_image(source: ImageSource, channel_order: str = 'RGB', max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Load one image.

    While a file is decoded, Pillow holds it in a form of its own besides the 3 bytes a pixel of the result. Both
    together, in bytes a pixel (`python -m pytest -s tests/preprocessors/test_image_memory.py` measures it):

    - 4: gray JPEG, palette PNG, GIF; 5: 16-bit PNG, GIF with several frames;
    - 7: JPEG, CMYK JPEG, RGB and RGBA PNG, TIFF, BMP; turning it upright takes no more;
    - 10: progressive JPEG without subsampling (CMYK: 12), AVIF; 16: WebP; 20: JPEG 2000.

    Args:
        source: one of

            - a path, an http(s) or file URL, or a `data:` URL; the content as bytes or as a binary file object;
            - a PIL image of any mode;
            - an array or CPU tensor H×W, H×W×1 (gray), H×W×2 (gray, alpha), H×W×3 or H×W×4 (alpha last). Integers
              within 0–255 are taken as they are, uint16 with larger values as 0–65535 (as those of a gray image of 32
              bits are); other integers are refused. Floats, bfloat16 among them, within 0–1 are taken as that range,
              others within 0–255 as that one; a maximum of up to 1.1 is refused as neither. Booleans are black and
              white;
            - a dict with one of these under `image` or `img`, as the rows of a data set have it.
        channel_order: `'RGB'`, or `'BGR'` for arrays from `cv2.imread`; only arrays are affected.
        max_pixels: a file or PIL image with more pixels is refused before it is decoded. The default also holds files
            of the kinds in `BYTES_PER_PIXEL` to the memory that others take: 94 megapixels for AVIF, 78 for progressive
            JPEG, 59 for WebP, 47 for JPEG 2000.

    Returns:
        H×W×3 uint8 RGB. Transparency is dropped, EXIF orientation applied, 16 bits are reduced to 8; of an animation,
        and of a file of several pages, the first is taken, and the log says so.

    Raises:
        FileNotFoundError: the path does not exist.
        ImageError: everything else that is wrong with it, or with the other arguments.
    """
    check_reading(channel_order, max_pixels)
    if isinstance(source, dict):
        source = _from_row(source)
    if 'torch' in sys.modules and isinstance(source, sys.modules['torch'].Tensor):
        source = _array_of(source)
    if isinstance(source, np.ndarray):
        return _from_array(np.asarray(source), channel_order)
    if isinstance(source, Image.Image):
        if _is_closed(source):
            raise ImageError('the PIL image has been closed; pass it inside its with block, or image.copy() from there')
        with _damage_named('the PIL image'):
            return _from_pil(source, 'the PIL image', max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        content = bytes(source)
        return _decode(io.BytesIO(content), f'the {len(content)} bytes given', max_pixels)
    if isinstance(source, (str, os.PathLike)):
        return _from_location(os.fspath(source), max_pixels)
    if hasattr(source, 'read'):
        return _from_file_object(source, max_pixels)
    raise ImageError(
        f'{type(source).__name__} is not an image; accepted: a path, URL, bytes, PIL image, or an array H×W×3'
    )


def _is_closed(image: Image.Image) -> bool:
    """Whether a PIL image's pixels, or the file that they are still to be read from, have been closed."""
    try:
        unread = image.im is None or image.im.size is None  # a closed one's raises, its `im` only in new Pillow
    except AssertionError:  # Pillow's own, from 11 on
        unread = True
    except ValueError:
        return True
    file = getattr(image, 'fp', None)
    return unread and (file is None or getattr(file, 'closed', False))


def _from_file_object(file: Readable, max_pixels: int) -> np.ndarray:
    name = str(getattr(file, 'name', 'the file object given'))
    with _damage_named(name):
        content = file.read()
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise ImageError(f'{name}: reading it gives {type(content).__name__}; expected a file object opened in binary')
    return _decode(io.BytesIO(content), name, max_pixels)


def check_reading(channel_order: str, max_pixels: int) -> None:
    """Raise `ImageError` unless `load_image` takes these."""
    if channel_order not in ('RGB', 'BGR'):
        raise ImageError(f"channel_order is {channel_order!r}; accepted: 'RGB' or 'BGR'")
    if (as_integer(max_pixels) or 0) < 1:
        raise ImageError(f'max_pixels is {max_pixels!r}; accepted: a positive integer')


def image_files(folder: str | os.PathLike) -> list[str]:
    """Sorted paths of the images in a folder and its sub-folders, by suffix in either case; hidden ones left out."""
    found: list[str] = []
    for parent, folders, names in os.walk(os.fspath(folder)):
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        found += [
            os.path.join(parent, name)
            for name in sorted(names)
            if name.lower().endswith(SUFFIXES) and not name.startswith('.')
        ]
    return found


def _from_row(row: dict[str, Any]) -> ImageSource:
    for key in ('image', 'img', 'image:FILE'):
        if row.get(key) is not None:
            return row[key]
    raise ImageError(f'a dict with the keys {sorted(map(str, row))}; expected the image under image or img')


def _array_of(tensor: 'torch.Tensor') -> np.ndarray:
    """What a dense tensor on the CPU holds; numpy has no bfloat16, which becomes float32."""
    import torch  # imported late: whoever passes a tensor has it

    if tensor.device.type != 'cpu':
        raise ImageError(f'a tensor on the device {tensor.device}; expected one on the CPU: pass tensor.cpu()')
    if tensor.is_nested:
        raise ImageError('a nested tensor; for several images pass a list: tensor.unbind()')
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise ImageError(
            f'a {"quantized" if tensor.is_quantized else "sparse"} tensor; expected a dense one: pass '
            f'tensor.{"dequantize" if tensor.is_quantized else "to_dense"}()'
        )
    tensor = tensor.detach().resolve_conj().resolve_neg()
    try:
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    except (RuntimeError, TypeError) as error:  # of float8, for one
        raise ImageError(
            f'a tensor of {tensor.dtype} that numpy cannot hold ({one_line(error)}); expected uint8, or '
            'floats within 0–255 or 0–1'
        ) from None


def _from_location(location: str, max_pixels: int) -> np.ndarray:
    try:
        scheme = urllib.parse.urlsplit(location).scheme.lower()
    except ValueError as error:  # 'http://['
        raise ImageError(f'{location}: neither a path nor a URL ({error})') from None
    if scheme in ('http', 'https'):
        try:
            return _decode(io.BytesIO(download(location).content), without_userinfo(location), max_pixels)
        except DownloadError as error:
            raise ImageError(f'{without_userinfo(location)}: cannot be fetched ({error})') from None
    if scheme == 'data':
        try:
            content = base64.b64decode(location.split(',', 1)[1], validate=True)
        except (IndexError, ValueError):  # the latter also for letters beyond ASCII
            raise ImageError('a data URL that is not base64; expected data:image/…;base64,…') from None
        return _decode(io.BytesIO(content), 'the data URL', max_pixels)
    if scheme == 'file':
        location = urllib.request.url2pathname(urllib.parse.urlsplit(location).path)
    with open_regular(location) as file:
        return _decode(file, location, max_pixels)


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Open a file for reading whose content is there; see `check_regular`.

    Raises:
        FileNotFoundError: the path does not exist.
        ImageError: it is no regular file, or cannot be opened.
    """
    check_regular(path)  # first, because to open a pipe waits for a writer
    with _path_named(path):
        return open(path, 'rb')


def check_regular(path: str | os.PathLike) -> None:
    """Make sure, without opening it, that a path leads to a file: not a pipe, a socket, a terminal or another device.

    Raises:
        FileNotFoundError: the path does not exist.
        ImageError: it is no regular file, or no path that the system takes.
    """
    with _path_named(path):
        mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise ImageError(
            f'{path}: a directory, not an image'
            if stat.S_ISDIR(mode)
            else f'{path}: a pipe, socket, terminal or other device, not a file; save the image to a file first'
        )


@contextmanager
def _path_named(path: str | os.PathLike) -> Iterator[None]:
    """Inside it, what the system says of a path becomes this module's errors."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f'{path}: no such file') from None
    except (OSError, ValueError) as error:  # the latter for a zero byte in the name
        raise ImageError(f'{path}: cannot be opened ({getattr(error, "strerror", error)})') from None


def _decode(file: BinaryIO, name: str, max_pixels: int) -> np.ndarray:
    with open_image(file, name, max_pixels) as image:
        if image.format in ANIMATED and _several_frames(image):
            _say_that_the_first_is_taken(name)
        return _from_pil(image, name, max_pixels)


def _several_frames(image: Image.Image) -> bool:
    """Whether a file has frames or pages besides the first; False as well where the next one is damaged."""
    try:
        return bool(getattr(image, 'is_animated', False))
    except Exception:  # each of Pillow's decoders has exceptions of its own
        return False


@functools.lru_cache(maxsize=1024)
def _say_that_the_first_is_taken(name: str) -> None:
    """Once for each name."""
    logger.warning('%s has several frames or pages; the first is taken', name)


@contextmanager
def open_image(file: BinaryIO, name: str, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Yield the PIL image of a file, not decoded yet; what goes wrong inside is an `ImageError` with the name.

    The caller has to look at the size of the image before it is decoded.

    Raises:
        ImageError: no image of a kind in `FORMATS`, or a damaged one.
    """
    with _damage_named(name), _open(file, name, max_pixels) as image:
        yield image


@contextmanager
def _damage_named(name: str) -> Iterator[None]:
    """Inside it, whatever goes wrong while an image is opened and decoded is an `ImageError` that names the image."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise DamagedImageError(f'{name}: not an image of a kind that is read ({", ".join(_formats())})') from None
    except MemoryError:
        raise ImageMemoryError(f'{name}: there is not enough memory to decode it') from None
    except OSError as error:
        if error.errno is not None:
            raise ImageError(f'{name}: cannot be read ({error.strerror})') from None
        raise _damaged(name, error) from None
    except Exception as error:  # each of Pillow's decoders has exceptions of its own
        raise _damaged(name, error) from None


def _damaged(name: str, error: Exception) -> DamagedImageError:
    return DamagedImageError(f'{name}: a truncated or damaged image ({one_line(error)})')


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _open(file: BinaryIO, name: str, max_pixels: int) -> Image.Image:
    """`PIL.Image.open` with this module's limit in place of Pillow's, which is one for the whole process.

    Pillow's is on for GIF alone: there the size of a frame, which may be filled at once, is not that of the image.
    """
    head = file.read(10)
    file.seek(0)
    own_limit = None
    if head[:4] == b'GIF8' and len(head) == 10:
        own_limit = max_pixels
        width, height = struct.unpack('<HH', head[6:])
        _check_size(width or 1, height or 1, 'GIF', name, max_pixels)
    with _pillows_limit(own_limit):
        image = Image.open(file, formats=_formats())
        _several_frames(image)  # while the limit is on, for which Pillow goes back to the first frame of a GIF
        return image


@contextmanager
def _pillows_limit(pixels: int | None) -> Iterator[None]:
    """Inside it Pillow's limit, which is one for the whole process, is another; one thread at a time."""
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _from_pil(image: Image.Image, name: str, max_pixels: int) -> np.ndarray:
    kind = 'progressive JPEG' if image.format == 'JPEG' and image.info.get('progressive') else image.format
    _check_size(*image.size, kind, name, max_pixels)
    large_tiff = kind == 'TIFF' and image.width * image.height > LARGE_TIFF
    with _pillows_limit(max_pixels) if large_tiff else nullcontext():
        image.load()  # a TIFF is turned upright here, and its size changes
    _check_size(*image.size, kind, name, max_pixels)
    wide = image.mode in ('I', 'F') or image.mode.startswith('I;16')
    convert = _to_gray(image, name) if wide else _to_rgb
    stored, upright = _canvas(image.width, image.height, _orientation(image))
    for rows, band in _bands(image):
        stored[rows] = convert(band)
    return upright


def _orientation(image: Image.Image) -> int:
    """What EXIF says of it; 1, upright, where that is damaged, which does no harm to the pixels."""
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # each kind of damage has an exception of its own
        return 1


def _check_size(width: int, height: int, kind: str | None, name: str, max_pixels: int) -> None:
    limit, of_kind = max_pixels, ''
    if max_pixels == MAX_PIXELS and kind in BYTES_PER_PIXEL:
        limit, of_kind = MAX_PIXELS * 7 // BYTES_PER_PIXEL[kind], f', the limit for {kind}'
    if width * height > limit:
        raise TooManyPixelsError(
            f'{name}: {width}×{height} pixels are more than {limit:,}{of_kind}; with max_pixels '
            '(--max-pixels) larger images are read'
        )
    if not width or not height:
        raise DamagedImageError(f'{name}: {width}×{height} pixels, nothing to segment')


def _bands(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """An image's rows in parts: a conversion in one go would hold another two copies of all of it."""
    height = max(1, BAND // image.width)
    if height >= image.height:
        yield slice(None), image
        return
    for top in range(0, image.height, height):
        bottom = min(top + height, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def _canvas(width: int, height: int, orientation: int) -> tuple[np.ndarray, np.ndarray]:
    """An empty RGB image, as a file of some EXIF orientation stores it and upright: two views of the same memory."""
    upright = np.empty((width, height, 3) if orientation in (5, 6, 7, 8) else (height, width, 3), np.uint8)
    stored = {
        2: lambda: upright[:, ::-1],
        3: lambda: upright[::-1, ::-1],
        4: lambda: upright[::-1],
        5: lambda: upright.transpose(1, 0, 2),
        6: lambda: np.rot90(upright),
        7: lambda: upright[::-1, ::-1].transpose(1, 0, 2),
        8: lambda: np.rot90(upright, -1),
    }
    return stored.get(orientation, lambda: upright)(), upright


def _to_rgb(band: Image.Image) -> np.ndarray:
    if band.mode == 'La':  # Pillow has no direct way
        band = band.convert('LA')
    return np.asarray(band if band.mode == 'RGB' else band.convert('RGB'))


def _to_gray(image: Image.Image, name: str) -> Callable[[Image.Image], np.ndarray]:
    """What turns bands of a gray image of more than 8 bits into h×w×1 uint8: its range decides how."""
    ranges = [(values.min(), values.max()) for _, band in _bands(image) for values in (np.asarray(band),)]
    low, high = np.min(ranges), np.max(ranges)  # NaN stays NaN
    dtype = np.dtype(np.float32 if image.mode == 'F' else np.uint16)
    kind = 'float' if image.mode == 'F' else '32-bit' if image.mode == 'I' else '16-bit'
    convert = _converter(dtype, low, high, f'{name}: a gray {kind} image')
    return lambda band: convert(np.asarray(band).astype(dtype))[:, :, None]


def _from_array(array: np.ndarray, channel_order: str) -> np.ndarray:
    shape = array.shape
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or 0 in shape:
        hint = ''
        if array.ndim == 3 and shape[0] in (1, 3, 4):
            hint = '; this looks channels-first, pass array.transpose(1, 2, 0)'
        elif array.ndim == 4:
            hint = '; for a batch pass a list of images'
        raise ImageError(f'an array of shape {shape}; expected H×W, H×W×1, H×W×3 or H×W×4{hint}')
    color = array[:, :, :3] if array.shape[2] > 2 else array[:, :, :1]
    color = _to_uint8(color)
    if color.shape[2] == 1:
        return np.repeat(color, 3, axis=2)
    return np.ascontiguousarray(color[:, :, ::-1] if channel_order == 'BGR' else color)


def _to_uint8(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind not in 'iuf':
        raise ImageError(f'an array of {array.dtype}; expected uint8, or another numeric type within 0–255 or 0–1')
    return _converter(array.dtype, array.min(), array.max(), f'an array of {array.dtype}')(array)


def _converter(dtype: np.dtype, low: float, high: float, what: str) -> Callable[[np.ndarray], np.ndarray]:
    """What turns numbers of a type and range into uint8; see `load_image`."""
    if dtype.kind == 'f' and not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(f'{what} with NaN or infinite values')
    wide = dtype.kind == 'u' and dtype.itemsize == 2
    if low < 0 or high > (65535 if wide else 255):
        raise ImageError(
            f'{what} with values from {low:g} to {high:g}; expected 0–255'
            f'{" or 0–1" if dtype.kind == "f" else " or 0–65535" if wide else ""}: scale them to that '
            'range first (normalized tensors are not accepted)'
        )
    if dtype.kind == 'f' and 1 < high <= LARGEST_OVERSHOOT:
        raise ImageError(
            f'{what} with values from {low:g} to {high:g}, a little above 1; expected 0–1 or 0–255: if it '
            'is meant as 0–1, pass image.clip(0, 1)'
        )
    if dtype.kind == 'f':
        return lambda array: (array * (255.0 if high <= 1 else 1.0) + 0.5).astype(np.uint8)
    if high > 255:
        return lambda array: (array // 257).astype(np.uint8)
    return lambda array: array.astype(np.uint8)
