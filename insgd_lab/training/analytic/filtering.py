"""System identification: the adaptive-filter setting that INSGD comes from (its Section 1.2), online, a sample a step.

An unknown FIR system w_o answers to a signal u, and an adaptive filter, the model `linear` without a bias, follows:

    u_t = colour u_{t-1} + sqrt(1 - colour^2) n_t          a coloured signal of unit power
    x_t = (u_t, u_{t-1}, ..., u_{t-taps+1})                what the filter is fed
    w_o <- w_o + drift q_t                                 a random walk, if the system drifts
    d_t = w_o x_t + v_t                                    what it should have answered, with noise

with n_t, q_t (for each coefficient) and v_t independent and normal. The signal and the walk go on from epoch to epoch;
an epoch is only how often one looks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from insgd_lab.training.analytic.regression import (
    EVALUATED,
    SQUARED_ERROR,
    MeanLoss,
    frozen,
    share,
)
from insgd_lab.training.streams import generator

if TYPE_CHECKING:
    from insgd_lab.training.feeds import BatchPlan

__all__ = ["SystemIdentification", "misalignment", "system_identification"]


def system_identification(
    data_dir: Path | str | None = None,
    taps: int = 32,
    colour: float = 0.0,
    snr: float = 30.0,
    drift: float = 0.0,
    samples: int = 1000,
    regressors: str = "delay-line",
) -> SystemIdentification:
    """An FIR system of unit norm to be identified, the same for all seeds; the signal and the noise are the seed's.

    Args:
        data_dir: not used.
        taps: number of coefficients.
        colour: the pole of the signal's AR(1) process, above -1 and below 1; 0 is white.
        snr: power of the system's first answer over that of the noise, in dB; infinite for no noise.
        drift: standard deviation of each coefficient's move before every sample.
        samples: in an epoch.
        regressors: "delay-line", the last values of one signal, as above; or "independent", each sample the last
            values of a signal of its own, as the textbooks' analysis assumes.
    """
    return SystemIdentification(taps, colour, snr, drift, samples, regressors)


@dataclass(eq=False)
class SystemIdentification:
    """The task; its attributes are those of `system_identification`."""

    taps: int = 32
    colour: float = 0.0
    snr: float = 30.0
    drift: float = 0.0
    samples: int = 1000
    regressors: str = "delay-line"
    name: str = "system-identification"
    classes: int = 1
    """Outputs of the model: the filter's answer."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The last inputs, newest first."""
        return (self.taps,)

    def feed(self, plan: BatchPlan) -> IdentificationFeed:
        """The batches of a run."""
        return IdentificationFeed(self, plan)

    def objective(self, label_smoothing: float = 0.0) -> MeanLoss:
        """Half the squared error; there are no labels to smooth."""
        return SQUARED_ERROR

    def system(self) -> Tensor:
        """The coefficients before any drift: of unit norm, float64 [taps]."""
        system = torch.from_numpy(frozen(f"system of {self.taps} taps").standard_normal(self.taps))
        unit: Tensor = system / torch.linalg.vector_norm(system)
        return unit

    def noise(self) -> float:
        """Standard deviation of v."""
        lags = torch.arange(self.taps)
        correlation = torch.tensor(self.colour, dtype=torch.float64) ** (lags[:, None] - lags).abs()
        power = float(self.system() @ correlation @ self.system())
        return math.sqrt(power / 10 ** (self.snr / 10))

    def signal(self, white: Tensor, last: float | None = None) -> Tensor:
        """The AR(1) process that white noise drives, going on from its `last` value if there is one.

        Without one it starts with the first of the noise, which has its power already. Float64 [len(white)].
        """
        gain = math.sqrt(1 - self.colour**2)
        values = itertools.accumulate(white.tolist(), lambda u, n: self.colour * u + gain * n, initial=last)
        return torch.tensor(list(values)[-len(white) :], dtype=torch.float64)

    def windows(self, signal: Tensor) -> Tensor:
        """The inputs of the filter, [samples, taps], newest first, from [samples + taps - 1] values of the signal."""
        return signal.unfold(0, self.taps, 1).flip(1).float()

    def fresh(self, white: Tensor) -> Tensor:
        """Inputs of the filter that have no value in common, [samples, taps], from as many normal numbers."""
        gain, values = math.sqrt(1 - self.colour**2), [white[:, 0]]
        for k in range(1, self.taps):
            values.append(self.colour * values[-1] + gain * white[:, k])
        return torch.stack(values, 1).float()

    def held_out(self, split: str) -> Tensor:
        """The fixed inputs of a validation or test split, [1000, taps]."""
        white = torch.from_numpy(frozen(f"{split} signal").standard_normal(EVALUATED + self.taps - 1))
        return self.windows(self.signal(white))


