"""The network as an OpenVINO graph, built straight from a model's modules and folded weights.

Conversion by tracing takes seconds and gives matrix products on channels-last images, between which OpenVINO's CPU
plugin copies from layout to layout. Here the same network is written as it runs best there: between blocks a sequence
of pixels N×L×C, which the plugin takes as an N×C×H×W image without a copy when it is transposed and reshaped in just
this way; feed-forward networks and head are convolutions on such images, 1×1 ones in place of matrix products. The
tests hold it to the modules' results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ..models.folding import FoldedHead
from ..models.mix_transformer import Block, EfficientAttention
from .silent_import import import_openvino

if TYPE_CHECKING:
    from openvino import Model, Node

    from ..models.segformer import Segformer

ov = import_openvino()
ops = ov.opset13
TO_NHWC = 0, 2, 3, 1
TO_NCHW = 0, 3, 1, 2


def build_graph(
    model: Segformer, shape: Sequence[int] = (-1, 3, -1, -1), channels_last: bool = True, fold_norms: bool = False
) -> Model:
    """Return an `openvino.Model` from `img`, N×3×H×W, to `logits`, N×ceil(H/4)×ceil(W/4)×C.

    Args:
        model: whose weights it takes.
        shape: of the input; -1 leaves a dimension open.
        channels_last: False for logits N×C×ceil(H/4)×ceil(W/4), at the cost of a copy.
        fold_norms: take the scale and shift of the blocks' layer norms into the weights behind them; the results are
            rounded differently. In int8 the norm is then quantized where it is computed.
    """
    image = ops.parameter(list(shape), np.float32, name='img')
    features, x = [], image
    for stage in model.backbone.stages():
        embed, blocks, norm = stage.parts()
        x = _convolution(x, embed.projection)
        size = ops.gather(ops.shape_of(x), _integers(*TO_NHWC), ops.constant(np.int64(0)))
        x = _norm(_pixels(x), embed.norm)
        for block in blocks:
            x = _block(x, block, size, fold_norms)
        x = _image(_norm(x, norm), size)
        features.append(x)
    logits = _head(features, FoldedHead(model.decode_head))
    logits = _transpose(logits, TO_NHWC) if channels_last else logits
    image.output(0).get_tensor().set_names({'img'})
    logits.output(0).get_tensor().set_names({'logits'})
    return ov.Model([logits], [image], 'segformer')


def _block(x: Node, block: Block, shape: Node, fold_norms: bool) -> Node:
    """N×L×C; `shape` is that of the pixels as an image, N×H×W×C."""
    x = _attention(x, block.norm1, block.attn, shape, fold_norms)
    expand, depthwise, _, _, shrink, _ = block.ffn.parts()
    hidden, norm = _normalized(x, block.norm2, fold_norms)
    hidden = _convolution(_image(hidden, shape), expand, norm)
    hidden = ops.gelu(_convolution(hidden, depthwise), 'erf')
    return ops.add(_pixels(_convolution(hidden, shrink)), x)


def _attention(x: Node, norm: nn.LayerNorm, attention: EfficientAttention, shape: Node, fold_norms: bool) -> Node:
    weights = attention.attn
    channels, heads = weights.out_proj.out_features, attention.num_heads
    queries, of_queries = keys, of_keys = _normalized(x, norm, fold_norms)
    if attention.sr_ratio > 1:
        reduced = _pixels(_convolution(_image(queries, shape), attention.sr, of_queries))  # N×S×C
        keys, of_keys = _normalized(reduced, attention.norm, fold_norms)
    weight, bias = _array(weights.in_proj_weight), _optional(weights.in_proj_bias)
    parts = [slice(i * channels, (i + 1) * channels) for i in range(3)]
    q, k, v = (
        _heads(
            _linear(tokens, *_with_norm(norm, weight[part], None if bias is None else bias[part])),
            heads,
            channels // heads,
        )
        for tokens, norm, part in zip((queries, keys, keys), (of_queries, of_keys, of_keys), parts, strict=True)
    )
    out = ops.scaled_dot_product_attention(q, k, v, causal=False)  # N×heads×L×d
    out = ops.reshape(_transpose(out, (0, 2, 1, 3)), _integers(0, -1, channels), True)
    return ops.add(_linear(out, _array(weights.out_proj.weight), _array(weights.out_proj.bias)), x)


def _head(features: list[Node], head: FoldedHead) -> Node:
    size = ops.gather(ops.shape_of(features[0]), _integers(2, 3), ops.constant(np.int64(0)))
    fused = None
    for i in reversed(range(len(features))):
        x = _pointwise(features[i], *head.projections[i])
        x = x if head.plain_projections else _relu(x)
        x = _pointwise(x, *head.parts[i])
        if i:
            x = ops.interpolate(
                x,
                size,
                'linear_onnx',
                'sizes',
                pads_begin=[0, 0, 0, 0],
                pads_end=[0, 0, 0, 0],
                antialias=False,
                coordinate_transformation_mode='align_corners' if head.align_corners else 'half_pixel',
                axes=_integers(2, 3),
            )
        fused = x if fused is None else ops.add(fused, x)
    return _convolution(_relu(fused), head.conv_seg)


def _relu(x: Node) -> Node:
    """ReLU that keeps NaN, as torch's does: OpenVINO's own makes it 0, and a broken network's label map looks whole.

    A slope below what float32 can add to a logit: the same numbers, and unlike `select` computed in the convolution.
    """
    return ops.prelu(x, _constant([np.finfo(np.float32).tiny]))


def _convolution(x: Node, module: nn.Conv2d, norm: nn.LayerNorm | None = None) -> Node:
    """`norm`: of `_normalized`; such a convolution has no padding, which would not be shifted."""
    weight, bias = _with_norm(norm, _array(module.weight), _optional(module.bias))
    stride, pad = list(module.stride), [int(side) for side in module.padding]
    if module.groups > 1:
        weight = weight.reshape(module.groups, -1, *weight.shape[1:])
        x = ops.group_convolution(x, _constant(weight), stride, pad, pad, [1, 1])
    else:
        x = ops.convolution(x, _constant(weight), stride, pad, pad, [1, 1])
    return _biased(x, bias)


def _pointwise(x: Node, weight: torch.Tensor, bias: torch.Tensor | None) -> Node:
    """1×1 convolution of N×C×H×W with an out×in matrix."""
    x = ops.convolution(x, _constant(_array(weight)[:, :, None, None]), [1, 1], [0, 0], [0, 0], [1, 1])
    return _biased(x, _optional(bias))


def _biased(x: Node, bias: np.ndarray | None) -> Node:
    return x if bias is None else ops.add(x, _constant(bias.reshape(1, -1, 1, 1)))


def _linear(x: Node, weight: np.ndarray, bias: np.ndarray | None) -> Node:
    x = ops.matmul(x, _constant(weight), False, True)
    return x if bias is None else ops.add(x, _constant(bias))


def _norm(x: Node, norm: nn.LayerNorm) -> Node:
    """Layer norm over the channels of N×L×C."""
    x = _standardized(x, norm)
    return ops.add(ops.multiply(x, _constant(_array(norm.weight))), _constant(_array(norm.bias)))


def _standardized(x: Node, norm: nn.LayerNorm) -> Node:
    return ops.mvn(x, _integers(2), True, float(norm.eps), 'inside_sqrt')


def _normalized(x: Node, norm: nn.LayerNorm, fold: bool) -> tuple[Node, nn.LayerNorm | None]:
    """Layer norm, and None; or, to fold it, what comes before its scale and shift, and the norm for `_with_norm`."""
    return (_standardized(x, norm), norm) if fold else (_norm(x, norm), None)


def _with_norm(
    norm: nn.LayerNorm | None, weight: np.ndarray, bias: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Weights out×in×… and bias that take in the scale and shift of the norm before them."""
    if norm is None:
        return weight, bias
    spatial = (1,) * (weight.ndim - 2)
    scale, shift = (_array(values).astype(np.float64).reshape(1, -1, *spatial) for values in (norm.weight, norm.bias))
    shifted = (weight * shift).sum(axis=tuple(range(1, weight.ndim)))
    return (weight * scale).astype(np.float32), (shifted + (0 if bias is None else bias)).astype(np.float32)


def _pixels(x: Node) -> Node:
    """N×C×H×W to N×L×C."""
    channels = x.get_output_partial_shape(0)[1].get_length()
    return ops.reshape(_transpose(x, TO_NHWC), _integers(0, -1, channels), True)


def _image(x: Node, shape: Node) -> Node:
    """N×L×C to N×C×H×W; `shape` is N, H, W, C."""
    return _transpose(ops.reshape(x, shape, False), TO_NCHW)


def _heads(x: Node, heads: int, size: int) -> Node:
    return _transpose(ops.reshape(x, _integers(0, -1, heads, size), True), (0, 2, 1, 3))


def _transpose(x: Node, order: Sequence[int]) -> Node:
    return ops.transpose(x, _integers(*order))


def _integers(*values: int) -> Node:
    return ops.constant(np.array(values, np.int64))


def _constant(values: np.ndarray | list[float]) -> Node:
    return ops.constant(np.ascontiguousarray(values, np.float32))


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def _optional(tensor: torch.Tensor | None) -> np.ndarray | None:
    return None if tensor is None else _array(tensor)
