"""The door to OpenVINO and ONNX Runtime: what is switched off for their import, and put back.

tests/cli/test_silence.py watches the real packages.
"""

import itertools
import os
import re
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

import ms_segformer
from ms_segformer.engines import silent_import
from ms_segformer.engines.silent_import import import_onnxruntime, import_openvino

OPENVINO = """
try:
    import openvino_telemetry.backend
    heard = True
except ImportError:
    heard = False
"""
ONNXRUNTIME = 'import os\nheard = os.environ.get("ORT_DISABLE_TELEMETRY") not in ("1", "true")\n'


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """Packages that note on import whether they could send; the real ones are as if not imported yet."""
    for name, content in {
        'openvino/__init__.py': OPENVINO,
        'onnxruntime/__init__.py': ONNXRUNTIME,
        'openvino_telemetry/__init__.py': '',
        'openvino_telemetry/backend.py': '',
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    kept = {
        name: module
        for name, module in sys.modules.items()
        if name.split('.')[0] in ('openvino', 'onnxruntime', 'openvino_telemetry')
    }
    for name in kept:
        del sys.modules[name]
    yield tmp_path
    for name in [
        name for name in sys.modules if name.split('.')[0] in ('openvino', 'onnxruntime', 'openvino_telemetry')
    ]:
        del sys.modules[name]
    sys.modules.update(kept)


def test_openvino_does_not_find_its_telemetry_and_the_user_does(stand_ins):
    assert not import_openvino().heard
    import openvino_telemetry.backend

    assert openvino_telemetry.backend.__file__.startswith(str(stand_ins))


def test_a_telemetry_that_the_user_has_imported_is_the_same_afterwards(stand_ins):
    import openvino_telemetry.backend

    before = {name: module for name, module in sys.modules.items() if name.startswith('openvino_telemetry')}
    assert not import_openvino().heard
    assert {name: module for name, module in sys.modules.items() if name.startswith('openvino_telemetry')} == before
    assert openvino_telemetry.backend is before['openvino_telemetry.backend']


def test_a_telemetry_that_the_user_hides_stays_hidden(stand_ins, monkeypatch):
    monkeypatch.setitem(sys.modules, 'openvino_telemetry', None)
    assert not import_openvino().heard
    assert sys.modules['openvino_telemetry'] is None


def test_an_openvino_that_the_user_has_imported_is_returned(stand_ins):
    import openvino

    assert openvino.heard and import_openvino() is openvino


@pytest.mark.parametrize('wanted, heard', [(None, False), ('1', False), ('0', True)])
def test_onnxruntime_sends_only_when_the_environment_says_so(stand_ins, monkeypatch, wanted, heard):
    monkeypatch.delenv('ORT_DISABLE_TELEMETRY', raising=False)
    if wanted is not None:
        monkeypatch.setenv('ORT_DISABLE_TELEMETRY', wanted)
    assert import_onnxruntime().heard is heard
    assert os.environ.get('ORT_DISABLE_TELEMETRY') == wanted


@pytest.mark.parametrize('name, load', [('openvino', import_openvino), ('onnxruntime', import_onnxruntime)])
def test_a_failing_import_puts_back_what_was_changed(stand_ins, monkeypatch, name, load):
    monkeypatch.delenv('ORT_DISABLE_TELEMETRY', raising=False)
    (stand_ins / name / '__init__.py').write_text('raise ImportError("libtbb.so is missing")')
    with pytest.raises(ImportError, match='libtbb.so is missing'):
        load()
    assert 'ORT_DISABLE_TELEMETRY' not in os.environ and 'openvino_telemetry' not in sys.modules


def test_threads_that_import_meanwhile_leave_nothing_hidden(monkeypatch):
    """Removing and adding modules all the while, with as many switches between threads as there can be."""
    stop, marker = threading.Event(), ModuleType('openvino_telemetry')
    before = sys.getswitchinterval()

    def change(prefix):
        for number in itertools.cycle(range(4000)):
            if stop.is_set():
                return
            if sys.modules.pop(f'{prefix}{number}', None) is None:
                sys.modules[f'{prefix}{number}'] = marker

    monkeypatch.setitem(sys.modules, 'openvino_telemetry', marker)
    threads = [threading.Thread(target=change, args=(f'somebodys{number}_',)) for number in range(2)]
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for _ in range(300):
            with silent_import._hidden('openvino_telemetry'):
                assert sys.modules['openvino_telemetry'] is None
            assert sys.modules['openvino_telemetry'] is marker
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(before)
        for name in [name for name in list(sys.modules) if name.startswith('somebodys')]:
            del sys.modules[name]


def test_there_is_no_other_door():
    package = Path(ms_segformer.__file__).parent
    direct = re.compile(r'^\s*(import|from) (openvino|onnxruntime)\b', re.MULTILINE)
    for_types = re.compile(r'^if TYPE_CHECKING:\n(?:    .*\n|\n)+', re.MULTILINE)  # never run
    found = [
        path.name
        for path in package.rglob('*.py')
        if direct.search(for_types.sub('', path.read_text(encoding='utf-8')))
    ]
    assert found == []
