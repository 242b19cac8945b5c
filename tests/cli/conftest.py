import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from hub.fixtures import hub, python  # noqa: E402,F401
from small_evaluation import scale_to  # noqa: E402

from ms_segformer.cli.main import main  # noqa: E402


@pytest.fixture(scope='module')
def model(tiny_model_dir, tmp_path_factory):
    """The tiny model, tested at a small size."""
    folder = tmp_path_factory.mktemp('model') / 'tiny'
    shutil.copytree(tiny_model_dir, folder)
    scale_to(folder, [96, 64])
    return folder


@pytest.fixture
def verify(tmp_path, capsys):
    """Runs the command; returns exit code, report and what was printed."""

    def run(*words):
        code = main(['verify', *map(str, words), '--device', 'cpu', '-o', str(tmp_path / 'report.json')])
        printed = capsys.readouterr()
        path = tmp_path / 'report.json'
        return code, json.loads(path.read_text()) if path.exists() else None, printed

    return run
