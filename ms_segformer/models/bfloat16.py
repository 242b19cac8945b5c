"""Whether this processor's convolutions are right in bfloat16.

oneDNN, which PyTorch and OpenVINO both run on, gets convolutions without overlap (kernel = stride, as in the reduction
of attention's keys) wrong in bfloat16 where the processor has AMX and the channels are fewer than 32 (seen with PyTorch
2.13 and OpenVINO 2026.4). The published models have 32 and more; a narrower network of one's own may be hit.
"""

import torch

BOUND = 0.1  # mean difference in standard deviations; bfloat16 alone causes 0.002, the fault 0.9


def fault_in_bfloat16(model: torch.nn.Module) -> str | None:
    """Try each kind of convolution without overlap that a network has, on the CPU.

    Returns:
        Which one is wrong and what to do, or None where all are right.
    """
    kinds = {
        (layer.in_channels, layer.out_channels, layer.kernel_size[0], layer.kernel_size[1])
        for layer in model.modules()
        if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == layer.stride != (1, 1) and layer.groups == 1
    }
    for kind in sorted(kinds):
        if (difference := _difference(*kind)) > BOUND:
            channels, _, height, width = kind
            return (
                f'on this processor a {height}×{width} convolution of {channels} channels, which the network has, '
                f'comes out wrong in bfloat16 (by {difference:.2f} standard deviations): a fault of oneDNN with AMX. '
                'Use float32, or set ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 before Python starts'
            )
    return None


@torch.no_grad()
def _difference(channels: int, outputs: int, height: int, width: int) -> float:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, channels, 4 * height, 4 * width, generator=generator)
    weight = torch.randn(outputs, channels, height, width, generator=generator)
    exact = torch.nn.functional.conv2d(image, weight, stride=(height, width))
    rounded = torch.nn.functional.conv2d(image.bfloat16(), weight.bfloat16(), stride=(height, width))
    return float((rounded.float() - exact).abs().mean() / exact.std())
