"""The images that URLs of stores name: objects, folders and patterns, looked for with as few requests as it takes."""

import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from ..preprocessors.image import SUFFIXES
from ..stores import Store, StoredObject, StoreError, check_url, open_store, scheme_of
from .inputs import Input, input_of
from .manifest import NAME, ManifestError
from .store_log import read_entries

NAMED = 50  # objects of one folder named one by one, from which on one listing of it is cheaper
_PATTERN = re.compile(r'[*?[]')


@dataclass
class StoredInputs:
    """What `find_in_stores` has found.

    Attributes:
        inputs: by what was given.
        problems: what is wrong with folders and patterns that give none.
        results: how many objects were left out, as results of earlier runs.
    """

    inputs: dict[str, list[Input]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    results: int = 0


def find_in_stores(locations: Iterable[str]) -> StoredInputs:
    """Look for the images that URLs of stores name; other locations are passed over.

    A folder gives the images below it, hidden ones left out, and a pattern what matches it; both without the results
    that a manifest lists.

    Raises:
        ArgumentError: a URL has a password, or the package for its store is not installed.
    """
    found = StoredInputs()
    urls = {location: check_url(location) for location in locations if scheme_of(location)}
    urls = _in_listed_folders(urls, found)
    named = _looked_for([url for url in urls.values() if not url.endswith('/')])
    for location, url in urls.items():
        found.inputs[location] = []
        try:
            _find(location, url, named.get(url), found)
        except StoreError as error:
            found.problems.append(f'{url}: {error}')
    return found


def _looked_for(urls: list[str]) -> dict[str, StoredObject | StoreError | None]:
    """What URLs name, one request each, several at once."""
    stores: dict[Store, list[str]] = defaultdict(list)
    found: dict[str, StoredObject | StoreError | None] = {}
    for url in urls:
        try:
            stores[open_store(url)].append(url)
        except StoreError as error:
            found[url] = error

    def look(store: Store, url: str) -> StoredObject | StoreError | None:
        try:
            return store.info(url)
        except StoreError as error:
            return error

    for store, theirs in stores.items():
        found.update(zip(theirs, store.each(partial(look, store), theirs), strict=True))
    return found


def _in_listed_folders(urls: dict[str, str], found: StoredInputs) -> dict[str, str]:
    """Find objects of which many in one folder are named; returns the URLs that are left."""
    folders: dict[str, dict[str, str]] = defaultdict(dict)
    for location, url in urls.items():
        if url.lower().endswith(SUFFIXES) and not _PATTERN.search(url):
            folders[url.rpartition('/')[0]][location] = url
    left = dict(urls)
    for folder, named in folders.items():
        if len(named) < NAMED or folder.endswith('/'):  # of `a//b.jpg`, which a listing of `a` has as deeper
            continue
        try:
            objects = {each.url: each for each in open_store(folder + '/').below(folder, 1)}
        except StoreError as error:
            objects, reason = {}, str(error)
        else:
            reason = 'there is no such object'
        for location, url in named.items():
            found.inputs[location] = [input_of(objects[url]) if url in objects else _missing(url, reason)]
            del left[location]
    return left


def _missing(url: str, reason: str) -> Input:
    return Input(url, 'store', url, refusal=f'{url}: {reason}')


def _find(location: str, url: str, named: StoredObject | StoreError | None, found: StoredInputs) -> None:
    if isinstance(named, StoreError):
        if _PATTERN.search(url):
            _split(url)
        raise named
    if named and not named.folder:
        found.inputs[location] = [input_of(named)]
        return
    matched = not url.endswith('/') and not named  # a pattern may also be the name of an object
    if matched and not _PATTERN.search(url):
        found.inputs[location] = [_missing(url, 'there is no such object, folder or bucket')]
        return
    store = open_store(url)
    if matched:
        from fsspec.utils import glob_translate  # imported late: only where a pattern is given

        folder, names = _split(url)
        deep = '**' in names or folder.endswith('/')
        objects = store.below(folder, None if deep else names.count('/') + 1)
        matches = re.compile(glob_translate(names)).match
        below = f'{folder}/'
        seen = [each for each in objects if each.url.startswith(below) and matches(each.url[len(below) :])]
    else:
        folder = url.rstrip('/')
        objects = store.below(folder)
        seen = [each for each in objects if _is_image(each.url[len(folder) :])]
    listed = _Results(store, folder, objects)
    inside = [each for each in seen if not listed.has(each)]
    found.results += len(seen) - len(inside)
    if not inside:
        found.problems.append(
            f'{url}: holds nothing but results of earlier runs'
            if seen
            else f'{url}: nothing matches this pattern'
            if matched
            else f'{url}: no images in this folder, or no such bucket'
        )
    found.inputs[location] = [input_of(each) for each in inside]


def _split(pattern: str) -> tuple[str, str]:
    """The folder that a pattern is about, and the pattern below it."""
    found = _PATTERN.search(pattern)
    folder = pattern[: found.start() if found else None].rpartition('/')[0]
    if folder.endswith(':/'):
        raise StoreError('the name of a bucket is no pattern; name each bucket')
    return folder, pattern[len(folder) + 1 :]


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and '/.' not in name


class _Results:
    """The results that manifests in a store list; those of a listing are known, others are looked for above it."""

    def __init__(self, store: Store, listed: str, listing: list[StoredObject]) -> None:
        self._store, self._listed = store, listed
        self._above: dict[str, dict[str, set[int]]] = {}  # size by URL, of the manifests of a folder and of those above
        self._manifests: dict[str, list[StoredObject]] = defaultdict(list)
        for each in listing:
            folder, _, name = each.url.rpartition('/')
            if name.startswith(NAME):
                self._manifests[folder].append(each)

    def has(self, stored: StoredObject) -> bool:
        return stored.version.get('size') in self._results(stored.url.rpartition('/')[0]).get(stored.url, ())

    def _results(self, folder: str) -> dict[str, set[int]]:
        if folder.endswith(':/') or '://' not in folder:
            return {}
        if folder not in self._above:
            above = self._results(folder.rpartition('/')[0])
            own: dict[str, set[int]] = defaultdict(set)
            with suppress(StoreError, ManifestError):  # one that may not be read, or is another program's
                for entry in read_entries(self._store, folder, self._parts(folder))[0].values():
                    for records in (entry['outputs'], entry.get('before', {})):
                        for output, record in records.items():
                            own[f'{folder}/{output}'].add(record['size'])
            self._above[folder] = {**above, **own} if own else above
        return self._above[folder]

    def _parts(self, folder: str) -> list[StoredObject]:
        if f'{folder}/'.startswith(f'{self._listed}/'):
            return self._manifests.get(folder, [])
        above = self._store.info(f'{folder}/{NAME}')
        return [above] if above else []
