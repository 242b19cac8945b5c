"""Weights that training starts from, brought to this machine, and nothing that is not asked for.

Weights by URL lie in `weights` below this package's cache (`engines.cache`). A name that ends in `-` and eight hex
digits, as OpenMMLab names its files, says how their SHA-256 begins, and that is checked whenever they are used.
"""

import hashlib
import logging
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from ..download import DownloadError, download_file, without_userinfo
from ..engines.cache import cache_dir
from ..integrations.modelscope.hub import fetch
from ..metainfo import RUN_LOGGER, WEIGHTS_OF_TRANSFORMERS
from ..models.checkpoint import CheckpointError, require_readable
from .starts import HUGGING_FACE, check_start, is_url

FOLDER = 'weights'
LARGEST = 2 << 30  # bytes; the backbone of B5 has 326 MB
_SAYS_ITS_DIGEST = re.compile(r'.*-([0-9a-f]{8})\.pth?')
logger = logging.getLogger(RUN_LOGGER)


def weights(source: str | os.PathLike, folder: str | os.PathLike | None = None) -> Path:
    """Return the file or directory that weights lie in; what is not on this machine is fetched.

    Args:
        source: a path; a URL; `hf:OWNER/NAME` of Hugging Face; or an id of ModelScope's hub.
        folder: where what a URL names is put, in place of the cache.

    Raises:
        FileNotFoundError: it is none of these.
        OSError: it cannot be fetched; the message says why, and where a file fetched elsewhere may be put.
    """
    check_start(source)
    text = os.fspath(source)
    if os.path.exists(text):
        return Path(text)
    if text.startswith(HUGGING_FACE):
        return _of_hugging_face(text.removeprefix(HUGGING_FACE), folder)
    return _of_url(text, folder) if is_url(text) else Path(fetch(text))


def _of_hugging_face(model_id: str, folder: str | os.PathLike | None) -> Path:
    server = os.environ.get('HF_ENDPOINT') or 'https://huggingface.co'
    errors = []
    for name in WEIGHTS_OF_TRANSFORMERS:
        try:
            return _of_url(f'{server}/{model_id}/resolve/main/{name}', folder)
        except OSError as error:
            errors.append(str(error))
    raise OSError(
        f'{HUGGING_FACE}{model_id}: {errors[0]} (nor could {WEIGHTS_OF_TRANSFORMERS[1]}). HF_ENDPOINT names '
        'another server'
    )


def _of_url(url: str, folder: str | os.PathLike | None) -> Path:
    target = _place_of(url, folder)
    shown = without_userinfo(url)
    try:
        if not target.is_file():
            logger.info(f'fetching {shown} to {target}')
            size = download_file(url, target, LARGEST, lambda path: _check(path, target.name))
            logger.info(f'fetched {size / 1e6:.1f} MB')
        else:
            _check_digest(target, target.name)
    except DownloadError as error:
        raise OSError(
            f'{shown} cannot be had: {error}. Fetch it elsewhere and put it at {target}, or name the path of a file'
        ) from None
    return target


def _place_of(url: str, folder: str | os.PathLike | None) -> Path:
    """Where what a URL names is kept: under its own name where that says its digest, else with the URL's before it."""
    name = re.sub(r'[^\w.-]', '_', os.path.basename(urlsplit(url).path)) or 'weights'
    if folder is not None:
        return Path(folder) / name
    if not _SAYS_ITS_DIGEST.fullmatch(name):
        name = f'{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}'
    return cache_dir().parent / FOLDER / name


def _check(path: Path, name: str) -> None:
    """Refuse to keep what is no checkpoint, such as the web page of a proxy: it would be taken for one ever after.

    Raises:
        DownloadError: it is none, or another one than its name says.
    """
    _check_digest(path, name)
    try:
        require_readable(path)
    except CheckpointError as error:
        raise DownloadError(f'what came is no checkpoint: {str(error).removeprefix(f"{path}: ")}') from None


def _check_digest(path: Path, name: str) -> None:
    """Compare a file with what its name says of it.

    Raises:
        DownloadError: the digest is another one.
    """
    said = _SAYS_ITS_DIGEST.fullmatch(name)
    if said is None:
        return
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if not digest.hexdigest().startswith(said[1]):
        raise DownloadError(f'{name} has a SHA-256 that begins with {digest.hexdigest()[:8]}: damaged, or another file')
