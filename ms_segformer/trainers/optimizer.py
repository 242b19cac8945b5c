"""The optimizer of a configuration, its parameters grouped by learning rate and weight decay.

`paramwise_options` is honored in all dialects a configuration may use:

- `{'custom_keys': {'head': {'lr_mult': 10.0}, 'norm': {'decay_mult': 0.0}}}`: the first key that occurs in a
  parameter's name decides; longer keys come first, keys of one length in alphabetical order (mmcv's rule).
- `bias_lr_mult`, `bias_decay_mult`, `norm_decay_mult`, `dwconv_decay_mult`: mmcv's factors by the kind of layer, for
  parameters that no custom key decides about. (Its `dcn_offset_lr_mult` and `bypass_duplicate` have nothing to act on:
  there is no deformable convolution, and every parameter comes once.)
- `{'(bn|norm)': {'weight_decay_mult': 0.0}}`: regular expressions, all that match apply (EasyCV's rule).

The original dropped `custom_keys` without a word, so its head trained at a tenth of the rate its configuration asks
for. To train as it did, set `train.optimizer.paramwise_options` to null.
"""

import inspect
import math
import re
from collections.abc import Mapping
from typing import Any

import torch

from ..config.messages import nearest, shown
from ..config.schema import PARAMWISE
from ..integrations.easycv import bridge
from .errors import TrainingError

_NORMS = (
    torch.nn.modules.batchnorm._BatchNorm,
    torch.nn.modules.instancenorm._InstanceNorm,
    torch.nn.GroupNorm,
    torch.nn.LayerNorm,
)
# SparseAdam takes sparse gradients only, and LBFGS evaluates the loss itself.
OPTIMIZERS = {
    name: cls
    for name, cls in vars(torch.optim).items()
    if inspect.isclass(cls)
    and issubclass(cls, torch.optim.Optimizer)
    and cls is not torch.optim.Optimizer
    and name not in ('SparseAdam', 'LBFGS')
}


def parameter_groups(
    model: torch.nn.Module, lr: float, weight_decay: float | None, paramwise_options: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Group a model's trainable parameters by learning rate and weight decay.

    Args:
        model: a module.
        lr, weight_decay: the values without any multiplier; `weight_decay` may be None.
        paramwise_options: see the module; None for a single group.

    Returns:
        List of groups `{'params', 'names', 'lr', 'weight_decay'}`; `names` are the parameters' names in order.

    Raises:
        TrainingError: a multiplier that is not known.
    """
    groups: dict[tuple[float, float | None], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = model.get_submodule(name.rpartition('.')[0])
        rate, decay = _multiplied(name, layer, lr, weight_decay, paramwise_options or {})
        group = groups.setdefault((rate, decay), {'params': [], 'names': [], 'lr': rate, 'weight_decay': decay})
        group['params'].append(parameter)
        group['names'].append(name)
    for group in groups.values():
        if group['weight_decay'] is None:
            del group['weight_decay']
    return list(groups.values())


def _multiplied(
    name: str, layer: torch.nn.Module, lr: float, weight_decay: float | None, options: Mapping[str, Any]
) -> tuple[float, float | None]:
    """The rate and the decay of a parameter."""
    custom = options.get('custom_keys') or {}
    chosen = []
    for key in sorted(sorted(custom), key=len, reverse=True):
        if key in name:
            chosen.append(custom[key])
            break
    else:
        chosen.append(_of_its_kind(name, layer, options))
    for pattern, multipliers in options.items():
        if pattern != 'custom_keys' and pattern not in PARAMWISE and _matches(pattern, name):
            chosen.append(multipliers)
    for multipliers in chosen:
        for key, factor in multipliers.items():
            if key == 'lr_mult':
                lr = lr * factor
            elif key in ('decay_mult', 'weight_decay_mult'):
                weight_decay = None if weight_decay is None else weight_decay * factor
            else:
                raise TrainingError(
                    f'train.optimizer.paramwise_options: unknown multiplier "{key}"; known: lr_mult, decay_mult'
                )
    return lr, weight_decay


def _of_its_kind(name: str, layer: torch.nn.Module, options: Mapping[str, Any]) -> dict[str, float]:
    """mmcv's multipliers for a parameter by the layer that it belongs to."""
    bias = name.rpartition('.')[2] == 'bias'
    if isinstance(layer, _NORMS):
        return {'decay_mult': _factor(options, 'norm_decay_mult')}
    found = {'lr_mult': _factor(options, 'bias_lr_mult')} if bias else {}
    if isinstance(layer, torch.nn.Conv2d) and layer.in_channels == layer.groups:
        return {**found, 'decay_mult': _factor(options, 'dwconv_decay_mult')}
    return {**found, 'decay_mult': _factor(options, 'bias_decay_mult')} if bias else found


def _factor(options: Mapping[str, Any], key: str) -> float:
    return 1.0 if options.get(key) is None else options[key]


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error as error:
        raise TrainingError(
            f'train.optimizer.paramwise_options: {pattern!r} is no regular expression ({error})'
        ) from None


def require_rate(rate: Any) -> None:
    """Refuse what is no learning rate.

    Raises:
        TrainingError: it is no number, or none of at least 0.
    """
    if not isinstance(rate, (int, float)) or isinstance(rate, bool) or not 0 <= rate < math.inf:
        raise TrainingError(f'train.optimizer.lr is {shown(rate)}; expected a number of at least 0')


def require_known_optimizer(name: Any) -> None:
    """Refuse what is no optimizer.

    Args:
        name: of a class of `torch.optim`, or of an optimizer that EasyCV or mmcv registered, where they are installed.

    Raises:
        TrainingError: it is neither; the message has the nearest name.
    """
    if isinstance(name, str) and name in OPTIMIZERS:
        return
    try:
        cls = bridge.foreign('optimizer', name) if isinstance(name, str) else None
        reason = 'this is not the name of an optimizer'
    except bridge.BridgeError as error:
        cls, reason = None, str(error)
    if not (inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer)):
        raise TrainingError(
            f'train.optimizer.type is {name!r}{nearest(str(name), OPTIMIZERS)}; accepted: '
            f'{", ".join(sorted(OPTIMIZERS))}, or one of EasyCV or mmcv: {reason}'
        )


