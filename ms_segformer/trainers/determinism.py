"""Deterministic mode: torch takes algorithms that add up in the same order each time, where it has them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

CUBLAS = 'CUBLAS_WORKSPACE_CONFIG'
WORKSPACE = ':4096:8'  # from NVIDIA's notes on reproducible results of cuBLAS
# Attention on a GPU whose backward pass adds up in any order: torch, told to warn only, takes it all the same.
UNORDERED = ('flash', 'mem_efficient', 'cudnn')


@contextmanager
def deterministic(wanted: bool, on_gpu: bool = False) -> Iterator[None]:
    """Inside it torch warns of each operation that may give other results from run to run.

    On a GPU attention is taken as two matrix products and a softmax, which needs more memory.

    cuBLAS reads its setting when it starts: where the program has computed on a GPU before, set the environment
    variable `CUBLAS_WORKSPACE_CONFIG` yourself.

    Args:
        wanted: False changes nothing.
        on_gpu: whether that is where the program computes.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault(CUBLAS, WORKSPACE)
    cudnn, filling = torch.backends.cudnn, getattr(torch.utils, 'deterministic', None)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, fills = cudnn.benchmark, getattr(filling, 'fill_uninitialized_memory', None)
    kernels = {
        name: getattr(torch.backends.cuda, f'{name}_sdp_enabled')()
        for name in UNORDERED
        if on_gpu and hasattr(torch.backends.cuda, f'enable_{name}_sdp')
    }
    _enable(dict.fromkeys(kernels, False))
    torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.benchmark = False
    if filling is not None:
        filling.fill_uninitialized_memory = False  # nothing here reads memory that was not written
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        _enable(kernels)
        cudnn.benchmark = benchmark
        if filling is not None:
            filling.fill_uninitialized_memory = fills


def _enable(kernels: dict[str, bool]) -> None:
    for name, enabled in kernels.items():
        getattr(torch.backends.cuda, f'enable_{name}_sdp')(enabled)
