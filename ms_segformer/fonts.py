"""The font of drawings: Pillow's own, and for characters that it lacks, such as Chinese ones, one of this system's.

Nothing is downloaded. The environment variable MS_SEGFORMER_FONT names a font file to take before all others.
"""

import logging
import os
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from PIL import ImageFont

from .errors import ArgumentError, some_of

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont
SMALLEST = 7  # pixels
VARIABLE = 'MS_SEGFORMER_FONT'
SUFFIXES = ('.ttf', '.otf', '.ttc', '.otc')
# How the files of fonts for simplified Chinese are called, good ones for screens first.
CHINESE = (
    *('notosanssc', 'notosanscjksc', 'notosanscjk', 'sourcehansanssc', 'sourcehansanscn', 'sourcehansans', 'msyh'),
    *('pingfang', 'hiraginosansgb', 'wqymicrohei', 'wqyzenhei', 'droidsansfallback', 'deng', 'simhei', 'stheiti'),
    *('notoserifsc', 'notoserifcjk', 'sourcehanserif', 'simsun', 'songti', 'arialunicode', 'uming', 'ukai'),
)
_STYLES = ('bold', 'italic', 'oblique', 'light', 'thin', 'black', 'mono', 'condensed')
_NO_CHARACTER = '\ufffe'  # Unicode assigns none here, so that fonts show what they show for characters they lack
_FACES = 10  # of a collection that are looked at

logger = logging.getLogger(__name__)


def font_of(size: float, texts: Iterable[str] = ()) -> Font:
    """A font in a size in pixels, 7 at least, that shows the texts if one here does.

    Args:
        size: height of its letters, about.
        texts: what will be written with it; `writable` makes sure that there is a font for it.

    Raises:
        ArgumentError: MS_SEGFORMER_FONT names no font file.
    """
    size = max(size, SMALLEST)
    face = _face_for(''.join(sorted(_beyond_ascii(texts)))) if _own_lacks(texts) else None
    if face is not None:
        return ImageFont.truetype(face[0], round(size), index=face[1])
    return _own(size)


def writable(texts: Sequence[str], instead: Sequence[str]) -> list[str]:
    """The texts, and what stands in for those that no font of this system shows, which is said once.

    Args:
        texts: what is to be drawn.
        instead: as many; those that no font shows either are taken as they are.
    """
    if not _own_lacks(texts) or _face_for(''.join(sorted(_beyond_ascii(texts)))) is not None:
        return list(texts)
    drawn, lost = list(texts), []
    for i, text in enumerate(texts):
        if _own_lacks([text]):
            drawn[i] = instead[i]
            lost.append(f'{text} ({instead[i]})')
    _warn(some_of(lost, 3))
    return drawn


@lru_cache
def _warn(lost: str) -> None:
    logger.warning(
        'no font of this system shows %s: pictures have what is in brackets instead; install a font such as Noto Sans '
        'CJK, or name a font file in the environment variable %s',
        lost,
        VARIABLE,
    )


def _own(size: float) -> Font:
    try:
        return ImageFont.load_default(size)
    except TypeError:  # before Pillow 10.1 there is one font of one size
        return ImageFont.load_default()


def _beyond_ascii(texts: Iterable[str]) -> set[str]:
    return {letter for text in texts for letter in text if not letter.isascii() and not letter.isspace()}


def _own_lacks(texts: Iterable[str]) -> bool:
    letters = _beyond_ascii(texts)
    return bool(letters) and not _shows(_own(16), letters)


def _shows(font: Font, letters: Iterable[str]) -> bool:
    """Whether a font has all of some characters."""
    try:
        lacking = _drawn(font, _NO_CHARACTER)
        return all(_drawn(font, letter) != lacking for letter in letters)
    except (UnicodeError, OSError, ValueError):  # the font of Pillow before 10.1 has no other characters
        return False


def _drawn(font: Font, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


@lru_cache(64)
def _face_for(letters: str) -> tuple[str, int] | None:
    """The first font file of this system, with the face in it, that has all of some characters."""
    given = os.environ.get(VARIABLE)
    if given:
        try:
            ImageFont.truetype(given, 16)
        except OSError as error:
            raise ArgumentError(f'{VARIABLE}={given}: no font file that can be read ({error})') from None
    for path in [given, *_font_files()] if given else _font_files():
        for index in _faces(path):
            try:
                if _shows(ImageFont.truetype(path, 16, index=index), letters):
                    return path, index
            except (OSError, ValueError):  # a font of another kind, such as one of fixed pictures
                break
    return None


def _faces(path: str) -> list[int]:
    """The faces of a file, in a collection those for simplified Chinese first."""
    if not path.lower().endswith(('.ttc', '.otc')):
        return [0]
    names = {index: _face_name(path, index) for index in range(_FACES)}
    return sorted((i for i, name in names.items() if name), key=lambda i: not names[i].endswith((' SC', ' GB')))


def _face_name(path: str, index: int) -> str:
    try:
        return ImageFont.truetype(path, 16, index=index).getname()[0] or ''
    except (OSError, ValueError):  # it has no such face
        return ''


def _font_files() -> list[str]:
    """The font files of this system, those for Chinese first."""
    found = [
        str(path)
        for folder in font_folders()
        if folder.is_dir()
        for path in sorted(folder.rglob('*'))
        if path.suffix.lower() in SUFFIXES
    ]
    return sorted(found, key=_rank)


def _rank(path: str) -> tuple[int, bool]:
    name = ''.join(filter(str.isalnum, Path(path).name.lower()))
    place = next((i for i, start in enumerate(CHINESE) if name.startswith(start)), len(CHINESE))
    return place, any(style in name for style in _STYLES)


def font_folders() -> list[Path]:
    """Where this system keeps fonts, the user's own first."""
    home, environment = Path.home(), os.environ
    if sys.platform == 'darwin':
        return [home / 'Library/Fonts', Path('/Library/Fonts'), Path('/System/Library/Fonts')]
    if sys.platform == 'win32':
        local = Path(environment.get('LOCALAPPDATA') or home / 'AppData/Local')
        return [local / 'Microsoft/Windows/Fonts', Path(environment.get('WINDIR') or 'C:/Windows') / 'Fonts']
    data = [environment.get('XDG_DATA_HOME') or str(home / '.local/share')]
    data += (environment.get('XDG_DATA_DIRS') or '/usr/local/share:/usr/share').split(':')
    return [home / '.fonts', *(Path(folder) / 'fonts' for folder in data if folder)]
