"""The manifest of a run whose results go into a store: `manifest.jsonl` and, until it is written, the objects of a log.

An object can neither be appended to nor renamed, so what a file has as lines at its end stands in objects beside it:
`manifest.jsonl.<generation>.<number>`. The generation is the first digits of the SHA-256 of the `manifest.jsonl` that
they go on from, zeros where there is none; a new manifest takes their place in one step, as none of them belongs to
it. The first line of each is `{"run": …, "number": …}`, which tells a run its own objects from another's, and the
others are lines as the manifest has them.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator

from ..stores import AT_ONCE, Store, StoredObject
from .manifest import LONGEST_LINE, NAME, Entry, entries_of

NO_MANIFEST = '0' * 16
_PART = re.compile(re.escape(NAME) + r'\.([0-9a-f]{16})\.([0-9]{6,})')


def part_name(generation: str, number: int) -> str:
    """The name of an object of the log."""
    return f'{NAME}.{generation}.{number:06}'


def part_of(name: str) -> tuple[str, int] | None:
    """(generation, number) of an object of a log by its name; None for any other."""
    found = _PART.fullmatch(name)
    return (found[1], int(found[2])) if found else None


def header(run: str, number: int) -> bytes:
    """The first line of an object of the log."""
    return (json.dumps({'run': run, 'number': number}) + '\n').encode()


def read_entries(store: Store, folder: str, objects: Iterable[StoredObject]) -> tuple[dict[str, Entry], str, int]:
    """Read the manifest of a folder in a store, and the log that goes on from it.

    Objects of a log that another manifest was written after, which a killed process has left, count only for what this
    one lacks.

    Args:
        folder: its URL.
        objects: those of the folder whose names begin with `manifest.jsonl`.

    Returns:
        (entries by their input's key; the manifest's generation; the number of the log's last object, 0 without one).

    Raises:
        ManifestError: one is another program's, or damaged.
        StoreError: one cannot be read.
    """
    names = {each.url.rpartition('/')[2] for each in objects}
    entries: dict[str, Entry] = {}
    generation, last = NO_MANIFEST, 0
    if NAME in names:
        digest = hashlib.sha256()
        url = f'{folder}/{NAME}'
        entries_of(_noted(store.lines(url, LONGEST_LINE), digest), url, entries)
        generation = digest.hexdigest()[:16]
    parts = sorted((part[1], name, part[0]) for name in names if (part := part_of(name)))
    for first in range(0, len(parts), AT_ONCE):
        some = parts[first : first + AT_ONCE]
        contents = store.each(store.read, [f'{folder}/{name}' for _, name, _ in some])
        for (number, name, of), content in zip(some, contents, strict=True):
            url, lines = f'{folder}/{name}', _without_header(content.splitlines(keepends=True))
            if of != generation:
                older: dict[str, Entry] = {}
                entries_of(lines, url, older)
                entries.update({key: entry for key, entry in older.items() if key not in entries})
                continue
            entries_of(lines, url, entries)
            last = number
    return entries, generation, last


def _noted(lines: Iterable[bytes], digest: 'hashlib._Hash') -> Iterator[bytes]:
    for line in lines:
        digest.update(line)
        if len(line) == LONGEST_LINE:
            raise ValueError(f'it has a line of more than {LONGEST_LINE} bytes')
        yield line


def _without_header(lines: list[bytes]) -> Iterator[bytes]:
    if not lines or not isinstance(json.loads(lines[0])['run'], str):
        raise ValueError('its first line does not say which run it is of')
    yield from lines[1:]
