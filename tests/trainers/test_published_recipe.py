"""The published recipe's 8 processes with 2 images each, on a CPU: its steps, its rates, and one process's weights."""

import json
import math

import pytest
import torch
from tiny_run import CLASSES

IMAGES = 8  # of the data here and of those of the original's run
EQUAL = {
    'evaluation.period': None,
    'model.backbone.drop_path_rate': 0.0,
    'model.decode_head.dropout_ratio': 0.0,
    'train.dataloader': {'batch_size_per_gpu': 1, 'workers_per_gpu': 0},
    'train.lr_scheduler': {'_delete_': True, 'policy': 'fixed'},
}


@pytest.fixture
def settings(tiny_data, tiny_model_dir, tmp_path):
    return {
        'model': str(tiny_model_dir),
        'data_root': str(tiny_data),
        'classes': CLASSES,
        'seed': 3,
        'device': 'cpu',
        'work_dir': str(tmp_path / 'run'),
    }


def logged(folder):
    return [json.loads(line) for line in next(folder.glob('*.log.json')).read_text().splitlines()]


def test_eight_processes_take_the_original_s_steps_at_its_rates(settings, runs, eight, oracle, tmp_path):
    """The original's run had one process: its rate follows from the share of the run that is done, as here."""
    original = [json.loads(line) for line in (oracle / 'train' / 'learn.log.json').read_text().splitlines()]
    original = [line for line in original if line['mode'] == 'train']
    configured = json.loads((oracle / 'train' / 'output_configuration.json').read_text())['train']
    epochs, batch = configured['max_epochs'], configured['dataloader']['batch_size_per_gpu']
    per_epoch, with_eight = math.ceil(IMAGES / batch), math.ceil(IMAGES / (8 * batch))
    assert len(original) == epochs * per_epoch
    codes, output = runs(
        {
            **settings,
            'max_epochs': epochs,
            'cfg_changes': {
                'evaluation.period': None,
                'model.decode_head.norm_cfg.type': 'SyncBN',
                'train.lr_scheduler': configured['lr_scheduler'],
                'train.optimizer.lr': configured['optimizer']['lr'],
                'train.dataloader': {'batch_size_per_gpu': batch, 'workers_per_gpu': 0},
            },
        },
        eight,
    )
    assert codes == [0] * 8, output
    lines = [line for line in logged(tmp_path / 'run') if line['mode'] == 'train']
    assert [(line['epoch'], line['iter']) for line in lines] == [
        (epoch + 1, number + 1) for epoch in range(epochs) for number in range(with_eight)
    ]
    at_the_same_share = [line['lr'] for line in original[:: per_epoch // with_eight]]
    assert [line['lr'] for line in lines] == pytest.approx(at_the_same_share, rel=1e-4)  # the log rounds
    assert (
        output.count(
            'a step takes 16 images, and batch norm normalizes 2 at a time; its running statistics are '
            'made of those of the first process'
        )
        == 1
    )


def test_one_process_that_accumulates_eight_batches_gets_the_weights_of_eight(settings, runs, eight, tmp_path):
    """Batch norm, too, sees the same images together; only what it keeps of them for later differs."""
    states, said = {}, {}
    for name, count, environments in (('eight', 1, eight), ('one', 8, [{}])):
        optimizer = {
            '_delete_': True,
            'type': 'SGD',
            'lr': 0.01,
            'momentum': 0.9,
            'options': {'cumulative_iters': count},
        }
        codes, said[name] = runs(
            {
                **settings,
                'work_dir': str(tmp_path / name),
                'max_epochs': 3,
                'cfg_options': {**EQUAL, 'train.optimizer': optimizer},
            },
            environments,
        )
        assert set(codes) == {0}, said[name]
        states[name] = torch.load(tmp_path / name / 'epoch_3.pth', weights_only=True)['state_dict']
    assert len([line for line in logged(tmp_path / 'eight') if line['mode'] == 'train']) == 3
    before = torch.load(tmp_path / 'one' / 'epoch_1.pth', weights_only=True)['state_dict']
    kept = [key for key in states['one'] if 'running' in key or 'num_batches' in key]
    for key, value in states['one'].items():
        if key not in kept:
            torch.testing.assert_close(states['eight'][key], value, rtol=1e-4, atol=1e-6, msg=key)
    moved = max((states['one'][key] - before[key]).abs().max().item() for key in states['one'] if key not in kept)
    assert moved > 1e-3, 'the steps are larger than what is taken for equal'
    assert any((states['eight'][key] - states['one'][key]).abs().max() > 1e-3 for key in kept)
    assert (
        'a step takes 8 images, and batch norm normalizes 1 at a time; its running statistics are made of each'
        in (said['one'])
    )
