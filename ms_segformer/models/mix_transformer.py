"""The Mix Transformer (MiT) backbone.

Written from the SegFormer paper (Xie et al., 2021, arXiv:2105.15203, section 3.1 and table 6). Module names follow the
state-dict keys of the published checkpoints. Feature maps are kept channels-last (N×H×W×C) from end to end, so that a
token sequence (N×L×C) and an image are two views of the same memory.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from .strips import in_rows, in_strips, strips

Norm = Callable[[int], nn.LayerNorm]  # from a number of channels


class DropPath(nn.Module):
    """Drops the whole residual branch of a sample with probability `rate` while training (stochastic depth)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        kept = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep)
        return x * (kept / keep)


class PatchEmbed(nn.Module):
    """Overlapping patch embedding: a strided convolution and a layer norm."""

    def __init__(self, in_channels: int, channels: int, patch_size: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.projection = nn.Conv2d(in_channels, channels, patch_size, stride, padding=patch_size // 2)
        self.norm = norm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N×C×H×W -> N×H/stride×W/stride×channels."""
        return self.norm(_convolve(self.projection, x).permute(0, 2, 3, 1))


class AttentionWeights(nn.Module):
    """The parameters of one multi-head attention, stored as `torch.nn.MultiheadAttention` stores them."""

    def __init__(self, channels: int, bias: bool) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels)) if bias else None
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)


class EfficientAttention(nn.Module):
    """Self-attention whose keys and values come from a map `sr_ratio` times smaller on each side."""

    def __init__(
        self,
        channels: int,
        num_heads: int,
        sr_ratio: int,
        qkv_bias: bool,
        attn_drop_rate: float,
        drop_rate: float,
        drop_path_rate: float,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.attn = AttentionWeights(channels, qkv_bias)
        self.num_heads = num_heads
        self.attn_drop_rate = attn_drop_rate
        self.proj_drop = nn.Dropout(drop_rate)
        self.drop_path = DropPath(drop_path_rate)
        self.sr_ratio = sr_ratio
        if sr_ratio > 1:
            self.sr = nn.Conv2d(channels, channels, sr_ratio, sr_ratio)
            self.norm = norm(channels)

    def forward(self, x: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        """N×H×W×C, and the branch's `identity` of the same shape, to their sum."""
        n, h, w = x.shape[:3]
        c = self.attn.out_proj.in_features  # a plain number in a traced network too, which leaves it constants
        heads = self.num_heads, c // self.num_heads
        reduced = x
        if self.sr_ratio > 1:
            reduced = self.norm(_convolve(self.sr, x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))  # N×H/sr×W/sr×C
        weight, bias = self.attn.in_proj_weight, self.attn.in_proj_bias
        q_bias, kv_bias = (None, None) if bias is None else (bias[:c], bias[c:])
        q = F.linear(x.reshape(n, h * w, c), weight[:c], q_bias).reshape(n, h * w, *heads)  # N×L×heads×d
        kv = F.linear(reduced.reshape(n, -1, c), weight[c:], kv_bias).reshape(n, -1, 2, *heads)  # N×S×2×heads×d
        k, v = kv.unbind(2)  # N×S×heads×d
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # N×heads×L×d, N×heads×S×d
        if torch.jit.is_tracing():  # torch would write the scale into ONNX as a computation from shapes
            out = (q * heads[1] ** -0.5 @ k.transpose(2, 3)).softmax(-1) @ v
        else:
            dropout = self.attn_drop_rate if self.training else 0.0
            out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)  # N×heads×L×d
        out = self.attn.out_proj(out.transpose(1, 2).reshape(n, h, w, c))  # N×H×W×C
        return self.drop_path(self.proj_drop(out)).add_(identity)


class MixFFN(nn.Module):
    """Feed-forward network with a 3×3 depth-wise convolution, which also tells it the position."""

    def __init__(self, channels: int, hidden: int, drop_rate: float, drop_path_rate: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, 1),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            nn.GELU(),
            nn.Dropout(drop_rate),
            nn.Conv2d(hidden, channels, 1),
            nn.Dropout(drop_rate),
        )
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        """N×H×W×C, and the branch's `identity` of the same shape, to their sum."""
        if not self.training and in_strips(x):
            rows = strips(x.shape[1], x.shape[2], self.parts()[0].out_channels)
            if len(rows) > 1:
                return in_rows(self.expand, self.shrink, x, identity, rows)
        x = self.expand(x)  # N×H×W×hidden
        x = self.shrink(x)  # N×H×W×C
        return self.drop_path(x).add_(identity)

    def expand(self, x: torch.Tensor) -> torch.Tensor:
        expand, depthwise, activation, _, _, _ = self.parts()
        x = pointwise(expand, x).permute(0, 3, 1, 2)  # N×hidden×H×W
        return activation(_convolve(depthwise, x)).permute(0, 2, 3, 1)

    def shrink(self, x: torch.Tensor) -> torch.Tensor:
        _, _, _, drop, shrink, drop_out = self.parts()
        return drop_out(pointwise(shrink, drop(x)))

    def parts(self) -> tuple[nn.Conv2d, nn.Conv2d, nn.GELU, nn.Dropout, nn.Conv2d, nn.Dropout]:
        """`layers` by their types."""
        return cast('tuple[nn.Conv2d, nn.Conv2d, nn.GELU, nn.Dropout, nn.Conv2d, nn.Dropout]', tuple(self.layers))


