"""Checkpoints: every layout that loads, and what is said of those that do not."""
import pickle
import shutil

import pytest
import torch
from safetensors.torch import save_file

from ms_segformer.config import read_configuration
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
    return Segformer(**read_configuration(directory).raw['model'])


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
    raw = read_configuration(tiny_model_dir).raw['model']
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
    yield 'truncated', content[:len(content) // 2], 'truncated or damaged'
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
    with pytest.raises(CheckpointError, match=message if suffix == '.pt' else 'not a readable safetensors'):
        read_checkpoint(path)
    assert 'ran' not in capsys.readouterr().out


def test_the_one_checkpoint_of_a_directory_is_found(tmp_path, tiny_model_dir):
    with pytest.raises(CheckpointError, match='found only: nothing'):
        find_checkpoint(tmp_path)
    (tmp_path / 'README.md').write_text('x')
    (tmp_path / 'epoch_1_trainer_state.pth').write_text('x')
    with pytest.raises(CheckpointError, match='README.md'):
        find_checkpoint(tmp_path)
    shutil.copy(tiny_model_dir / 'pytorch_model.pt', tmp_path / 'any_name.pth')
    assert find_checkpoint(tmp_path).name == 'any_name.pth'
    shutil.copy(tiny_model_dir / 'pytorch_model.pt', tmp_path / 'second.pt')
    with pytest.raises(CheckpointError, match='any_name.pth, second.pt'):
        find_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match='no such directory'):
        find_checkpoint(tmp_path / 'nowhere')
    with pytest.raises(FileNotFoundError, match='no such checkpoint file'):
        read_checkpoint(tmp_path / 'nothing.pt')
