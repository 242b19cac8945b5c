"""The network as an OpenVINO graph, built straight from a model's modules and folded weights.

Conversion by tracing takes seconds and gives matrix products on channels-last tensors, between which OpenVINO's CPU
plugin copies from layout to layout. Here the same network is written as it runs best there: every projection that does
not feed the attention is a 1×1 convolution on N×C×H×W (which the plugin keeps channels-last inside), and only narrow
tensors are transposed, for layer norm and attention. The tests hold it to the modules' results.
"""
import numpy as np
import openvino as ov
from openvino import opset13 as ops

TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


def build_graph(model, shape=(-1, 3, -1, -1), channels_last=True):
    """Return an `openvino.Model` from `img`, N×3×H×W, to `logits`, N×ceil(H/4)×ceil(W/4)×C.

    Args:
        model: a prepared `Segformer`.
        shape: of the input; -1 leaves a dimension open.
        channels_last: False for logits N×C×ceil(H/4)×ceil(W/4), at the cost of a copy.
    """
    image = ops.parameter(list(shape), np.float32, name='img')
    features, x = [], image
    for embed, blocks, norm in model.backbone.layers:
        x = _convolution(x, embed.projection)
        x = _norm(x, embed.norm)
        for block in blocks:
            x = _block(x, block)
        x = _norm(x, norm)
        features.append(x)
    logits = _head(features, model.decode_head)
    logits = _transpose(logits, TO_NHWC) if channels_last else logits
    image.output(0).get_tensor().set_names({'img'})
    logits.output(0).get_tensor().set_names({'logits'})
    return ov.Model([logits], [image], 'segformer')


def _block(x, block):
    x = _attention(x, block.norm1, block.attn)
    expand, depthwise, _, _, shrink, _ = block.ffn.layers
    hidden = _convolution(_norm(x, block.norm2), expand)
    hidden = ops.gelu(_convolution(hidden, depthwise), 'erf')
    return ops.add(_convolution(hidden, shrink), x)


def _attention(x, norm, attention):
    weights = attention.attn
    channels, heads = x.get_output_partial_shape(0)[1].get_length(), attention.num_heads
    pixels = _last_axis_norm(_transpose(x, TO_NHWC), norm, 4)  # N×H×W×C
    queries = _tokens(pixels, channels)  # N×L×C
    keys = queries
    if attention.sr_ratio > 1:
        reduced = _convolution(_transpose(pixels, TO_NCHW), attention.sr)
        keys = _last_axis_norm(_tokens(_transpose(reduced, TO_NHWC), channels), attention.norm, 3)  # N×S×C
    weight = _array(weights.in_proj_weight)
    bias = None if weights.in_proj_bias is None else _array(weights.in_proj_bias)
    q, k, v = (_heads(_linear(tokens, weight, bias, slice(i * channels, (i + 1) * channels)), heads, channels // heads)
               for i, tokens in enumerate((queries, keys, keys)))
    out = ops.scaled_dot_product_attention(q, k, v, causal=False)  # N×heads×L×d
    out = ops.reshape(_transpose(out, (0, 2, 1, 3)), _integers(0, -1, channels), True)
    out = _transpose(ops.reshape(out, ops.shape_of(pixels), False), TO_NCHW)
    return ops.add(_pointwise(out, _array(weights.out_proj.weight), _array(weights.out_proj.bias)), x)


def _head(features, head):
    size = ops.gather(ops.shape_of(features[0]), _integers(2, 3), ops.constant(np.int64(0)))
    folded, fused = head.folded(), None
    for i in reversed(range(len(features))):
        x = _pointwise(features[i], *map(_array, folded['projections'][i]))
        x = x if head.plain_projections else ops.relu(x)
        x = _pointwise(x, *map(_array, folded['fusion'][i]))
        if i:
            x = ops.interpolate(
                x, size, 'linear_onnx', 'sizes', pads_begin=[0, 0, 0, 0], pads_end=[0, 0, 0, 0], antialias=False,
                coordinate_transformation_mode='align_corners' if head.align_corners else 'half_pixel',
                axes=_integers(2, 3))
        fused = x if fused is None else ops.add(fused, x)
    return _convolution(ops.relu(fused), head.conv_seg)


def _convolution(x, module):
    weight, stride, pad = _array(module.weight), list(module.stride), list(module.padding)
    if module.groups > 1:
        weight = weight.reshape(module.groups, -1, *weight.shape[1:])
        x = ops.group_convolution(x, _constant(weight), stride, pad, pad, [1, 1])
    else:
        x = ops.convolution(x, _constant(weight), stride, pad, pad, [1, 1])
    return _biased(x, None if module.bias is None else _array(module.bias))


def _pointwise(x, weight, bias):
    """1×1 convolution of N×C×H×W with an out×in matrix."""
    return _biased(ops.convolution(x, _constant(weight[:, :, None, None]), [1, 1], [0, 0], [0, 0], [1, 1]), bias)


def _biased(x, bias):
    return x if bias is None else ops.add(x, _constant(bias.reshape(1, -1, 1, 1)))


def _linear(x, weight, bias, rows):
    x = ops.matmul(x, _constant(weight[rows]), False, True)
    return x if bias is None else ops.add(x, _constant(bias[rows]))


def _norm(x, norm):
    """Layer norm over the channels of N×C×H×W."""
    return _transpose(_last_axis_norm(_transpose(x, TO_NHWC), norm, 4), TO_NCHW)


def _last_axis_norm(x, norm, rank):
    x = ops.mvn(x, _integers(rank - 1), True, float(norm.eps), 'inside_sqrt')
    return ops.add(ops.multiply(x, _constant(_array(norm.weight))), _constant(_array(norm.bias)))


def _tokens(x, channels):
    return ops.reshape(x, _integers(0, -1, channels), True)


def _heads(x, heads, size):
    return _transpose(ops.reshape(x, _integers(0, -1, heads, size), True), (0, 2, 1, 3))


def _transpose(x, order):
    return ops.transpose(x, _integers(*order))


def _integers(*values):
    return ops.constant(np.array(values, np.int64))


def _constant(values):
    return ops.constant(np.ascontiguousarray(values, np.float32))


def _array(tensor):
    return None if tensor is None else tensor.detach().float().cpu().numpy()
