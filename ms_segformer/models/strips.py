"""Large maps a few rows at a time: on a CPU, where what stays in the processor's cache is faster, without gradients."""

from collections.abc import Callable

import torch

STRIP = 720 << 10  # elements of a strip: 2.8 MiB in float32


def in_strips(x: torch.Tensor) -> bool:
    """Whether to take a map strip by strip.

    Not while the network is traced or compiled: the number of strips would become part of the graph.
    """
    return x.device.type == 'cpu' and not (torch.is_grad_enabled() or torch.jit.is_tracing() or compiling())


def compiling() -> bool:
    """Whether this runs inside `torch.compile`."""
    return hasattr(torch, 'compiler') and torch.compiler.is_compiling()  # torch 2.0 has no such module


def strips(height: int, width: int, channels: int) -> list[slice]:
    """The rows of each strip of a map with this size and number of channels."""
    rows = max(1, STRIP // (width * channels))
    return [slice(start, min(start + rows, height)) for start in range(0, height, rows)]


def in_rows(
    expand: Callable[[torch.Tensor], torch.Tensor],
    shrink: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    identity: torch.Tensor,
    rows: list[slice],
) -> torch.Tensor:
    """`shrink(expand(x)) + identity` of a channels-last map, strip by strip; `expand` looks one row up and down."""
    out = torch.empty_like(x)
    for strip in rows:
        above = max(strip.start - 1, 0)
        hidden = expand(x[:, above : strip.stop + 1])[:, strip.start - above : strip.stop - above]
        torch.add(shrink(hidden), identity[:, strip], out=out[:, strip])
    return out
