"""Learning rates as functions of the iteration, with the names and arguments of the published configurations.

    schedule = build_schedule({'policy': 'poly', 'power': 1.0, 'min_lr': 0.0, 'by_epoch': False, 'warmup': 'linear',
                               'warmup_iters': 1500, 'warmup_ratio': 1e-6}, total_iterations=1000, total_epochs=10)
    schedule.rate(6e-5, iteration=0, epoch=0)   # 6e-11

A schedule has no state: whatever the iteration, the rate follows from it, so a resumed run needs no schedule file.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelscope.trainers.lrscheduler.builder import LR_SCHEDULER

from ..config.messages import nearest
from ..config.schema import policy_name
from ..integrations.easycv.bridge import BridgeError, foreign
from .errors import TrainingError

WARMUPS = ('constant', 'linear', 'exp')
Policy = Callable[[float, int, int], float]  # (base rate, progress, total) to rate


@dataclass(frozen=True)
class Schedule:
    """A policy with its warm-up.

    Attributes:
        policy: (base rate, progress, total) to rate; progress and total in iterations, or epochs when `by_epoch`.
        total: iterations or epochs of the whole run.
        by_epoch: the policy's rate changes once an epoch.
        warmup: None, `constant`, `linear` or `exp`.
        warmup_iters: iterations the warm-up takes.
        warmup_ratio: the first rate over the policy's.
    """

    policy: Policy
    total: int
    by_epoch: bool = False
    warmup: str | None = None
    warmup_iters: int = 0
    warmup_ratio: float = 0.1

    def rate(self, base: float, iteration: int, epoch: int) -> float:
        """Return the learning rate of an iteration (counted from 0) in an epoch (from 0) for a group's base rate."""
        rate = self.policy(base, epoch if self.by_epoch else iteration, self.total)
        if self.warmup is None or iteration >= self.warmup_iters:
            return rate
        done = iteration / self.warmup_iters
        if self.warmup == 'constant':
            return rate * self.warmup_ratio
        if self.warmup == 'linear':
            return rate * (1 - (1 - done) * (1 - self.warmup_ratio))
        return rate * self.warmup_ratio ** (1 - done)


def build_schedule(
    section: Mapping[str, Any], total_iterations: int, total_epochs: int, iterations_per_epoch: int | None = None
) -> Schedule | None:
    """Build a schedule from a `train.lr_scheduler` section.

    Args:
        section: `{'policy': 'poly', …}`; `{'type': 'PolyLrUpdaterHook', …}` as the original exported it is the same.
        total_iterations, total_epochs: length of the run.
        iterations_per_epoch: for `warmup_by_epoch`.

    Returns:
        `Schedule`, or None for a policy that is not known here.

    Raises:
        TrainingError: arguments the policy does not take, or an unknown warm-up.
    """
    options = dict(section)
    if not isinstance(options.get('policy'), str | None):
        raise TrainingError(f'train.lr_scheduler.policy is {options["policy"]!r}; expected a name, such as poly')
    name = policy_name(options)
    if name not in POLICIES:
        return None
    for key in ('policy', 'type'):
        options.pop(key, None)
    by_epoch = options.pop('by_epoch', True)
    warmup = {key: options.pop(key) for key in ('warmup', 'warmup_iters', 'warmup_ratio') if key in options}
    warmup = {key: value for key, value in warmup.items() if value is not None}
    if options.pop('warmup_by_epoch', False):
        warmup['warmup_iters'] = warmup.get('warmup_iters', 0) * (iterations_per_epoch or 1)
    if warmup.get('warmup') is None:
        warmup = {}
    elif warmup['warmup'] not in WARMUPS:
        raise TrainingError(f'train.lr_scheduler.warmup is {warmup["warmup"]!r}; accepted: {", ".join(WARMUPS)}, null')
    try:
        policy = POLICIES[name](**options)
    except TypeError as error:
        raise TrainingError(f'train.lr_scheduler: policy "{name}" does not take these arguments ({error})') from None
    return Schedule(policy, total_epochs if by_epoch else total_iterations, by_epoch, **warmup)


def require_known_policy(section: Mapping[str, Any]) -> None:
    """Refuse a `train.lr_scheduler` section that names nothing to schedule by.

    Known are the policies here, those of EasyCV and mmcv where they are installed, and with `type` torch's schedulers.

    Raises:
        TrainingError: the name is known nowhere (the message has the nearest one), or the policy does not take the
            arguments.
    """
    if build_schedule(section, 1, 1) is not None:
        return
    name = section.get('policy', section.get('type'))
    if section.get('policy') is None and not policy_name(section):
        known = LR_SCHEDULER.modules.get('default', {})
        if name not in known:
            raise TrainingError(
                f'train.lr_scheduler names no policy, and type is {name!r}{nearest(str(name), known)}; '
                f'accepted: policy with one of {", ".join(POLICIES)}, or a scheduler of torch as type'
            )
        return
    try:
        foreign('lr_policy', section.get('policy') or policy_name(section))
    except BridgeError as error:
        raise TrainingError(
            f'train.lr_scheduler.policy is {name!r}{nearest(str(name).lower(), POLICIES)}; accepted: '
            f'{", ".join(POLICIES)}, or one of EasyCV or mmcv: {error}'
        ) from None


def _fixed() -> Policy:
    return lambda base, progress, total: base


def _poly(power: float = 1.0, min_lr: float = 0.0) -> Policy:
    return lambda base, progress, total: (base - min_lr) * (1 - min(progress / total, 1)) ** power + min_lr


def _cosine(min_lr: float | None = None, min_lr_ratio: float | None = None) -> Policy:
    def rate(base: float, progress: int, total: int) -> float:
        low = base * min_lr_ratio if min_lr_ratio is not None else (min_lr or 0.0)
        return low + 0.5 * (base - low) * (1 + math.cos(math.pi * min(progress / total, 1)))

    return rate


def _step(step: int | Sequence[int], gamma: float = 0.1, min_lr: float | None = None) -> Policy:
    def rate(base: float, progress: int, total: int) -> float:
        passed = progress // step if isinstance(step, int) else sum(progress >= at for at in step)
        lowered = base * gamma**passed
        return lowered if min_lr is None else max(lowered, min_lr)

    return rate


def _exp(gamma: float) -> Policy:
    return lambda base, progress, total: base * gamma**progress


POLICIES: dict[str, Callable[..., Policy]] = {
    'poly': _poly,
    'fixed': _fixed,
    'cosine': _cosine,
    'step': _step,
    'exp': _exp,
}