def build_optimizer(
    section: Mapping[str, Any], model: torch.nn.Module, device_type: str = 'cpu'
) -> torch.optim.Optimizer:
    """Build the optimizer of a `train.optimizer` section.

    Args:
        section: `{'type': 'AdamW', 'lr': …, 'weight_decay': …, 'paramwise_options': …}`; `type` is a class of
            `torch.optim`, or one that EasyCV or mmcv registered, where they are installed.
        model: the module whose parameters it trains.
        device_type: `cpu` or `cuda`; the fused implementation is used where torch has one for it.

    Raises:
        TrainingError: unknown type or arguments.
    """
    options: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in section.items()
    }
    name = options.pop('type', 'AdamW')
    options.pop('options', None)
    paramwise = options.pop('paramwise_options', None) or options.pop('paramwise_cfg', None)
    require_rate(options.get('lr'))
    require_known_optimizer(name)
    groups = parameter_groups(model, options['lr'], options.get('weight_decay'), paramwise)
    if not groups:
        raise TrainingError('the model has no trainable parameter')
    cls = OPTIMIZERS.get(name)
    if cls is None:
        return bridge.build_optimizer({'type': name, **options}, groups)
    if 'fused' not in options and _has_fused(cls, device_type):
        options['fused'] = True
    try:
        return cls(groups, **options)
    except (TypeError, ValueError) as error:
        raise TrainingError(f'train.optimizer: {name} does not take these arguments ({error})') from None


def _has_fused(cls: type[torch.optim.Optimizer], device_type: str) -> bool:
    if 'fused' not in inspect.signature(cls).parameters:
        return False
    version = tuple(int(part) for part in torch.__version__.split('.')[:2])
    return device_type == 'cuda' and torch.cuda.is_available() or device_type == 'cpu' and version >= (2, 4)


def as_its_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Give what an optimizer has gathered, once loaded, the memory layout of its parameters.

    torch does so with type and device only. Its fused optimizers go through memory, not through indices: with other
    strides they raise an error on a GPU, and on a CPU mix up the values.
    """
    for group in optimizer.param_groups:
        for parameter in group['params']:
            values: Any = optimizer.state.get(parameter)
            if not isinstance(values, dict):
                continue
            for name, value in values.items():
                if not isinstance(value, torch.Tensor):
                    continue
                if value.shape == parameter.shape and value.stride() != parameter.stride():
                    values[name] = laid_out_as(parameter, value)
                elif name == 'step' and group.get('fused'):  # loaded as the saved group had it, fused or not
                    values[name] = value.to(parameter.device, torch.float32)


def laid_out_as(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A copy of a tensor on a parameter's device, with its strides."""
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def loss_scaler(device_type: str) -> 'torch.amp.GradScaler':  # a name that torch has since 2.3
    """What keeps float16 gradients within their range; on another device than a GPU it changes nothing."""
    enabled = device_type == 'cuda'
    if hasattr(torch.amp, 'GradScaler'):
        return torch.amp.GradScaler(device_type, enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled)
