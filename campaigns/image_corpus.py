"""Small images of every kind, made on the spot with Pillow and OpenCV, and by hand where neither writes them."""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

SIZE = 37, 29  # width and height, neither a multiple of anything
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
# What is read nowhere: each has to be refused.
REFUSED = ('BLP', 'DDS', 'DIB', 'EPS', 'ICNS', 'ICO', 'IM', 'MSP', 'PCX', 'PDF', 'QOI', 'SGI', 'SPIDER', 'TGA', 'XBM')
# Files of kilobytes that are, or claim to be, as large as is read or larger: kind, mode, side, and how they are saved.
BOMBS = (
    ('PNG', 'RGBA', 11_500, {'compress_level': 1}),
    ('PNG', '1', 11_500, {}),
    ('GIF', 'P', 20_000, {}),
    ('TIFF', 'CMYK', 11_500, {'compression': 'tiff_lzw'}),
    ('TIFF', 'F', 11_500, {'compression': 'tiff_lzw'}),
    ('JPEG', 'L', 11_500, {}),
    ('JPEG', 'CMYK', 8_800, {'progressive': True}),
    ('JPEG', 'RGB', 9_000, {'progressive': True}),
    ('WEBP', 'RGB', 7_600, {'method': 0}),
    ('WEBP', 'RGB', 16_383, {'method': 0}),
    ('JPEG2000', 'RGB', 6_800, {}),
    ('AVIF', 'L', 9_600, {'speed': 10}),
    ('PPM', 'RGB', 11_500, b'P6 11500 11500 255 '),
    ('PPM', 'RGB', 60_000, b'P6 60000 60000 255 '),
    ('BMP', 'RGB', 60_000, b'BM' + struct.pack('<IHHIIiiHHIIiiII', 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, *[0] * 6)),
)


def corpus() -> dict[str, dict[str, bytes]]:
    """Contents by kind and name. What this Pillow does not write is left out."""
    rgb = picture()
    kinds = {
        'JPEG': jpegs,
        'PNG': pngs,
        'GIF': gifs,
        'BMP': bitmaps,
        'WebP': webps,
        'TIFF': tiffs,
        'PPM': portable,
        'JPEG 2000': jpegs_2000,
        'AVIF': avifs,
        'refused kinds': refused,
    }
    files = {kind: {name: content for name, content in make(rgb) if content} for kind, make in kinds.items()}
    return {kind: contents for kind, contents in files.items() if contents}


def picture() -> np.ndarray:
    """H×W×3 uint8: something smooth with something random in it."""
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]].astype(np.uint8)
    smooth = np.stack([rows * 6, columns * 5, rows + columns], axis=-1).astype(np.uint8)
    smooth[5:15, 5:15] = np.random.default_rng(0).integers(0, 256, (10, 10, 3))
    return smooth


def saved(image: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    """The content of a file; empty when this Pillow cannot write it."""
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind, **options)
    except (KeyError, OSError, ValueError, NotImplementedError):
        return b''
    return buffer.getvalue()


def with_opencv(suffix: str, array: np.ndarray) -> bytes:
    return cv2.imencode(suffix, array)[1].tobytes()


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112], found[0x010F] = orientation, 'maker'
    found.get_ifd(0x8769)[0x9286] = b'comment' * 20
    return found


def jpegs(rgb: np.ndarray) -> Iterator[tuple[str, bytes]]:
    yield 'baseline', saved(rgb, 'JPEG')
    yield 'progressive', saved(rgb, 'JPEG', progressive=True, subsampling=0)
    yield 'grey', saved(rgb[:, :, 0], 'JPEG')
    yield 'CMYK', saved(Image.fromarray(rgb).convert('CMYK'), 'JPEG')
    yield 'progressive CMYK', saved(Image.fromarray(rgb).convert('CMYK'), 'JPEG', progressive=True)
    yield 'restart markers', saved(rgb, 'JPEG', restart_marker_blocks=1)
    yield 'comment and profile', saved(rgb, 'JPEG', comment=b'x' * 300, icc_profile=bytes(70_000), dpi=(3, 4))
    yield 'MPO', saved(rgb, 'MPO', save_all=True, append_images=[Image.fromarray(rgb[::-1])])
    for orientation in (3, 6, 9):
        yield f'EXIF {orientation}', saved(rgb, 'JPEG', exif=exif(orientation))


