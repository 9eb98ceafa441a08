"""One score a seed, of one cell or of several averaged; what became of diverged runs is said beside it.

    side = scored(study, choose(study), [study.base_cell("insgd")])
    side.scores, side.survivors, side.diverged

A diverged run has the error of guessing. Where only ranks count it is worse than any that did not diverge, even one
that guesses worse than chance. Leaving it out, as the survivors do, flatters an arm that diverges often.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from insgd_lab.analysis.primary import Primary, primary_of
from insgd_lab.analysis.runs import Cell, Study, sampled
from insgd_lab.analysis.selection import At, Choices, tune_at

__all__ = ["Scored", "once", "scored"]


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
    runs: tuple[pd.DataFrame, ...]
    """The runs of each cell, as `Study.finished` has them."""

    @property
    def mean(self) -> float:
        """The mean over seeds; NaN for none."""
        return math.fsum(self.scores.values()) / len(self.scores) if self.scores else math.nan


def scored(
    study: Study, choices: Choices, cells: Sequence[Cell], at: At = "best", primary: Primary | None = None
) -> Scored:
    """The scores of cells, each at its own best tune or the fixed one, in the metric of the primary test."""
    primary = primary_of(study) if primary is None else primary
    tunes = [tune_at(study, choices, cell, at) for cell in cells]
    runs = tuple(
        study.finished(cell.arm, cell.key, tune) for cell, tune in zip(cells, tunes, strict=True) if tune is not None
    )
    found = [_rows(part, primary) for part in runs] if len(runs) == len(cells) else []
    lost = sum(not survived for rows in found for _, survived in rows.values())
    return Scored(
        _averaged([{seed: score for seed, (score, _) in rows.items()} for rows in found]),
        _averaged(
            [{seed: score if survived else math.inf for seed, (score, survived) in rows.items()} for rows in found]
        ),
        _averaged([{seed: score for seed, (score, survived) in rows.items() if survived} for rows in found]),
        lost,
        runs,
    )


def once(side: Scored, reference: Scored) -> tuple[Scored, Scored]:
    """Both sides with one seed alone where no seed changes anything on either (see `runs.sampled`)."""
    seeds = side.scores.keys() & reference.scores.keys()
    kept = sampled(seeds, [*side.runs, *reference.runs])
    if len(kept) == len(seeds):
        return side, reference
    return _of_seed(side, kept[0]), _of_seed(reference, kept[0])


def _of_seed(side: Scored, seed: int) -> Scored:
    tables = (side.scores, side.ranks, side.survivors)
    scores, ranks, survivors = ({seed: table[seed]} if seed in table else {} for table in tables)
    return Scored(scores, ranks, survivors, side.diverged, side.runs)


def _rows(rows: pd.DataFrame, primary: Primary) -> dict[int, tuple[float, bool]]:
    """By seed, the score and whether the run survived; runs without a score are left out."""
    columns = (rows[name].tolist() for name in ("seed", "status", primary.metric))
    return {
        seed: (score * primary.unit, status == "done")
        for seed, status, score in zip(*columns, strict=True)
        if not math.isnan(score)
    }


def _averaged(tables: Sequence[Mapping[int, float]]) -> dict[int, float]:
    seeds = sorted(set.intersection(*map(set, tables))) if tables else []
    return {seed: math.fsum(table[seed] for table in tables) / len(tables) for seed in seeds}
