"""Ratios of two pieces of code that take turns in one process.

Machines are noisy, so single times mean little. A and B run in turn, the order alternating from pair to pair;
the figure is the median of the pairs' ratios, with the distribution-free 95 % interval of a median.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from scipy.stats import binom

__all__ = ["Ratio", "compare"]


@dataclass(frozen=True)
class Ratio:
    """Time of A over time of B: the median over pairs and its 95 % interval."""

    median: float
    low: float
    high: float
    seconds: tuple[float, float]
    pairs: int

    def verdict(self, target: float | None) -> str:
        """Whether the ratio is at most ``target``: met or missed if the whole interval says so."""
        if target is None:
            return "reported"
        if self.high <= target:
            return "met"
        return "missed" if self.low > target else "unresolved"


def compare(a: Callable[[], None], b: Callable[[], None], pairs: int, repeats: int = 1) -> Ratio:
    """Time ``repeats`` calls of ``a`` against as many of ``b``, ``pairs`` times, after one warm-up each."""
    times: dict[bool, list[float]] = {True: [], False: []}
    for run in (a, b):
        run()
    gc.disable()
    try:
        for pair in range(pairs):
            for first in (True, False):
                is_a = first == (pair % 2 == 0)
                times[is_a].append(_time(a if is_a else b, repeats))
    finally:
        gc.enable()
    ratios = sorted(x / y for x, y in zip(times[True], times[False], strict=True))
    rank = int(binom.ppf(0.025, pairs, 0.5))
    return Ratio(
        statistics.median(ratios), ratios[max(rank - 1, 0)], ratios[min(pairs - rank, pairs - 1)],
        (statistics.median(times[True]) / repeats, statistics.median(times[False]) / repeats), pairs,
    )  # fmt: skip


def _time(run: Callable[[], None], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return time.perf_counter() - start
