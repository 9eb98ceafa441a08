"""Each of a paper's own optimizers against its baseline, within one table, condition and metric."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from insgd_lab.analysis.audit.records import Comparison, Gain, Verdict
from insgd_lab.analysis.audit.summaries import LEVEL, Summary, interval, p_range, p_value, runs_needed, sd_bound
from insgd_lab.analysis.published import Paper, PublishedCell, PublishedTable
from insgd_lab.analysis.statistics import holm

__all__ = ["ASSUMED_RUNS", "compare", "gains"]

ASSUMED_RUNS = (3, 7)
"""Where a table prints no n: the two numbers of repetitions that the INSGD paper's other tables have."""


@dataclass(frozen=True)
class _Pair:
    """Two cells that a table sets side by side, and the n that is not printed."""

    table: PublishedTable
    cell: PublishedCell
    base: PublishedCell
    assumed: int | None

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
        if self.cell.sd is None or self.base.sd is None:
            return None
        n, base_n = self.runs
        return Summary(self.cell.mean, self.cell.sd, n), Summary(self.base.mean, self.base.sd, base_n)


def compare(paper: Paper) -> list[Comparison]:
    """All comparisons of a paper, in printed order; twice, at either n, where the table prints none."""
    found = []
    for table in paper.table:
        for metric in (table.metric, *table.metrics):
            pairs = [_Pair(table, *pair, None) for pair in paper.pairs(table.number, metric)]
            known = all(pair.cell.n and pair.base.n for pair in pairs)
            for assumed in (None,) if known else ASSUMED_RUNS:
                found += _family(paper, [replace(pair, assumed=assumed) for pair in pairs])
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
    table, cell, base = pair.table, pair.cell, pair.base
    difference, (n, base_n), room = pair.difference, pair.runs, _half(cell) + _half(base)
    summaries = pair.summaries
    low, high = p_range(*summaries, _half(cell), _half(base)) if summaries else (None, None)
    bounds = (None, None) if summaries else [sd_bound(difference, n, base_n, LEVEL / m) for m in (1, family_size)]
    return Comparison(
        paper=paper.paper,
        table=table.number,
        condition=cell.condition,
        optimizer=cell.optimizer,
        baseline=base.optimizer,
        difference=difference,
        p=p_value(*summaries) if summaries else None,
        p_holm=None,
        interval=interval(*summaries) if summaries else None,
        n=n,
        verdict="untestable",
        metric=cell.metric,
        unit=table.unit,
        better=None if difference == 0 else difference * _sign(cell.metric) > 0,
        mean=cell.mean,
        sd=cell.sd,
        baseline_mean=base.mean,
        baseline_sd=base.sd,
        baseline_n=base_n,
        baseline_condition=base.condition,
        difference_low=round(difference - room, 10),
        difference_high=round(difference + room, 10),
        p_low=low,
        p_high=high,
        p_holm_low=None,
        p_holm_high=None,
        n_needed=runs_needed(*summaries) if summaries else None,
        sd_bound=bounds[0],
        sd_bound_family=bounds[1],
        family=f"{paper.paper}, {table.number}, {cell.metric}",
        family_size=family_size,
        assumes=None if pair.assumed is None else f"n = {pair.assumed}, which is not printed",
    )


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
