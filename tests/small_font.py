"""A TrueType font with a few characters, each a box as wide as its place in the text, for tests of finding fonts."""

import struct


def small_font(letters):
    """The bytes of a font file that has the characters of a text and no others."""
    boxes = [_box(900), *(_box(100 + 30 * i) for i in range(len(letters)))]
    offsets = [sum(map(len, boxes[:i])) for i in range(len(boxes) + 1)]
    tables = {
        b'cmap': _character_map(letters),
        b'glyf': b''.join(boxes),
        b'head': struct.pack(
            '>IIIIHHQQhhhhHHhhh', 0x10000, 0x10000, 0, 0x5F0F3CF5, 0, 1000, 0, 0, 0, 0, 1000, 1000, 0, 8, 2, 1, 0
        ),
        b'hhea': struct.pack('>IhhhHhhhhhhhhhhhH', 0x10000, 800, -200, 0, 1000, *[0] * 11, len(boxes)),
        b'hmtx': struct.pack('>Hh', 1000, 0) * len(boxes),
        b'loca': struct.pack(f'>{len(offsets)}I', *offsets),
        b'maxp': struct.pack('>IH13H', 0x10000, len(boxes), 4, 1, 0, 0, 1, *[0] * 8),
    }
    start, directory, body = 12 + 16 * len(tables), b'', b''
    for tag, content in tables.items():
        directory += tag + struct.pack('>III', 0, start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    return struct.pack('>IHHHH', 0x10000, len(tables), 0, 0, 0) + directory + body


def _box(width):
    """A glyph of one square contour, padded to four bytes."""
    glyph = struct.pack('>hhhhhHH', 1, 0, 0, width, 700, 3, 0) + bytes([1] * 4)
    glyph += struct.pack('>4h', 0, width, 0, -width) + struct.pack('>4h', 0, 0, 700, 0)
    return glyph + bytes(-len(glyph) % 4)


def _character_map(letters):
    """Unicode, in groups of one character each."""
    groups = b''.join(
        struct.pack('>III', code, code, 1 + letters.index(chr(code))) for code in sorted(map(ord, letters))
    )
    table = struct.pack('>HHIII', 12, 0, 16 + len(groups), 0, len(letters)) + groups
    return struct.pack('>HHHHI', 0, 1, 3, 10, 12) + table
