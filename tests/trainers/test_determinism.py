"""Deterministic mode: what is set inside it, and what stands afterwards."""

import pytest
import torch

from ms_segformer.trainers.determinism import deterministic

KERNELS = [name for name in ('flash', 'mem_efficient', 'cudnn') if hasattr(torch.backends.cuda, f'enable_{name}_sdp')]


def settings():
    attention = [getattr(torch.backends.cuda, f'{name}_sdp_enabled')() for name in KERNELS]
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        attention,
    )


@pytest.mark.parametrize('on_gpu', [False, True])
def test_everything_is_as_before_afterwards(on_gpu, monkeypatch):
    monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG', raising=False)
    before = settings()
    with pytest.raises(KeyError), deterministic(True, on_gpu):
        inside = settings()
        raise KeyError
    assert inside[:3] == (True, True, False)
    assert settings() == before


def test_attention_on_a_gpu_adds_up_in_order(monkeypatch):
    """torch's kernels for it do not where it is told to warn only."""
    monkeypatch.delenv('CUBLAS_WORKSPACE_CONFIG', raising=False)
    with deterministic(True, True):
        assert not any(settings()[3]) and torch.backends.cuda.math_sdp_enabled()
    with deterministic(True):
        assert all(settings()[3])
