"""The all-MLP decode head of SegFormer, written from section 3.2 of the paper and the published state-dict keys.

Each stage goes through a 1×1 convolution with batch norm and ReLU, is scaled to a quarter of the input and fused by
another such convolution. Scaling and the fusion's matrix product commute, so the product is taken at each stage's own
resolution and the scaled results are summed: the same numbers for about a third of the work, in training too.
"""
import torch
import torch.nn.functional as F
from torch import nn

from .mix_transformer import in_strips, pointwise, strip_rows

LANES = 16  # matrix products run faster when their columns are a multiple of this


class ConvNorm(nn.Module):
    """The parameters of a 1×1 convolution and its batch norm; `plain` means a bias in place of the norm."""

    def __init__(self, in_channels, channels, plain=False):
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

    def __init__(self, in_channels, channels, num_classes, dropout_ratio=0.1, align_corners=False,
                 plain_projections=False):
        super().__init__()
        self.align_corners = align_corners
        self.plain_projections = plain_projections
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        self.dropout = nn.Dropout2d(dropout_ratio)
        self.convs = nn.ModuleList(ConvNorm(c, channels, plain_projections) for c in in_channels)
        self.fusion_conv = ConvNorm(channels * len(in_channels), channels)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)
        self._folded, self._folded_from = None, None

    def forward(self, features):
        """Channels-last maps N×h_i×w_i×C_i, finest first, to logits N×num_classes×h_0×w_0 (channels-last memory)."""
        folded = self._folded
        if folded is not None and in_strips(features[0]):
            return self._infer(features)
        parts = self.fusion_conv.conv.weight.flatten(1).chunk(len(features), dim=1)
        fused = None
        for i, x in reversed(list(enumerate(features))):
            x = self._project(i, x)  # N×h_i×w_i×channels
            weight_and_bias = (parts[i],) if folded is None else folded['fusion'][i]
            x = F.linear(x, *weight_and_bias).permute(0, 3, 1, 2)
            x = self._scale(x, features[0].shape[1:3]) if i else x
            fused = x if fused is None else fused.add_(x)
        fused = F.relu(fused if folded is not None else self.fusion_conv.bn(fused), inplace=True)
        fused = self.dropout(fused)
        return pointwise(self.conv_seg, fused.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def _infer(self, features):
        """`forward` on a CPU without gradients, in strips of the finest map that stay in the processor's cache."""
        folded, finest = self._folded, features[0]
        images, height, width = finest.shape[:3]
        weight, bias = folded['classifier']
        part, shift = folded['fusion'][0]
        logits = finest.new_empty(images, height, width, len(weight))
        rows = strip_rows(width, len(shift))
        for image in range(images):
            coarse = [self._widened(i, features[i][image:image + 1], height, width) for i in range(1, len(features))]
            for start in range(0, height, rows):
                stop = min(start + rows, height)
                x = shift.repeat(stop - start, width)
                for values, matrix in coarse:
                    low = max(0, start * len(values) // height - 1)
                    high = stop * len(values) // height + 2
                    x.addmm_(matrix[start:stop, low:high], values[low:high])
                x = x.view(-1, len(shift))
                pixels = finest[image, start:stop].reshape(len(x), -1)
                x = x.addmm_(self._project(0, pixels), part.t()).relu_()
                torch.addmm(bias, x, weight.t(), out=logits[image, start:stop].view(len(x), -1))
        return logits[..., :self.conv_seg.out_channels].permute(0, 3, 1, 2)

    def _widened(self, i, feature, height, width):
        """One image's level i in the fusion, h_i×(width·channels), and the matrix that scales it to `height`."""
        x = F.linear(self._project(i, feature), *self._folded['fusion'][i])  # 1×h_i×w_i×channels
        h = x.shape[1]
        x = self._scale(x.permute(0, 3, 1, 2), (h, width)).permute(0, 2, 3, 1).reshape(h, -1)
        rows = torch.eye(h, dtype=torch.float32, device=x.device)[None, None]
        return x, self._scale(rows, (height, h))[0, 0].to(x.dtype)

    def _scale(self, x, size):
        return F.interpolate(x, size=size, mode='bilinear', align_corners=self.align_corners)

    def _project(self, i, x):
        """A channels-last map N×h×w×C_i, or its pixels as a matrix, through projection i."""
        if self.plain_projections:
            return pointwise(self.convs[i].conv, x)
        if self._folded is not None:
            return F.relu(F.linear(x, *self._folded['projections'][i]), inplace=True)
        x = F.linear(x, self.convs[i].conv.weight.flatten(1)).permute(0, 3, 1, 2)
        return F.relu(self.convs[i].bn(x), inplace=True).permute(0, 2, 3, 1)

    def fold(self):
        """Fold every batch norm into its convolution for inference; parameters and state dict stay as they are.

        The folded copies are dropped by `train()` and whenever weights are loaded or moved. Calling it again costs
        nothing unless a weight has changed since.
        """
        self.eval()
        sources = weights_version(self)
        if self._folded is not None and self._folded_from == sources:
            return self
        with torch.no_grad():
            weight, bias = _fold(self.fusion_conv)
            parts = list(weight.chunk(len(self.convs), dim=1))
            folded = {'projections': None if self.plain_projections else [_fold(conv) for conv in self.convs],
                      'fusion': [(part.contiguous(), None) for part in parts]}
            folded['fusion'][0] = (folded['fusion'][0][0], bias)  # added once, at the finest map, which is not scaled
            spare = -self.conv_seg.out_channels % LANES
            folded['classifier'] = (F.pad(self.conv_seg.weight.flatten(1), (0, 0, 0, spare)),
                                    F.pad(self.conv_seg.bias, (0, spare)))
        self._folded, self._folded_from = folded, sources
        return self

    def folded(self):
        """Weights and biases for inference, folding them first when that is not done.

        Returns:
            `{'projections': [(weight, bias)], 'fusion': [(weight, bias or None)]}`, per feature map, finest first:
            channels×C_i and channels×channels matrices.
        """
        self.fold()
        if self.plain_projections:
            plain = [(block.conv.weight.flatten(1), block.conv.bias) for block in self.convs]
            return {**self._folded, 'projections': plain}
        return self._folded

    def train(self, mode=True):
        if mode:
            self._folded = None
        return super().train(mode)

    def __getstate__(self):
        """For pickle and deep copies: without the folded weights, which a copy makes when `fold` is called on it.

        Until then it computes with its batch norms.
        """
        return {**self.__dict__, '_folded': None, '_folded_from': None}

    def _apply(self, *args, **kwargs):
        self._folded = None
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args, **kwargs):
        self._folded = None
        return super()._load_from_state_dict(*args, **kwargs)


def weights_version(module):
    """A value that changes when a parameter or buffer of the module is replaced or written to.

    PyTorch counts the writes; those through `.data` and `.numpy()` it does not.
    """
    return tuple((tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version)
                 for part in module.modules() for tensors in (part._parameters, part._buffers)
                 for tensor in tensors.values() if tensor is not None)


def _fold(block):
    bn = block.bn
    scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    return block.conv.weight.flatten(1) * scale[:, None], bn.bias - bn.running_mean * scale
