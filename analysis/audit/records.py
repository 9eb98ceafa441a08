"""What an audit consists of: comparisons, recomputed gains and findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

__all__ = ["VERDICTS", "Audit", "Comparison", "Finding", "Gain", "Kind", "Verdict"]

Verdict = Literal["stands", "reversed", "within noise", "borderline", "untestable"]
VERDICTS: dict[Verdict, str] = {
    "stands": "the optimizer is better than its baseline, with p < 0.05 after Holm however the printed figures were "
    "rounded",
    "reversed": "it is worse than its baseline, with p < 0.05 after Holm however the printed figures were rounded",
    "within noise": "p is at least 0.05 after Holm however the printed figures were rounded",
    "borderline": "the rounding of the printed figures may decide on which side of 0.05 p lies after Holm",
    "untestable": "the table prints no standard deviation",
}
Kind = Literal["verdicts", "claim", "disagreement", "agreement", "spread", "missing", "selection", "rule", "code"]


@dataclass(frozen=True)
class Comparison:
    """An optimizer beside its baseline in one table, under one condition and metric, recomputed from what is printed.

    Differences are the optimizer's mean less the baseline's, in the table's unit; p-values are Welch's, two-sided.
    What needs a standard deviation is None where none is printed.
    """

    paper: str
    table: str
    condition: Mapping[str, Any]
    optimizer: str
    baseline: str
    difference: float
    p: float | None
    p_holm: float | None
    """Corrected for the comparisons of its family by Holm's method."""
    interval: tuple[float, float] | None
    """95 % interval of the difference, for this one comparison."""
    n: int
    """Runs of the optimizer: printed, or assumed (see `assumes`)."""
    verdict: Verdict
    metric: str
    unit: str
    better: bool | None
    """Whether the optimizer's mean is the better one; None where they are equal."""
    mean: float
    sd: float | None
    baseline_mean: float
    baseline_sd: float | None
    baseline_n: int
    baseline_condition: Mapping[str, Any]
    difference_low: float
    """The least and the largest difference that rounding of the two means allows."""
    difference_high: float
    p_low: float | None
    """The least and the largest p that rounding of means and standard deviations allows."""
    p_high: float | None
    p_holm_low: float | None
    """Holm's correction of the family's least and of its largest p-values: bounds, not always reached together."""
    p_holm_high: float | None
    n_needed: int | None
    """Runs an arm for 80 % power in this one test, if difference and standard deviations are the printed ones; None
    where the means are equal, or so near that a billion would not do."""
    sd_bound: float | None
    """Where no sd is printed: the sd of both arms below which p < 0.05 in this one test."""
    sd_bound_family: float | None
    """The same at 0.05 over the number of comparisons in the family, which is enough whatever the others give."""
    family: str
    family_size: int
    n_printed: bool
    """Whether the paper says how many runs the means are of."""
    sd_stated: bool | None
    """Whether the text says that what stands behind ± in this table are standard deviations; None without ±."""
    assumes: str | None
    """What is not printed and was assumed."""


@dataclass(frozen=True)
class Gain:
    """A printed relative gain, in % of the baseline's mean, and what the printed means give."""

    paper: str
    table: str
    condition: Mapping[str, Any]
    optimizer: str
    baseline: str
    printed: float
    recomputed: float
    low: float
    """The least and the largest gain that rounding of the two means allows."""
    high: float
    agrees: bool
    """Whether means that round to the printed ones can give a gain that rounds to the printed one."""
    exact: bool
    """Whether the printed means themselves give it."""


@dataclass(frozen=True)
class Finding:
    """A statement about what is printed, with where it is printed."""

    id: str
    paper: str
    kind: Kind
    statement: str
    evidence: tuple[str, ...]
    assumes: str | None = None


@dataclass(frozen=True)
class Audit:
    """All comparisons, gains and findings of the papers audited, in printed order."""

    comparisons: tuple[Comparison, ...]
    gains: tuple[Gain, ...]
    findings: tuple[Finding, ...]

    def frame(self) -> pd.DataFrame:
        """The comparisons, one a row."""
        return pd.DataFrame([asdict(one) for one in self.comparisons])

    def finding(self, name: str) -> Finding:
        """A finding by its id; raises KeyError if there is none."""
        return {one.id: one for one in self.findings}[name]

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """Plain dictionaries and lists, as `insgd-lab audit --json` writes them."""
        return {
            "comparisons": [asdict(one) for one in self.comparisons],
            "gains": [asdict(one) for one in self.gains],
            "findings": [asdict(one) for one in self.findings],
        }
