"""Checkpoints: every layout that loads, and what is said of those that do not."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ms_segformer.config.reader import read_configuration
from ms_segformer.metainfo import VARIANTS, configuration_dir
from ms_segformer.models.checkpoint import (
    CheckpointError,
    find_checkpoint,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from ms_segformer.models.segformer import Segformer


def build(directory):
    return Segformer(**read_configuration(directory).model_section)


@pytest.fixture(scope='module')
def weights(tiny_model_dir):
    return read_checkpoint(tiny_model_dir / 'pytorch_model.pt')[0]


LAYOUTS = {
    'meta and state_dict': lambda state: {'meta': {'epoch': 3}, 'state_dict': state},
    'bare': lambda state: state,
    'data parallel': lambda state: {'state_dict': {f'module.{key}': value for key, value in state.items()}},
    'bare data parallel': lambda state: {f'module.{key}': value for key, value in state.items()},
}


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
def test_torch_layouts_load(tmp_path, tiny_model_dir, weights, layout, legacy):
    path = tmp_path / 'model.pth'
    torch.save(LAYOUTS[layout](weights), path, _use_new_zipfile_serialization=not legacy)
    model = build(tiny_model_dir)
    load_checkpoint(model, path)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


def test_safetensors_load(tmp_path, tiny_model_dir, weights):
    save_file({key: value.contiguous() for key, value in weights.items()}, tmp_path / 'model.safetensors')
    model = build(tiny_model_dir)
    load_checkpoint(model, tmp_path / 'model.safetensors')
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize('name', ['saved.pt', 'saved.safetensors'])
def test_what_is_saved_loads_and_leaves_no_other_file(tmp_path, tiny_model_dir, weights, name):
    model = build(tiny_model_dir)
    model.load_state_dict(weights)
    save_checkpoint(tmp_path / name, model, {'CLASSES': ['a'], 'epoch': 1})
    assert [p.name for p in tmp_path.iterdir()] == [name]
    state, meta = read_checkpoint(tmp_path / name)
    assert state.keys() == weights.keys()
    assert name.endswith('safetensors') or meta == {'CLASSES': ['a'], 'epoch': 1}


def test_the_variant_is_named_when_it_is_wrong(tmp_path):
    b0, b1 = (build(configuration_dir() / VARIANTS[name].model_name) for name in ('b0', 'b1'))
    save_checkpoint(tmp_path / 'b1.pt', b1)
    with pytest.raises(CheckpointError, match='this is a B1 checkpoint, the configuration says B0'):
        load_checkpoint(b0, tmp_path / 'b1.pt')


def test_another_number_of_classes_is_an_error_or_a_new_classifier(tmp_path, tiny_model_dir, weights, caplog):
    raw = read_configuration(tiny_model_dir).model_section
    raw['decode_head']['num_classes'] = 5
    model = Segformer(**raw)
    with pytest.raises(CheckpointError, match='172 classes, the configuration 5'):
        load_checkpoint(model, tiny_model_dir / 'pytorch_model.pt')
    report = load_checkpoint(model, tiny_model_dir / 'pytorch_model.pt', new_classifier=True)
    assert report.dropped == ('decode_head.conv_seg.weight', 'decode_head.conv_seg.bias')
    assert 'decode_head.conv_seg.weight' in caplog.text
    assert torch.equal(model.backbone.layers[0][0].projection.weight, weights['backbone.layers.0.0.projection.weight'])


def test_missing_and_unexpected_keys_are_named(tmp_path, tiny_model_dir, weights):
    state = dict(weights)
    state['decode_head.extra'] = state.pop('decode_head.conv_seg.bias')
    torch.save(state, tmp_path / 'model.pt')
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(build(tiny_model_dir), tmp_path / 'model.pt')
    assert 'missing keys: decode_head.conv_seg.bias' in str(error.value)
    assert 'unexpected keys: decode_head.extra' in str(error.value)


class Payload:
    def __reduce__(self):
        return (print, ('code from the checkpoint ran',))


def bad_files(tmp_path, good):
    content = good.read_bytes()
    yield 'truncated', content[: len(content) // 2], 'truncated or damaged'
    yield 'empty', b'', 'empty'
    yield 'text', b'this is not a checkpoint\n' * 10, 'checkpoint'
    yield 'list', _saved([1, 2], tmp_path), 'holds a list'
    yield 'no tensors', _saved({'a': 1}, tmp_path), 'holds no tensors'
    yield 'code', pickle.dumps({'state_dict': Payload()}), 'not a PyTorch checkpoint'


def _saved(content, tmp_path):
    torch.save(content, tmp_path / 'scratch')
    return (tmp_path / 'scratch').read_bytes()


@pytest.mark.parametrize('case', range(6))
@pytest.mark.parametrize('suffix', ['.pt', '.safetensors'])
def test_files_that_are_no_checkpoint_are_clear_errors(tmp_path, tiny_model_dir, case, suffix, capsys):
    name, content, message = list(bad_files(tmp_path, tiny_model_dir / 'pytorch_model.pt'))[case]
    path = tmp_path / f'bad{suffix}'
    path.write_bytes(content)
    read_as_torch = suffix == '.pt' or content.startswith(b'PK')
    message = message if read_as_torch or not content else 'not a readable safetensors'
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)
    assert 'ran' not in capsys.readouterr().out


def test_the_one_checkpoint_of_a_directory_is_found(tmp_path, tiny_model_dir, caplog):
    with pytest.raises(CheckpointError, match='found only: nothing'):
        find_checkpoint(tmp_path)
    (tmp_path / 'README.md').write_text('x')
    (tmp_path / 'epoch_1_trainer_state.pth').write_text('x')
    with pytest.raises(CheckpointError, match='README.md'):
        find_checkpoint(tmp_path)
    shutil.copy(tiny_model_dir / 'pytorch_model.pt', tmp_path / 'any_name.pth')
    assert find_checkpoint(tmp_path).name == 'any_name.pth'
    shutil.copy(tiny_model_dir / 'pytorch_model.pt', tmp_path / 'second.pt')
    with pytest.raises(CheckpointError, match='any_name.pth, second.pt.*name it pytorch_model.pt'):
        find_checkpoint(tmp_path)
    shutil.copy(tiny_model_dir / 'pytorch_model.pt', tmp_path)
    assert find_checkpoint(tmp_path).name == 'pytorch_model.pt'
    assert 'any_name.pth, pytorch_model.pt, second.pt); pytorch_model.pt is taken' in caplog.text
    with pytest.raises(CheckpointError, match='no such directory'):
        find_checkpoint(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match='no such checkpoint file'):
        read_checkpoint(tmp_path / 'nothing.pt')


@pytest.mark.parametrize('suffix', ['.pt', '.safetensors'])
def test_one_flipped_bit_of_what_is_saved_is_noticed(tmp_path, tiny_model_dir, weights, suffix):
    model = build(tiny_model_dir)
    model.load_state_dict(weights)
    path = tmp_path / f'saved{suffix}'
    assert len(save_checkpoint(path, model)) == 64
    good, random = path.read_bytes(), np.random.default_rng(0)
    for position in random.integers(0, len(good) - 100, 60):
        content = bytearray(good)
        content[position] ^= 1 << int(random.integers(8))
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match='damaged|not a PyTorch checkpoint|not a readable safetensors'):
            read_checkpoint(path)


SPOILED = {
    'NaN': (lambda state: state['decode_head.conv_seg.bias'].fill_(float('nan')), 'NaN or infinite weights'),
    'inf': (lambda state: state['decode_head.fusion_conv.bn.running_var'].fill_(float('inf')), 'NaN or infinite'),
    'integers': (
        lambda state: state.update({'decode_head.conv_seg.bias': torch.zeros(172, dtype=torch.int64)}),
        'conv_seg.bias is int64, expected float32',
    ),
    'booleans': (
        lambda state: state.update({'decode_head.conv_seg.bias': torch.zeros(172, dtype=torch.bool)}),
        'conv_seg.bias is bool',
    ),
    'too large for float32': (
        lambda state: state.update({'decode_head.conv_seg.bias': torch.full((172,), 1e300, dtype=torch.float64)}),
        'NaN or infinite',
    ),
    'a float counter': (
        lambda state: state.update({'decode_head.fusion_conv.bn.num_batches_tracked': torch.tensor(3.0)}),
        'num_batches_tracked is float32',
    ),
}


@pytest.mark.parametrize('how', SPOILED)
def test_weights_that_are_none_are_refused(tmp_path, tiny_model_dir, weights, how):
    state = {key: value.clone() for key, value in weights.items()}
    spoil, message = SPOILED[how]
    spoil(state)
    torch.save(state, tmp_path / 'spoiled.pt')
    model = build(tiny_model_dir)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(model, tmp_path / 'spoiled.pt')
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    'state, message',
    [
        ({3: torch.ones(1)}, 'no names but 3'),
        (
            {
                'segformer.encoder.patch_embeddings.0.proj.weight': torch.ones(1),
                'segformer.encoder.block.0.0.attention.self.query.weight': torch.ones(2, 2),
            },
            'query, key and value .* missing',
        ),
        ({'a': torch.ones(2, 2).to_sparse()}, 'a sparse tensor'),
    ],
)
def test_state_dicts_that_are_none_are_clear_errors(tmp_path, state, message):
    torch.save(state, tmp_path / 'odd.pt')
    with pytest.raises(CheckpointError, match=f'odd.pt: .*{message}'):
        read_checkpoint(tmp_path / 'odd.pt')


def test_half_precision_weights_load(tmp_path, tiny_model_dir, weights):
    torch.save(
        {key: value.half() if value.is_floating_point() else value for key, value in weights.items()},
        tmp_path / 'half.pt',
    )
    load_checkpoint(build(tiny_model_dir), tmp_path / 'half.pt')


@pytest.mark.parametrize('key', ['backbone.layers.0.0.projection.weight', 'decode_head.conv_seg.weight'])
@pytest.mark.parametrize('new_classifier', [False, True])
def test_weights_without_sides_do_not_fit(tmp_path, tiny_model_dir, weights, key, new_classifier):
    torch.save({**weights, key: torch.tensor(1.0)}, tmp_path / 'flat.pt')
    if new_classifier and 'conv_seg' in key:
        assert load_checkpoint(build(tiny_model_dir), tmp_path / 'flat.pt', new_classifier=True).dropped == (key,)
        return
    with pytest.raises(CheckpointError, match=f'{key} is \\(\\)'):
        load_checkpoint(build(tiny_model_dir), tmp_path / 'flat.pt', new_classifier=new_classifier)


def test_paths_that_cannot_be_looked_at_are_named(tmp_path):
    with pytest.raises(CheckpointError, match='too long'):
        read_checkpoint(tmp_path / ('x' * 300 + '.pt'))
    (tmp_path / 'folder.pt').mkdir()
    with pytest.raises(CheckpointError, match='no checkpoint .* found only: folder.pt'):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize(
    'content, message',
    [
        (b'', 'the file is empty'),
        (b'<!DOCTYPE html><html>', 'a web page'),
        (
            b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 15\n',
            'a Git LFS pointer, not the file: run `git lfs pull`',
        ),
    ],
)
@pytest.mark.parametrize('suffix', ['.pt', '.safetensors'])
def test_what_was_saved_in_the_place_of_a_checkpoint_is_named(tmp_path, suffix, content, message):
    (tmp_path / f'model{suffix}').write_bytes(content)
    with pytest.raises(CheckpointError, match=f'model{suffix}: {message}'):
        read_checkpoint(tmp_path / f'model{suffix}')


@pytest.mark.parametrize(
    'change, said',
    [
        (lambda value: value.flatten(1).to_sparse(), 'a sparse tensor'),
        (lambda value: value.to(torch.complex64), 'a complex tensor'),
        (lambda value: value.to('meta'), 'a tensor without numbers'),
        (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), 'a quantized tensor'),
    ],
)
def test_tensors_that_are_no_weights_are_named(tmp_path, weights, caplog, change, said):
    torch.save(
        {**weights, 'decode_head.conv_seg.weight': change(weights['decode_head.conv_seg.weight'])}, tmp_path / 'odd.pt'
    )
    with pytest.raises(CheckpointError, match=f'odd.pt: decode_head.conv_seg.weight is {said}.*; .*float32'):
        read_checkpoint(tmp_path / 'odd.pt')
    assert not caplog.records  # the error says it all
