"""Rules that scale each parameter tensor (or each input channel of it) by one number.

The numbers of all tensors of a batch are computed together, as one float64 vector.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from insgd_lab.chain import Batch, Rule, Slot, Tensors, wiring
from insgd_lab.sensors import InputSensor

__all__ = ["InputPower", "NormCorrection", "default_eps"]


def default_eps(damping: str) -> float:
    """INSGD's floor: 0.01 for the logarithm (Eq. 27-28), 1e-8 for the additive form (Eq. 25)."""
    return 0.01 if damping == "log" else 1e-8


def _flatten(values: Tensors) -> Tensor:
    if all(value.ndim == 0 for value in values):
        return torch.stack(values)
    return torch.cat([value.reshape(-1) for value in values])


def _split(vector: Tensor, like: Tensors) -> Tensors:
    if len(vector) == len(like) and all(value.ndim == 0 for value in like):
        return list(vector.unbind())
    parts = torch.split(vector, [value.numel() for value in like])
    return [part.view(value.shape) for part, value in zip(parts, like, strict=True)]


@dataclass(frozen=True)
class InputPower(Rule):
    """u <- u / f(P), where P is the running power of the input of the layer that owns the parameter.

    P_1 = s_1, P_t = beta P_{t-1} + (1 - beta) s_t; f(P) = max(log P, eps) with ``damping="log"`` and eps + P
    with "additive" (INSGD Algorithm 1, Eq. 25-29). s_t comes from the sensor, see :mod:`insgd_lab.sensors`.

    P is kept as its logarithm (buffer ``log_power``, float64, NaN until the first measurement), so that no
    power of any order overflows. A statistic that is not finite leaves P unchanged; a layer not measured since
    the last step keeps its P; a parameter never measured takes scale 1.
    """

    sensor: InputSensor = wiring()  # noqa: RUF009 - it makes a dataclass field
    p: float = 2.0
    beta: float = 0.9
    eps: float | None = None
    damping: str = "log"
    granularity: str = "layer"
    center: bool = False
    power: bool = True

    def join(self, group: Mapping[str, Any]) -> None:
        """Have the sensor watch the layers that own the group's parameters, with the group's settings."""
        settings = {key: group[key] for key in ("p", "granularity", "center", "power")}
        self.sensor.watch(group["params"], **settings)

    def forget(self) -> None:
        """Discard what was measured and no step used."""
        self.sensor.discard()

    def close(self) -> None:
        """Remove the sensor's hooks."""
        self.sensor.close()

    def run(self, updates: list[Tensors], batches: list[Batch]) -> list[Tensors]:
        """Read every layer's statistic at once, so that data-parallel training needs one collective."""
        measured = [[i for i, v in enumerate(batch.state["log_power"]) if v.numel()] for batch in batches]
        params = [batch.params[i] for indices, batch in zip(measured, batches, strict=True) for i in indices]
        stream = iter(self.sensor.read(params))
        readings = [[next(stream) for _ in indices] for indices in measured]
        self._warn_unmeasured(batches, measured, readings)
        return [self._scale(*each) for each in zip(updates, batches, measured, readings, strict=True)]

    def slots(self, group: Mapping[str, Any]) -> Mapping[str, Slot]:
        """The logarithm of the running power, for parameters whose input can be measured."""
        return {"log_power": self._new_log_power}

    def _new_log_power(self, param: Tensor) -> Tensor:
        return torch.full(self.sensor.shape(param), math.nan, dtype=torch.float64, device=param.device)

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """One batch by itself."""
        return self.run([update], [batch])[0]

    def _scale(self, update: Tensors, batch: Batch, measured: list[int], readings: Sequence[Tensor | None]) -> Tensors:
        scaled = list(update)
        if not measured:
            return scaled
        powers = [batch.state["log_power"][i] for i in measured]
        log_power = _next_log_power(powers, readings, batch.group["beta"])
        torch._foreach_copy_(powers, _split(log_power, powers))
        eps, damping = batch.group["eps"], batch.group["damping"]
        scale = _step_scale(log_power, default_eps(damping) if eps is None else eps, damping)
        scales = _split(scale.to(update[measured[0]].dtype), powers)
        products = torch._foreach_mul([update[i] for i in measured], scales)
        for i, product in zip(measured, products, strict=True):
            scaled[i] = product
        self._publish(batch, [batch.params[i] for i in measured], powers, scales)
        return scaled

    def _publish(self, batch: Batch, params: Tensors, powers: Tensors, scales: Tensors) -> None:
        eps = batch.group["eps"]
        floor = default_eps(batch.group["damping"]) if eps is None else eps
        batch.note("input_power", lambda: [(p, v.exp().mean()) for p, v in zip(params, powers, strict=True)])
        batch.note("step_scale", lambda: [(p, v.mean()) for p, v in zip(params, scales, strict=True)])
        if batch.group["damping"] == "log":
            batch.note(
                "clipped",
                lambda: [(p, (v < floor).double().mean()) for p, v in zip(params, powers, strict=True)],
            )

    def _warn_unmeasured(
        self, batches: list[Batch], measured: list[list[int]], readings: list[list[Tensor | None]]
    ) -> None:
        """Name the parameters whose first step finds no measurement."""
        for batch, indices, read in zip(batches, measured, readings, strict=True):
            silent = [i for i, reading in zip(indices, read, strict=True) if reading is None]
            for i in silent if "log_power" in batch.fresh else ():
                warnings.warn(
                    f"{self.sensor.name(batch.params[i])} has a gradient, but its layer's input was not measured; it "
                    "takes scale 1 until it is. Call the layer through the module, in training mode, not its weight "
                    "through a function",
                    stacklevel=2,
                )


