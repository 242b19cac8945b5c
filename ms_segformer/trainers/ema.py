"""Exponential moving average of a model's weights."""

from copy import deepcopy

import torch


class ModelEma:
    """A copy of a model whose weights follow it slowly; it is what gets evaluated and saved.

    Args:
        model: the model to follow.
        decay: share of the old average that one step keeps; in the first steps less, so that the random start is
            forgotten: (1 + steps) / (10 + steps) at most.

    Attributes:
        model: the averaged model.
    """

    def __init__(self, model: torch.nn.Module, decay: float = 0.999) -> None:
        self.decay, self.steps = decay, 0
        self.model = deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def restart(self, model: torch.nn.Module) -> None:
        """Begin anew at the weights of a model."""
        self.steps = 0
        self.model.load_state_dict(model.state_dict())

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        """Follow one optimizer step."""
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        current = model.state_dict()
        averages, values = [], []
        for key, average in self.model.state_dict().items():
            if average.is_floating_point():
                averages.append(average)
                values.append(current[key].detach())
            else:
                average.copy_(current[key])
        torch._foreach_lerp_(averages, values, share)
