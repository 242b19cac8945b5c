"""Models that cannot be used, given to the command line: exit code 1 and one line that says what is wrong."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from ms_segformer.cli.main import main
from ms_segformer.models.checkpoint import read_checkpoint


@pytest.fixture
def place(tmp_path, monkeypatch, tiny_model_dir):
    """A folder with a copy of the tiny model and a picture."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model_dir, 'model')
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save('a.png')
    return tmp_path


def refused(command, message, capsys):
    assert main(command) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith('error: ') and message in lines[0], lines
    assert not re.match(r'error: \w+: ', lines[0]), "begins with a class's name, as ModelScope's registry puts it"


CONFIGURATIONS = [
    ('"embed_dims": 8', '"embed_dims": 20000', 'accepted: [20000, 40000, 100000, 160000]'),
    ('"channels": 24', '"channels": 100000', 'accepted: up to 200,000,000'),
    ('"num_layers": [1, 2, 1, 1]', '"num_layers": [1, 1000000, 1, 1]', '4 integers from 1 to 128'),
    ('"drop_rate": 0.0', '"drop_rate": NaN', 'NaN is no number in JSON'),
    ('"qkv_bias": true', '"act_cfg": "GELU"', 'a mapping'),
    ('"qkv_bias": true', '"out_indices": 3', 'out_indices'),
    ('"qkv_bias": true', '"qkv_bia": true', 'unknown key model.backbone.qkv_bia (did you mean qkv_bias?)'),
    ('"framework"', '"x": ' + '[' * 100_000 + ', "framework"', 'more than 64 deep'),
    ('"framework": "pytorch"', '"framework": "pytorch", "framework": "pytorch"', "'framework' stands twice"),
    ('"task"', '\ufeff"task"', 'not a JSON file'),
]


@pytest.mark.parametrize(
    'command', [['predict', 'a.png', '--model', 'model'], ['train', 'model'], ['export', 'model']], ids=lambda c: c[0]
)
@pytest.mark.parametrize('old, new, message', CONFIGURATIONS, ids=[new[:24] for _, new, _ in CONFIGURATIONS])
def test_a_configuration_that_cannot_be_used(place, command, old, new, message, capsys):
    file = place / 'model' / 'configuration.json'
    text = json.dumps(json.loads(file.read_text()))
    assert old in text
    if 'out_indices' in new:
        text = text.replace('"out_indices": {"__class__": "tuple", "__value__": [0, 1, 2, 3]}, ', '')
    file.write_text(text.replace(old, new, 1), encoding='utf-8')
    refused(command, message, capsys)
    assert not any((place / folder).exists() for folder in ('outputs', 'work_dir', 'exported'))


@pytest.mark.parametrize(
    'command', [['predict', 'a.png', '--model', 'model'], ['train', 'model'], ['export', 'model']], ids=lambda c: c[0]
)
def test_a_configuration_of_nothing(place, command, capsys):
    (place / 'model' / 'configuration.json').write_text('{}')
    refused(command, 'model', capsys)


def test_images_that_would_be_scaled_to_gigabytes(place, capsys):
    file = place / 'model' / 'configuration.json'
    file.write_text(json.dumps(json.loads(file.read_text())).replace('[2048, 512]', '[20000, 20000]'))
    refused(['predict', 'a.png', '--model', 'model'], 'accepted: up to 16,777,216 pixels', capsys)


CHECKPOINTS = {
    'a pointer': (
        lambda state: b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 15\n',
        'a Git LFS pointer, not the file: run `git lfs pull`',
    ),
    'a web page': (lambda state: b'<!DOCTYPE html><html></html>', 'a web page'),
    'nothing': (lambda state: b'', 'the file is empty'),
    'sparse': (lambda state: {**state, 'a': torch.ones(2, 2).to_sparse()}, 'a is a sparse tensor'),
    'q without k': (
        lambda state: {
            'segformer.encoder.patch_embeddings.0.proj.weight': torch.ones(1),
            'segformer.encoder.block.0.0.attention.self.query.weight': torch.ones(2, 2),
        },
        'query, key and value',
    ),
    'numbers for names': (lambda state: dict(enumerate(state.values())), 'its tensors have no names'),
}


@pytest.mark.parametrize('kind', CHECKPOINTS)
def test_a_checkpoint_that_cannot_be_used(place, kind, capsys):
    make, message = CHECKPOINTS[kind]
    file = place / 'model' / 'pytorch_model.pt'
    content = make(read_checkpoint(file)[0])
    file.unlink()
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    refused(['predict', 'a.png', '--model', 'model'], message, capsys)