def pngs(rgb: np.ndarray) -> Iterator[tuple[str, bytes]]:
    image = Image.fromarray(rgb)
    for mode in ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16'):
        yield mode, saved(rgb[:, :, 0].astype(np.uint16) * 257 if mode == 'I;16' else image.convert(mode), 'PNG')
    yield 'palette of 4 with transparency', saved(image.quantize(4), 'PNG', transparency=2, bits=2)
    yield '16-bit RGB', with_opencv('.png', rgb.astype(np.uint16) * 257)
    yield '16-bit RGBA', with_opencv('.png', np.dstack([rgb, rgb[:, :, 0]]).astype(np.uint16) * 257)
    for depth in (1, 2, 4, 8, 16):
        yield f'grey {depth} bits', png(rgb[:, :, 0], depth)
        yield f'interlaced grey {depth} bits', png(rgb[:, :, 0], depth, interlaced=True)
    yield 'interlaced RGB', png(rgb, 8, interlaced=True)
    yield 'EXIF', saved(rgb, 'PNG', exif=exif(8))
    yield 'animated', saved(rgb, 'PNG', save_all=True, append_images=[Image.fromarray(rgb[::-1])])
    for name, chunk in (('zTXt', b'key\0\0'), ('iTXt', b'key\0\1\0\0\0'), ('iCCP', b'key\0\0')):
        bomb = chunk + zlib.compress(bytes(32 << 20), 9)
        yield f'{name} of 32 MiB', png(rgb, 8, extra=png_chunk(name.encode(), bomb))
    texts = PngImagePlugin.PngInfo()
    for number in range(200):
        texts.add_text(f'key {number}', 'x' * 40, zip=number % 2 == 0)
    yield 'many texts', saved(rgb, 'PNG', pnginfo=texts)


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))


def png(array: np.ndarray, depth: int, interlaced: bool = False, extra: bytes = b'', palette: bytes = b'') -> bytes:
    """A PNG of any depth.

    Args:
        array: H×W (grey, or indices of a palette) or H×W×3, uint8; of the values the lowest `depth` bits are taken.
        extra: chunks before the data.
        palette: 3 bytes a color.
    """
    height, width = array.shape[:2]
    color = 3 if palette else 0 if array.ndim == 2 else 2
    passes = [array[top::down, left::right] for left, top, right, down in ADAM7] if interlaced else [array]
    lines = b''.join(b'\0' + packed(row, depth) for part in passes if part.size for row in part)
    head = struct.pack('>IIBBBBB', width, height, depth, color, 0, 0, interlaced)
    return (
        b'\x89PNG\r\n\x1a\n'
        + png_chunk(b'IHDR', head)
        + (png_chunk(b'PLTE', palette) if palette else b'')
        + extra
        + png_chunk(b'IDAT', zlib.compress(lines))
        + png_chunk(b'IEND', b'')
    )


def packed(row: np.ndarray, depth: int) -> bytes:
    if depth == 16:
        return row.astype('>u2').tobytes()
    if depth == 8:
        return row.tobytes()
    bits = np.unpackbits(row.reshape(-1, 1), axis=1)[:, 8 - depth :]
    return np.packbits(bits).tobytes()


def gifs(rgb: np.ndarray) -> Iterator[tuple[str, bytes]]:
    frames = [Image.fromarray(np.roll(rgb, shift, axis=1)) for shift in range(5)]
    yield 'one frame', saved(rgb, 'GIF')
    yield 'grey, not interlaced', saved(rgb[:, :, 0], 'GIF', interlace=False)
    yield 'animated', saved(frames[0], 'GIF', save_all=True, append_images=frames[1:], loop=0, disposal=2)
    yield 'transparent', saved(frames[0].quantize(8), 'GIF', transparency=1, comment=b'x' * 600)


