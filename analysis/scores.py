"""One score a seed, of one cell or of several averaged; what became of diverged runs is said beside it.

    side = scored(study, choose(study), [study.base_cell("insgd")])
    side.scores, side.survivors, side.diverged

A diverged run has the error of guessing. Where only ranks count it is worse than any that did not diverge, even one that
guesses worse than chance. Leaving it out, as the survivors do, flatters an arm that diverges often.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from insgd_lab.analysis.primary import Primary, primary_of
from insgd_lab.analysis.runs import Cell, Study
from insgd_lab.analysis.selection import At, Choices, tune_at

__all__ = ["Scored", "scored"]


@dataclass(frozen=True)
class Scored:
    """Scores by seed, in percent for errors; seeds that lack one of the cells are left out."""

    scores: dict[int, float]
    ranks: dict[int, float]
    """The same, infinite where a run diverged."""
    survivors: dict[int, float]
    """The same, of the seeds none of whose runs diverged."""
    diverged: int
    """Runs."""

    @property
    def mean(self) -> float:
        """The mean over seeds; NaN for none."""
        return math.fsum(self.scores.values()) / len(self.scores) if self.scores else math.nan


def scored(
    study: Study, choices: Choices, cells: Sequence[Cell], at: At = "best", primary: Primary | None = None
) -> Scored:
    """The scores of cells, each at its own best tune or the fixed one, in the metric of the primary test."""
    primary = primary_of(study) if primary is None else primary
    found = [_rows(study, choices, cell, at, primary) for cell in cells]
    worst = [rows.assign(score=rows["score"].where(rows["status"] == "done", np.inf)) for rows in found]
    alive = [rows[rows["status"] == "done"] for rows in found]
    lost = sum(int((rows["status"] == "diverged").sum()) for rows in found)
    return Scored(_averaged(found), _averaged(worst), _averaged(alive), lost)


def _rows(study: Study, choices: Choices, cell: Cell, at: At, primary: Primary) -> pd.DataFrame:
    tune = tune_at(study, choices, cell, at)
    rows = study.finished(cell.arm, cell.key, tune) if tune is not None else study.scores.iloc[:0]
    rows = rows[["seed", "status"]].assign(score=rows[primary.metric].astype(float) * primary.unit)
    return rows.dropna(subset="score")


def _averaged(found: Sequence[pd.DataFrame]) -> dict[int, float]:
    tables = [dict(zip(rows["seed"].tolist(), rows["score"].tolist(), strict=True)) for rows in found]
    seeds = sorted(set.intersection(*map(set, tables))) if tables else []
    return {seed: math.fsum(table[seed] for table in tables) / len(tables) for seed in seeds}
