"""`app.py`, which ModelScope Studio starts: in a process of its own, asked by Gradio's client.

Gradio asks for an older Pillow than the other tests run with; `make studio` has it in an environment of its own.
"""

import ast
import os
import re
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ms_segformer.metainfo import VARIANTS

ROOT = Path(__file__).parents[1]
PHOTOGRAPH = ROOT / 'assets' / 'china.jpg'
needs_gradio = pytest.mark.skipif(find_spec('gradio') is None, reason='Gradio is not installed; make studio brings it')


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    """(address of the page, folder of its files)."""
    folder = tmp_path_factory.mktemp('gradio')
    process = start(folder, 'demo')
    try:
        yield address(process), folder
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def start(folder, model):
    return subprocess.Popen(
        [sys.executable, '-u', str(ROOT / 'app.py')],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            'PYTHONPATH': str(ROOT),
            'MS_SEGFORMER_MODEL': model,
            'OMP_NUM_THREADS': '2',
            'GRADIO_SERVER_NAME': '127.0.0.1',
            'GRADIO_SERVER_PORT': str(free_port()),
            'GRADIO_TEMP_DIR': str(folder),
        },
    )


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as listener:
        return listener.getsockname()[1]


def address(process):
    said = []
    for line in process.stdout:  # ends when the process does
        said.append(line)
        if found := re.search(r'running on local URL: +(http://\S+)', line, re.IGNORECASE):
            return found[1]
    raise AssertionError(''.join(said))


def client(url, folder):
    from gradio_client import Client  # optional

    return Client(url, verbose=False, download_files=str(folder))


@needs_gradio
@pytest.mark.parametrize(('language', 'sky'), [('English', 'sky-other'), ('中文', '天空')])
def test_a_photograph_gives_overlay_table_and_label_map(page, tmp_path, language, sky):
    from gradio_client import handle_file  # optional

    overlay, table, label_map = client(page[0], tmp_path).predict(
        handle_file(str(PHOTOGRAPH)), language, api_name='/segment'
    )
    assert Image.open(overlay).width > 640, 'the photograph and its legend'
    assert table['data'][0][:2] == [0, sky] and 40 < table['data'][0][2] < 50
    ids = np.asarray(Image.open(label_map))
    assert ids.shape == (427, 640) and Path(label_map).name == 'china_labels.png'
    assert {row[0] for row in table['data']} == set(np.unique(ids).tolist())


@needs_gradio
def test_what_is_wrong_is_said_in_words(page, tmp_path):
    from gradio_client import exceptions, handle_file  # optional

    damaged, large = tmp_path / 'damaged.jpg', tmp_path / 'large.png'
    damaged.write_bytes(b'no picture')
    Image.new('1', (6000, 6000)).save(large)
    asked = client(page[0], tmp_path)
    for photograph, message in (
        (None, '^Choose a photograph first'),
        (handle_file(str(damaged)), '^damaged.jpg: not an image'),
        (handle_file(str(large)), '^large.png: .*pixels'),
    ):
        with pytest.raises(exceptions.AppError, match=message):
            asked.predict(photograph, 'English', api_name='/segment')


@needs_gradio
def test_only_one_function_can_be_asked_for(page, tmp_path):
    assert list(client(page[0], tmp_path).view_api(return_format='dict')['named_endpoints']) == ['/segment']


@needs_gradio
def test_a_model_that_cannot_be_opened_is_said_to_who_asks(tmp_path):
    from gradio_client import exceptions, handle_file  # optional

    process = start(tmp_path / 'files', str(tmp_path / 'nowhere'))
    try:
        asked = client(address(process), tmp_path)
        with pytest.raises(exceptions.AppError, match='nowhere'):
            asked.predict(handle_file(str(PHOTOGRAPH)), 'English', api_name='/segment')
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def test_the_page_opens_the_published_b0_by_default():
    tree = ast.parse((ROOT / 'app.py').read_text(encoding='utf-8'))
    assert VARIANTS['b0'].hub_ids[0] in {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}


def test_both_languages_have_the_same_texts():
    tree = ast.parse((ROOT / 'app.py').read_text(encoding='utf-8'))
    texts = next(
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == 'TEXTS'
    )
    english, chinese = ([key.value for key in each.keys] for each in texts.values)
    assert english == chinese