def bitmaps(rgb: np.ndarray) -> Iterator[tuple[str, bytes]]:
    for mode in ('1', 'L', 'P', 'RGB', 'RGBA'):
        yield mode, saved(Image.fromarray(rgb).convert(mode), 'BMP')
    yield 'run lengths', run_length_bitmap(rgb[:, :, 0])
    core = struct.pack('<IHHHH', 12, *SIZE, 1, 24) + bytes((SIZE[0] * 3 + 3) // 4 * 4 * SIZE[1])
    yield 'OS/2', b'BM' + struct.pack('<IHHI', 14 + len(core), 0, 0, 26) + core


def run_length_bitmap(grey: np.ndarray) -> bytes:
    """BMP with RLE8: runs, an absolute part, ends of lines, the end of the picture."""
    height, width = grey.shape
    body = (
        b''.join(b''.join(bytes([1, value]) for value in row[:-3]) + bytes([0, 3, *row[-3:], 0, 0, 0]) for row in grey)
        + b'\0\1'
    )
    palette = b''.join(bytes([value, value, value, 0]) for value in range(256))
    head = struct.pack('<IiiHHIIiiII', 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    offset = 14 + len(head) + len(palette)
    return b'BM' + struct.pack('<IHHI', offset + len(body), 0, 0, offset) + head + palette + body


def webps(rgb: np.ndarray) -> Iterator[tuple[str, bytes]]:
    yield 'lossy', saved(rgb, 'WEBP')
    yield 'lossless', saved(rgb, 'WEBP', lossless=True)
    yield 'alpha', saved(np.dstack([rgb, rgb[:, :, 0]]), 'WEBP')
    yield 'EXIF', saved(rgb, 'WEBP', exif=exif(6))
    yield 'animated', saved(rgb, 'WEBP', save_all=True, append_images=[Image.fromarray(rgb[::-1])])


def tiffs(rgb: np.ndarray) -> Iterator[tuple[str, bytes]]:
    image, grey = Image.fromarray(rgb), rgb[:, :, 0]
    for compression in (
        None,
        'tiff_lzw',
        'tiff_deflate',
        'tiff_adobe_deflate',
        'packbits',
        'jpeg',
        'lzma',
        'zstd',
        'webp',
    ):
        yield f'RGB, {compression}', saved(image, 'TIFF', compression=compression)
    for compression in ('group3', 'group4', 'tiff_ccitt'):
        yield f'1 bit, {compression}', saved(image.convert('1'), 'TIFF', compression=compression)
    for mode in ('L', 'LA', 'P', 'RGBA', 'CMYK', 'LAB', 'YCbCr'):
        yield (
            mode,
            saved(
                image.convert('RGB').convert(mode) if mode != 'LAB' else Image.frombytes('LAB', SIZE, rgb.tobytes()),
                'TIFF',
            ),
        )
    yield '32 bits', saved(grey.astype(np.int32), 'TIFF')
    yield 'more than 16 bits', saved(grey.astype(np.int32) * 70_000, 'TIFF')
    yield 'floats', saved(grey.astype(np.float32), 'TIFF', compression='tiff_lzw')
    yield 'NaN', saved(np.full((9, 9), np.nan, np.float32), 'TIFF')
    yield '16 bits', saved(grey.astype(np.uint16) * 257, 'TIFF')
    yield '16 bits RGB', with_opencv('.tiff', rgb.astype(np.uint16) * 257)
    yield 'floats RGB', with_opencv('.tiff', rgb.astype(np.float32) / 255)
    yield 'doubles', with_opencv('.tiff', grey.astype(np.float64))
    yield 'pages', saved(image, 'TIFF', save_all=True, append_images=[image.convert('L'), image.convert('1')])
    yield 'BigTIFF', saved(image, 'TIFF', big_tiff=True)
    yield 'orientation', saved(image, 'TIFF', exif=exif(5))
    for tiled in (False, True):
        for planes in (1, 2):
            for order in '<>':
                yield f'{"tiles" if tiled else "strips"}, {planes}, {order}', tiff(rgb, order, tiled, planes)


def tiff(rgb: np.ndarray, order: str, tiled: bool, planes: int) -> bytes:
    """A TIFF in tiles of 16×16 or strips of 16 rows, with deflate; channels together (1) or in planes (2)."""
    height, width = rgb.shape[:2]
    channels = [rgb] if planes == 1 else [rgb[:, :, [channel]] for channel in range(3)]
    pieces = []
    for part in channels:
        part = np.pad(part, ((0, -height % 16), (0, -width % 16 if tiled else 0), (0, 0)))
        columns = range(0, width, 16) if tiled else (0,)
        pieces += [
            part[top : top + 16, left : left + 16 if tiled else width].tobytes()
            for top in range(0, height, 16)
            for left in columns
        ]
    pieces = [zlib.compress(piece) for piece in pieces]
    body, offsets = b'', []
    for piece in pieces:
        offsets.append(8 + len(body))
        body += piece
    where, sizes = (324, 325) if tiled else (273, 279)
    tags = {
        256: [width],
        257: [height],
        258: [8, 8, 8],
        259: [8],
        262: [2],
        277: [3],
        284: [planes],
        where: offsets,
        sizes: list(map(len, pieces)),
    } | ({322: [16], 323: [16]} if tiled else {278: [16]})
    entries, extra = b'', b''
    start = 8 + len(body) + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        content = struct.pack(f'{order}{len(values)}I', *values)
        if len(values) > 1:
            extra, content = extra + content, struct.pack(f'{order}I', start + len(extra))
        entries += struct.pack(f'{order}HHI', tag, 4, len(values)) + content
    head = (b'II' if order == '<' else b'MM') + struct.pack(f'{order}HI', 42, 8 + len(body))
    return head + body + struct.pack(f'{order}H', len(tags)) + entries + bytes(4) + extra


def portable(rgb: np.ndarray) -> Iterator[tuple[str, bytes]]:
    for mode in ('1', 'L', 'RGB', 'I', 'F'):
        yield (
            mode,
            saved(
                Image.fromarray(rgb[:, :, 0]).convert(mode) if mode in 'IF' else Image.fromarray(rgb).convert(mode),
                'PPM',
            ),
        )
    numbers = ' '.join(map(str, rgb.ravel()))
    yield 'plain P3', f'P3\n# comment\n{SIZE[0]} {SIZE[1]}\n255\n{numbers}\n'.encode()
    yield 'plain P2', f'P2 {SIZE[0]} {SIZE[1]} 65535 {numbers}'.encode()
    yield 'plain P1', f'P1 {SIZE[0]} {SIZE[1]} {" ".join(map(str, rgb[:, :, 0].ravel() % 2))}'.encode()
    yield '16-bit P6', f'P6 {SIZE[0]} {SIZE[1]} 65535 '.encode() + rgb.astype('>u2').tobytes()


def jpegs_2000(rgb: np.ndarray) -> Iterator[tuple[str, bytes]]:
    yield 'JP2', saved(rgb, 'JPEG2000')
    yield 'code stream', saved(rgb, 'JPEG2000', no_jp2=True)
    yield 'tiles', saved(rgb, 'JPEG2000', tile_size=(16, 16), tile_offset=(0, 0))
    yield 'irreversible', saved(rgb, 'JPEG2000', irreversible=True, quality_layers=[20, 5])
    yield 'alpha', saved(np.dstack([rgb, rgb[:, :, 0]]), 'JPEG2000')
    yield '16 bits', saved(rgb[:, :, 0].astype(np.uint16) * 257, 'JPEG2000')


def avifs(rgb: np.ndarray) -> Iterator[tuple[str, bytes]]:
    yield 'RGB', saved(rgb, 'AVIF', speed=10)
    yield 'alpha', saved(np.dstack([rgb, rgb[:, :, 0]]), 'AVIF', speed=10)
    yield 'EXIF', saved(rgb, 'AVIF', speed=10, exif=exif(7))
    yield 'animated', saved(rgb, 'AVIF', speed=10, save_all=True, append_images=[Image.fromarray(rgb[::-1])])


def refused(rgb: np.ndarray) -> Iterator[tuple[str, bytes]]:
    for kind in REFUSED:
        yield (
            kind,
            (
                saved(rgb, kind)
                or saved(rgb[:, :, 0], kind)
                or saved(Image.fromarray(rgb).convert('P'), kind)
                or saved(Image.fromarray(rgb).convert('1'), kind)
            ),
        )
    yield (
        'DDS',
        b'DDS '
        + struct.pack('<7I', 124, 0x1007, 29, 37, 0, 0, 0)
        + bytes(44)
        + struct.pack('<2I4s5I', 32, 4, b'ABCD', 0, 0, 0, 0, 0)
        + bytes(2000),
    )
    yield 'PSD', b'8BPS\0\1' + bytes(6) + struct.pack('>HIIHH', 3, 29, 37, 8, 3) + bytes(5000)
    yield 'FITS', b'SIMPLE  =                    T'.ljust(80) + b'END'.ljust(2800)
    yield 'HEIC', b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(200)
    yield 'SVG', b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>'
    yield 'PostScript', b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(ran) (w) file closefile\n'


def bomb(number: int, folder: Path) -> bytes:
    """One of `BOMBS`; made once, for that takes seconds."""
    kind, mode, side, options = BOMBS[number]
    made = folder / f'bomb_{number}'
    if not made.exists():
        made.write_bytes(
            options if isinstance(options, bytes) else saved(Image.new(mode, (side, side)), kind, **options)
        )
    return made.read_bytes()