@dataclass(frozen=True)
class _Epoch:
    """What is fed in one epoch: inputs and answers, and the system at each sample."""

    inputs: Tensor  # float32 [samples, taps]
    desired: Tensor  # float32 [samples, 1]
    systems: Tensor  # float64 [samples, taps]


class IdentificationFeed:
    """The signal of one run in the order of time; `system` is w_o [taps] at the last sample that was fed."""

    def __init__(self, task: SystemIdentification, plan: BatchPlan) -> None:
        self.task, self.plan = task, plan
        self.system = task.system()
        self._starts = [(self.system, task.signal(self._normal("signal before epoch 1", task.taps)))]
        """For each epoch from the first, the system and the last inputs (oldest first) before it."""
        self._held_out = {split: task.held_out(split) for split in ("val", "test")}

    @property
    def examples(self) -> int:
        """Samples in an epoch."""
        return self.task.samples

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, from number `first` on."""
        fed, size = self._epoch(epoch), self.plan.batch_size
        for start in range(first * size, self.examples, size):
            rows = slice(start, start + size)
            self.system = fed.systems[rows][-1]
            yield share(self.plan, fed.inputs[rows], fed.desired[rows])

    def evaluate(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Fixed inputs of the split, and the present system's answers without noise."""
        inputs, size = self._held_out[split], self.plan.eval_batch_size
        desired = (inputs.double() @ self.system)[:, None].float()
        for batch in zip(torch.split(inputs, size), torch.split(desired, size), strict=True):
            yield share(self.plan, *batch)

    def inspect(self, model: nn.Module) -> dict[str, float]:
        """The misalignment of the model's impulse response with the present system."""
        return {"misalignment": misalignment(impulse_response(model, self.task.taps, self.plan.device), self.system)}

    def _epoch(self, epoch: int) -> _Epoch:
        for earlier in range(len(self._starts), epoch):
            self._sampled(earlier)
        return self._sampled(epoch)

    def _sampled(self, epoch: int) -> _Epoch:
        """Draw an epoch whose start is known, and note where the next one starts."""
        task, (system, before) = self.task, self._starts[epoch - 1]
        signal = task.signal(self._normal(f"signal, epoch {epoch}", task.samples), float(before[-1]))
        inputs = task.windows(torch.cat([before[1:], signal]))
        if task.regressors == "independent":
            inputs = task.fresh(self._normal(f"regressors, epoch {epoch}", task.samples, task.taps))
        systems = system.expand(task.samples, -1)
        if task.drift:
            systems = system + task.drift * self._normal(f"drift, epoch {epoch}", task.samples, task.taps).cumsum(0)
        noise = task.noise() * self._normal(f"noise, epoch {epoch}", task.samples)
        desired = (inputs.double() * systems).sum(1) + noise
        if epoch == len(self._starts):
            # A copy: a row would keep the systems of the whole epoch.
            self._starts.append((systems[-1].clone(), torch.cat([before, signal])[-task.taps :]))
        return _Epoch(inputs, desired[:, None].float(), systems)

    def _normal(self, purpose: str, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator(self.plan.seed, purpose), dtype=torch.float64)


@torch.no_grad()
def impulse_response(model: nn.Module, taps: int, device: str | torch.device) -> Tensor:
    """What the model answers to each input being 1 alone, beyond its answer to none: a linear filter's weights [taps].

    Float64, on the CPU.
    """
    probes = torch.cat([torch.zeros(1, taps), torch.eye(taps)]).to(device)
    answers: Tensor = model(probes).double().cpu().flatten()
    return answers[1:] - answers[0]


def misalignment(weights: Tensor, system: Tensor) -> float:
    """||w - w_o||^2 / ||w_o||^2 in dB; minus infinity where they are equal."""
    return float(20 * torch.log10(torch.linalg.vector_norm(weights - system) / torch.linalg.vector_norm(system)))
