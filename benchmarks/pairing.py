"""Ratios of two pieces of code that take turns.

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
        images: that one run is trained on, where they are to be told by the second.
        memory: whether it is memory that is compared: what a run returns, in bytes.
    """

    group: str
    name: str
    pair: Callable[[], tuple[Code, Code]]
    target: float | None = None
    repeats: int = 1
    warmup: int = 1
    images: int | None = None
    memory: bool = False


@dataclass(frozen=True)
class Ratio:
    """A over B: the median over pairs and its 95 % interval; ``each`` are the medians of one run of A and of B.

    Those are seconds, or bytes where memory is compared.
    """

    median: float
    low: float
    high: float
    each: tuple[float, float]
    pairs: int

    def verdict(self, target: float | None) -> str:
        """Whether the ratio is at most ``target``: met or missed if the whole interval says so."""
        if target is None:
            return "reported"
        if self.high <= target:
            return "met"
        return "missed" if self.low > target else "unresolved"


def compare(row: Row, pairs: int, clock: Callable[[], float] = time.perf_counter) -> Ratio:
    """Measure A against B, ``pairs`` times; memory, which does not vary so much, at most three times."""
    a, b = row.pair()
    if row.memory:
        return _paired(a, b, min(pairs, 3), _returned)
    for code in (a, b):
        _time(code, row.warmup, clock)
    return _paired(a, b, pairs, lambda code: _time(code, row.repeats, clock) / row.repeats)


def _paired(a: Code, b: Code, pairs: int, measure: Callable[[Code], float]) -> Ratio:
    measured: dict[bool, list[float]] = {True: [], False: []}
    gc.disable()
    try:
        for pair in range(pairs):
            for first in (True, False):
                is_a = first == (pair % 2 == 0)
                measured[is_a].append(measure(a if is_a else b))
    finally:
        gc.enable()
    ratios = sorted(x / y for x, y in zip(measured[True], measured[False], strict=True))
    rank = int(binom.ppf(0.025, pairs, 0.5))
    return Ratio(
        statistics.median(ratios), ratios[max(rank - 1, 0)], ratios[min(pairs - rank, pairs - 1)],
        (statistics.median(measured[True]), statistics.median(measured[False])), pairs,
    )  # fmt: skip


def _returned(code: Code) -> float:
    value = code.run()
    assert isinstance(value, (int, float))
    return value


def _time(code: Code, repeats: int, clock: Callable[[], float]) -> float:
    elapsed = 0.0
    for _ in range(repeats):
        code.prepare()
        start = clock()
        code.run()
        elapsed += clock() - start
    return elapsed
