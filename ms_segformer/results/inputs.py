"""The images a run is asked for: who they are, whether they changed, and where below the output they belong."""

import hashlib
import os
import re
import urllib.parse
import urllib.request
from dataclasses import dataclass
from functools import cached_property

from ..download import DownloadError, Version, download, without_userinfo
from ..preprocessors.image import ImageError, check_regular
from ..preprocessors.video import is_video, sequence_files
from ..stores import StoredObject, StoreError, open_store

_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')  # in a file name, on one system or another


class InputVersion(Version, total=False):
    """What tells a content from a later one: of a URL as it is downloaded, of a file by what the system says."""

    mtime_ns: int
    link_to: str  # the file that a link leads to


@dataclass(frozen=True)
class Input:
    """One image of a run; `find_input` makes it.

    Attributes:
        location: what the user gave, to be read from.
        kind: `path`, `url`, `store` (an object in a store) or `data`.
        key: what tells it from every other input: the absolute path, the URL without a password, or the digest of a
            `data:` URL.
        version: of a file, or of an object as its store lists it; None for what has none before it is read.
        file: (device, inode) of a file, None for anything else.
        refusal: why it can be no image, as far as that is seen without opening it; else None.
        video: it is a video, by its suffix or as it was asked for.
    """

    location: str
    kind: str
    key: str
    version: InputVersion | None = None
    file: tuple[int, int] | None = None
    refusal: str | None = None
    video: bool = False

    @property
    def identity(self) -> tuple[int, int] | str | None:
        """What tells a file, or an object in a store, from every other; None for anything else."""
        return self.key if self.kind == 'store' else self.file

    @cached_property
    def place(self) -> tuple[str, ...]:
        """The folders and the name that mirror the input below an output folder."""
        if self.kind == 'data':
            return 'data', self.key[-16:]
        if self.kind == 'store':
            return _place_of_object(self.key)
        return _place_of_url(self.key) if self.kind == 'url' else _place_of_path(self.key)

    @property
    def name(self) -> str:
        """How messages call it."""
        return f'the data URL {self.key}' if self.kind == 'data' else self.location if self.kind == 'path' else self.key

    def source(self, known: InputVersion | None = None) -> 'str | RemoteImage':
        """What `load_image` reads; a URL's content only if it is not the `known` version any more."""
        if self.kind == 'store':
            return StoreImage(self.key, self.version, known)
        return RemoteImage(self.location, known) if self.kind == 'url' else self.location


class RemoteImage:
    """A URL as a file object that is fetched when it is read.

    Attributes:
        name: the URL, without a password.
        version: what tells this content from a later one; None before it was read.
        unchanged: reading found the known version, and raised `ImageError` in place of fetching it.
    """

    def __init__(self, url: str, known: InputVersion | None = None) -> None:
        self.url, self.name, self.known = url, without_userinfo(url), known
        self.version: InputVersion | None = None
        self.unchanged = False

    def read(self) -> bytes:
        try:
            found = download(self.url, self.known)
        except DownloadError as error:
            raise ImageError(f'{self.name}: cannot be fetched ({error})') from None
        if found is None:
            self.unchanged = True
            raise ImageError(f'{self.name}: unchanged')
        self.version = InputVersion(**found.version)
        return found.content


