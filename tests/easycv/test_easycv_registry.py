"""Our network under EasyCV's own registries, in its predictor and its command-line tools."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch


@pytest.fixture(scope='module')
def registered(easycv):
    from ms_segformer.integrations.easycv import bridge

    return bridge.register_in_easycv()


def _as_ours(configuration):
    configuration['model']['__easycv_arch__'] = {'type': 'MsSegformer'}


def test_easycvs_predictor_runs_our_network(
    registered, original, open_in_easycv, copy_model, model_dir, photographs, tmp_path
):
    ours = open_in_easycv(copy_model(model_dir, tmp_path / 'model', _as_ours))
    assert type(ours.model).__module__ == 'ms_segformer.models.easycv_registry'
    for path in photographs[:3]:
        theirs, margin = original.segment(path)
        label_map, _ = ours.segment(path)
        assert not ((label_map != theirs) & (margin >= 1e-3)).any(), path.name


def _section(model_dir):
    section = json.loads((model_dir / 'configuration.json').read_text())['model']
    section['backbone'].pop('out_indices', None)
    return {
        **section,
        'backbone': {**section['backbone'], 'drop_path_rate': 0.0},
        'pretrained': False,
        'decode_head': {**section['decode_head'], 'dropout_ratio': 0.0},
    }


def test_it_trains_inside_easycv_as_theirs_does(registered, tiny_model_dir):
    from easycv.models import build_model

    section = {key: value for key, value in _section(tiny_model_dir).items() if key != '__easycv_arch__'}
    ours = build_model({**section, 'type': 'MsSegformer'})
    theirs = build_model({**section, 'type': 'EncoderDecoder'})
    theirs.load_state_dict(ours.state_dict(), strict=True)
    image = torch.from_numpy(np.random.RandomState(0).randn(2, 3, 64, 64).astype(np.float32))
    labels = torch.from_numpy(np.random.RandomState(1).randint(0, 171, (2, 1, 64, 64)))
    losses = [model.train().forward_train(image, [{}] * 2, labels) for model in (ours, theirs)]
    assert losses[0].keys() == losses[1].keys() == {'decode.loss_ce', 'decode.acc_seg'}
    for name in losses[0]:
        assert float(losses[0][name].detach()) == pytest.approx(float(losses[1][name].detach()), rel=1e-5), name


def test_our_head_goes_with_a_loss_of_easycvs(registered, tiny_model_dir):
    from easycv.models import build_model

    section = {key: value for key, value in _section(tiny_model_dir).items() if key != '__easycv_arch__'}
    section['decode_head']['loss_decode'] = [
        {'type': 'CrossEntropyLoss', 'loss_weight': 0.5},
        {'type': 'DiceLoss', 'loss_weight': 1.0},
    ]
    model = build_model({**section, 'type': 'MsSegformer'}).train()
    losses = model.forward_train(torch.randn(2, 3, 64, 64), [{}] * 2, torch.randint(0, 171, (2, 1, 64, 64)))
    assert {'decode.loss_ce', 'decode.loss_dice', 'decode.acc_seg'} == losses.keys()


def test_a_configuration_of_easycvs_tools_finds_our_network_by_custom_imports(_needs_easycv, tmp_path):
    """In a process of its own, where nobody but the configuration imports us."""
    (tmp_path / 'config.py').write_text("""
custom_imports = dict(imports=['ms_segformer.models.easycv_registry'])
model = dict(type='MsSegformer', pretrained=False,
             backbone=dict(type='MixVisionTransformer', embed_dims=8, num_layers=[1, 1, 1, 1]),
             decode_head=dict(type='SegformerHead', in_channels=[8, 16, 40, 64], channels=16, num_classes=3))
""")
    script = (
        'from easycv.utils.config_tools import mmcv_config_fromfile\n'
        'from easycv.models import build_model\n'
        f'model = build_model(mmcv_config_fromfile({str(tmp_path / "config.py")!r}).model)\n'
        'print(type(model.backbone).__name__, type(model.decode_head).__name__)'
    )
    result = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert result.stdout.split()[-2:] == ['MsMixVisionTransformer', 'MsSegformerHead'], result.stderr[-2000:]
