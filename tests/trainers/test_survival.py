"""A run killed at any moment and resumed ends with the weights of an unbroken run."""
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def run(options, work_dir, **changes):
    """Train in a process of its own; returns its exit code and its output."""
    settings = {key: value for key, value in options.items() if key != 'cfg_modify_fn'}
    settings.update(changes, work_dir=str(work_dir))
    file = Path(work_dir).with_suffix('.json')
    file.write_text(json.dumps(settings))
    done = subprocess.run([sys.executable, 'run_training.py', str(file)], cwd=HERE, capture_output=True, text=True,
                          timeout=120)
    return done.returncode, done.stdout + done.stderr


def weights(work_dir, name='epoch_3.pth'):
    return torch.load(Path(work_dir) / name, weights_only=True)['state_dict']


def assert_same(left, right):
    assert left.keys() == right.keys()
    different = [key for key in left if not torch.equal(left[key], right[key])]
    assert not different


BY_STEP = {'train.hooks': [{'type': 'CheckpointHook', 'save_strategy': 'by_step', 'interval': 3}, {
    'type': 'EvaluationHook', 'interval': 1}, {'type': 'TextLoggerHook', 'interval': 1}]}


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory, tiny_data, tiny_model_dir):
    """The run of 3 epochs of 4 iterations that nothing interrupts: its options and its folder."""
    from tiny_run import CLASSES
    folder = tmp_path_factory.mktemp('unbroken') / 'run'
    options = {'model': str(tiny_model_dir), 'data_root': str(tiny_data), 'classes': CLASSES, 'seed': 3, 'max_epochs': 3,
               'device': 'cpu'}
    code, output = run(options, folder)
    assert code == 0, output
    return options, folder


@pytest.mark.parametrize('kill_at, resumes_after', [
    (['iteration', 6], 4), (['saving', 2], 4), (['state', 2], 4), (['evaluating', 4], 8)],
    ids=lambda value: value[0] if isinstance(value, list) else str(value))
def test_a_killed_run_resumes_to_the_weights_of_an_unbroken_one(unbroken, tmp_path, kill_at, resumes_after):
    options, folder = unbroken
    code, output = run(options, tmp_path / 'run', kill_at=kill_at)
    assert code == -signal.SIGKILL, output
    code, output = run(options, tmp_path / 'run', resume=True)
    assert code == 0, output
    assert f'{resumes_after} of 12 iterations done' in output
    assert_same(weights(tmp_path / 'run'), weights(folder))
    assert_same(weights(tmp_path / 'run', 'output/pytorch_model.pt'), weights(folder))
    assert json.loads((tmp_path / 'run' / 'final.json').read_text()) == json.loads((folder / 'final.json').read_text())
    assert not [path.name for path in (tmp_path / 'run').iterdir() if path.name.startswith('.')]
