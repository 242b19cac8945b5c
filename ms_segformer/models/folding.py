"""The head's fast form for inference: every batch norm folded into its convolution.

It is made from a head's weights and runs the head's own `forward`; on a CPU without gradients the same sums are taken
in strips of the finest map.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from ..postprocess.resampling import Taps, resize_taps
from .segformer_head import ConvNorm, SegformerHead
from .strips import compiling, in_strips, strips

LANES = 16  # matrix products run faster when their columns are a multiple of this


class FoldedHead(SegformerHead):
    """A head with folded copies of another's weights.

    Attributes:
        projections: (weight, bias) of each feature map's projection, channels×C_i, finest first.
        parts: (weight, bias or None) of its share of the fusion, channels×channels.
    """

    def __init__(self, head: SegformerHead) -> None:
        nn.Module.__init__(self)  # without parameters of its own
        self.align_corners, self.plain_projections = head.align_corners, head.plain_projections
        self.conv_seg, self.dropout = head.conv_seg, head.dropout
        with torch.inference_mode(False), torch.no_grad():
            self.projections = [_plain(conv) if head.plain_projections else _folded(conv) for conv in head.convs]
            weight, self._shift = _folded(head.fusion_conv)
            # The bias is added once, at the finest map, which is not scaled.
            self.parts = [
                (part.contiguous(), None if i else self._shift)
                for i, part in enumerate(weight.chunk(len(head.convs), dim=1))
            ]
            spare = -head.conv_seg.out_channels % LANES
            self._classifier = (
                F.pad(head.conv_seg.weight.flatten(1), (0, 0, 0, spare)),
                F.pad(cast(torch.Tensor, head.conv_seg.bias), (0, spare)),
            )

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        return self._in_strips(features) if in_strips(features[0]) else super().forward(features)

    def project(self, i: int, x: torch.Tensor) -> torch.Tensor:
        x = F.linear(x, *self.projections[i])
        return x if self.plain_projections else F.relu(x, inplace=True)

    def fusion_parts(self) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        return self.parts

    def activate(self, fused: torch.Tensor) -> torch.Tensor:
        return F.relu(fused, inplace=True)

    def _in_strips(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """`SegformerHead.forward`, strip by strip."""
        finest = features[0]  # N×h_0×w_0×C_0
        images, height, width = finest.shape[:3]
        weight, bias = self._classifier
        part, shift = self.parts[0][0], self._shift
        logits = finest.new_empty(images, height, width, len(weight))
        for image in range(images):
            coarse = [self._widened(i, features[i][image : image + 1], height, width) for i in range(1, len(features))]
            for strip in strips(height, width, len(shift)):
                x = shift.repeat(strip.stop - strip.start, width)  # rows×(w_0·channels)
                for values, taps, down in coarse:
                    read = taps.reads(strip)
                    x.addmm_(down[strip, read.start : read.stop], values[read.start : read.stop])
                x = x.view(-1, len(shift))  # pixels×channels
                pixels = finest[image, strip].reshape(len(x), -1)
                x = x.addmm_(self.project(0, pixels), part.t()).relu_()
                torch.addmm(bias, x, weight.t(), out=logits[image, strip].view(len(x), -1))
        return logits[..., : self.conv_seg.out_channels].permute(0, 3, 1, 2)

    def _widened(
        self, i: int, feature: torch.Tensor, height: int, width: int
    ) -> tuple[torch.Tensor, Taps, torch.Tensor]:
        """One image's level i in the fusion, h_i×(width·channels), and the map that scales it to `height`, twice."""
        x = F.linear(self.project(i, feature), *self.parts[i])  # 1×h_i×w_i×channels
        h = x.shape[1]
        x = self.scale(x.permute(0, 3, 1, 2), (h, width)).permute(0, 2, 3, 1).reshape(h, -1)
        taps = resize_taps(h, height, self.align_corners)
        return x, taps, taps.matrix(h).to(x)


class Folding:
    """Keeps the folded form of a head as fresh as its weights.

    Copies and pickles have none of the folded weights; they make their own.
    """

    def __init__(self, head: SegformerHead) -> None:
        self.head = head
        self._made: FoldedHead | None = None
        self._made_from: tuple = ()

    def folded(self) -> FoldedHead:
        """The folded form; made when there is none yet, and anew when a weight has changed since."""
        if self._made is not None and compiling():  # the check is no part of a graph
            return self._made
        version = weights_version(self.head)
        if self._made is None or self._made_from != version:
            self._made, self._made_from = FoldedHead(self.head).eval(), version
        return self._made

    def __getstate__(self) -> dict[str, Any]:
        return {'head': self.head, '_made': None, '_made_from': ()}


def weights_version(module: nn.Module) -> tuple[tuple[int, int], ...]:
    """A value that changes when a parameter or buffer of the module is replaced or written to.

    PyTorch counts the writes; those through `.data` and `.numpy()` it does not.
    """
    return tuple(
        (tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)
        for part in module.modules()
        for tensors in (part._parameters, part._buffers)
        for tensor in tensors.values()
        if tensor is not None
    )


def _plain(block: ConvNorm) -> tuple[torch.Tensor, torch.Tensor]:
    return block.conv.weight.detach().flatten(1), cast(torch.Tensor, block.conv.bias).detach()


def _folded(block: ConvNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """Computed in float32 at least: in half precision a variance may be infinite, or its rounding seen."""
    norm, given = block.bn, block.conv.weight.dtype
    dtype = torch.promote_types(given, torch.float32)
    mean, variance, factor, shift = (
        cast(torch.Tensor, value).to(dtype) for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    scale = factor / torch.sqrt(variance + norm.eps)
    weight = block.conv.weight.flatten(1).to(dtype) * scale[:, None]
    return weight.to(given), (shift - mean * scale).to(given)
