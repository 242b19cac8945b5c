"""Real float32 on a GPU, which otherwise may compute in TF32: float32's range with ten bits of mantissa."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_lock = threading.Lock()
_inside = 0  # of how many `exact_float32` the program is
_before: list[Any] = []  # the settings to go back to


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Matrix products and convolutions in float32 are just that inside it, whatever torch is told outside.

    torch takes TF32 in cuDNN's convolutions unless told otherwise. Its setting is the process's: meanwhile other
    threads compute in float32 too.

    Args:
        device: where they run; nothing is done for others than CUDA's.
    """
    global _inside
    if device.type != 'cuda':
        yield
        return
    with _lock:
        if not _inside:
            _before[:] = [(place, name, getattr(place, name)) for place, name, _ in _settings()]
            for place, name, exact in _settings():
                setattr(place, name, exact)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                for place, name, value in _before:
                    setattr(place, name, value)


def _settings() -> list[tuple[Any, str, Any]]:
    """Where torch has its settings, their names, and what they are in exact float32. Old and new must not be mixed."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if hasattr(cudnn, 'conv'):  # torch 2.9
        return [(matmul, 'fp32_precision', 'ieee'), (cudnn.conv, 'fp32_precision', 'ieee')]
    return [(matmul, 'allow_tf32', False), (cudnn, 'allow_tf32', False)]
