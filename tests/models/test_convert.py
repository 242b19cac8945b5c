"""Checkpoints of other packages, verified against `transformers` where it is installed."""

import json
import re

import pytest
import torch

from ms_segformer.models.checkpoint import CheckpointError, read_checkpoint
from ms_segformer.models.convert import convert
from ms_segformer.models.segformer import Segformer
from ms_segformer.trainers import pretrained

SIZE = {'hidden_sizes': [8, 16, 40, 64], 'depths': [1, 2, 1, 1], 'decoder_hidden_size': 24, 'num_labels': 7}


@pytest.fixture(scope='module')
def theirs():
    """A SegFormer of transformers with random weights, norms that do something, and dropout off."""
    transformers = pytest.importorskip('transformers', reason='transformers is not installed: pip install transformers')
    torch.manual_seed(0)
    model = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(**SIZE)).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point() and value.dim() < 2:
                value.uniform_(0.5, 1.5) if name.endswith(('weight', 'var')) else value.normal_(0, 0.3)
    return model


@pytest.fixture(scope='module')
def saved(theirs, tmp_path_factory):
    folder = tmp_path_factory.mktemp('hugging_face')
    theirs.save_pretrained(folder, safe_serialization=True)  # not the default of old releases
    return folder


def built(folder):
    section = json.loads((folder / 'configuration.json').read_text())['model']
    return Segformer._instantiate(model_dir=str(folder), **{k: v for k, v in section.items() if k != 'type'})


def to_nvlabs(state):
    """Rename a state dict of transformers' files to what NVlabs' code writes."""
    renamed = {}
    for key, value in state.items():
        for pattern, new in (
            (r'segformer\.encoder\.patch_embeddings\.(\d)', 'backbone.patch_embed'),
            (r'segformer\.encoder\.block\.(\d)', 'backbone.block'),
            (r'segformer\.encoder\.layer_norm\.(\d)', 'backbone.norm'),
            (r'linear_c\.(\d)', 'linear_c'),
        ):
            key = re.sub(pattern, lambda match, new=new: f'{new}{int(match[1]) + 1}', key)
        for old, new in (
            ('attention.self.query', 'attn.q'),
            ('attention.self.sr', 'attn.sr'),
            ('attention.self.layer_norm', 'attn.norm'),
            ('attention.output.dense', 'attn.proj'),
            ('mlp.dense', 'mlp.fc'),
            ('layer_norm_', 'norm'),
            ('batch_norm', 'linear_fuse.bn'),
            ('linear_fuse.weight', 'linear_fuse.conv.weight'),
            ('classifier', 'linear_pred'),
        ):
            key = key.replace(old, new)
        renamed[re.sub(r'(patch_embed\d)\.layer_norm', r'\1.norm', key)] = value
    for key in [key for key in renamed if '.attention.self.key.' in key]:
        value = renamed.pop(key.replace('.key.', '.value.'))
        renamed[key.replace('attention.self.key', 'attn.kv')] = torch.cat([renamed.pop(key), value])
    return renamed


@pytest.mark.parametrize('dialect', ['directory', 'names in memory', 'NVlabs'])
def test_a_whole_foreign_model_gives_its_own_logits(theirs, saved, tmp_path, dialect):
    source, classes = saved, None
    if dialect != 'directory':
        from safetensors.torch import load_file

        written = load_file(saved / 'model.safetensors')
        state = theirs.state_dict() if dialect == 'names in memory' else to_nvlabs(written)
        source, classes = tmp_path / 'theirs.pth', [f'class {i}' for i in range(7)]
        torch.save({'state_dict': state, 'meta': {}}, source)
    model = built(convert(source, tmp_path / 'ours', classes))
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = theirs(image).logits
        # 4e-5 of these logits is what the norms' epsilon makes; only the directory says which they have
        torch.testing.assert_close(
            model(image)['logits'],
            expected,
            rtol=0,
            atol=2e-5 * expected.abs().max().item() if dialect == 'directory' else 2e-3,
        )


