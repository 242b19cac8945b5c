"""Training on a GPU: steps, mixed precision, resuming, deterministic mode, several processes."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_run import make_data, run_options, shrink

from ms_segformer.models.checkpoint import read_checkpoint

pytestmark = pytest.mark.gpu


@pytest.fixture(scope='session')
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp('tiny_data'))


@pytest.fixture
def options(data, tiny_model_dir, tmp_path, device):
    """Arguments of `build_trainer`; a test changes what it is about."""
    return run_options(tiny_model_dir, data, tmp_path / 'run', device)


def train(options, **changes):
    """Train; returns the losses, the final weights and the trainer."""
    from modelscope.trainers import build_trainer

    options = {**options, **changes}
    trainer = build_trainer('easycv', options)
    trainer.train()
    folder = Path(options['work_dir'])
    lines = [json.loads(line) for path in sorted(folder.glob('*.log.json')) for line in path.read_text().splitlines()]
    losses = [line['loss'] for line in lines if 'loss' in line]
    weights = {key: value.cpu() for key, value in trainer.bare_model.state_dict().items()}
    return losses, weights, trainer


def same(some, others):
    return all(torch.equal(some[key], others[key]) for key in some)


@pytest.mark.parametrize('amp', [None, 'bf16', 'fp16'])
def test_the_loss_falls_and_a_checkpoint_is_written(options, tmp_path, device, amp):
    if device.type == 'cpu' and amp:
        pytest.skip('mixed precision of the tiny model needs a GPU')
    losses, weights, trainer = train(options, amp=amp, max_epochs=16)
    assert all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-16:]) < 0.9 * sum(losses[:16])
    assert (trainer.scaler is not None and trainer.scaler.is_enabled()) == (amp == 'fp16')
    assert all(value.dtype != torch.float16 for value in weights.values())
    assert same(read_checkpoint(tmp_path / 'run' / 'epoch_16.pth')[0], weights)


def test_the_first_step_is_that_of_the_cpu(options, tmp_path):
    """Loss by loss, before the roundings of the two have grown."""
    on_gpu, _, _ = train(options, max_epochs=1)
    on_cpu, _, _ = train(options, max_epochs=1, device='cpu', work_dir=str(tmp_path / 'cpu'))
    assert on_gpu[0] == pytest.approx(on_cpu[0], abs=2e-3)


def test_a_run_of_the_cpu_goes_on_on_a_gpu(options, tmp_path):
    """Whose optimizer wants everything in the memory layout of the weights."""
    train(options, work_dir=str(tmp_path / 'cpu'), max_epochs=2, device='cpu')
    losses, _, _ = train(options, resume=str(tmp_path / 'cpu' / 'epoch_1.pth'))
    assert losses and all(math.isfinite(loss) for loss in losses)


@pytest.mark.parametrize('amp', [None, 'fp16'])
def test_a_resumed_run_goes_on(options, tmp_path, device, amp):
    """In deterministic mode to the same weights; with fp16 the scaler's state goes on too."""
    if device.type == 'cpu' and amp:
        pytest.skip('float16 needs a GPU')
    changes = {'amp': amp, 'cfg_options': {'train.deterministic': True}}
    _, whole, _ = train(options, work_dir=str(tmp_path / 'whole'), max_epochs=4, **changes)
    _, resumed, _ = train(options, max_epochs=4, resume=str(tmp_path / 'whole' / 'epoch_2.pth'), **changes)
    difference = max(float((whole[key].float() - resumed[key].float()).abs().max()) for key in whole)
    assert difference == 0, f'the weights differ by {difference:.2g}'


def test_two_deterministic_runs_give_the_same_weights(options, tmp_path):
    changes = {'cfg_options': {'train.deterministic': True}}
    _, one, _ = train(options, work_dir=str(tmp_path / 'one'), **changes)
    _, other, _ = train(options, work_dir=str(tmp_path / 'other'), **changes)
    assert same(one, other)
    assert not torch.are_deterministic_algorithms_enabled()


def test_gradients_are_accumulated(options, device):
    losses, _, trainer = train(options, cfg_options={'train.optimizer.options.cumulative_iters': 2})
    assert trainer.cumulative_iters == 2 and all(math.isfinite(loss) for loss in losses)


def test_the_optimizer_is_fused_and_convolutions_are_channels_last(options, cuda):
    _, _, trainer = train(options, max_epochs=1)
    assert trainer.optimizer.defaults.get('fused')
    wide = [value for value in trainer.bare_model.parameters() if value.dim() == 4 and value.shape[2] > 1]
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in wide)


def test_evaluation_during_training(options):
    def also_evaluate(cfg):
        cfg = shrink(cfg)
        cfg.evaluation.period = {'by_epoch': True, 'interval': 1}
        return cfg

    _, _, trainer = train(options, cfg_modify_fn=also_evaluate, max_epochs=1)
    assert 0 <= trainer.evaluate()['mIoU'] <= 100


def test_two_gpus_with_synchronized_batch_norm(options, cuda, tmp_path):
    if torch.cuda.device_count() < 2:
        pytest.skip('needs two GPUs')
    script = tmp_path / 'several.py'
    script.write_text(f"""
import os, sys, torch
sys.path.insert(0, {str(Path(__file__).parents[1] / 'trainers')!r})
from tiny_run import shrink
from modelscope.trainers import build_trainer
import ms_segformer
options = { ({**options, 'cfg_modify_fn': None, 'device': 'gpu'})!r}
options['cfg_modify_fn'] = shrink
options['cfg_options'] = {{'model.decode_head.norm_cfg.type': 'SyncBN'}}
trainer = build_trainer('easycv', options)
trainer.train()
assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in trainer.bare_model.modules())
print('done', trainer.rank)
""")
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', str(script)],
        capture_output=True,
        text=True,
        env=os.environ,
        timeout=300,
    )
    assert done.returncode == 0 and done.stdout.count('done') == 2, done.stderr[-2000:]
