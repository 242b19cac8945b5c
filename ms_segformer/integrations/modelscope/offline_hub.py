"""A published model while the hub is out of reach: its cached copy at once, or an error that says what to do.

Needs a ModelScope that brings `modelscope_hub` (1.38 and later), which is imported in the functions here: older ones
have none, and importing this module imports nothing of ModelScope.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType
from typing import Any, TypeGuard

from ...errors import SegformerError
from ...metainfo import variant_of_hub_id
from .changes import Change, Replace, class_of, function_of, like

ANSWER_SECONDS = 60  # how long one look at the hub is believed
LOOK_SECONDS = 8  # how long it may take

logger = logging.getLogger(__name__)
_seen: dict[str, tuple[float, str | None]] = {}  # endpoint -> (time of the look, why it cannot be reached or None)
_told: set[str] = set()  # folders of the copies that were mentioned


class HubUnreachable(SegformerError, ConnectionError):
    """A published model is asked for that is not in the cache while the hub cannot be reached."""


def forget() -> None:
    """Look at the hub anew when it is asked for next."""
    _seen.clear()
    _told.clear()


def cached_copy(model_id: str, revision: str | None = None) -> str | None:
    """Return the directory of a complete cached copy of a hub model, or None. Never asks the network.

    Complete means a configuration, a checkpoint, and no file that a broken download left unfinished. Needs a
    ModelScope that brings `modelscope_hub` (1.38 and later); before that the answer is None.
    """
    try:  # an older ModelScope has no such package
        from modelscope_hub.api import HubApi
        from modelscope_hub.errors import CacheNotFound
    except ImportError:
        return None
    try:
        folder = str(HubApi().download_repo(model_id, 'model', revision=revision, local_files_only=True))
    except CacheNotFound:
        return None
    names = os.listdir(folder)
    checkpoint = any(name.endswith(('.pt', '.pth', '.bin', '.safetensors')) for name in names)
    unfinished = any('.incomplete' in name or name.endswith('.parallel_tmp') for name in names)
    return folder if 'configuration.json' in names and checkpoint and not unfinished else None


def answer_without_the_hub(hub_api: ModuleType) -> Iterator[Change]:
    """`modelscope.hub.api.HubApi`: what `pipeline`, `build_trainer` and the trainers ask before they look at files."""
    if find_spec('modelscope_hub') is None:
        return  # ModelScope before 1.38 keeps its cache otherwise; without the hub it needs the directory, not the id
    owner = class_of(hub_api, 'HubApi')
    get_model = function_of(owner, 'get_model', 'model_id', 'revision')

    @like(get_model)
    def answer(self: Any, model_id: str, revision: str | None = None, *args: Any, **kwargs: Any) -> Any:
        if _offline(model_id, revision):
            # `is_official_hub_path` wants to know that the model exists. No `Owner` on purpose:
            # `is_model_from_trusted_source` must not trust a publisher on the word of a local folder.
            return {'Name': model_id.split('/')[1]}
        return get_model(self, model_id, revision, *args, **kwargs)

    yield Replace(owner, 'get_model', answer)


def download_without_the_hub(api: ModuleType) -> Iterator[Change]:
    """`modelscope_hub.api.HubApi`: where `snapshot_download` and `model_file_download` end up."""
    owner = class_of(api, 'HubApi')
    download = function_of(owner, 'download_repo', 'repo_id', 'repo_type', 'revision', 'local_files_only')
    resolve = function_of(owner, 'resolve_endpoint_for_read', 'repo_id')

    @like(download)
    def download_repo(self: Any, repo_id: str, repo_type: Any, **kwargs: Any) -> Any:
        plain = not any(kwargs.get(name) for name in ('local_files_only', 'local_dir', 'cache_dir'))
        if plain and str(repo_type) == 'model' and _offline(repo_id, kwargs.get('revision')):
            kwargs['local_files_only'] = True
        return download(self, repo_id, repo_type, **kwargs)

    @like(resolve)
    def resolve_endpoint_for_read(self: Any, repo_id: str, **kwargs: Any) -> Any:
        if str(kwargs.get('repo_type', 'model')) == 'model' and _published(repo_id) and _why_unreachable():
            return _endpoint()
        return resolve(self, repo_id, **kwargs)

    yield Replace(owner, 'download_repo', download_repo)
    yield Replace(owner, 'resolve_endpoint_for_read', resolve_endpoint_for_read)


def _offline(model_id: object, revision: str | None) -> bool:
    """Whether a published model is to be taken from the cache because the hub cannot be reached.

    Raises:
        HubUnreachable: the hub cannot be reached and the model is not in the cache.
    """
    return _published(model_id) and offline_copy(model_id, revision) is not None


def offline_copy(model_id: str, revision: str | None = None) -> str | None:
    """Return the directory of a model's cached copy while the hub cannot be reached; None while it can.

    Needs a ModelScope that brings `modelscope_hub` (1.38 and later); before that the answer is None.

    Raises:
        HubUnreachable: the hub cannot be reached and the model is not in the cache.
    """
    why = _why_unreachable() if find_spec('modelscope_hub') else None
    if why is None:
        return None
    folder = cached_copy(model_id, revision)
    if folder is None:
        raise HubUnreachable(
            f'{model_id} (revision {revision or "master"}) is not in the cache of this machine, and the hub '
            f'{_endpoint()} cannot be reached ({why}). Run `ms-segformer fetch {model_id}` where there is a network '
            f'and pass the directory it prints in place of the id, or set HTTPS_PROXY or MODELSCOPE_ENDPOINT.'
        )
    if folder not in _told:
        _told.add(folder)
        logger.warning('%s cannot be reached (%s); %s is taken from %s', _endpoint(), why, model_id, folder)
    return folder


def _published(model_id: object) -> TypeGuard[str]:
    return isinstance(model_id, str) and variant_of_hub_id(model_id) is not None


def _why_unreachable() -> str | None:
    """Return why the hub cannot be reached, or None when it answers; asks at most once a minute.

    One HEAD request without retries, through the user's proxy settings; any HTTP answer counts as reachable.
    """
    endpoint = _endpoint()
    when, why = _seen.get(endpoint, (None, None))
    if when is None or time.monotonic() - when > ANSWER_SECONDS:
        why = _look_at(endpoint)
        _seen[endpoint] = (time.monotonic(), why)
    return why


def _look_at(endpoint: str) -> str | None:
    """Why there is no answer, or None; in a thread, for no timeout of a request bounds the look-up of its name."""
    import requests  # imported late: --help is to be fast

    found: list[str | None] = []

    def look() -> None:
        try:
            requests.head(endpoint, timeout=(3, 5), allow_redirects=False).close()
            found.append(None)
        except (requests.RequestException, OSError, ValueError) as error:
            found.append(type(error).__name__)

    thread = threading.Thread(target=look, name='ms-segformer-hub', daemon=True)
    thread.start()
    thread.join(LOOK_SECONDS)
    return found[0] if found else f'no answer within {LOOK_SECONDS} seconds'


def _endpoint() -> str:
    from modelscope_hub.config import get_default_config  # an older ModelScope has no such package

    return get_default_config().endpoint or 'https://modelscope.cn'
