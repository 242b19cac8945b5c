"""Brings models of ModelScope's hub to this machine."""

import os
from contextlib import suppress

from ...errors import ArgumentError, one_line
from ...metainfo import find_model
from .offline_hub import HubUnreachable, offline_copy


def fetch(model_id: str, revision: str | None = None, folder: str | os.PathLike[str] | None = None) -> str:
    """Download a model repository and return its directory; its cached copy while the hub is out of reach.

    Raises:
        ConnectionError: the hub cannot be reached, has no such model, or gives no sound answer; the message says what
            to try.
    """
    from requests import RequestException  # imported late: --help is to be fast

    copy = offline_copy(model_id, revision)
    if copy and folder:
        raise HubUnreachable(
            f'{model_id} cannot be downloaded to {folder}: the hub cannot be reached. A copy lies in {copy}'
        )
    if copy:
        return copy
    from modelscope.hub.snapshot_download import snapshot_download  # imported late, as above

    there = folder is None or os.path.lexists(folder)
    try:
        return str(snapshot_download(model_id, revision=revision, **({'local_dir': folder} if folder else {})))
    except Exception as error:  # the client has exceptions of its own, and others for answers it does not expect
        if folder is not None and not there:
            with suppress(OSError):  # old clients make both before they know that there is nothing to put in
                os.rmdir(os.path.join(folder, '._____temp'))
                os.rmdir(folder)
        if isinstance(error, OSError) and not isinstance(error, (RequestException, ConnectionError)):
            raise  # of this machine, such as a full disk
        raise ConnectionError(
            f'{model_id} (revision {revision or "master"}) could not be downloaded: {one_line(error)}. Check the id on '
            f'modelscope.cn, the network, and the variables HTTPS_PROXY and MODELSCOPE_ENDPOINT.'
        ) from error


def model_directory(name: str | os.PathLike[str], revision: str | None = None) -> str:
    """The directory of a model: a directory, a hub id, `b0` … `b5` or `demo`; downloaded when missing.

    Whether the hub answers is known within seconds; without it the cached copy is taken.

    Raises:
        FileNotFoundError: the name is none of these.
        ConnectionError: see `fetch`.
        ArgumentError: a revision of what is no hub id.
    """
    found = find_model(name)
    if not os.path.isdir(found):
        return fetch(found, revision)
    if revision is not None:
        raise ArgumentError(
            f'revision is {revision!r}, and {name} is a directory on this machine; revisions are of hub ids'
        )
    return found
