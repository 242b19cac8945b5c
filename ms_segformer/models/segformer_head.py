"""The all-MLP decode head of SegFormer, written from section 3.2 of the paper and the published state-dict keys.

Each stage goes through a 1×1 convolution with batch norm and ReLU, is scaled to a quarter of the input and fused by
another such convolution. Scaling and the fusion's matrix product commute, so the product is taken at each stage's own
resolution and the scaled results are summed: the same numbers for about a third of the work, in training too.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from .mix_transformer import pointwise


class ConvNorm(nn.Module):
    """The parameters of a 1×1 convolution and its batch norm; `plain` means a bias in place of the norm."""

    def __init__(self, in_channels: int, channels: int, plain: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=plain)
        if not plain:
            self.bn = nn.BatchNorm2d(channels)


class SegformerHead(nn.Module):
    """Fuses four feature maps into class logits at the resolution of the first.

    Args:
        in_channels: channels of the feature maps.
        channels: width of the head.
        num_classes: number of logits.
        dropout_ratio: channel dropout before the classifier while training.
        align_corners: passed to the bilinear scaling.
        plain_projections: projections have a bias and neither norm nor activation (the head of the NVlabs and
            Hugging Face releases; the published ModelScope models do not have it).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        num_classes: int,
        dropout_ratio: float = 0.1,
        align_corners: bool = False,
        plain_projections: bool = False,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.plain_projections = plain_projections
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.dropout = nn.Dropout2d(dropout_ratio)
        self.convs = cast(
            'Sequence[ConvNorm]', nn.ModuleList(ConvNorm(c, channels, plain_projections) for c in in_channels)
        )
        self.fusion_conv = ConvNorm(channels * len(in_channels), channels)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(cast(torch.Tensor, self.conv_seg.bias))

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Channels-last maps N×h_i×w_i×C_i, finest first, to logits N×num_classes×h_0×w_0 (channels-last memory)."""
        fused = None
        for i, (weight, bias) in reversed(list(enumerate(self.fusion_parts()))):
            x = self.project(i, features[i])  # N×h_i×w_i×channels
            x = F.linear(x, weight, bias).permute(0, 3, 1, 2)  # N×channels×h_i×w_i
            x = self.scale(x, features[0].shape[1:3]) if i else x  # N×channels×h_0×w_0
            fused = x if fused is None else fused.add_(x)
        x = self.dropout(self.activate(cast(torch.Tensor, fused)))
        return pointwise(self.conv_seg, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def project(self, i: int, x: torch.Tensor) -> torch.Tensor:
        """A channels-last map N×h×w×C_i through projection i."""
        x = pointwise(self.convs[i].conv, x)
        if self.plain_projections:
            return x
        return F.relu(self.convs[i].bn(x.permute(0, 3, 1, 2)), inplace=True).permute(0, 2, 3, 1)

    def fusion_parts(self) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Weight and bias of the fusion's share of each feature map."""
        return [(part, None) for part in self.fusion_conv.conv.weight.flatten(1).chunk(len(self.convs), dim=1)]

    def activate(self, fused: torch.Tensor) -> torch.Tensor:
        """Norm and activation of the fusion, N×channels×h_0×w_0."""
        return F.relu(self.fusion_conv.bn(fused), inplace=True)

    def scale(self, x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        return F.interpolate(x, size=size, mode='bilinear', align_corners=self.align_corners)
