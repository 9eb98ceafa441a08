"""Sequences of convex losses on the box [-1, 1]^d, one for each seed, played by all rules alike.

>>> game = SEQUENCES["periodic"](rounds=6, seeds=[0], C=3.0)
>>> game.losses[:, 0, 0].tolist()                       # C x, -x, -x, over and over: least at x = -1
[3.0, -1.0, -1.0, 3.0, -1.0, -1.0]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor

from insgd_lab.training.streams import generator

__all__ = ["SEQUENCES", "Game", "Linear", "Logistic", "Quadratic", "starts"]

Array = NDArray[np.float64]
_ROUGHLY = 1e-10  # of a comparator found by iteration, relative to its value


class Game(Protocol):
    """Losses f_1 … f_T of several seeds at once; points are [seeds, d]."""

    @property
    def dimension(self) -> int:
        """Of a point."""

    def play(self, round: int, points: Tensor) -> tuple[Tensor, Tensor]:
        """The losses of a round (from 0), [seeds], and their gradients, [seeds, d], at the points."""

    def least(self, rounds: int) -> Array:
        """What the best point of the box, chosen in hindsight, loses in the first `rounds` rounds; [seeds]."""

    def bounds(self) -> tuple[Array, Array]:
        """G and G_inf: the largest ||g||_2 and ||g||_inf over all rounds and the box, [seeds] each."""


@dataclass(frozen=True)
class Linear:
    """f_t(x) = c_t . x; `losses` are the c_t, float64 [rounds, seeds, d]."""

    losses: Tensor

    @property
    def dimension(self) -> int:
        """Of a point."""
        return self.losses.shape[2]

    def play(self, round: int, points: Tensor) -> tuple[Tensor, Tensor]:
        """As in `Game`."""
        slope = self.losses[round]
        return (slope * points).sum(1), slope

    def least(self, rounds: int) -> Array:
        """As in `Game`: at a corner."""
        total: Array = -self.losses[:rounds].sum(0).abs().sum(1).numpy()
        return total

    def bounds(self) -> tuple[Array, Array]:
        """As in `Game`."""
        return self.losses.norm(dim=2).amax(0).numpy(), self.losses.abs().amax((0, 2)).numpy()


@dataclass(frozen=True)
class Quadratic:
    """f_t(x) = sum h_i (x_i - z_ti)^2 / 2 with curvatures `h` [d] and minima `z` [rounds, seeds, d] in the box."""

    h: Tensor
    z: Tensor

    @property
    def dimension(self) -> int:
        """Of a point."""
        return len(self.h)

    def play(self, round: int, points: Tensor) -> tuple[Tensor, Tensor]:
        """As in `Game`."""
        away = points - self.z[round]
        slope = self.h * away
        return (slope * away).sum(1) / 2, slope

    def least(self, rounds: int) -> Array:
        """As in `Game`: at the mean of the minima, which is in the box."""
        away = self.z[:rounds].mean(0) - self.z[:rounds]
        total: Array = (self.h * away.square()).sum((0, 2)).numpy() / 2
        return total

    def bounds(self) -> tuple[Array, Array]:
        """As in `Game`: in the corner that is farthest from the minimum."""
        steepest = self.h * (1 + self.z.abs())
        return steepest.norm(dim=2).amax(0).numpy(), steepest.amax((0, 2)).numpy()


@dataclass(frozen=True)
class Logistic:
    """f_t(x) = log(1 + exp(-a_t . x)); `a`, the features times the label, is [rounds, seeds, d]."""

    a: Tensor

    @property
    def dimension(self) -> int:
        """Of a point."""
        return self.a.shape[2]

    def play(self, round: int, points: Tensor) -> tuple[Tensor, Tensor]:
        """As in `Game`."""
        a = self.a[round]
        margin = (a * points).sum(1)
        return torch.nn.functional.softplus(-margin), -a * torch.sigmoid(-margin)[:, None]

    def least(self, rounds: int) -> Array:
        """As in `Game`, by L-BFGS-B."""
        return np.array([_least_logistic(self.a[:rounds, k].numpy()) for k in range(self.a.shape[1])])

    def bounds(self) -> tuple[Array, Array]:
        """As in `Game`: in the corner where the example is most in the wrong."""
        share = torch.sigmoid(self.a.abs().sum(2))
        norm, largest = self.a.norm(dim=2) * share, self.a.abs().amax(2) * share
        return norm.amax(0).numpy(), largest.amax(0).numpy()


def _least_logistic(a: Array) -> float:
    """The least sum of log(1 + exp(-a_t . x)) over the box."""

    def total(x: Array) -> tuple[float, Array]:
        margin = a @ x
        return float(np.logaddexp(0, -margin).mean()), -(a / (1 + np.exp(margin))[:, None]).mean(0)

    box = [(-1.0, 1.0)] * a.shape[1]
    found = optimize.minimize(
        total, np.zeros(a.shape[1]), jac=True, bounds=box, method="L-BFGS-B", options={"ftol": _ROUGHLY, "gtol": 1e-9}
    )
    return float(found.fun) * len(a)


# ------------------------------------------------------------------------------------------------ the sequences


def _drawn(seeds: Sequence[int], purpose: str, *shape: int) -> Tensor:
    """Numbers evenly from [-1, 1], [shape[0], seeds, shape[1:]], each seed's from a stream of its own."""
    each = [torch.rand(*shape, generator=generator(seed, purpose), dtype=torch.float64) for seed in seeds]
    return 2 * torch.stack(each, 1) - 1


