"""One training step and the learning-rate policies: ours against EasyCV's."""

import copy
import json

import numpy as np
import pytest
import torch


@pytest.fixture(scope='module')
def pair(easycv, model_dir):
    """Our model and theirs with the same weights, in training mode, dropout and stochastic depth off."""
    from ms_segformer.models.checkpoint import find_checkpoint, read_checkpoint
    from ms_segformer.models.segformer import Segformer

    section = json.loads((model_dir / 'configuration.json').read_text())['model']
    section = _plain({key: value for key, value in section.items() if key not in ('type', '__easycv_arch__')})
    section['pretrained'] = False
    section['backbone']['drop_path_rate'] = 0.0
    section['decode_head']['dropout_ratio'] = 0.0
    state, _ = read_checkpoint(find_checkpoint(model_dir))
    models = []
    for cls in (Segformer, easycv.Segformer):
        model = cls(model_dir=str(model_dir), **copy.deepcopy(section))
        model.load_state_dict(state, strict=True)
        models.append(model)
    return models


@pytest.fixture(params=[(2, 64, 96), (1, 65, 97)], ids=['2x64x96', '1x65x97'])
def batch(request, pair):
    """Normalized images and labels with a tenth of the pixels ignored."""
    n, height, width = request.param
    rng = np.random.RandomState(height)
    classes = min(pair[0].settings.head.num_classes, 171)  # of 172 outputs the last is no class
    labels = rng.randint(0, classes, (n, 1, height // 8 + 1, width // 8 + 1)).repeat(8, 2).repeat(8, 3)
    labels = labels[..., :height, :width]
    labels[rng.rand(*labels.shape) < 0.1] = 255
    return torch.from_numpy(rng.randn(n, 3, height, width).astype(np.float32)), torch.from_numpy(labels)


def _plain(value):
    if isinstance(value, dict) and value.get('__class__') == 'tuple':
        return tuple(_plain(item) for item in value['__value__'])
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _step(model, image, labels):
    """Loss, gradients, buffers after, and weights after one step of the published optimizer."""
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01)
    meta = [{'ori_shape': (*labels.shape[2:], 3), 'img_shape': (*labels.shape[2:], 3), 'flip': False}] * len(image)
    loss = model(img=image, gt_semantic_seg=labels, img_metas=meta)['loss']
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    optimizer.step()
    return loss.item(), gradients, model.state_dict()


def _relative(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm().clamp(min=1e-12)).item()


def test_one_training_step_is_the_same(pair, batch):
    """In float64: in float32 a ReLU whose input is next to zero may open in one and not in the other."""
    image, labels = batch
    loss, gradients, _ = _step(copy.deepcopy(pair[0]).double(), image.double(), labels)
    their_loss, their_gradients, _ = _step(copy.deepcopy(pair[1]).double(), image.double(), labels)
    assert loss == pytest.approx(their_loss, rel=1e-6)
    assert gradients.keys() == their_gradients.keys()
    largest = max(gradient.norm() for gradient in their_gradients.values())
    for name, theirs in their_gradients.items():
        # What is zero by construction (a bias under a norm) is only rounding; it is held to the largest gradient.
        if theirs.norm() < 1e-6 * largest:
            assert gradients[name].norm() < 1e-6 * largest, name
        else:  # the loss itself is taken in float32
            assert _relative(gradients[name], theirs) < 1e-5, f'{name}: {_relative(gradients[name], theirs):.2e}'


def test_the_weights_and_statistics_after_it_are_the_same(pair, batch):
    _, _, after = _step(pair[0], *batch)
    _, their_gradients, their_after = _step(pair[1], *batch)
    for name, theirs in their_after.items():
        if name in their_gradients:
            # AdamW's first step is the sign of the gradient: where that is rounding, so is the step.
            size = their_gradients[name].abs()
            clear = size > max(1e-3 * size.max(), 1e-7)
            torch.testing.assert_close(after[name][clear], theirs[clear], rtol=1e-5, atol=1e-7)
        else:
            torch.testing.assert_close(after[name], theirs, rtol=1e-4, atol=1e-6)


def test_accuracy_is_the_same(pair, batch):
    image, labels = batch
    ours = copy.deepcopy(pair[0]).train()(img=image, gt_semantic_seg=labels)
    theirs = copy.deepcopy(pair[1]).train().forward_train(image, [{}], labels)
    assert float(ours['decode.loss_ce']) == pytest.approx(float(theirs['decode.loss_ce']), rel=1e-6)
    assert float(ours['decode.acc_seg']) == pytest.approx(float(theirs['decode.acc_seg']), abs=1e-4)
