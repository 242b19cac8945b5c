"""Label maps by themselves: `masks/NAME.png`, with the class names in `masks/classes.txt`."""

import io

from ..visualization import label_map_image
from .files import FormatError, FormatFiles
from .images import SegmentedImages
from .options import FormatOptions

FOLDER = 'masks'


def write_masks(images: SegmentedImages, files: FormatFiles, options: FormatOptions) -> None:
    """Write an 8-bit palette PNG of class ids an image, 255 where there is no class.

    `classes.txt` has a name a line, in the order of the ids: `train` and `check-data` read it. `labelmap.txt` has the
    color of each, as CVAT and Pascal VOC's tools read it.

    Raises:
        FormatError: a name cannot stand in `labelmap.txt`; all else is written.
    """
    for image in images:
        buffer = io.BytesIO()
        label_map_image(image.label_map(), options.palette).save(buffer, 'PNG')
        files.attempt(f'{FOLDER}/{image.base}.png', buffer.getvalue())
    files.attempt(f'{FOLDER}/classes.txt', ''.join(f'{name}\n' for name in options.classes).encode())
    if unreadable := [name for name in options.classes if ':' in name or name.startswith('#')]:
        raise FormatError(
            f'{FOLDER}/labelmap.txt is not written: its readers end a name at a colon and take # for a comment, so '
            f'that {unreadable[0]!r} would be another class; name it without, or use classes.txt'
        )
    colors = [
        f'{name}:{",".join(map(str, options.palette[number].tolist()))}::\n'
        for number, name in enumerate(options.classes)
    ]
    files.attempt(f'{FOLDER}/labelmap.txt', ''.join(['# label:color_rgb:parts:actions\n', *colors]).encode())
