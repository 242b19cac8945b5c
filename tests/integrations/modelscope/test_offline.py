"""A published id while the hub is out of reach: from the cache at once, or an error that says what to do."""

import threading
from types import SimpleNamespace

import pytest
from hub.fixtures import FOREIGN_ID, MODEL_ID, needs_hub_client

pytestmark = [needs_hub_client, pytest.mark.forked_python]

LOAD = """
import json, sys, time
import ms_segformer
from modelscope.hub.snapshot_download import snapshot_download
from modelscope.models import Model
from modelscope.pipelines.builder import normalize_model_input
from modelscope.pipelines.util import is_official_hub_path
from modelscope.preprocessors import Preprocessor
from modelscope.utils.automodel_utils import is_model_from_trusted_source

def attempt(call):
    start = time.monotonic()
    try:
        outcome = call()
        outcome = type(outcome).__name__ if not isinstance(outcome, (str, bool, type(None))) else outcome
    except Exception as error:
        outcome = f'{type(error).__name__}: {error}'
    return [outcome, time.monotonic() - start]

model = sys.argv[1]
print(json.dumps({
    'official': attempt(lambda: is_official_hub_path(model)),
    'trusted': attempt(lambda: is_model_from_trusted_source(model, 'master')),
    'snapshot': attempt(lambda: snapshot_download(model)),
    'normalize': attempt(lambda: normalize_model_input(model, 'master')),
    'model': attempt(lambda: Model.from_pretrained(model)),
    'preprocessor': attempt(lambda: Preprocessor.from_pretrained(model)),
}))
"""


def look(python, model):
    import json

    done = python.run('-c', LOAD, model)
    return json.loads(done.stdout.strip().splitlines()[-1]), done.stderr


def test_a_fetched_model_loads_at_once_without_the_hub(python, hub):
    online, _ = look(python, MODEL_ID)
    assert online['trusted'][0] is True
    hub.stop()
    offline, log = look(python, MODEL_ID)
    for step in ('official', 'snapshot', 'normalize', 'model', 'preprocessor'):
        assert offline[step][0] == online[step][0], step
    assert offline['trusted'][0] is False, 'a local folder must not vouch for its publisher'
    assert all(seconds < 5 for _, seconds in offline.values()), offline
    assert log.count('cannot be reached') == 1, 'one line in the log, not one per call'
    assert offline['snapshot'][0] in log


def test_a_model_that_was_never_fetched_says_what_to_do(python, hub):
    hub.stop()
    offline, _ = look(python, MODEL_ID)
    for step in ('official', 'snapshot', 'normalize', 'model', 'preprocessor'):
        message, seconds = offline[step]
        assert 'is not in the cache of this machine' in message and f'ms-segformer fetch {MODEL_ID}' in message, step
        assert seconds < 5


@pytest.mark.parametrize('damage', ['no checkpoint', 'unfinished'])
def test_an_incomplete_copy_is_not_used(python, hub, damage):
    python.run(
        '-c',
        'import ms_segformer; from modelscope.hub.snapshot_download import snapshot_download; '
        f'snapshot_download({MODEL_ID!r})',
    )
    (checkpoint,) = python.cache.rglob('pytorch_model.pt')
    if damage == 'no checkpoint':
        checkpoint.unlink()
    else:
        checkpoint.rename(checkpoint.with_suffix('.pt.incomplete'))
    hub.stop()
    offline, _ = look(python, MODEL_ID)
    assert 'is not in the cache of this machine' in offline['snapshot'][0]


def test_other_models_wait_for_the_hub_as_ever(python, hub):
    """ModelScope's own behavior without the network, retries included, is left alone."""
    hub.stop()
    done = python.run(
        code=f"""
        import time
        time.sleep = lambda seconds: None  # the waits between its retries
        import ms_segformer
        from modelscope.hub.api import HubApi
        from modelscope_hub.errors import NetworkError
        try:
            HubApi(max_retries=0).get_model({FOREIGN_ID!r})
        except NetworkError as error:
            print('NetworkError')
    """
    )
    assert done.stdout.split() == ['NetworkError']
    assert hub.requests == []


def test_a_look_at_the_hub_ends(monkeypatch):
    """No timeout of a request bounds how long a name server thinks."""
    from ms_segformer.integrations.modelscope import offline_hub

    answered, answer = threading.Event(), SimpleNamespace(close=lambda: None)
    monkeypatch.setattr('requests.head', lambda *_, **__: answered.wait(60) and answer)
    monkeypatch.setattr(offline_hub, 'LOOK_SECONDS', 0.1)
    assert offline_hub._look_at('http://slow.example') == 'no answer within 0.1 seconds'
    answered.set()


def test_an_answering_hub_is_asked_once_a_minute(python, hub):
    python.run('-c', LOAD, MODEL_ID)
    assert len(hub.asked('^HEAD /$')) == 1
