"""Each of a paper's own optimizers against its baseline, within one table, condition and metric."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from insgd_lab.analysis.audit.records import Comparison, Gain, Verdict
from insgd_lab.analysis.audit.summaries import LEVEL, Summary, interval, p_range, p_value, runs_needed, sd_bound
from insgd_lab.analysis.published import Paper, PublishedCell, PublishedTable
from insgd_lab.analysis.statistics import holm

__all__ = ["ASSUMED_RUNS", "assumed", "assumption", "compare", "gains"]

ASSUMED_RUNS = (3, 7)
"""Where a table prints no n: the two numbers of repetitions that the INSGD paper's other tables have."""


@dataclass(frozen=True)
class _Pair:
    """Two cells that a table sets side by side, the n that is not printed, and how ± is read."""

    table: PublishedTable
    cell: PublishedCell
    base: PublishedCell
    assumed: int | None
    errors: bool = False
    """Whether the figures behind ± are read as standard errors, where the text does not say what they are."""

    @property
    def difference(self) -> float:
        return round(self.cell.mean - self.base.mean, 10)  # 92.67 - 92.57 is 0.1, not 0.10000000000000853

    @property
    def runs(self) -> tuple[int, int]:
        return self.cell.n or self._filled(), self.base.n or self._filled()

    def _filled(self) -> int:
        assert self.assumed is not None  # a pair without a printed n is made with an assumed one
        return self.assumed

    @property
    def summaries(self) -> tuple[Summary, Summary] | None:
        n, base_n = self.runs
        arm, base = self._summary(self.cell, n), self._summary(self.base, base_n)
        return (arm, base) if arm and base else None

    def _summary(self, cell: PublishedCell, n: int) -> Summary | None:
        if cell.sd is None:
            return None
        factor = math.sqrt(n) if self.errors and self.table.spread is None else 1.0
        return Summary(cell.mean, factor * cell.sd, n, _half(cell), factor * _half(cell))


def compare(paper: Paper, errors: bool = False) -> list[Comparison]:
    """All comparisons of a paper, in printed order; twice, at either n, where the table prints none.

    Args:
        paper: as printed.
        errors: whether to read the figures behind ± as standard errors of the means, so that a standard deviation is √n
            times what is printed, wherever the text does not say that they are standard deviations.
    """
    found = []
    for table in paper.table:
        for metric in (table.metric, *table.metrics):
            pairs = [_Pair(table, *pair, None) for pair in paper.pairs(table.number, metric)]
            known = all(pair.cell.n and pair.base.n for pair in pairs)
            for assumed in (None,) if known else ASSUMED_RUNS:
                found += _family(paper, [replace(pair, assumed=assumed, errors=errors) for pair in pairs])
    return found


def _half(cell: PublishedCell) -> float:
    """Half a unit of the last printed digit."""
    return 0.5 * 10.0**-cell.decimals


def _sign(metric: str) -> int:
    """1 where higher is better, -1 for errors and losses."""
    return -1 if re.search(r"\b(error|loss)\b", metric) else 1


def _family(paper: Paper, pairs: Sequence[_Pair]) -> list[Comparison]:
    """The comparisons of one table and metric, corrected for one another."""
    singles = [_compare(paper, pair, len(pairs)) for pair in pairs]
    if any(one.p is None for one in singles):
        return singles
    columns = zip(*(holm([getattr(one, name) for one in singles]) for name in ("p", "p_low", "p_high")), strict=True)
    return [_judged(one, *map(float, column)) for one, column in zip(singles, columns, strict=True)]


def _judged(one: Comparison, p: float, low: float, high: float) -> Comparison:
    verdict: Verdict = "borderline"
    if high < LEVEL:
        verdict = "stands" if one.better else "reversed"
    elif low >= LEVEL:
        verdict = "within noise"
    return replace(one, p_holm=p, p_holm_low=low, p_holm_high=high, verdict=verdict)


