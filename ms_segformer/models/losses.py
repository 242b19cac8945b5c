"""Cross entropy of bilinearly upsampled logits, without ever holding the upsampled logits.

`F.cross_entropy(F.interpolate(logits, size))` writes and reads arrays of N×C×H×W several times over; with 172 classes
they are larger than all else in a training step. Here a few rows at a time are scaled, turned into loss and gradient
while they are in the cache, and scaled back. Same numbers (up to the order of additions), a fraction of the time on a
CPU and of the memory anywhere.
"""

from typing import Any

import torch

from ..postprocess.resampling import Taps, resize_taps

ROWS_BYTES = 2 << 20  # upsampled logits handled at once; measured best of 0.25 to 4 MiB
DEVICE_ROWS_BYTES = 64 << 20  # the same where they are not on a CPU, and each step costs a launch


def upsampled_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weight: torch.Tensor | None = None,
    ignore_index: int = 255,
    align_corners: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of the cross entropy of logits scaled to the labels' size, and how many pixels are right.

    Args:
        logits: N×C×h×w float tensor.
        labels: N×H×W int64, class ids or `ignore_index`.
        weight: C float tensor of class weights, or None.

    Returns:
        (loss, correct): scalar tensors; the first has a gradient with respect to `logits`.
    """
    with torch.autocast(logits.device.type, enabled=False):
        return _UpsampledCrossEntropy.apply(logits, labels, weight, ignore_index, align_corners)


class _UpsampledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        labels: torch.Tensor,
        weight: torch.Tensor | None,
        ignore_index: int,
        align_corners: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        n, channels, height, width = logits.shape
        maps = logits.detach().permute(0, 2, 3, 1).float().contiguous()  # N×h×w×C
        across = resize_taps(width, labels.shape[2], align_corners).matrix(width).to(maps)  # W×w
        taps = resize_taps(height, labels.shape[1], align_corners)
        down = taps.matrix(height).to(maps)  # H×h
        gradients = torch.empty_like(maps) if ctx.needs_input_grad[0] else None
        loss, correct = maps.new_zeros((), dtype=torch.float64), maps.new_zeros((), dtype=torch.int64)
        for i in range(n):
            wide = torch.matmul(across, maps[i]).view(height, -1)  # h×(W·C)
            wide_gradient = torch.zeros_like(wide) if gradients is not None else None
            part, right = _rows(wide, wide_gradient, labels[i], taps, down, channels, weight, ignore_index)
            loss, correct = loss + part, correct + right
            if gradients is not None and wide_gradient is not None:
                torch.matmul(across.t(), wide_gradient.view(height, -1, channels), out=gradients[i])
        if gradients is not None:
            ctx.save_for_backward(gradients)
        ctx.dtype = logits.dtype
        ctx.mark_non_differentiable(correct)
        return loss.to(maps.dtype), correct

    @staticmethod
    def backward(ctx: Any, loss_gradient: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        (gradients,) = ctx.saved_tensors
        return (gradients * loss_gradient).to(ctx.dtype).permute(0, 3, 1, 2), None, None, None, None


def _rows(
    wide: torch.Tensor,
    wide_gradient: torch.Tensor | None,
    labels: torch.Tensor,
    taps: Taps,
    down: torch.Tensor,
    channels: int,
    weight: torch.Tensor | None,
    ignore_index: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and right pixels of one image; adds the gradient of its horizontally scaled logits h×(W·C) to a buffer."""
    at_once = ROWS_BYTES if wide.device.type == 'cpu' else DEVICE_ROWS_BYTES
    rows = max(1, at_once // (4 * wide.shape[1]))
    counted = labels != ignore_index
    targets = torch.where(counted, labels, 0)
    factors = counted.to(wide.dtype) if weight is None else weight[targets] * counted
    loss, correct = wide.new_zeros((), dtype=torch.float64), wide.new_zeros((), dtype=torch.int64)
    for top in range(0, len(labels), rows):
        read = taps.reads(slice(top, top + rows))
        part = down[top : top + rows, read.start : read.stop]  # rows × the few low rows they come from
        scaled = torch.matmul(part, wide[read.start : read.stop]).view(-1, channels)  # pixels×C
        target = targets[top : top + rows].reshape(-1, 1)
        factor = factors[top : top + rows].reshape(-1, 1)
        probabilities = torch.softmax(scaled, 1)
        hit = probabilities.gather(1, target)
        loss = loss + torch.sum(_minus_log(hit, scaled, target) * factor, dtype=torch.float64)
        right = hit >= probabilities.amax(1, keepdim=True)
        correct = correct + (right & counted[top : top + rows].reshape(-1, 1)).sum()
        if wide_gradient is not None:
            gradient = probabilities.mul_(factor).scatter_add_(1, target, -factor)
            wide_gradient[read.start : read.stop].addmm_(part.t(), gradient.view(part.shape[0], -1))
    return loss, correct


def _minus_log(hit: torch.Tensor, scaled: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """-log of the targets' probabilities; those too small for a float32 are computed from the logits."""
    if hit.device.type != 'cpu':  # whether any are that small would have to be waited for
        return torch.logsumexp(scaled, 1, keepdim=True) - scaled.gather(1, target)
    result = -hit.log()
    lost = (hit < 1e-30).squeeze(1)
    if lost.any():
        result[lost] = torch.logsumexp(scaled[lost], 1, keepdim=True) - scaled[lost].gather(1, target[lost])
    return result