def test_a_converted_model_opens_as_a_pipeline(saved, tmp_path):
    from modelscope.pipelines import pipeline

    folder = convert(saved, tmp_path / 'ours', ['a', 'b', 'c', 'd', 'e', 'f', 'g'])
    result = pipeline('image-segmentation', str(folder), device='cpu', engine='torch')(
        torch.randint(0, 255, (60, 80, 3), dtype=torch.uint8).numpy()
    )
    assert result['seg_map'].shape == (60, 80) and set(result['labels']) <= set('abcdefg')


def test_what_is_no_whole_model_is_refused(saved, tmp_path):
    from safetensors.torch import load_file

    state = {key: value for key, value in load_file(saved / 'model.safetensors').items() if 'encoder' in key}
    torch.save(state, tmp_path / 'backbone.pth')
    with pytest.raises(CheckpointError, match='not a whole SegFormer.*load_from'):
        convert(tmp_path / 'backbone.pth', tmp_path / 'ours', ['a'])
    with pytest.raises(CheckpointError, match='expected config.json'):
        convert(tmp_path, tmp_path / 'ours')
    with pytest.raises(CheckpointError, match='7 outputs, but 3 class names'):
        convert(saved, tmp_path / 'ours', ['a', 'b', 'c'])


@pytest.fixture
def model(saved, tmp_path):
    return built(convert(saved, tmp_path / 'model')).train()


@pytest.mark.parametrize('dialect', ['Hugging Face', 'NVlabs', 'mmsegmentation'])
def test_an_imagenet_backbone_is_a_starting_point(saved, model, tmp_path, dialect, caplog, monkeypatch):
    from safetensors.torch import load_file

    state = {key: value for key, value in load_file(saved / 'model.safetensors').items() if 'encoder' in key}
    if dialect == 'mmsegmentation':
        torch.save(state, tmp_path / 'encoder.pth')
        state = {key[len('backbone.') :]: value for key, value in read_checkpoint(tmp_path / 'encoder.pth')[0].items()}
    elif dialect == 'NVlabs':
        state = {key[len('backbone.') :]: value for key, value in to_nvlabs(state).items()}
        state['head.weight'] = torch.ones(1000, 64)
    else:
        state['classifier.weight'] = torch.ones(1000, 64)
    torch.save(state, tmp_path / 'mit.pth')
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    monkeypatch.setattr(pretrained.logger, 'propagate', True)
    with caplog.at_level('INFO', 'modelscope'):
        assert pretrained.load(model, pretrained=str(tmp_path / 'mit.pth')) == str(tmp_path / 'mit.pth')
    for key, value in model.state_dict().items():
        if 'running' not in key and 'num_batches' not in key:
            assert torch.equal(value, expected[key]) == key.startswith('backbone.'), key
    assert 'the backbone of' in caplog.text
    assert ('head.weight' in caplog.text) == (dialect == 'NVlabs') and ('classifier.weight' in caplog.text) == (
        dialect == 'Hugging Face'
    )


def test_what_fits_nowhere_is_refused(model, tmp_path):
    torch.save({'conv1.weight': torch.ones(3)}, tmp_path / 'resnet.pth')
    with pytest.raises(CheckpointError, match=r'resnet\.pth: no weights of a whole model nor of its backbone'):
        pretrained.load(model, load_from=tmp_path / 'resnet.pth')
    with pytest.raises(FileNotFoundError, match='nowhere'):
        pretrained.load(model, load_from=tmp_path / 'nowhere.pth')


ODD_META = {
    'names of objects': ({'CLASSES': [None] * 172}, 'NoneType|None is no class name'),
    'a name that is no text': ({'CLASSES': ['\ud800'] * 172}, 'is no class name'),
    'a long name': ({'CLASSES': ['x' * 1000] * 172}, 'is no class name'),
    'tensors': ({'CLASSES': torch.ones(172)}, 'has no class names'),
    'too few': ({'CLASSES': ['a']}, '172 outputs, but 1 class names'),
}