def _next_log_power(powers: Tensors, readings: Sequence[Tensor | None], beta: float) -> Tensor:
    """The logarithm of P_t of every tensor as one vector, from log P_{t-1} and the logarithms of the new statistics."""
    if all(reading is None for reading in readings):
        return _flatten(powers)
    filled = [
        torch.full_like(power, math.nan) if reading is None else reading
        for power, reading in zip(powers, readings, strict=True)
    ]
    old, new = _flatten(powers), _flatten(filled)
    mixed = torch.logaddexp(old + math.log(beta), new + math.log1p(-beta)) if beta > 0 else new
    updated = torch.where(old.isnan(), new, mixed)
    return torch.where(new.isnan() | new.isposinf(), old, updated)


def _step_scale(log_power: Tensor, eps: float, damping: str) -> Tensor:
    divisor = log_power.clamp(min=eps) if damping == "log" else log_power.exp() + eps
    return torch.where(log_power.isnan(), 1.0, divisor.reciprocal())


@dataclass(frozen=True)
class NormCorrection(Rule):
    """e <- gamma e + (1 - gamma) ||g||;  u <- u max(1, e / ||g||)  (AdaNorm Eq. 2-4).

    The norm is taken per parameter tensor, of the update as it arrives here, in float64, so that gradients
    of 1e30 and 1e-30 have one. A zero update stays zero.
    """

    gamma: float = 0.95

    def slots(self, group: Mapping[str, Any]) -> Mapping[str, Slot]:
        """The running mean of the norm."""
        return {"exp_avg_norm": lambda param: torch.zeros((), dtype=torch.float64, device=param.device)}

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Raise each tensor to at least the running norm of its past."""
        gamma, averages = batch.group["gamma"], batch.state["exp_avg_norm"]
        norm = torch.stack(torch._foreach_norm(update, 2, dtype=torch.float64))
        average = torch.stack(averages).mul_(gamma).add_(norm, alpha=1 - gamma)
        torch._foreach_copy_(averages, list(average.unbind()))
        gain = torch.where((average > norm) & (norm > 0), average / norm, 1.0)
        batch.note("norm_gain", lambda: zip(batch.params, gain.unbind(), strict=True))
        return _multiply(update, gain)


def _multiply(update: Tensors, gain: Tensor) -> Tensors:
    """Each tensor times its gain. A gain of 1e40 is no float32, but its root is: then in two halves."""
    if gain.device.type == "cpu" and gain.max() < 1e30:  # looking is free on a CPU, and would wait for a GPU
        return list(torch._foreach_mul(update, gain.tolist()))
    root = gain.sqrt()
    half = torch._foreach_mul(update, list(root.unbind()))
    return list(torch._foreach_mul(half, list((gain / root).unbind())))