def _linear(rounds: int, seeds: Sequence[int], dimension: int = 10, drift: float = 0.1) -> Linear:
    """Slopes evenly from a box of width 2 about a mean of +-`drift` in every coordinate."""
    signs = _drawn(seeds, "theory, drift", 1, dimension).sign()
    return Linear(drift * signs + _drawn(seeds, "theory, slopes", rounds, dimension))


def _quadratic(rounds: int, seeds: Sequence[int], dimension: int = 10, condition: float = 100.0) -> Quadratic:
    """Curvatures from 1 / `condition` to 1; minima within 1/2 of a centre that is within 1/2 of the origin."""
    h = condition ** torch.linspace(-1, 0, dimension, dtype=torch.float64)
    centre = _drawn(seeds, "theory, centre", 1, dimension) / 2
    return Quadratic(h, centre + _drawn(seeds, "theory, minima", rounds, dimension) / 2)


def _logistic(rounds: int, seeds: Sequence[int], dimension: int = 10, flipped: float = 0.1) -> Logistic:
    """Labels by a plane through the origin, a share of them `flipped`."""
    features = _drawn(seeds, "theory, features", rounds, dimension)
    plane = _drawn(seeds, "theory, plane", 1, dimension)
    labels = (features * plane).sum(2, keepdim=True).sign()
    wrong = _drawn(seeds, "theory, flips", rounds, 1) < 2 * flipped - 1
    return Logistic(features * torch.where(wrong, -labels, labels))


def _periodic(rounds: int, seeds: Sequence[int], C: float, period: int = 3, scale: float = 1.0) -> Linear:  # noqa: N803 (theirs)
    """C x at rounds 1, 1 + period, …, and -x at all others (Reddi, Kale and Kumar 2018, Theorems 1 and 2)."""
    slopes = torch.full((rounds, len(seeds), 1), -scale, dtype=torch.float64)
    slopes[::period] = C * scale
    return Linear(slopes)


def _chance(rounds: int, seeds: Sequence[int], C: float, delta: float) -> Linear:  # noqa: N803
    """C x with the chance (1 + `delta`) / (C + 1), else -x (Reddi, Kale and Kumar 2018, Theorem 3)."""
    share = (1 + delta) / (C + 1)
    rare = (_drawn(seeds, "theory, chance", rounds, 1) + 1) / 2 < share
    return Linear(torch.where(rare, C, -1.0).double())


SEQUENCES: Mapping[str, Callable[..., Game]] = {
    "linear": _linear,
    "quadratic": _quadratic,
    "logistic": _logistic,
    "periodic": _periodic,
    "chance": _chance,
}
"""By kind, a function of rounds, seeds and options that makes the losses."""


def starts(seeds: Sequence[int], dimension: int) -> Tensor:
    """Where each seed starts: evenly drawn from the box, [seeds, d]."""
    return _drawn(seeds, "theory, start", 1, dimension)[0]
