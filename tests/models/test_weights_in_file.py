"""Where the weights stand in a file, under whatever name, and what stands beside them."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ms_segformer.config.messages import warn_once
from ms_segformer.config.reader import read_configuration
from ms_segformer.models import checkpoint
from ms_segformer.models.checkpoint import CheckpointError, load_checkpoint, read_checkpoint
from ms_segformer.models.segformer import Segformer


@pytest.fixture(scope='module')
def weights(tiny_model_dir):
    return read_checkpoint(tiny_model_dir / 'pytorch_model.pt')[0]


@pytest.fixture(autouse=True)
def every_warning():
    warn_once.cache_clear()


def other(state):
    """Other numbers under the same names."""
    return {key: value + 1 for key, value in state.items()}


def prefixed(prefix):
    return lambda state: {prefix + key: value for key, value in state.items()}


def optimizer(state):
    """As torch's AdamW saves itself."""
    model = torch.nn.ParameterList(torch.nn.Parameter(value) for value in state.values() if value.is_floating_point())
    steps = torch.optim.AdamW(model.parameters(), lr=6e-5)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    steps.step()
    return steps.state_dict()


def mmcv_average(state):
    """As mmcv 1.7.2's EMAHook: a buffer beside every parameter, dots become underscores."""
    parameters = [key for key in state if 'running' not in key and 'num_batches' not in key]
    return {**state, **{f'ema_{key.replace(".", "_")}': state[key] + 1 for key in parameters}}


META = {
    'epoch': 30,
    'iter': 5,
    'mmcv_version': '1.7.2',
    'hook_msgs': {'last_ckpt': 'epoch_30.pth', 'best_score': np.float64(0.3591)},
}
NAMES = ('state_dict', 'model', 'module', 'model_state_dict', 'net', 'network', 'params', 'generator', 'my weights')
FORMS = {
    **{f'below {name}': lambda state, name=name: {name: state} for name in NAMES},
    'below two': lambda state: {'model': {'module': state}},
    'below four': lambda state: {'a': {'b': {'c': {'d': state}}}},
    'mmcv 1.x with hook_msgs and optimizer': lambda state: {
        'meta': META,
        'state_dict': state,
        'optimizer': optimizer(state),
    },
    'two optimizers': lambda state: {'state_dict': state, 'optimizer': {'a': optimizer(state), 'b': optimizer(state)}},
    'optimizer by name': lambda state: {
        'net': state,
        'optimizer': {'state': {key: {'exp_avg': value} for key, value in state.items()}},
    },
    'moments by name, further out': lambda state: {
        'exp_avg': other(state),
        'exp_avg_sq': other(state),
        'trainer': {'model': state},
    },
    'moments by name beside it': lambda state: {'momentum': other(state), 'weights': state},
    'gradients': lambda state: {'grads': other(state), 'run': {'net': state}},
    'optimizer by name, as deep': lambda state: {
        'trainer': {'model': state},
        'optimizer': {'state': {key: {'exp_avg': value} for key, value in state.items()}},
    },
    'shapes by name': lambda state: {
        'param_shapes': {key: tuple(value.shape) for key, value in state.items()},
        'module': state,
    },
    'DataParallel': prefixed('module.'),
    'DataParallel of the backbone': lambda state: {
        key.replace('backbone.', 'backbone.module.'): value for key, value in state.items()
    },
    'a backbone that was compiled before, in a model': lambda state: {
        'model': {
            f'net.{key}'.replace('net.backbone.', 'net.backbone._orig_mod.'): value for key, value in state.items()
        }
    },
    'DataParallel on a part': lambda state: {
        f'module.{key}' if 'backbone' in key else key: value for key, value in state.items()
    },
    'DataParallel in a model': lambda state: {'model': prefixed('module.')(state)},
    'model of a DataParallel': prefixed('module.model.'),
    'DataParallel of a model': prefixed('model.module.'),
    'compiled': lambda state: {'model': prefixed('_orig_mod.')(state)},
    'a wrapper of its own': prefixed('segmentor.'),
    "mmcv's average": lambda state: {'state_dict': mmcv_average(state)},
    "mmcv's average below DataParallel": lambda state: {'state_dict': prefixed('module.')(mmcv_average(state))},
    'average beside it': lambda state: {'model': state, 'model_ema': other(state)},
    'average first': lambda state: {'state_dict_ema': other(state), 'state_dict': state},
    'average further out': lambda state: {'ema': other(state), 'trainer': {'model': state}},
    'teacher': lambda state: {'student': state, 'teacher': other(state)},
    'only an average': lambda state: {'epoch': 3, 'params_ema': state},
    'state_dict and another': lambda state: {'discriminator': other(state), 'state_dict': state},
    'another network': lambda state: {'state_dict': state, 'vgg': {f'{i}.weight': torch.ones(1) for i in range(999)}},
}


