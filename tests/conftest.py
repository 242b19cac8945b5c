"""Fixtures for all tests."""

import os
import sys
from pathlib import Path

import pytest

import ms_segformer  # noqa: F401  (activates the plugin before any test imports ModelScope)

ROOT = Path(__file__).parents[1]
# Tests import OpenVINO and ONNX Runtime themselves; they send nothing either.
sys.modules.setdefault('openvino_telemetry', None)
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')


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
