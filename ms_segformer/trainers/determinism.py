"""Deterministic mode: torch takes algorithms that add up in the same order each time, where it has them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

CUBLAS = 'CUBLAS_WORKSPACE_CONFIG'
WORKSPACE = ':4096:8'  # from NVIDIA's notes on reproducible results of cuBLAS


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Inside it torch warns of each operation that may give other results from run to run.

    cuBLAS reads its setting when it starts: where the program has computed on a GPU before, set the environment
    variable `CUBLAS_WORKSPACE_CONFIG` yourself.

    Args:
        wanted: False changes nothing.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault(CUBLAS, WORKSPACE)
    cudnn, filling = torch.backends.cudnn, getattr(torch.utils, 'deterministic', None)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, fills = cudnn.benchmark, getattr(filling, 'fill_uninitialized_memory', None)
    torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.benchmark = False
    if filling is not None:
        filling.fill_uninitialized_memory = False  # nothing here reads memory that was not written
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.benchmark = benchmark
        if filling is not None:
            filling.fill_uninitialized_memory = fills
