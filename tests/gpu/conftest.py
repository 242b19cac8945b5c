"""The device of these tests; they need nothing but what is in the repository."""

import os
import sys
from pathlib import Path

import pytest
import torch

# For trying out the tests themselves where there is no GPU. What needs float16 or CUDA's own functions is skipped then.
INSTEAD = 'MS_SEGFORMER_GPU_TESTS_ON'

# cuBLAS reads it when it starts, in whichever test; for those of deterministic mode.
os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')

sys.path.insert(0, str(Path(__file__).parents[1] / 'trainers'))  # for `tiny_run`


@pytest.fixture(scope='session')
def device():
    """The GPU."""
    if torch.cuda.is_available():
        return torch.device('cuda:0')
    if name := os.environ.get(INSTEAD):
        return torch.device(name)
    pytest.skip(f'needs a GPU that torch {torch.__version__} can use with CUDA')


@pytest.fixture
def cuda(device):
    """The GPU, for what only CUDA has."""
    if device.type != 'cuda':
        pytest.skip(f'needs a GPU that torch {torch.__version__} can use with CUDA')
    return device
