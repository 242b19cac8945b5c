"""Fixtures around the loopback hub, imported by the conftest of each folder that needs them."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from forks import LIBRARIES, forks

from .server import BY_PROXY, Hub

TINY_MODEL = Path(__file__).parents[1] / 'data' / 'tiny_model'
MODEL_ID = 'damo/cv_segformer-b0_image_semantic-segmentation_coco-stuff164k'
FOREIGN_ID = 'damo/cv_cspnet_image-object-detection_yolox'
needs_hub_client = pytest.mark.skipif(
    BY_PROXY,
    reason='needs a ModelScope that brings modelscope_hub: releases before it have other inner parts, and ask the '
    'hub even for what is in the cache',
)

# Notes every process and every import of pip in a child process, from its first line on.
SITECUSTOMIZE = """
import os, sys
def note(event, args):
    if event in ('subprocess.Popen', 'os.system', 'os.exec', 'os.posix_spawn') or (
            event == 'import' and args[0].split('.')[0] == 'pip'):
        with open(os.environ['NOTED'], 'a') as noted:
            noted.write(f'{event} {args[0]} {args[1] if event != "import" else ""}\\n')
sys.addaudithook(note)
"""


def published_files():
    """The files of a published model repository: the tiny model under the published form."""
    return {path.name: path.read_bytes() for path in TINY_MODEL.iterdir()}


def foreign_files():
    """Another model of EasyCV's: the same plugin, nothing of SegFormer."""
    configuration = {
        'task': 'image-object-detection',
        'framework': 'pytorch',
        'plugins': ['pai-easycv'],
        'model': {'type': 'YOLOX'},
        'pipeline': {'type': 'easycv-detection'},
        'preprocessor': {},
    }
    return {'configuration.json': json.dumps(configuration).encode(), 'pytorch_model.pt': b'weights'}


@pytest.fixture
def hub():
    """The loopback hub with the published ids of B0 to B5 and one other model of EasyCV's."""
    from ms_segformer.metainfo import VARIANTS

    with Hub() as server:
        for variant in VARIANTS.values():
            for model_id in variant.hub_ids:
                server.add_model(model_id, published_files())
        server.add_model(FOREIGN_ID, foreign_files())
        yield server


class Python:
    """Runs Python in processes of its own with a private cache; `pip()` lists their uses of pip.

    They are fresh, or forked by `parent`.
    """

    def __init__(self, folder, hub, parent=None):
        self.cache = folder / 'cache'
        self.hub = hub
        self.executable = sys.executable
        self.extra = {}
        self._folder = folder
        self._parent = parent
        (folder / 'site').mkdir()
        (folder / 'site' / 'sitecustomize.py').write_text(SITECUSTOMIZE)
        self._noted = folder / 'noted.txt'

    def run(self, *arguments, code=None, check=True, cwd=None, **variables):
        """Run `python ARGUMENTS`, or `python -c CODE`; returns the finished process with its text output."""
        if code is not None:
            arguments = ('-c', textwrap.dedent(code))
        environment = {
            **os.environ,
            'OMP_NUM_THREADS': '1',
            'HOME': str(self._folder),
            'NOTED': str(self._noted),
            **self.hub.environment(self.cache),
            **self.extra,
            **variables,
        }
        environment['PYTHONPATH'] = os.pathsep.join([str(self._folder / 'site'), environment.get('PYTHONPATH', '')])
        done = (self._parent.run if self._parent else self._fresh)(arguments, environment, cwd)
        if check and done.returncode:
            pytest.fail(f'exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}')
        return done

    def _fresh(self, arguments, environment, cwd):
        return subprocess.run(
            [self.executable, *map(str, arguments)],
            env=environment,
            text=True,
            cwd=cwd,
            capture_output=True,
            timeout=600,
        )

    def result(self, code, **variables):
        """Run code and return what it printed last, as JSON."""
        return json.loads(self.run(code=code, **variables).stdout.strip().splitlines()[-1])

    def pip(self):
        """Return the processes the runs so far started for pip, and their imports of it."""
        lines = self._noted.read_text().splitlines() if self._noted.exists() else []
        return [line for line in lines if re.search(r'\bpip\b|ensurepip', line)]


@pytest.fixture
def python(request, tmp_path, hub):
    """A `Python` whose ModelScope talks to the loopback hub.

    The mark `forked_python` is for tests that are not about what is imported when: it saves each process seconds.
    """
    forked = hasattr(os, 'fork') and request.node.get_closest_marker('forked_python')
    return Python(tmp_path, hub, forks(LIBRARIES) if forked else None)