@pytest.mark.parametrize('how', ODD_META)
def test_what_a_checkpoint_says_of_its_classes_is_not_believed(tmp_path, tiny_model_dir, how):
    meta, message = ODD_META[how]
    state, _ = read_checkpoint(tiny_model_dir / 'pytorch_model.pt')
    torch.save({'state_dict': state, 'meta': meta}, tmp_path / 'odd.pt')
    with pytest.raises(CheckpointError, match=f'odd.pt: .*({message})'):
        convert(tmp_path / 'odd.pt', tmp_path / 'target')
    assert not (tmp_path / 'target').exists()


@pytest.mark.parametrize('palette', [torch.ones(2), [[1e9, 0, 0]], ['123'], [[1, 2]], [[0, 0, -1]]])
def test_a_palette_that_is_none_is_left_out(tmp_path, tiny_model_dir, palette):
    state, meta = read_checkpoint(tiny_model_dir / 'pytorch_model.pt')
    torch.save(
        {'state_dict': state, 'meta': {'CLASSES': meta['config']['CLASSES'], 'PALETTE': palette}}, tmp_path / 'odd.pt'
    )
    convert(tmp_path / 'odd.pt', tmp_path / 'target')
    assert 'PALETTE' not in json.loads((tmp_path / 'target' / 'configuration.json').read_text())


@pytest.mark.parametrize(
    'key, value, message',
    [
        ('backbone.layers.0.0.projection.weight', torch.ones(0, 3, 7, 7), 'weights of a convolution'),
        ('backbone.layers.0.0.projection.weight', torch.ones(100_000, 3, 1, 1), 'one width per head|goes? with'),
        ('decode_head.fusion_conv.conv.weight', torch.ones(1 << 20, 1, 1, 1), 'up to 200,000,000'),
        ('decode_head.fusion_conv.conv.weight', torch.ones(48, 1, 1, 1), 'does not go with'),
        ('backbone.layers.0.1.0.ffn.layers.0.weight', torch.ones(1, 8, 1, 1), 'mlp_ratio'),
    ],
)
def test_a_model_is_not_built_before_its_shapes_agree(tmp_path, tiny_model_dir, key, value, message):
    state, _ = read_checkpoint(tiny_model_dir / 'pytorch_model.pt')
    torch.save({'state_dict': {**state, key: value}}, tmp_path / 'odd.pt')
    with pytest.raises(CheckpointError, match=f'odd.pt: .*({message})'):
        convert(tmp_path / 'odd.pt', tmp_path / 'target', ['a'] * 172)
    assert not (tmp_path / 'target').exists()


@pytest.mark.parametrize(
    'described, preprocessing, message',
    [
        ({'num_attention_heads': 5}, {}, '5 heads'),
        ({'num_attention_heads': [0, 1, 2, 3]}, {}, 'not of one width'),
        ({'strides': 3}, {}, 'strides is 3'),
        ({'id2label': {'x': 'y'}}, {}, 'has no class names'),
        ({'drop_path_rate': 'x'}, {}, 'drop_path_rate'),
        ([], {}, 'must be a mapping'),
        ({'id2label': 172}, {}, 'has no class names'),
        ({}, {'size': 'large'}, 'img_scale'),
        ({}, {'size': 10**6}, 'img_scale'),
        ({}, {'image_mean': 'grey'}, 'image_mean is'),
        ({}, [], 'must be a mapping'),
    ],
)
def test_what_a_directory_of_transformers_says_is_not_believed(
    tmp_path, tiny_model_dir, described, preprocessing, message
):
    source = tmp_path / 'source'
    source.mkdir()
    state, _ = read_checkpoint(tiny_model_dir / 'pytorch_model.pt')
    torch.save(state, source / 'pytorch_model.bin')
    labels = {str(i): str(i) for i in range(172)}
    described = {'id2label': labels, **described} if isinstance(described, dict) else described
    (source / 'config.json').write_text(json.dumps(described))
    (source / 'preprocessor_config.json').write_text(json.dumps(preprocessing))
    with pytest.raises(CheckpointError, match=message) as error:
        convert(source, tmp_path / 'target')
    assert str(error.value).isprintable() and not (tmp_path / 'target').exists()
