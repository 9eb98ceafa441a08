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

__all__ = ["Code", "Ratio", "Row", "compare"]


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Code:
    """What is timed, and what makes it ready before each run, which is not timed."""

    run: Callable[[], object]
    prepare: Callable[[], None] = _nothing


@dataclass(frozen=True)
class Row:
    """One ratio of the table.

    Attributes:
        group: the heading under which it stands.
        name: what is compared, "A / B".
        pair: builds A and B.
        target: the highest ratio allowed, or None where it is only reported.
        repeats: runs within one timing.
        warmup: runs of each before the first timing.
    """

    group: str
    name: str
    pair: Callable[[], tuple[Code, Code]]
    target: float | None = None
    repeats: int = 1
    warmup: int = 1


@dataclass(frozen=True)
class Ratio:
    """Time of A over time of B: the median over pairs and its 95 % interval; ``seconds`` are medians of one run."""

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


def compare(
    a: Code, b: Code, pairs: int, repeats: int = 1, warmup: int = 1, clock: Callable[[], float] = time.perf_counter
) -> Ratio:
    """Time ``repeats`` runs of ``a`` against as many of ``b``, ``pairs`` times."""
    times: dict[bool, list[float]] = {True: [], False: []}
    for code in (a, b):
        _time(code, warmup, clock)
    gc.disable()
    try:
        for pair in range(pairs):
            for first in (True, False):
                is_a = first == (pair % 2 == 0)
                times[is_a].append(_time(a if is_a else b, repeats, clock))
    finally:
        gc.enable()
    ratios = sorted(x / y for x, y in zip(times[True], times[False], strict=True))
    rank = int(binom.ppf(0.025, pairs, 0.5))
    return Ratio(
        statistics.median(ratios), ratios[max(rank - 1, 0)], ratios[min(pairs - rank, pairs - 1)],
        (statistics.median(times[True]) / repeats, statistics.median(times[False]) / repeats), pairs,
    )  # fmt: skip


def _time(code: Code, repeats: int, clock: Callable[[], float]) -> float:
    elapsed = 0.0
    for _ in range(repeats):
        code.prepare()
        start = clock()
        code.run()
        elapsed += clock() - start
    return elapsed
