"""`modelscope server`, ModelScope's own HTTP service, with a SegFormer: what docs/en/serve.md says about it.

It asks for a Starlette before 1.0; `make modelscope-server` has one in an environment of its own.
"""

import base64
import io
import os
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hub.fixtures import MODEL_ID, needs_hub_client, published_files
from hub.server import Hub
from PIL import Image

import ms_segformer

ROOT = Path(__file__).parents[3]
TINY_MODEL = ROOT / 'tests' / 'data' / 'tiny_model'
SECONDS = 120
COMMAND = """
import sys
from importlib.metadata import entry_points
(command,) = entry_points(group='console_scripts', name='modelscope')
sys.exit(command.load()())
"""


def why_not():
    """Why the server cannot run here; None if it can."""
    missing = [name for name in ('fastapi', 'uvicorn', 'httpx') if find_spec(name) is None]
    if missing:
        return f'{", ".join(missing)} not installed'
    from fastapi import FastAPI  # optional

    if not hasattr(FastAPI, 'add_event_handler'):
        return "ModelScope's server needs a Starlette before 1.0: make modelscope-server"
    return None


pytestmark = [pytest.mark.skipif(why_not() is not None, reason=str(why_not())), needs_hub_client]


@pytest.fixture(scope='module')
def url(tmp_path_factory):
    """Address of a server that was started as `modelscope server`, by an id."""
    import httpx  # optional

    folder = tmp_path_factory.mktemp('server')
    with socket.create_server(('127.0.0.1', 0)) as listener:
        port = listener.getsockname()[1]
    with Hub() as hub, open(folder / 'log', 'w+') as log:
        hub.add_model(MODEL_ID, published_files())
        process = subprocess.Popen(
            [sys.executable, '-c', COMMAND, 'server', '--model_id', MODEL_ID, '--revision', 'v1.0.0']
            + ['--host', '127.0.0.1', '--port', str(port)],
            env={**os.environ, 'OMP_NUM_THREADS': '2', 'PYTHONPATH': str(ROOT), **hub.environment(folder / 'cache')},
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            end = time.monotonic() + SECONDS
            while True:
                try:
                    assert httpx.get(f'http://127.0.0.1:{port}/health').json()['Success']
                    break
                except httpx.TransportError:
                    log.seek(0)
                    assert process.poll() is None and time.monotonic() < end, log.read()
                    time.sleep(0.2)
            yield f'http://127.0.0.1:{port}'
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.fixture(scope='module')
def photograph():
    image = Image.open(ROOT / 'assets' / 'china.jpg').resize((96, 64))
    file = io.BytesIO()
    image.save(file, 'PNG')
    return file.getvalue()


def call(url, photograph, **parameters):
    import httpx  # optional

    body = {'input': {'image': base64.b64encode(photograph).decode()}, 'parameters': parameters}
    return httpx.post(f'{url}/call', json=body, timeout=SECONDS)


def test_it_describes_the_task_by_modelscopes_own_list(url):
    import httpx  # optional

    said = httpx.get(f'{url}/describe').json()
    assert said['schema']['task_name'] == 'image-segmentation'
    assert set(said['schema']['schema']['output']['properties']) == {'masks', 'labels', 'scores'}
    assert 'min_size' in said['schema']['schema']['parameters']['properties'], 'of another model'


def test_a_call_gives_the_result_of_the_pipeline_as_lists(url, photograph):
    expected = ms_segformer.load(TINY_MODEL, device='cpu')(photograph)
    found = call(url, photograph).json()
    assert found['labels'] == expected['labels'] and found['scores'] == pytest.approx(expected['scores'], abs=1e-5)
    assert np.array_equal(found['masks'], expected['masks']) and np.array_equal(found['seg_map'], expected['seg_map'])


def test_parameters_are_those_of_a_call_of_the_pipeline(url, photograph):
    whole, without = call(url, photograph), call(url, photograph, with_masks=False)
    assert without.json()['masks'] == [] and without.json()['seg_map'] == whole.json()['seg_map']
    assert len(without.content) < len(whole.content) / 2


def test_a_mistake_is_a_traceback_and_the_server_goes_on(url, photograph):
    for failed in (call(url, b'no picture'), call(url, photograph, min_size=640)):
        assert failed.status_code == 500 and failed.text.startswith('Traceback')
    assert call(url, photograph, with_masks=False).status_code == 200
