"""What a comparison of two means comes to, all of it by one test: difference, interval, size, equivalence, power.

    mean_tests(insgd_errors, sgd_errors, "welch", margin=0.5)     # {seed: error} each

With Welch's test the two arms are taken as independent samples throughout; with the others seeds are paired. Wilcoxon's
test has no interval of a mean: the paired t-interval stands beside it for orientation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from insgd_lab.analysis.primary import Kind
from insgd_lab.analysis.statistics import (
    EffectSize,
    Equivalence,
    MeanTest,
    detectable_difference,
    hedges_g,
    hedges_g_paired,
    paired_difference,
    paired_t,
    seeds_needed,
    summarize,
    tost_paired,
    tost_welch,
    welch,
)

__all__ = ["ALPHA", "Scores", "mean_test", "mean_tests"]

ALPHA = 0.05
"""The level of every verdict."""

Scores = Mapping[int, float]


@dataclass(frozen=True)
class _Routines:
    """The numbers of one kind of test."""

    test: MeanTest
    size: EffectSize
    detectable: float
    seeds: float
    """That find a difference as large as the margin; NaN without one."""
    equivalence: Equivalence | None


def mean_test(scores: Scores, reference: Scores, kind: Kind, level: float = 0.95) -> MeanTest:
    """The t-test that goes with a kind of primary test: Welch's, or the paired one."""
    if kind == "welch":
        return welch(list(scores.values()), list(reference.values()), level)
    return paired_t(scores, reference, level)


def mean_tests(
    scores: Scores, reference: Scores, kind: Kind, margin: float | None = None, level: float = 0.95
) -> dict[str, Any]:
    """Columns of a comparison that need a scale; pairs alone where a score is infinite, of which there is no mean.

    Args:
        scores: one a seed.
        reference: likewise.
        kind: of the primary test.
        margin: the smallest difference that matters, in the unit of the scores; None for no test of equivalence.
        level: coverage of the interval, in (0, 1).

    Raises:
        ValueError: an impossible level or margin.
    """
    pairs = len(scores.keys() & reference.keys())
    ours, theirs = list(scores.values()), list(reference.values())
    if not np.isfinite([*ours, *theirs]).all():
        return {"pairs": pairs}
    made = _unpaired(scores, reference, margin, level) if kind == "welch" else _paired(scores, reference, margin, level)
    found = {
        "pairs": pairs,
        "difference": made.test.difference,
        "low": made.test.low,
        "high": made.test.high,
        "p_paired": paired_t(scores, reference, level).p,
        "p_welch": welch(ours, theirs, level).p,
        "g": made.size.g,
        "g_low": made.size.low,
        "g_high": made.size.high,
        "g_unpaired": hedges_g(ours, theirs, level).g,
        "detectable": made.detectable,
    }
    if made.equivalence is None:
        return found
    same = {"p_equivalence": made.equivalence.p, "inner_low": made.equivalence.low}
    return {**found, **same, "inner_high": made.equivalence.high, "seeds_for_margin": made.seeds}


def _paired(scores: Scores, reference: Scores, margin: float | None, level: float) -> _Routines:
    sd = paired_difference(scores, reference).sd
    return _Routines(
        paired_t(scores, reference, level),
        hedges_g_paired(scores, reference, level),
        detectable_difference(len(scores.keys() & reference.keys()), sd, alpha=ALPHA) if sd > 0 else math.nan,
        _seeds(margin, sd, paired=True),
        None if margin is None else tost_paired(scores, reference, margin, ALPHA),
    )


def _unpaired(scores: Scores, reference: Scores, margin: float | None, level: float) -> _Routines:
    ours, theirs = list(scores.values()), list(reference.values())
    fewest, sd = min(len(ours), len(theirs)), _pooled(ours, theirs)
    return _Routines(
        welch(ours, theirs, level),
        hedges_g(ours, theirs, level),
        detectable_difference(fewest, sd, alpha=ALPHA, paired=False) if sd > 0 else math.nan,
        _seeds(margin, sd, paired=False),
        None if margin is None else tost_welch(ours, theirs, margin, ALPHA),
    )


def _seeds(margin: float | None, sd: float, paired: bool) -> float:
    """The fewest seeds that find a difference of the margin with power 0.8; NaN if there are none worth naming."""
    if margin is None or not sd > 0 or sd > 1000 * margin:  # that many times the margin takes millions of seeds
        return math.nan
    return float(seeds_needed(margin, sd, alpha=ALPHA, paired=paired))


def _pooled(ours: list[float], theirs: list[float]) -> float:
    """The standard deviation of a run, pooled over both arms; NaN for fewer than two runs of either."""
    one, other = summarize(ours), summarize(theirs)
    if min(one.n, other.n) < 2:
        return math.nan
    return math.sqrt(((one.n - 1) * one.sd**2 + (other.n - 1) * other.sd**2) / (one.n + other.n - 2))
