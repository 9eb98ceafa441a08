"""Rules that read what layers are fed: the running input power, and INSGD's division by it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from insgd_lab.chain import Batch, Rule, Slot, Tensors, wiring
from insgd_lab.rules.numbers import library, numbers, quietly
from insgd_lab.sensors import InputSensor

__all__ = ["InputPower", "Measuring", "default_eps"]

Readings = Sequence[Tensor | None]


def default_eps(damping: str) -> float:
    """INSGD's floor: 0.01 for the logarithm (Eq. 27-28), 1e-8 for the additive form (Eq. 25)."""
    return 0.01 if damping == "log" else 1e-8


@dataclass(frozen=True)
class Measuring(Rule):
    """A rule that scales the update of every layer by what the layer was fed."""

    sensor: InputSensor = wiring()  # noqa: RUF009 - it makes a dataclass field

    def settings(self, group: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the sensor measures: p, granularity, center, power."""
        raise NotImplementedError

    def join(self, group: Mapping[str, Any]) -> None:
        """Have the sensor watch the layers that own the group's parameters, with the group's settings."""
        self.sensor.watch(group["params"], **self.settings(group))

    def forget(self) -> None:
        """Discard what was measured and no step used."""
        self.sensor.discard()

    def close(self) -> None:
        """Remove the sensor's hooks."""
        self.sensor.close()

    def prepare(self, batches: list[Batch]) -> None:
        """Read every layer's statistic at once, so that data-parallel training needs one collective."""
        measured = [self.sensor.measured(batch.params) for batch in batches]
        params = [batch.params[i] for indices, batch in zip(measured, batches, strict=True) for i in indices]
        stream = iter(self.sensor.read(params))
        for indices, batch in zip(measured, batches, strict=True):
            batch.scratch[type(self).__name__] = {i: next(stream) for i in indices}
            self._warn_unmeasured(batch)

    def readings(self, batch: Batch) -> dict[int, Tensor | None]:
        """By the number in the batch of each watched parameter: the logarithm of its new statistic, if there is one."""
        found: dict[int, Tensor | None] = batch.scratch[type(self).__name__]
        return found

    def _warn_unmeasured(self, batch: Batch) -> None:
        """Name the parameters whose first step finds no measurement."""
        for i, reading in self.readings(batch).items() if batch.begins else ():
            if reading is None:
                warnings.warn(
                    f"{self.sensor.name(batch.params[i])} has a gradient, but its layer's input was not measured; it "
                    "takes scale 1 until it is. Call the layer through the module, in training mode, not its weight "
                    "through a function; make the optimizer before a compiled model is first called",
                    stacklevel=2,
                )


@dataclass(frozen=True)
class InputPower(Measuring):
    """u <- u / f(P), where P is the running power of the input of the layer that owns the parameter.

    P_1 = s_1, P_t = beta P_{t-1} + (1 - beta) s_t; f(P) = max(log P, eps) with ``damping="log"`` and eps + P
    with "additive" (INSGD Algorithm 1, Eq. 25-29). s_t comes from the sensor, see :mod:`insgd_lab.sensors`.

    P is kept as its logarithm (buffer ``log_power``, float64, NaN until the first measurement), so that no
    power of any order overflows. A statistic that is not finite leaves P unchanged; a layer not measured since
    the last step keeps its P; a parameter never measured takes scale 1.
    """

    equation: ClassVar[str] = (
        "P <- beta P + (1 - beta) mean ||x||_p^p, at first P = mean ||x||_p^p;  "
        "u <- u / max(log P, eps)  (damping additive: u / (eps + P))"
    )
    p: float = 2.0
    beta: float = 0.9
    eps: float | None = None
    damping: str = "log"
    granularity: str = "layer"
    center: bool = False
    power: bool = True

    def settings(self, group: Mapping[str, Any]) -> Mapping[str, Any]:
        """The group's own."""
        return {key: group[key] for key in ("p", "granularity", "center", "power")}

    def slots(self, group: Mapping[str, Any]) -> Mapping[str, Slot]:
        """The logarithm of the running power, for parameters whose input can be measured."""
        return {"log_power": self._new_log_power}

    def _new_log_power(self, param: Tensor) -> Tensor:
        return torch.full(self.sensor.shape(param), math.nan, dtype=torch.float64, device=param.device)

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Bring P up to date and divide by f(P)."""
        readings, result = self.readings(batch), list(update)
        if not readings:
            return result
        log_powers = numbers(batch.vector("log_power"), may_look=batch.may_look)
        powers = [batch.state["log_power"][i] for i in readings]
        if any(reading is not None for reading in readings.values()):
            new = _end_to_end(list(readings.values()), powers, may_look=batch.may_look)
            _update_log_powers(log_powers, new, batch.group["beta"])
        scale = _step_scale(log_powers, _floor(batch.group), batch.group["damping"])
        # 1 / (eps + P) may be no float32, but its root is.
        in_halves = batch.group["damping"] == "additive" and (not batch.may_look or scale.max() > 1e30)
        scale = torch.as_tensor(scale)
        products = _multiply([update[i] for i in readings], scale, powers, in_halves=in_halves)
        for i, product in zip(readings, products, strict=True):
            result[i] = product
        self._publish(batch, [batch.params[i] for i in readings], powers, _split(scale, powers))
        return result

    def _publish(self, batch: Batch, params: Tensors, powers: Tensors, scales: Tensors) -> None:
        floor = _floor(batch.group)
        batch.note("input_power", lambda: [(p, v.exp().mean()) for p, v in zip(params, powers, strict=True)])
        batch.note("step_scale", lambda: [(p, v.mean()) for p, v in zip(params, scales, strict=True)])
        if batch.group["damping"] == "log":
            batch.note(
                "clipped",
                lambda: [(p, (v < floor).double().mean()) for p, v in zip(params, powers, strict=True)],
            )


def _floor(group: Mapping[str, Any]) -> float:
    return default_eps(group["damping"]) if group["eps"] is None else group["eps"]


def _multiply(tensors: Tensors, scale: Tensor, like: Tensors, *, in_halves: bool) -> Tensors:
    """Each tensor times its part of ``scale``, twice times its root if asked."""
    factors = _split((scale.sqrt() if in_halves else scale).to(tensors[0].dtype), like)
    products = torch._foreach_mul(tensors, factors)
    return list(torch._foreach_mul(products, factors) if in_halves else products)


def _end_to_end(readings: Readings, powers: Tensors, *, may_look: bool) -> Any:
    """The readings as one vector of numbers, NaN where there is none."""
    if may_look and all(power.ndim == 0 for power in powers):
        return np.array([math.nan if reading is None else reading.item() for reading in readings])
    filled = [
        torch.full_like(power, math.nan) if reading is None else reading
        for power, reading in zip(powers, readings, strict=True)
    ]
    return numbers(torch.cat([reading.reshape(-1) for reading in filled]), may_look=may_look)


def _split(vector: Tensor, like: Tensors) -> Tensors:
    if len(vector) == len(like):
        return list(vector.unbind())
    parts = torch.split(vector, [value.numel() for value in like])
    return [part.view(value.shape) for part, value in zip(parts, like, strict=True)]


def _update_log_powers(old: Any, new: Any, beta: float) -> None:
    """Write log P_t over log P_{t-1}, from the logarithms of the new statistics."""
    where = library(old).where
    with quietly(old):  # NaN and minus infinity are answers here
        mixed = library(old).logaddexp(old + math.log(beta), new + math.log1p(-beta)) if beta > 0 else new
    updated = where(library(old).isnan(old), new, mixed)
    old[...] = where(new < math.inf, updated, old)  # NaN is not less


def _step_scale(log_power: Any, eps: float, damping: str) -> Any:
    where = library(log_power).where
    with quietly(log_power):
        divisor = (
            where(log_power > eps, log_power, eps) if damping == "log" else library(log_power).exp(log_power) + eps
        )
        # f = 0 is additive damping with eps = 0 and no input, so no gradient either: a step of 0, not 0 / 0.
        scale = where(divisor > 0, 1 / divisor, 0.0)
    return where(library(log_power).isnan(log_power), 1.0, scale)
