"""The learning rate of each step, as a function of the step's number alone: there is no state to keep.

schedule = Schedule(spec.train.schedule, optimizer, steps_per_epoch=352, epochs=200)
for step in range(200 * 352):
    schedule.set(step)
    ...
    optimizer.step()
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from insgd_lab.config import ScheduleSpec

__all__ = ["Schedule"]


class Schedule:
    """Sets an optimizer's learning rates, and betas where asked to; see `ScheduleSpec` for the schedules.

    Args:
        spec: which schedule.
        optimizer: its groups' values now, before any state is loaded, are what the schedule multiplies.
        steps_per_epoch: optimizer steps.
        epochs: of the whole run.

    A constant schedule without warm-up never touches the optimizer, which may have a mind of its own.
    """

    def __init__(self, spec: ScheduleSpec, optimizer: torch.optim.Optimizer, steps_per_epoch: int, epochs: int) -> None:
        self._spec, self._optimizer, self._steps_per_epoch = spec, optimizer, steps_per_epoch
        # Whoever asks for a warm-up has one, of a single step if need be.
        self._warmup = max(round(spec.warmup * steps_per_epoch), 1 if spec.warmup > 0 else 0)
        self._rest = max(epochs * steps_per_epoch - self._warmup, 1)  # steps after the warm-up
        changed, groups = spec.needs(), optimizer.param_groups
        self._rates = [float(group["lr"]) for group in groups] if "lr" in changed else []
        self._beta1s = [float(group["betas"][0]) for group in groups] if "betas" in changed else []

    def set(self, step: int) -> None:
        """Set the values for the step that follows `step` completed ones."""
        factors = self._factors(step)
        # strict=False: what the schedule leaves alone has no values here.
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=False):
            _set_rate(group, _times(rate, factors))
        decay = self._spec.beta1_decay ** max(step - self._warmup, 0)
        for group, beta1 in zip(self._optimizer.param_groups, self._beta1s, strict=False):
            _set_beta1(group, beta1 * decay)

    def _factors(self, step: int) -> Sequence[float]:
        """What the learning rate is multiplied by, one after the other: torch's own rounding where it decays."""
        after = step - self._warmup
        if after < 0:
            return [(step + 1) / self._warmup]
        epoch, spec = step // self._steps_per_epoch, self._spec
        match spec.name:
            case "multi-step":
                return [spec.gamma] * sum(milestone <= epoch for milestone in spec.milestones)
            case "step":
                return [spec.gamma] * (epoch // (spec.step_size or 1))
            case "cosine":
                return [_cosine(after, self._rest, spec.floor)]
            case "cosine-restarts":
                return [_cosine(*self._in_period(after), spec.floor)]
            case "inverse-sqrt":
                return [1 / math.sqrt(after + 1)]
        return []

    def _in_period(self, step: int) -> tuple[int, int]:
        """How many steps of the present period are completed, and how many it has."""
        length = (self._spec.period or 1) * self._steps_per_epoch
        if self._spec.period_factor == 1:
            return step % length, length
        while step >= length:
            step -= length
            length *= self._spec.period_factor
        return step, length


def _times(value: float, factors: Sequence[float]) -> float:
    for factor in factors:
        value *= factor
    return value


def _cosine(step: int, steps: int, floor: float) -> float:
    """From 1 at step 0 down to `floor` after `steps`."""
    return floor + (1 - floor) * (1 + math.cos(math.pi * min(step, steps) / steps)) / 2


def _set_rate(group: dict[str, Any], value: float) -> None:
    """In place where it is a tensor, which a captured step goes on reading."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(value)
    else:
        group["lr"] = value


def _set_beta1(group: dict[str, Any], value: float) -> None:
    first, *others = group["betas"]
    if isinstance(first, Tensor):
        first.fill_(value)
    else:
        group["betas"] = (value, *others)
