"""The Mix Transformer (MiT) backbone.

Written from the SegFormer paper (Xie et al., 2021, arXiv:2105.15203, section 3.1 and table 6). Module names follow the
state-dict keys of the published checkpoints. Feature maps are kept channels-last (N×H×W×C) from end to end, so that a
token sequence (N×L×C) and an image are two views of the same memory.
"""
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

STRIP = 720 << 10  # elements of a strip: 2.8 MiB in float32


class DropPath(nn.Module):
    """Drops the whole residual branch of a sample with probability `rate` while training (stochastic depth)."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        kept = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep)
        return x * (kept / keep)


class PatchEmbed(nn.Module):
    """Overlapping patch embedding: a strided convolution and a layer norm."""

    def __init__(self, in_channels, channels, patch_size, stride, norm):
        super().__init__()
        self.projection = nn.Conv2d(in_channels, channels, patch_size, stride, padding=patch_size // 2)
        self.norm = norm(channels)

    def forward(self, x):
        """N×C×H×W -> N×H/stride×W/stride×channels."""
        return self.norm(_conv(self.projection, x).permute(0, 2, 3, 1))


class AttentionWeights(nn.Module):
    """The parameters of one multi-head attention, stored as `torch.nn.MultiheadAttention` stores them."""

    def __init__(self, channels, bias):
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels)) if bias else None
        self.out_proj = nn.Linear(channels, channels)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)


class EfficientAttention(nn.Module):
    """Self-attention whose keys and values come from a map `sr_ratio` times smaller on each side."""

    def __init__(self, channels, num_heads, sr_ratio, qkv_bias, attn_drop_rate, drop_rate, drop_path_rate, norm):
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

    def forward(self, x, identity):
        """N×H×W×C, and the branch's `identity` of the same shape, to their sum."""
        n, h, w, c = x.shape
        reduced = x
        if self.sr_ratio > 1:
            reduced = self.norm(_conv(self.sr, x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        weight, bias = self.attn.in_proj_weight, self.attn.in_proj_bias
        q_bias, kv_bias = (None, None) if bias is None else (bias[:c], bias[c:])
        heads = (self.num_heads, c // self.num_heads)
        q = F.linear(x.reshape(n, h * w, c), weight[:c], q_bias).unflatten(2, heads)  # N×L×heads×d
        kv = F.linear(reduced.reshape(n, -1, c), weight[c:], kv_bias).unflatten(2, (2, *heads))  # N×S×2×heads×d
        k, v = kv.unbind(2)
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
            dropout_p=self.attn_drop_rate if self.training else 0.0)  # N×heads×L×d
        out = self.attn.out_proj(out.transpose(1, 2).reshape(n, h, w, c))
        return self.drop_path(self.proj_drop(out)).add_(identity)


class MixFFN(nn.Module):
    """Feed-forward network with a 3×3 depth-wise convolution, which also tells it the position."""

    def __init__(self, channels, hidden, drop_rate, drop_path_rate):
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

    def forward(self, x, identity):
        """N×H×W×C, and the branch's `identity` of the same shape, to their sum."""
        height, width = x.shape[1:3]
        rows = strip_rows(width, self.layers[0].out_channels)
        if rows >= height or self.training or not in_strips(x):
            return self.drop_path(self._shrunk(self._expanded(x))).add_(identity)
        out = torch.empty_like(x)
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            above = max(start - 1, 0)  # the depth-wise convolution looks one row up and down
            hidden = self._expanded(x[:, above:stop + 1])[:, start - above:stop - above]
            torch.add(self._shrunk(hidden), identity[:, start:stop], out=out[:, start:stop])
        return out

    def _expanded(self, x):
        expand, depthwise, activation, _, _, _ = self.layers
        x = pointwise(expand, x).permute(0, 3, 1, 2)
        return activation(_conv(depthwise, x)).permute(0, 2, 3, 1)

    def _shrunk(self, x):
        _, _, _, drop, shrink, drop_out = self.layers
        return drop_out(pointwise(shrink, drop(x)))


class Block(nn.Module):
    """One transformer encoder layer (pre-norm)."""

    def __init__(self, channels, num_heads, sr_ratio, mlp_ratio, qkv_bias, drop_rate, attn_drop_rate, drop_path_rate,
                 norm):
        super().__init__()
        self.norm1 = norm(channels)
        self.attn = EfficientAttention(
            channels, num_heads, sr_ratio, qkv_bias, attn_drop_rate, drop_rate, drop_path_rate, norm)
        self.norm2 = norm(channels)
        self.ffn = MixFFN(channels, mlp_ratio * channels, drop_rate, drop_path_rate)

    def forward(self, x):
        x = self.attn(self.norm1(x), identity=x)
        return self.ffn(self.norm2(x), identity=x)


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

    def __init__(self, in_channels=3, embed_dims=32, num_layers=(2, 2, 2, 2), num_heads=(1, 2, 5, 8),
                 patch_sizes=(7, 3, 3, 3), strides=(4, 2, 2, 2), sr_ratios=(8, 4, 2, 1), mlp_ratio=4, qkv_bias=True,
                 drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0.1, layer_norm_eps=1e-6):
        super().__init__()
        norm = partial(nn.LayerNorm, eps=layer_norm_eps)
        self.channels = tuple(embed_dims * heads for heads in num_heads)
        rates = iter(torch.linspace(0, drop_path_rate, sum(num_layers), device='cpu').tolist())
        self.layers = nn.ModuleList()
        for stage, channels in enumerate(self.channels):
            blocks = nn.ModuleList(
                Block(channels, num_heads[stage], sr_ratios[stage], mlp_ratio, qkv_bias, drop_rate, attn_drop_rate,
                      next(rates), norm) for _ in range(num_layers[stage]))
            self.layers.append(nn.ModuleList([
                PatchEmbed(in_channels, channels, patch_sizes[stage], strides[stage], norm), blocks, norm(channels)]))
            in_channels = channels
        self.apply(_initialise)

    def forward(self, x):
        """Return the four stages' feature maps.

        Args:
            x: N×3×H×W float tensor, normalised RGB; any H and W from 1 pixel.

        Returns:
            Four channels-last maps N×ceil(H/s)×ceil(W/s)×C for s = 4, 8, 16, 32.
        """
        features = []
        for embed, blocks, norm in self.layers:
            x = embed(x)  # N×h×w×C
            for block in blocks:
                x = block(x)
            x = norm(x)
            features.append(x)
            x = x.permute(0, 3, 1, 2)
        return features


def in_strips(x):
    """Whether to take a large map strip by strip: on a CPU, where what stays in the cache is faster, without gradients.

    Not while the network is traced or compiled: the number of strips would become part of the graph.
    """
    compiling = hasattr(torch, 'compiler') and torch.compiler.is_compiling()
    return x.device.type == 'cpu' and not (torch.is_grad_enabled() or torch.jit.is_tracing() or compiling)


def strip_rows(width, channels):
    """Rows of a strip of a map with this width and number of channels."""
    return max(1, STRIP // (width * channels))


def pointwise(conv, x):
    """Apply a 1×1 convolution to a channels-last map N×H×W×C as the matrix product it is."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def _conv(conv, x):
    return conv(x.contiguous(memory_format=torch.channels_last))


def _initialise(module):
    """Truncated normal (std 0.02) for projections, fan-out normal for convolutions: the paper's code of practice."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
