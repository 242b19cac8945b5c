"""Learning rates and parameter groups."""

import json
import math

import pytest
import torch

from ms_segformer.trainers.errors import TrainingError
from ms_segformer.trainers.optimizer import build_optimizer, parameter_groups
from ms_segformer.trainers.schedules import build_schedule

PUBLISHED = {
    'policy': 'poly',
    'warmup': 'linear',
    'warmup_iters': 1500,
    'warmup_ratio': 1e-6,
    'power': 1.0,
    'min_lr': 0.0,
    'by_epoch': False,
}
OPTIONS = {'custom_keys': {'pos_block': {'decay_mult': 0.0}, 'norm': {'decay_mult': 0.0}, 'head': {'lr_mult': 10.0}}}


def test_the_rates_are_those_of_the_original_s_log(oracle):
    lines = [json.loads(line) for line in (oracle / 'train' / 'learn.log.json').read_text().splitlines()]
    logged = [line['lr'] for line in lines if line.get('mode') == 'train']
    assert len(logged) == 48
    section = json.loads((oracle / 'train' / 'output_configuration.json').read_text())['train']['lr_scheduler']
    assert section['type'] == 'PolyLrUpdaterHook'  # as it exports what was {"policy": "poly"}
    schedule = build_schedule(section, total_iterations=48, total_epochs=12)
    assert [schedule.rate(1e-3, i, i // 4) for i in range(48)] == pytest.approx(logged, rel=1e-12)


def test_the_published_schedule_warms_up_from_a_millionth():
    schedule = build_schedule(PUBLISHED, total_iterations=3000, total_epochs=30)
    rates = [schedule.rate(6e-5, i, 0) for i in range(3000)]
    assert rates[0] == pytest.approx(6e-11)
    assert rates[750] == pytest.approx(6e-5 * 0.75 * 0.5, rel=1e-5)  # half warmed up, a quarter of the run done
    assert rates[1499] < rates[1500] == pytest.approx(3e-5)
    assert rates[2999] == pytest.approx(6e-5 / 3000)
    assert max(rates) == rates[1500]


@pytest.mark.parametrize(
    'section, expected',
    [
        ({'policy': 'fixed'}, [1, 1, 1, 1]),
        ({'policy': 'step', 'step': [2, 3]}, [1, 1, 0.1, 0.01]),
        ({'policy': 'step', 'step': 2, 'gamma': 0.5}, [1, 1, 0.5, 0.5]),
        ({'policy': 'exp', 'gamma': 0.5}, [1, 0.5, 0.25, 0.125]),
        ({'policy': 'CosineAnnealing', 'min_lr': 0.0}, [(1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)]),
        ({'policy': 'poly', 'power': 2, 'min_lr': 0.2}, [0.2 + 0.8 * (1 - i / 4) ** 2 for i in range(4)]),
    ],
)
def test_policies_by_epoch(section, expected):
    schedule = build_schedule(section, total_iterations=400, total_epochs=4)
    assert [schedule.rate(1.0, 100 * epoch + 7, epoch) for epoch in range(4)] == pytest.approx(expected)


def test_warm_ups():
    def rates(warmup):
        schedule = build_schedule({'policy': 'fixed', 'warmup': warmup, 'warmup_iters': 2, 'warmup_ratio': 0.01}, 4, 1)
        return [schedule.rate(1.0, i, 0) for i in range(3)]

    assert rates('constant') == pytest.approx([0.01, 0.01, 1])
    assert rates('linear') == pytest.approx([0.01, 0.505, 1])
    assert rates('exp') == pytest.approx([0.01, 0.1, 1])
    with pytest.raises(TrainingError, match="warmup is 'cubic'; accepted: constant, linear, exp"):
        rates('cubic')


def test_what_a_policy_does_not_take_is_an_error():
    with pytest.raises(TrainingError, match='policy "poly" does not take these arguments .*steps'):
        build_schedule({'policy': 'poly', 'steps': 3}, 4, 1)
    assert build_schedule({'policy': 'YOLOX'}, 4, 1) is None  # may be one of EasyCV's


@pytest.fixture
def model(tiny_model_dir):
    from ms_segformer.config.reader import read_configuration
    from ms_segformer.models.segformer import Segformer

    return Segformer(**read_configuration(tiny_model_dir).model_section)


def test_custom_keys_decide_rate_and_decay_by_name(model):
    groups = parameter_groups(model, 6e-5, 0.01, OPTIONS)
    found = {name: (group['lr'], group['weight_decay']) for group in groups for name in group['names']}
    assert found.keys() == dict(model.named_parameters()).keys()
    for name, (lr, decay) in found.items():
        assert lr == pytest.approx(6e-4 if name.startswith('decode_head.') else 6e-5), name
        assert decay == (0.0 if 'norm' in name else 0.01), name
    assert len(groups) == 3
    assert sum(len(group['params']) for group in groups) == len(list(model.parameters()))


def test_without_options_there_is_one_group_as_the_original_had(model):
    (group,) = parameter_groups(model, 6e-5, 0.01)
    assert (group['lr'], group['weight_decay']) == (6e-5, 0.01)


def test_the_longest_key_decides_and_easycv_s_regular_expressions_add_up():
    layer = torch.nn.Sequential()
    layer.norm, layer.attn_norm = torch.nn.LayerNorm(2), torch.nn.LayerNorm(2)
    custom = {'custom_keys': {'norm': {'decay_mult': 0.0}, 'attn_norm': {'lr_mult': 2.0}}}
    found = {
        name: (g['lr'], g['weight_decay']) for g in parameter_groups(layer, 1.0, 0.1, custom) for name in g['names']
    }
    assert found['norm.weight'] == (1.0, 0.0) and found['attn_norm.weight'] == (2.0, 0.1)
    expressions = {'norm': {'weight_decay_mult': 0.0}, r'\.bias$': {'lr_mult': 2.0}}
    found = {
        name: (g['lr'], g['weight_decay'])
        for g in parameter_groups(layer, 1.0, 0.1, expressions)
        for name in g['names']
    }
    assert found['norm.weight'] == (1.0, 0.0) and found['norm.bias'] == (2.0, 0.0)


def test_mmcv_s_factors_by_the_kind_of_layer():
    net = torch.nn.Sequential()
    net.norm, net.dwconv = torch.nn.LayerNorm(2), torch.nn.Conv2d(2, 2, 1, groups=2)
    net.conv, net.head = torch.nn.Conv2d(2, 2, 1), torch.nn.Linear(2, 2)
    options = {
        'bias_lr_mult': 2.0,
        'bias_decay_mult': 3.0,
        'norm_decay_mult': 0.0,
        'dwconv_decay_mult': 5.0,
        'dcn_offset_lr_mult': 9.0,
        'bypass_duplicate': True,
        'custom_keys': {'head': {'lr_mult': 10.0}},
    }
    found = {
        name: (group['lr'], group['weight_decay'])
        for group in parameter_groups(net, 1.0, 1.0, options)
        for name in group['names']
    }
    assert found == {
        'norm.weight': (1.0, 0.0),
        'norm.bias': (1.0, 0.0),
        'dwconv.weight': (1.0, 5.0),
        'dwconv.bias': (2.0, 5.0),
        'conv.weight': (1.0, 1.0),
        'conv.bias': (2.0, 3.0),
        'head.weight': (10.0, 1.0),
        'head.bias': (10.0, 1.0),
    }


def test_optimizers_are_torch_s_by_name(model):
    assert isinstance(build_optimizer({'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}, model), torch.optim.SGD)
    with pytest.raises(TrainingError, match='AdamW does not take these arguments .*momentum'):
        build_optimizer({'type': 'AdamW', 'lr': 0.1, 'momentum': 0.9}, model)
    with pytest.raises(TrainingError, match='unknown multiplier "lr_factor"'):
        build_optimizer(
            {'type': 'AdamW', 'lr': 0.1, 'paramwise_options': {'custom_keys': {'head': {'lr_factor': 2}}}}, model
        )
    with pytest.raises(ValueError, match='Lion9'):
        build_optimizer({'type': 'Lion9', 'lr': 0.1}, model)