class Block(nn.Module):
    """One transformer encoder layer (pre-norm)."""

    def __init__(
        self,
        channels: int,
        num_heads: int,
        sr_ratio: int,
        mlp_ratio: int,
        qkv_bias: bool,
        drop_rate: float,
        attn_drop_rate: float,
        drop_path_rate: float,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.norm1 = norm(channels)
        self.attn = EfficientAttention(
            channels, num_heads, sr_ratio, qkv_bias, attn_drop_rate, drop_rate, drop_path_rate, norm
        )
        self.norm2 = norm(channels)
        self.ffn = MixFFN(channels, mlp_ratio * channels, drop_rate, drop_path_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.attn(self.norm1(x), identity=x)  # N×H×W×C
        return self.ffn(self.norm2(x), identity=x)


class Stage(nn.ModuleList):
    """Patch embedding, blocks and layer norm; a list, as the published state-dict keys number them."""

    def __init__(self, embed: PatchEmbed, blocks: Sequence[Block], norm: nn.LayerNorm) -> None:
        super().__init__([embed, nn.ModuleList(blocks), norm])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N×C×H×W -> N×H/stride×W/stride×channels."""
        embed, blocks, norm = self.parts()
        x = embed(x)
        for block in blocks:
            x = block(x)
        return norm(x)

    def parts(self) -> tuple[PatchEmbed, Sequence[Block], nn.LayerNorm]:
        """The three by their types."""
        return cast('tuple[PatchEmbed, Sequence[Block], nn.LayerNorm]', tuple(self))


class MixVisionTransformer(nn.Module):
    """Four-stage hierarchical transformer encoder.

    Args:
        in_channels: channels of the image.
        embed_dims: channels per attention head; a stage has `embed_dims * num_heads[i]` channels.
        num_layers, num_heads, patch_sizes, strides, sr_ratios: one number per stage.
        mlp_ratio: hidden channels of the feed-forward network over its input channels.
        qkv_bias: whether the query, key and value projections have a bias.
        drop_rate, attn_drop_rate: dropout after projections and on attention weights.
        drop_path_rate: stochastic-depth rate of the last block; it rises linearly from 0 over all blocks.
        layer_norm_eps: 1e-6 reproduces the published models (1e-5 moves the reference logits by 4e-5).
    """

    def __init__(
        self,
        in_channels: int = 3,
        embed_dims: int = 32,
        num_layers: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        patch_sizes: Sequence[int] = (7, 3, 3, 3),
        strides: Sequence[int] = (4, 2, 2, 2),
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
        mlp_ratio: int = 4,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        layer_norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        norm = partial(nn.LayerNorm, eps=layer_norm_eps)
        self.channels = tuple(embed_dims * heads for heads in num_heads)
        rates = iter(torch.linspace(0, drop_path_rate, sum(num_layers), device='cpu').tolist())
        self.layers = nn.ModuleList()
        for stage, channels in enumerate(self.channels):
            blocks = [
                Block(
                    channels,
                    num_heads[stage],
                    sr_ratios[stage],
                    mlp_ratio,
                    qkv_bias,
                    drop_rate,
                    attn_drop_rate,
                    next(rates),
                    norm,
                )
                for _ in range(num_layers[stage])
            ]
            embed = PatchEmbed(in_channels, channels, patch_sizes[stage], strides[stage], norm)
            self.layers.append(Stage(embed, blocks, norm(channels)))
            in_channels = channels
        self.apply(_initialize)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the four stages' feature maps.

        Args:
            x: N×3×H×W float tensor, normalized RGB; any H and W from 1 pixel.

        Returns:
            Four channels-last maps N×ceil(H/s)×ceil(W/s)×C for s = 4, 8, 16, 32.
        """
        features = []
        for stage in self.stages():
            features.append(stage(x))  # N×h×w×C
            x = features[-1].permute(0, 3, 1, 2)  # N×C×h×w
        return features

    def stages(self) -> Sequence[Stage]:
        """`layers` by their type."""
        return cast('Sequence[Stage]', self.layers)


def pointwise(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Apply a 1×1 convolution to a channels-last map N×H×W×C as the matrix product it is."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def _convolve(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    return conv(x.contiguous(memory_format=torch.channels_last))


def _initialize(module: nn.Module) -> None:
    """Truncated normal (std 0.02) for projections, fan-out normal for convolutions, as the published models began."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
