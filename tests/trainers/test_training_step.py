"""One training step against the original's, and the loss against its plain definition."""

import importlib.util

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ms_segformer.models import checkpoint
from ms_segformer.models.losses import upsampled_cross_entropy
from ms_segformer.models.segformer import Segformer
from ms_segformer.trainers import optimizer
from ms_segformer.trainers.optimizer import as_its_parameters, build_optimizer

# The original reads its gradients from float32 of another torch (1.13.1): rounding of sums differs.
RELATIVE, ABSOLUTE = 2e-4, 2e-6


@pytest.fixture(scope='module')
def step(oracle):
    return dict(np.load(oracle / 'golden' / 'tiny_train_step.npz'))


@pytest.fixture
def model(tiny_model_dir):
    from ms_segformer.config.reader import read_configuration

    section = read_configuration(tiny_model_dir).model_section
    section['backbone'] = {**section['backbone'], 'drop_path_rate': 0.0}
    section['decode_head'] = {**section['decode_head'], 'dropout_ratio': 0.0}
    built = Segformer(str(tiny_model_dir), **section)
    checkpoint.load_checkpoint(built, checkpoint.find_checkpoint(tiny_model_dir))
    return built.train()


def test_a_training_step_equals_the_original_s(model, step):
    batch = torch.from_numpy(step['img']), torch.from_numpy(step['gt'])
    # What its weights say: rate 0.01 and decay 0.01 for head, norm and projection alike. It dropped custom_keys.
    optimizer = build_optimizer({'type': 'AdamW', 'lr': 0.01, 'betas': [0.9, 0.999], 'weight_decay': 0.01}, model)
    outputs = model(*batch)
    assert outputs['loss'].item() == pytest.approx(step['loss'].item(), abs=1e-5)
    assert outputs['decode.acc_seg'].item() == pytest.approx(step['acc_seg'].item(), abs=1e-4)
    outputs['loss'].backward()
    gradients = {name: p.grad.numpy() for name, p in model.named_parameters()}
    expected = {key[5:]: value for key, value in step.items() if key.startswith('grad:')}
    assert set(gradients) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(
            gradients[name], value, rtol=RELATIVE, atol=max(ABSOLUTE, 2e-5 * abs(value).max()), err_msg=name
        )
    optimizer.step()
    after = dict(model.named_parameters())
    for key, value in step.items():
        if key.startswith('after:'):
            # Adam divides by the gradient's own size: where a gradient is rounding noise, so is the step's sign.
            certain = abs(expected[key[6:]]) > 1e-6
            np.testing.assert_allclose(after[key[6:]].detach().numpy()[certain], value[certain], rtol=1e-5, atol=1e-6)
    assert model(*batch)['loss'].item() == pytest.approx(step['loss_after_step'].item(), abs=1e-4)
    # After both forward passes, the second with the weights whose noise the comment above speaks of: the order of one
    # addition moves a running mean by 0.002.
    buffers = dict(model.named_buffers())
    for key, value in step.items():
        if key.startswith('buf:'):
            np.testing.assert_allclose(buffers[key[4:]].numpy(), value, rtol=0.01, atol=5e-3, err_msg=key)


def test_the_loss_can_be_taken_at_the_size_of_the_logits(model):
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 172, 8, 10, generator=random)
    labels = torch.randint(172, (2, 32, 40), generator=random)
    labels[0, :9] = 255
    model.loss_at_logits_size = True
    sampled = labels[:, 2::4, 2::4]  # the middle of every four by four pixels
    expected = F.cross_entropy(logits, sampled, ignore_index=255, reduction='sum') / sampled.numel()
    assert model.losses(logits, labels)['loss'].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('low, high', [((16, 16), (64, 64)), ((5, 7), (19, 26)), ((8, 8), (8, 8)), ((1, 3), (4, 9))])
@pytest.mark.parametrize('weighted', [False, True])
def test_the_loss_in_rows_equals_its_definition(low, high, align_corners, weighted, monkeypatch):
    monkeypatch.setattr('ms_segformer.models.losses.ROWS_BYTES', 9000)  # several pieces, the last one shorter
    generator = torch.Generator().manual_seed(1)
    logits = (4 * torch.randn(2, 11, *low, generator=generator)).double().float().requires_grad_()
    labels = torch.randint(0, 11, (2, *high), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = 255
    weight = torch.rand(11, generator=generator) if weighted else None
    upsampled = F.interpolate(logits, high, mode='bilinear', align_corners=align_corners)
    expected = F.cross_entropy(upsampled, labels, weight, ignore_index=255, reduction='sum')
    (wanted,) = torch.autograd.grad(expected, logits)
    loss, correct = upsampled_cross_entropy(logits, labels, weight, 255, align_corners)
    (gradient,) = torch.autograd.grad(3 * loss, logits)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(gradient, 3 * wanted, rtol=1e-4, atol=1e-5)
    assert correct == ((upsampled.argmax(1) == labels) & (labels != 255)).sum()


def test_a_hopeless_pixel_has_a_finite_loss():
    logits = torch.tensor([[[[200.0]], [[0.0]]]], requires_grad=True)
    loss, _ = upsampled_cross_entropy(logits, torch.ones(1, 4, 4, dtype=torch.int64))
    loss.backward()
    assert loss.item() == pytest.approx(16 * 200)
    assert logits.grad.flatten().tolist() == pytest.approx([16, -16])


def test_an_image_without_labels_has_no_loss_and_no_gradient():
    logits = torch.randn(1, 5, 4, 4, requires_grad=True)
    loss, correct = upsampled_cross_entropy(logits, torch.full((1, 16, 16), 255))
    loss.backward()
    assert loss == 0 and correct == 0 and not logits.grad.any()


@pytest.mark.filterwarnings('ignore:.*GradScaler:FutureWarning')
def test_the_scaler_s_former_name_is_enough(monkeypatch):
    """As in torch before 2.3."""
    monkeypatch.delattr(torch.amp, 'GradScaler')
    spec = importlib.util.spec_from_file_location('ms_segformer.trainers.optimizer_again', optimizer.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not module.loss_scaler('cpu').is_enabled()


def test_the_state_of_an_optimizer_from_another_memory_layout_is_the_same():
    """As from a GPU, where weights are channels-last; fused optimizers do not look at strides."""

    def stepped(relaid):
        torch.manual_seed(0)
        model = torch.nn.Conv2d(3, 4, 3)
        options = {'type': 'AdamW', 'lr': 0.1}
        adam = build_optimizer(options, model)
        for step in range(2):
            model.weight.grad, model.bias.grad = torch.randn(4, 3, 3, 3), torch.randn(4)
            adam.step()
            if step == 0 and relaid:
                saved = adam.state_dict()
                for values in saved['state'].values():
                    for name, value in values.items():
                        values[name] = (
                            value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
                        )
                adam = build_optimizer(options, model)
                adam.load_state_dict(saved)
                as_its_parameters(adam)
                assert adam.state[model.weight]['exp_avg'].is_contiguous()
        return model.weight.detach()

    torch.testing.assert_close(stepped(True), stepped(False), rtol=0, atol=0)