def _compare(paper: Paper, pair: _Pair, family_size: int) -> Comparison:
    """One comparison by itself, not yet judged."""
    cell, difference = pair.cell, pair.difference
    return Comparison(
        paper=paper.paper,
        table=pair.table.number,
        condition=cell.condition,
        optimizer=cell.optimizer,
        baseline=pair.base.optimizer,
        difference=difference,
        p_holm=None,
        verdict="untestable",
        metric=cell.metric,
        unit=pair.table.unit,
        better=None if difference == 0 else difference * _sign(cell.metric) > 0,
        p_holm_low=None,
        p_holm_high=None,
        family=f"{paper.paper}, {pair.table.number}, {cell.metric}",
        family_size=family_size,
        **_printed(paper, pair),
        **_tests(pair, family_size),
    )


def _printed(paper: Paper, pair: _Pair) -> dict[str, Any]:
    """The two cells, what rounding has done to their difference, and what they leave out."""
    cell, base, (n, base_n) = pair.cell, pair.base, pair.runs
    spread, base_spread = pair.summaries or (None, None)
    room = _half(cell) + _half(base)
    return {
        "n": n,
        "mean": cell.mean,
        "sd": spread.sd if spread else cell.sd,
        "baseline_mean": base.mean,
        "baseline_sd": base_spread.sd if base_spread else base.sd,
        "baseline_n": base_n,
        "baseline_condition": base.condition,
        "difference_low": round(pair.difference - room, 10),
        "difference_high": round(pair.difference + room, 10),
        "n_printed": pair.assumed is None,
        "sd_stated": pair.table.spread is not None if pair.summaries else None,
        "assumes": assumption(paper, [] if pair.assumed is None else [pair.assumed], _unstated(pair)),
    }


def _unstated(pair: _Pair) -> bool:
    return pair.summaries is not None and pair.table.spread is None and not pair.errors


def _tests(pair: _Pair, family_size: int) -> dict[str, Any]:
    """What needs standard deviations, or without them what those would have to be."""
    found = pair.summaries
    low, high = p_range(*found) if found else (None, None)
    bounds = [None if found else sd_bound(pair.difference, *pair.runs, LEVEL / size) for size in (1, family_size)]
    return {
        "p": p_value(*found) if found else None,
        "interval": interval(*found) if found else None,
        "p_low": low,
        "p_high": high,
        "n_needed": runs_needed(*found) if found else None,
        "sd_bound": bounds[0],
        "sd_bound_family": bounds[1],
    }


# ------------------------------------------------------------------------------------------------ assumptions


def assumed(paper: Paper, ones: Iterable[Comparison]) -> str | None:
    """What several comparisons assume, in one line: "n = 3 or n = 7, which is not printed"; None for nothing."""
    found = list(ones)
    runs = sorted({one.n for one in found if not one.n_printed})
    return assumption(paper, runs, any(one.sd_stated is False for one in found))


def assumption(paper: Paper, runs: Sequence[int], unstated: bool) -> str | None:
    """What is assumed where these numbers of runs are not printed, and where the text does not say what ± is."""
    told = [f"{' or '.join(f'n = {n}' for n in runs)}, which is not printed"] if runs else []
    if unstated:
        stated = [table.number for table in paper.table if table.spread]
        only = f"which the text says of Table {' and '.join(stated)} only" if stated else "which is not said"
        told.append(f"± is a standard deviation, {only}")
    return "; ".join(told) or None


# ------------------------------------------------------------------------------------------------ relative gains


def gains(paper: Paper) -> list[Gain]:
    """Every printed relative gain against the printed means; the range is exact, since a gain is monotone in both."""
    return [
        _gain(paper, cell, base, cell.gain)
        for table in paper.table
        for cell, base in paper.pairs(table.number)
        if cell.gain is not None
    ]


def _gain(paper: Paper, cell: PublishedCell, base: PublishedCell, printed: float) -> Gain:
    half = _half(cell)
    recomputed, low, high = (
        100 * ((cell.mean + sign * half) / (base.mean - sign * _half(base)) - 1) for sign in (0, -1, 1)
    )
    return Gain(
        paper=paper.paper,
        table=cell.table,
        condition=cell.condition,
        optimizer=cell.optimizer,
        baseline=base.optimizer,
        printed=printed,
        recomputed=recomputed,
        low=low,
        high=high,
        agrees=low - half <= printed <= high + half,
        exact=abs(recomputed - printed) <= half,
    )
