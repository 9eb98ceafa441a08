"""Two optimizers side by side, under gradients that are given.

The gradients are given, not computed: a chaotic trajectory would blow one rounding up to any size. Their entries
lie within [0.5, 2] times a size of their step within [1/3, 3], so that no quotient of moments is larger than about
100 and float64's 1e-16 stays below 1e-12 through ten steps of rate 0.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

SHAPES = ((), (4,), (2, 5), (3, 2, 2))
STEPS = 10

Trail = list[list[Tensor]]  # the parameters after each step
Change = Callable[[torch.optim.Optimizer, int], None]

seeds = st.integers(0, 2**16)
rates = st.floats(1e-3, 0.1)
decays = st.sampled_from([0.0, 0.01])  # so small that coupled decay does not cancel a gradient
# Schedules as factors of the rate: constant, falling, warmed up and switched off on the way.
schedules = st.sampled_from([
    [1.0] * STEPS,
    [0.9**t for t in range(STEPS)],
    [min(1.0, (t + 1) / 5) for t in range(STEPS)],
    [1.0, 1.0, 0.0, 0.1, 0.1, 0.5, 1.0, 0.0, 1.0, 1.0],
])  # fmt: skip
moment_rates = st.tuples(st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.9, 0.99, 0.999]))


@dataclass(frozen=True)
class Course:
    """Where parameters start, the gradients that they get (None: none at that step), and factors of the rate.

    An empty schedule leaves the rate to others.
    """

    start: list[Tensor] = field(repr=False)
    gradients: list[list[Tensor | None]] = field(repr=False)
    schedule: Sequence[float] = ()
    seed: int | None = None  # shown where a test fails


@st.composite
def courses(draw: st.DrawFn, *, gaps: bool = True, zeros: bool = True) -> Course:
    """``gaps``: steps at which a parameter has no gradient; ``zeros``: at which it is zero."""
    return course(draw(seeds), draw(schedules), gaps=0.1 * gaps, zeros=0.1 * zeros)


def course(
    seed: int, schedule: Sequence[float] = (), *, steps: int = STEPS, gaps: float = 0.0, zeros: float = 0.0
) -> Course:
    """Random, and the same for the same arguments; ``gaps`` and ``zeros`` are probabilities."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    def gradient(shape: tuple[int, ...], size: float) -> Tensor | None:
        values = (0.5 + 1.5 * uniform(*shape)) * torch.where(uniform(*shape) < 0.5, -1.0, 1.0)
        chance = uniform().item()
        if chance < gaps:
            return None
        return values * (0.0 if chance < gaps + zeros else size)

    start = [2 * uniform(*shape) - 1 for shape in SHAPES]
    sizes = (3.0 ** (2 * uniform(steps) - 1)).tolist()
    return Course(start, [[gradient(shape, size) for shape in SHAPES] for size in sizes], schedule, seed)


def unchanged(optimizer: torch.optim.Optimizer, t: int) -> None:
    """The change that is none."""


def follow(
    create: Callable[[list[Tensor]], torch.optim.Optimizer], course: Course, change: Change = unchanged
) -> Trail:
    """Let an optimizer go the course; ``change(optimizer, t)`` is called just before step t = 1, 2, ..."""
    params = [p.clone().requires_grad_() for p in course.start]
    optimizer = create(params)
    rates = [group["lr"] for group in optimizer.param_groups]
    trail = []
    for t, gradients in enumerate(course.gradients, 1):
        if course.schedule:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * course.schedule[t - 1]
        for p, g in zip(params, gradients, strict=True):
            p.grad = None if g is None else g.clone()
        change(optimizer, t)
        optimizer.step()
        trail.append([p.detach().clone() for p in params])
    return trail


def assert_agree(ours: Trail, theirs: Iterable[Iterable[Any]], tolerance: float = 1e-12) -> None:
    """Every tensor after every step, to ``tolerance`` times the largest entry (or 1) that it has had."""
    largest = [1.0] * len(ours[0])
    for t, (left, right) in enumerate(zip(ours, theirs, strict=True), 1):
        for i, (a, b) in enumerate(zip(left, right, strict=True)):
            largest[i] = max(largest[i], float(a.abs().max()))
            error = float((a - torch.as_tensor(b)).abs().max())
            assert error <= tolerance * largest[i], f"step {t}, tensor {i}: {error:.3g} apart, of {largest[i]:.3g}"


def apart(ours: Trail, theirs: Trail) -> float:
    """The largest distance of any entry after any step."""
    return max(
        float((a - b).abs().max())
        for left, right in zip(ours, theirs, strict=True) for a, b in zip(left, right, strict=True)
    )  # fmt: skip
