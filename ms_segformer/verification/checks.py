"""The single checks of `verify`: each looks at one thing and says in a sentence what it saw."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..metainfo import Variant

PASSED, FAILED, SKIPPED = 'passed', 'failed', 'skipped'
VAL_IMAGES = 5000  # of COCO-Stuff 164k, behind the cards' mIoU
REPRODUCED = 0.3  # points of mIoU, up to which a figure of the cards counts as reproduced
SAME_PIXELS = 0.999  # share of a photograph on which two float32 engines agree at least
SAME_CELLS = 0.99  # share of the cells of two machines' label maps that agree at least

# ModelScope's first test of these six models looked at these pixels of this photograph.
PHOTOGRAPH = 'https://modelscope.oss-cn-beijing.aliyuncs.com/test/images/image_segmentation.jpg'
KNOWN_PIXELS = (  # (rows, columns, class id, its name), the same for B0 to B5
    (slice(1, 2), slice(4, 10), 161, 'wall-other', 'row 1, columns 4 to 9'),
    (slice(-1, None), slice(-10, None), 133, 'playingfield', 'the last ten pixels of the last row'),
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        outcome: `PASSED`, `FAILED` or `SKIPPED`.
        detail: what was seen, or why nothing was.
    """

    name: str
    outcome: str
    detail: str


def outcome(right: bool) -> str:
    """`PASSED` or `FAILED`."""
    return PASSED if right else FAILED


def describe_files(folder: Path, own: Collection[Path] = ()) -> list[dict[str, Any]]:
    """Name, size and SHA-256 of the files of a model directory; hidden ones, and those at or below `own`, left out."""
    return [
        {'name': path.relative_to(folder).as_posix(), 'bytes': path.stat().st_size, 'sha256': sha256(path)}
        for path in sorted(folder.rglob('*'))
        if path.is_file()
        and not any(part.startswith('.') for part in path.relative_to(folder).parts)
        and not {path.absolute(), *path.absolute().parents} & set(own)
    ]


def sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_files(files: Sequence[Mapping[str, Any]], published: Mapping[str, str] | None, why_not: str = '') -> Check:
    """Whether the files are those of the hub.

    Args:
        files: of `describe_files`.
        published: name to SHA-256 on the hub; None or empty: it could not be asked, or tells none.
        why_not: the reason, when it could not.
    """
    name = "files equal the hub's"
    if not published:
        return Check(name, SKIPPED, why_not or 'the hub tells no SHA-256')
    here = {file['name']: file['sha256'] for file in files}
    missing = sorted(set(published) - set(here))
    other = sorted(each for each in set(published) & set(here) if here[each] != published[each])
    if missing or other:
        return Check(
            name,
            FAILED,
            '; '.join(
                filter(
                    None,
                    [
                        f'not here: {", ".join(missing)}' if missing else '',
                        f'another SHA-256: {", ".join(other)}' if other else '',
                    ],
                )
            ),
        )
    return Check(name, PASSED, ', '.join(sorted(published)))


def check_parameters(counted: int, card: Variant | None) -> Check:
    """Whether the network has as many parameters as the variant's."""
    name = 'parameters'
    if card is None:
        return Check(name, SKIPPED, f'{counted:,}; nothing published to compare with')
    return Check(name, outcome(counted == card.parameters), f'{counted:,}, {card.name.upper()} has {card.parameters:,}')


def check_known_pixels(seg_map: np.ndarray) -> Check:
    """Whether ModelScope's test photograph has the classes that ModelScope's own test saw in it.

    Args:
        seg_map: H×W class ids of `PHOTOGRAPH`.
    """
    seen = []
    for rows, columns, class_id, label, where in KNOWN_PIXELS:
        found = sorted(set(seg_map[rows, columns].ravel().tolist()))
        if found != [class_id]:
            seen.append(f'{where}: {found} in place of {class_id} ({label})')
    name = "ModelScope's test photograph"
    if seen:
        return Check(name, FAILED, '; '.join(seen))
    return Check(name, PASSED, '; '.join(f'{where}: {label}' for *_, label, where in KNOWN_PIXELS))


def check_score(miou: float | None, images: int, split: str, card: Variant | None) -> Check:
    """Whether an mIoU is that of the card.

    Args:
        miou: in percent; None when nothing is labeled.
        images, split: what it was measured on.
        card: the published model, or None.
    """
    name = 'mIoU against the card'
    if miou is None:
        return Check(name, SKIPPED, 'there is none: no pixel of these images is labeled')
    if card is None:
        return Check(name, SKIPPED, f'{miou:.2f}; nothing published to compare with')
    difference = miou - card.published_miou
    detail = f'{miou:.2f}, the card says {card.published_miou:.2f} ({difference:+.2f})'
    if (images, split) != (VAL_IMAGES, 'val'):
        return Check(
            name,
            SKIPPED,
            f"{detail}; on {images:,} images of {split}, the card's figure is of all {VAL_IMAGES:,} of val",
        )
    right = abs(difference) <= REPRODUCED + 1e-9
    return Check(name, outcome(right), f'{detail}: {"" if right else "not "}reproduced within ±{REPRODUCED}')
