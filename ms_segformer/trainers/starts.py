"""What training may start from, by a text."""

import os
import re
from urllib.parse import urlsplit

MODEL, IMAGENET, SCRATCH = STARTS = ('model', 'imagenet', 'scratch')
HUGGING_FACE = 'hf:'  # before an id of the Hugging Face hub
_ID = re.compile(r'[\w-][\w.-]*/[\w.-]+')
_A_FILE = re.compile(r'\.(pt|pth|bin|safetensors|ckpt|pkl|tar|json)$')


def check_start(start: str | os.PathLike) -> None:
    """Make sure that a text names a start of training; asks no network.

    Args:
        start: one of `STARTS`, a file or a folder that is there, a URL, `hf:` and an id, or an id of ModelScope's hub.

    Raises:
        FileNotFoundError: it is none of these.
    """
    text = os.fspath(start)
    if text not in STARTS and not os.path.exists(text) and not _is_remote(text):
        raise FileNotFoundError(
            f'{text}: no such file or model directory; training starts from {", ".join(STARTS)}, '
            f'a file, a model directory, a URL, a ModelScope id, or {HUGGING_FACE}OWNER/NAME'
        )


def is_url(text: str) -> bool:
    """Whether a text is an http or https URL."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ('http', 'https') and bool(parts.netloc)


def _is_remote(text: str) -> bool:
    if is_url(text):
        return True
    return _ID.fullmatch(text.removeprefix(HUGGING_FACE)) is not None and _A_FILE.search(text) is None
