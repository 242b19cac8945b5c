"""The network against the original: keys, shapes, features and logits of every variant."""

import numpy as np
import pytest
import torch
from reference import recipe_weights, reference_shapes

from ms_segformer.config.reader import read_configuration
from ms_segformer.metainfo import VARIANTS, configuration_dir
from ms_segformer.models.segformer import Segformer

VARIANT_NAMES = list(VARIANTS)


def build(name):
    return Segformer(**read_configuration(configuration_dir() / VARIANTS[name].model_name).model_section)


@pytest.fixture(scope='module', params=VARIANT_NAMES)
def variant(request):
    return request.param


@pytest.fixture(scope='module')
def network(variant):
    torch.manual_seed(0)
    return build(variant).eval()


@pytest.fixture(scope='module')
def reference_network(variant, network, oracle):
    network.load_state_dict(recipe_weights(oracle, reference_shapes(oracle, variant)), strict=True)
    return network.eval()


def test_parameter_count_is_the_published_one(variant, network):
    assert sum(p.numel() for p in network.parameters()) == VARIANTS[variant].parameters


def test_keys_and_shapes_equal_the_original(variant, network, oracle):
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == reference_shapes(oracle, variant)


@pytest.mark.parametrize('size', [(29, 29), (33, 65), (64, 64)])
def test_odd_input_sizes_give_logits_at_a_quarter(network, size):
    with torch.inference_mode():
        logits = network(torch.zeros(1, 3, *size))['logits']
    assert logits.shape == (1, 172, -(-size[0] // 4), -(-size[1] // 4))
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize('folded', [False, True])
def test_features_and_logits_agree_with_the_original(variant, reference_network, oracle, folded):
    golden = np.load(oracle / 'golden' / f'recipe_{variant}.npz')
    if folded:
        reference_network.prepare_inference()
    with torch.inference_mode():
        image = torch.from_numpy(golden['input'])
        features = reference_network.backbone(image)
        logits = reference_network(image)['logits']
    for stage, feature in enumerate(features):
        sampled = feature.permute(0, 3, 1, 2)[:, ::4].numpy()
        np.testing.assert_allclose(sampled, golden[f'feat{stage}'], atol=1e-4, rtol=0)
    np.testing.assert_allclose(logits.numpy(), golden['logits'], atol=1e-4, rtol=0)


@pytest.fixture(scope='module')
def tiny(tiny_model_dir):
    from modelscope.models import Model

    return Model.from_pretrained(str(tiny_model_dir))


@pytest.mark.parametrize('case', 'abc')
def test_tiny_model_agrees_at_odd_sizes_and_in_batches(tiny, oracle, case):
    golden = np.load(oracle / 'golden' / 'tiny_goldens.npz')
    image = torch.from_numpy(golden[f'{case}_input'])
    with torch.inference_mode():
        features = tiny.backbone(image)
        logits = tiny(image)['logits'].numpy()
    for stage, feature in enumerate(features):
        expected = golden[f'{case}_feat{stage}']
        np.testing.assert_allclose(feature.permute(0, 3, 1, 2).numpy(), expected, atol=1e-4, rtol=0)
    np.testing.assert_allclose(logits, golden[f'{case}_head'], atol=1e-4, rtol=0)


def test_folding_changes_no_weight_is_done_once_and_is_undone_by_training(tiny_model_dir):
    from modelscope.models import Model

    model = Model.from_pretrained(str(tiny_model_dir))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain = model(image)['logits']
        once = model.prepare_inference()(image)['logits']
        twice = model.prepare_inference()(image)['logits']
    assert (plain - once).abs().max() < 1e-4
    assert torch.equal(once, twice)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model.train()
    model.decode_head.fusion_conv.bn.running_mean.zero_()
    with torch.inference_mode():
        changed = model.eval()(image)['logits']
    assert (changed - plain).abs().max() > 1e-2, 'stale folded weights survived train()'


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('size', [(2, 64, 96), (1, 250, 37), (1, 33, 300)])
@pytest.mark.parametrize('elements', [1, 5000])
def test_strips_give_what_whole_maps_give(tiny_model_dir, monkeypatch, elements, size, align_corners):
    from modelscope.models import Model

    from ms_segformer.models import strips as cutting

    model = Model.from_pretrained(str(tiny_model_dir)).prepare_inference()
    model.decode_head.align_corners = align_corners
    images, height, width = size
    image = torch.randn(images, 3, height, width, generator=torch.Generator().manual_seed(0))
    whole = model.logits(image).detach()  # gradients are on
    monkeypatch.setattr(cutting, 'STRIP', elements)
    with torch.inference_mode():
        strips = model.logits(image)
    assert strips.shape == whole.shape
    assert not torch.equal(strips, whole), 'the strips were not taken'
    assert (strips - whole).abs().max() < 1e-4
    assert (strips.argmax(1) != whole.argmax(1)).float().mean() < 1e-3
