"""Turns whatever a user calls an image into an H×W×3 uint8 RGB array, upright."""
import base64
import binascii
import io
import os
import threading
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 2**29  # 536 megapixels, 1.5 GiB decoded; Pillow's own limit of 179 is meant for web servers
BAND = 2**22  # pixels
URL_TIMEOUT_SECONDS = 30
MAX_URL_BYTES = 2**28
SUFFIXES = ('.jpg', '.jpeg', '.jpe', '.png', '.bmp', '.gif', '.webp', '.tif', '.tiff', '.ppm', '.pgm', '.jp2', '.avif')

_pillow_limit = threading.Lock()


class ImageError(ValueError):
    """An image that cannot be read or is not one; the message says which and what is accepted."""


def load_image(source, channel_order='RGB'):
    """Load one image.

    Args:
        source: one of

            - a path, an http(s) or file URL, or a `data:` URL; the content as bytes or as a binary file object;
            - a PIL image of any mode;
            - an array or CPU tensor H×W, H×W×1 (grey), H×W×2 (grey, alpha), H×W×3 or H×W×4 (alpha last). Integers
              within 0–255 are taken as they are, uint16 with larger values as 0–65535. Floats within 0–1 are taken as
              that range, other floats within 0–255 as that one. Booleans are black and white;
            - a dict with one of these under `image` or `img`, as the rows of a data set have it.
        channel_order: `'RGB'`, or `'BGR'` for arrays from `cv2.imread`; only arrays are affected.

    Returns:
        H×W×3 uint8 RGB. Transparency is dropped, EXIF orientation applied, 16 bits are reduced to 8; of an animation
        the first frame is taken.

    Raises:
        FileNotFoundError: the path does not exist.
        ImageError: everything else that is wrong with it.
    """
    if channel_order not in ('RGB', 'BGR'):
        raise ImageError(f"channel_order is {channel_order!r}; accepted: 'RGB' or 'BGR'")
    if isinstance(source, dict):
        source = _from_row(source)
    if isinstance(source, np.ndarray) or type(source).__module__.split('.')[0] == 'torch':
        return _from_array(np.asarray(source), channel_order)
    if isinstance(source, Image.Image):
        return _from_pil(source, 'the PIL image')
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(io.BytesIO(source), f'the {len(source)} bytes given')
    if isinstance(source, (str, os.PathLike)):
        return _from_location(os.fspath(source))
    if hasattr(source, 'read'):
        return _decode(io.BytesIO(source.read()), 'the file object given')
    raise ImageError(f'{type(source).__name__} is not an image; accepted: a path, URL, bytes, PIL image, or an array '
                     'H×W×3')


def image_files(folder):
    """Sorted paths of the images in a folder and its sub-folders, by suffix in either case; hidden ones left out."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        found += [os.path.join(parent, name) for name in sorted(names)
                  if name.lower().endswith(SUFFIXES) and not name.startswith('.')]
    return found


def _from_row(row):
    for key in ('image', 'img', 'image:FILE'):
        if row.get(key) is not None:
            return row[key]
    raise ImageError(f'a dict with the keys {sorted(map(str, row))}; expected the image under image or img')


def _from_location(location):
    scheme = urllib.parse.urlsplit(location).scheme.lower()
    if scheme in ('http', 'https'):
        return _decode(io.BytesIO(_download(location)), location)
    if scheme == 'data':
        try:
            return _decode(io.BytesIO(base64.b64decode(location.split(',', 1)[1], validate=True)), 'the data URL')
        except (IndexError, binascii.Error):
            raise ImageError('a data URL that is not base64; expected data:image/…;base64,…') from None
    if scheme == 'file':
        location = urllib.request.url2pathname(urllib.parse.urlsplit(location).path)
    if os.path.isdir(location):
        raise ImageError(f'{location}: a directory, not an image')
    if not os.path.exists(location):
        raise FileNotFoundError(f'{location}: no such file')
    with open(location, 'rb') as file:
        return _decode(file, location)


def _download(url):
    request = urllib.request.Request(url, headers={'User-Agent': 'ms-segformer'})
    try:
        with urllib.request.urlopen(request, timeout=URL_TIMEOUT_SECONDS) as answer:
            content = answer.read(MAX_URL_BYTES + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise ImageError(f'{url}: cannot be fetched ({error})') from None
    if len(content) > MAX_URL_BYTES:
        raise ImageError(f'{url}: larger than {MAX_URL_BYTES >> 20} MiB; fetch it yourself and pass the path')
    return content


def _decode(file, name):
    try:
        with _open(file) as image:
            return _from_pil(image, name)
    except UnidentifiedImageError:
        raise ImageError(f'{name}: not an image that Pillow can read') from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f'{name}: a truncated or damaged image ({error})') from None


def _open(file):
    """`PIL.Image.open` with this module's limit in place of Pillow's, which is one for the whole process."""
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _from_pil(image, name):
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f'{name}: {image.width}×{image.height} pixels; the limit is {MAX_PIXELS:,} pixels')
    if not image.width or not image.height:
        raise ImageError(f'{name}: {image.width}×{image.height} pixels, nothing to segment')
    if image.getexif().get(0x0112, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == 'I' or image.mode.startswith('I;16'):
        return _from_array(np.asarray(image).astype(np.uint16), 'RGB')
    if image.mode == 'F':
        return _from_array(np.asarray(image), 'RGB')
    return _pixels(image if image.mode == 'RGB' else image.convert('RGB'))


def _pixels(image):
    """A Pillow image's pixels, band by band: at once they would be held three times over while they are copied."""
    rows = max(1, BAND // image.width)
    if rows >= image.height:
        return np.asarray(image)
    array = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        array[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return array


def _from_array(array, channel_order):
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
    colour = array[:, :, :3] if array.shape[2] > 2 else array[:, :, :1]
    colour = _to_uint8(colour)
    if colour.shape[2] == 1:
        return np.repeat(colour, 3, axis=2)
    return np.ascontiguousarray(colour[:, :, ::-1] if channel_order == 'BGR' else colour)


def _to_uint8(array):
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind not in 'iuf':
        raise ImageError(f'an array of {array.dtype}; expected uint8, or another numeric type within 0–255 or 0–1')
    low, high = array.min(), array.max()
    if array.dtype.kind == 'f' and not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError('an array with NaN or infinite values')
    if low < 0 or high > (65535 if array.dtype == np.uint16 else 255):
        raise ImageError(f'an array of {array.dtype} with values from {low:g} to {high:g}; expected 0–255'
                         f'{" or 0–1" if array.dtype.kind == "f" else ""} (normalised tensors are not accepted)')
    if array.dtype.kind == 'f':
        return (array * (255.0 if high <= 1 else 1.0) + 0.5).astype(np.uint8)
    if high > 255:
        return (array // 257).astype(np.uint8)
    return array.astype(np.uint8)
