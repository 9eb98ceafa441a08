"""How near is near: bounds on rounding that follow from the problem, not from a guess.

A stable computation gives the exact result of slightly perturbed data: each number changed by a few unit roundoffs
u. How far that moves the result is the problem's condition, and it is measured here: the run is repeated with every
number perturbed by a known δ = 2⁻²⁶ ≈ √u, far above rounding and far below what would change the picture. With k
roundings on the way,

    |seen - expected| <= k u (max |run(δ) - run(0)| / δ + max |run(0)| + size),

where size is that of numbers that cancelled on the way, such as weights that have since shrunk.

k is 64 a step: the tensors have at most 72 elements, whose norms err by a fraction of that, and no rule does more
than 30 operations on an element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from insgd_lab.testing.law import LawBroken

__all__ = ["NUDGE", "follows", "largest", "near", "same", "show"]

NUDGE = 2.0**-26
_ROUNDINGS = 64

Run = Callable[[float], list[Tensor]]
"""Repeats an experiment with all data perturbed by the given relative amount."""


def follows(seen: Sequence[Tensor], run: Run, steps: int, what: str, *, size: float = 0.0) -> None:
    """Raise unless ``seen`` is what the run gives, to the rounding of float64 that the run's condition explains."""
    expected, nudged = run(0.0), run(NUDGE)
    unit = torch.finfo(torch.float64).eps / 2
    allowed = [
        _ROUNDINGS * steps * unit * (largest(b - a) / NUDGE + largest(a) + size)
        for a, b in zip(expected, nudged, strict=True)
    ]
    near(seen, expected, allowed, what)


def largest(tensor: Tensor) -> float:
    """The largest magnitude; 0 where there is nothing."""
    return float(tensor.detach().abs().max()) if tensor.numel() else 0.0


def near(seen: Sequence[Tensor], expected: Sequence[Tensor], tolerances: Sequence[float], what: str) -> None:
    """Raise unless tensors agree within their tolerances; NaN agrees with nothing."""
    for number, (a, b, tolerance) in enumerate(zip(seen, expected, tolerances, strict=True)):
        error = largest(a.double() - b.double())
        if not error <= tolerance:
            raise LawBroken(
                f"{what}, tensor {number}: seen {show(a)}, expected {show(b)}; "
                f"they differ by {error:.3g}, rounding explains {tolerance:.3g}"
            )


def same(seen: Sequence[Tensor], expected: Sequence[Tensor], what: str) -> None:
    """Raise unless tensors are equal to the bit."""
    for number, (a, b) in enumerate(zip(seen, expected, strict=True)):
        if not torch.equal(a, b):
            raise LawBroken(f"{what}, tensor {number}: seen {show(a)}, expected {show(b)}, to the bit")


def show(tensor: Tensor) -> str:
    """The first few numbers."""
    numbers = [f"{number:.9g}" for number in tensor.detach().double().flatten()[:4].tolist()]
    return f"[{', '.join(numbers)}{', …' if tensor.numel() > 4 else ''}]"