@pytest.mark.parametrize('form', FORMS)
def test_the_weights_are_found_and_fit(tmp_path, tiny_model_dir, weights, form, monkeypatch):
    torch.save(FORMS[form](weights), tmp_path / 'any.pth')
    for name in ('pickle.Unpickler', 'pickle.load', 'pickle.loads', 'torch.load'):
        monkeypatch.setattr(name, unpickled)
    model = Segformer(**read_configuration(tiny_model_dir).model_section)
    report = load_checkpoint(model, tmp_path / 'any.pth')
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert report == checkpoint.LoadReport()


def unpickled(*_, **__):
    raise AssertionError('the file was unpickled')


def test_other_copies_are_named_once(tmp_path, weights, caplog):
    torch.save({'model': weights, 'model_ema': other(weights)}, tmp_path / 'two.pth')
    read_checkpoint(tmp_path / 'two.pth')
    read_checkpoint(tmp_path / 'two.pth')
    assert [record.getMessage().split(': ', 1)[1] for record in caplog.records] == [
        'left out, as other copies of the weights: model_ema'
    ]
    torch.save(mmcv_average(weights), tmp_path / 'mmcv.pth')
    read_checkpoint(tmp_path / 'mmcv.pth')
    assert 'ema_backbone_layers_0_0_projection_weight' in caplog.records[-1].getMessage()


def test_what_mmcv_says_of_the_training_is_kept(tmp_path, weights):
    torch.save(FORMS['mmcv 1.x with hook_msgs and optimizer'](weights), tmp_path / 'epoch_30.pth')
    _, meta = read_checkpoint(tmp_path / 'epoch_30.pth')
    assert meta['epoch'] == 30 and meta['hook_msgs'] == {'last_ckpt': 'epoch_30.pth', 'best_score': 0.3591}


@pytest.mark.parametrize('names', [('student', 'second'), ('ema', 'swa')])
def test_two_networks_of_which_none_comes_first_are_refused(tmp_path, weights, names):
    torch.save({name: weights for name in names[:1]} | {names[1]: other(weights)}, tmp_path / 'two.pth')
    with pytest.raises(CheckpointError, match=rf'two.pth: holds .* several networks \({", ".join(names)}\); save'):
        read_checkpoint(tmp_path / 'two.pth')


def test_what_an_optimizer_keeps_is_not_taken_for_weights(tmp_path, weights):
    torch.save({'step': 3, 'exp_avg': weights}, tmp_path / 'optimizer.pt')
    with pytest.raises(CheckpointError, match=r'optimizer.pt: holds what an optimizer keeps \(exp_avg\) and'):
        read_checkpoint(tmp_path / 'optimizer.pt')


def test_a_weight_with_and_without_a_wrapper_is_two(tmp_path, tiny_model_dir, weights):
    torch.save(
        {**weights, 'module.decode_head.conv_seg.bias': weights['decode_head.conv_seg.bias'] + 1}, tmp_path / 'two.pth'
    )
    model = Segformer(**read_configuration(tiny_model_dir).model_section)
    with pytest.raises(CheckpointError, match='unexpected keys: module.decode_head.conv_seg.bias'):
        load_checkpoint(model, tmp_path / 'two.pth')


@pytest.mark.parametrize(
    'name, write',
    [
        ('model.pth', save_file),
        ('pytorch_model.bin', save_file),
        ('MODEL.SAFETENSORS', save_file),
        ('model.safetensors', torch.save),
    ],
)
def test_the_content_counts_where_the_ending_is_that_of_the_other_format(tmp_path, weights, name, write):
    write(weights, tmp_path / name)
    state, _ = read_checkpoint(tmp_path / name)
    assert all(torch.equal(state[key], value) for key, value in weights.items())
    assert checkpoint.read_optimizer(tmp_path / name) is None


def test_names_of_other_things_are_no_average(tmp_path, weights):
    torch.save({'schema': weights, 'emission': {'a': torch.ones(1)}}, tmp_path / 'one.pth')
    assert read_checkpoint(tmp_path / 'one.pth')[0].keys() == weights.keys()


def test_mappings_that_hold_each_other_end(tmp_path, weights):
    content = {'model': weights}
    content['again'] = content
    torch.save(content, tmp_path / 'loop.pth')
    assert read_checkpoint(tmp_path / 'loop.pth')[0].keys() == weights.keys()


@pytest.mark.parametrize('metadata', [None, {'format': 'pt', 'epoch': '30'}], ids=['plain', 'metadata'])
@pytest.mark.parametrize('prefix', ['', 'module.', 'model.'])
def test_safetensors_with_and_without_metadata(tmp_path, tiny_model_dir, weights, metadata, prefix):
    save_file(prefixed(prefix)(weights), tmp_path / 'model.safetensors', metadata)
    model = Segformer(**read_configuration(tiny_model_dir).model_section)
    assert load_checkpoint(model, tmp_path / 'model.safetensors') == checkpoint.LoadReport()
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