class StoreImage(RemoteImage):
    """An object in a store as a file object that is fetched when it is read; its `version` is as it was `listed`."""

    def __init__(self, url: str, listed: InputVersion | None, known: InputVersion | None = None) -> None:
        super().__init__(url, known)
        self.listed = listed

    def read(self) -> bytes:
        size = (self.listed or {}).get('size')
        try:
            content = open_store(self.url).read(self.url) if size != 0 else b''  # no part of nothing can be asked for
        except StoreError as error:
            raise ImageError(f'{self.name}: cannot be fetched ({error})') from None
        version = InputVersion(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name in ('etag', 'last_modified'):
            if self.listed and name in self.listed:
                version[name] = self.listed[name]
        if self.known and self.known.get('sha256') == version['sha256']:
            self.unchanged = True
            raise ImageError(f'{self.name}: unchanged')
        self.version = version
        return content


def input_of(stored: StoredObject) -> Input:
    """An object in a store as an image."""
    refusal = f'{stored.url}: a video is read from a file; download it first' if is_video(stored.url) else None
    return Input(stored.url, 'store', stored.url, InputVersion(**stored.version) or None, refusal=refusal)


def find_input(location: str) -> Input:
    """Look at what a user named as an image, without opening it."""
    try:
        parts = urllib.parse.urlsplit(location)
    except ValueError:  # '//[' is a path
        parts = urllib.parse.SplitResult('', '', location, '', '')
    scheme = parts.scheme.lower()
    if scheme in ('http', 'https'):
        key = without_userinfo(location)
        refusal = f'{key}: a video is read from a file; download it first' if is_video(parts.path) else None
        return Input(location, 'url', key, refusal=refusal)
    if scheme == 'data':
        return Input(location, 'data', 'sha256:' + hashlib.sha256(os.fsencode(location)).hexdigest())
    path = urllib.request.url2pathname(parts.path) if scheme == 'file' else location
    key = _key_of_path(path)
    try:
        check_regular(path)
        status = os.stat(path)
    except (ImageError, OSError) as error:
        return Input(location, 'path', key, refusal=str(error), video=is_video(key))
    version = InputVersion(size=status.st_size, mtime_ns=status.st_mtime_ns)
    real = os.path.realpath(path)
    if real != key:  # a link that leads to another file later is another image
        version['link_to'] = real
    return Input(location, 'path', key, version, (status.st_dev, status.st_ino), video=is_video(key))


def find_sequence(folder: str, fps: float) -> Input:
    """Look at a folder whose images are the frames of a video, so many a second, without opening them."""
    key = _key_of_path(folder.rstrip(os.sep) or os.sep)
    try:
        files = [(os.path.basename(path), os.stat(path)) for path in sequence_files(folder)]
    except OSError as error:
        return Input(folder, 'path', key, refusal=f'{folder}: cannot be read ({error.strerror})', video=True)
    listing = repr([fps, *((name, status.st_size, status.st_mtime_ns) for name, status in files)])
    version = InputVersion(
        size=sum(status.st_size for _, status in files), sha256=hashlib.sha256(os.fsencode(listing)).hexdigest()
    )
    return Input(folder, 'path', key, version, refusal=None if files else f'{folder}: no images in it', video=True)


def _key_of_path(path: str) -> str:
    """The absolute path. `..` is what the system takes it for, which behind a symbolic link is not the text before."""
    folder, name = os.path.split(path.rstrip(os.sep))
    if '..' in path.split(os.sep):
        path = os.path.realpath(path) if name == '..' else os.path.join(os.path.realpath(folder), name)
    slash = os.sep if path.endswith(os.sep) else ''  # 'a.png/' is not 'a.png': the system finds nothing there
    return os.path.abspath(path) + slash


def _place_of_path(path: str) -> tuple[str, ...]:
    """Below the current directory the relative path, else the absolute one without its root."""
    here = os.path.join(os.getcwd(), '')
    drive, rest = os.path.splitdrive(path.removeprefix(here))
    parts = [part for part in (_UNSAFE.sub('_', drive).strip('_'), *rest.split(os.sep)) if part]
    return tuple(parts) or ('image',)


def _place_of_url(url: str) -> tuple[str, ...]:
    """Host and path; a query, which may be long, as eight digits of its digest."""
    parts = urllib.parse.urlsplit(url)
    names = [_UNSAFE.sub('_', urllib.parse.unquote(name)) for name in (parts.netloc, *parts.path.split('/'))]
    names = [name for name in names if name.strip('. ')]
    if len(names) < 2:
        names.append('index')
    if parts.query:
        stem, suffix = os.path.splitext(names[-1])
        names[-1] = f'{stem}-{hashlib.sha256(os.fsencode(parts.query)).hexdigest()[:8]}{suffix}'
    return tuple(names)


def _place_of_object(url: str) -> tuple[str, ...]:
    """The bucket and the name, which is taken as it is: in a store `%20` is no space."""
    names = [_UNSAFE.sub('_', name) for name in url.partition('://')[2].split('/')]
    return tuple(name for name in names if name.strip('. '))
