"""Fixtures for all tests."""

import os
import sys
from pathlib import Path

import pytest

import ms_segformer  # noqa: F401  (activates the plugin before any test imports ModelScope)

ROOT = Path(__file__).parents[1]
# Files that take longest come first: a worker that begins one of them last works alone in the end.
LONG = [
    'test_docs.py',
    'cli/test_verify.py',
    'serving/test_service.py',
    'cards/test_cards.py',
    'serving/test_page.py',
    'test_campaigns.py',
    'trainers/test_survival.py',
    'cli/test_verify_stopped.py',
    'cli/test_predict_processes.py',
    'quantization/test_quantize.py',
    'cli/test_silence.py',
    'preprocessors/test_image_memory.py',
    'examples/test_scripts.py',
    'examples/test_quickstart.py',
]
# Tests import OpenVINO and ONNX Runtime themselves; they send nothing either.
sys.modules.setdefault('openvino_telemetry', None)
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')


def pytest_collection_modifyitems(items):
    order = {ROOT / 'tests' / name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(scope='session')
def shared():
    """The folder with reference outputs and labeled photographs, where the developers have it."""
    folder = ROOT.parent / 'shared'
    if not (folder / 'oracle').is_dir():
        pytest.skip('needs the reference data: ../shared beside the project is missing')
    return folder


@pytest.fixture(scope='session')
def oracle(shared):
    """Outputs of the original implementation."""
    return shared / 'oracle'


@pytest.fixture(scope='session')
def tiny_model_dir():
    """A model directory with a SegFormer of 143,508 random parameters and 172 outputs."""
    return ROOT / 'tests' / 'data' / 'tiny_model'
