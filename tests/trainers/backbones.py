"""The backbone of a SegFormer as other packages write it: names and shapes of each, from this package's tensors."""

import re

import torch


def nvlabs(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As NVlabs' ImageNet training wrote it, with its classifier."""

    def name(stage, rest):
        rest = re.sub(r'^0\.projection', f'patch_embed{stage + 1}.proj', rest)
        rest = re.sub(r'^0\.norm', f'patch_embed{stage + 1}.norm', rest)
        rest = re.sub(r'^1\.(\d+)\.', rf'block{stage + 1}.\1.', rest)
        return re.sub(r'^2\.', f'norm{stage + 1}.', rest)

    parts = {
        'attn.attn.out_proj': 'attn.proj',
        'ffn.layers.0': 'mlp.fc1',
        'ffn.layers.1': 'mlp.dwconv.dwconv',
        'ffn.layers.4': 'mlp.fc2',
    }
    split = {'attn.attn.in_proj_': (('attn.q.', 0, 1), ('attn.kv.', 1, 3))}
    return {**_renamed(state, name, parts, split), **_classifier('head')}


def mmsegmentation(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As mmsegmentation's converter wrote the files that the configurations name."""
    return dict(state)


def below_encoder(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As a model of segmentation_models_pytorch has it, beside a decoder of its own."""
    theirs = {f'encoder.{key}': value for key, value in nvlabs(state).items() if not key.startswith('head.')}
    return {
        **theirs,
        **{f'decoder.mlp_stage.{i}.linear.weight': torch.ones(4, 4) for i in range(4)},
        'segmentation_head.0.weight': torch.ones(3, 4, 1, 1),
        'segmentation_head.0.bias': torch.ones(3),
    }


def hugging_face(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As `SegformerForImageClassification` of transformers is saved."""

    def name(stage, rest):
        rest = re.sub(r'^0\.projection', f'patch_embeddings.{stage}.proj', rest)
        rest = re.sub(r'^0\.norm', f'patch_embeddings.{stage}.layer_norm', rest)
        rest = re.sub(r'^1\.(\d+)\.norm(\d)', r'1.\1.layer_norm_\2', rest)
        rest = re.sub(r'^1\.(\d+)\.', rf'block.{stage}.\1.', rest)
        return 'segformer.encoder.' + re.sub(r'^2\.', f'layer_norm.{stage}.', rest)

    parts = {
        'attn.attn.out_proj': 'attention.output.dense',
        'attn.sr': 'attention.self.sr',
        'attn.norm': 'attention.self.layer_norm',
        'ffn.layers.0': 'mlp.dense1',
        'ffn.layers.1': 'mlp.dwconv.dwconv',
        'ffn.layers.4': 'mlp.dense2',
    }
    split = {
        'attn.attn.in_proj_': tuple(
            (f'attention.self.{which}.', i, i + 1) for i, which in enumerate(('query', 'key', 'value'))
        )
    }
    return {**_renamed(state, name, parts, split), **_classifier('classifier')}


DIALECTS = {
    'NVlabs': nvlabs,
    'mmsegmentation': mmsegmentation,
    'below encoder.': below_encoder,
    'Hugging Face': hugging_face,
}


def _classifier(name: str) -> dict[str, torch.Tensor]:
    return {f'{name}.weight': torch.ones(1000, 64), f'{name}.bias': torch.ones(1000)}


def _renamed(state, name, parts, split):
    result = {}
    for key, value in state.items():
        stage, rest = re.fullmatch(r'layers\.(\d)\.(.*)', key).groups()
        for ours, theirs in parts.items():
            if f'.{ours}.' in rest:
                rest = rest.replace(ours, theirs)
                if re.search(r'ffn\.layers\.[04]\.weight', key):  # a linear layer there
                    value = value[:, :, 0, 0]
                break
        pieces = next((pieces for ours, pieces in split.items() if ours in rest), None)
        if pieces is None:
            result[name(int(stage), rest)] = value
            continue
        size = len(value) // 3
        for theirs, first, last in pieces:
            piece = rest.replace('attn.attn.in_proj_', theirs)
            result[name(int(stage), piece)] = value[first * size : last * size].clone()
    return result
