"""Which tuned setting each cell is judged at: its own best on the validation split, or the fixed one.

    choices = choose(study)
    choices["insgd", cell.key].tune        # key of the chosen learning rate, e.g. '{"lr":0.3}'

The test split has no say here: this module reads validation scores only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from insgd_lab.analysis.labels import describe, name_label, value_label
from insgd_lab.analysis.runs import Cell, Study

__all__ = [
    "At",
    "Choice",
    "Choices",
    "at_edge",
    "better_cell",
    "choose",
    "edge_words",
    "tune_at",
    "tune_label",
    "tuned_name",
]

At = Literal["best", "fixed"]


@dataclass(frozen=True)
class Choice:
    """The chosen tune of one cell, and where in its grid it lies."""

    tune: str
    val_error: float
    """The mean over seeds that it was chosen by; NaN where the task has losses alone, and the loss decides."""
    val_loss: float
    edge: str | None
    """Set to "lowest" or "highest" where a chosen number ends its grid or range, so that a better may lie beyond."""
    seeds: int
    """How many seeds finished at the chosen tune; no other tune of the cell has more."""
    left_out: tuple[str, ...]
    """Planned tunes that took no part, since fewer seeds finished there."""

    @property
    def place(self) -> tuple[float, float]:
        """By which choices are ranked, the best first: the validation error, then the loss."""
        return _worst(self.val_error), _worst(self.val_loss)


Choices = Mapping[tuple[str, str], Choice]
"""The choice of each (arm, cell key)."""


def choose(study: Study) -> Choices:
    """Choose for every cell the tune of lowest mean validation error over its finished seeds; of losses alone, loss.

    Only tunes at which the most seeds of the cell finished take part: a mean over the one seed that did not
    crash is no match for a mean over all. A diverged run has finished, scores the error of guessing, and has an
    infinite loss. Ties go to the lower mean validation loss, then to the smaller value. Cells without a finished run
    have no choice.
    """
    tables = study.scores.groupby(["arm", "cell"], sort=False)
    return {(str(arm), str(cell)): _choose(study, str(arm), rows) for (arm, cell), rows in tables}


def _choose(study: Study, arm: str, rows: pd.DataFrame) -> Choice:
    tunes = rows.groupby("tune", sort=False)
    seeds, means = tunes.size(), tunes[["val_error", "val_loss"]].mean()
    most = int(seeds.max())
    ranks = [
        (round(_worst(error), 12), _worst(loss), _sizes(study.tunes[tune]), tune)
        for tune, error, loss in means[seeds == most].itertuples()
    ]
    _, _, _, tune = min(ranks)
    error, loss = means.loc[tune]
    left_out = tuple(other for other in study.tunes_of(arm) if seeds.get(other, 0) < most)
    end = at_edge(study, arm, tune)
    return Choice(tune, float(error), float(loss), end[1] if end else None, most, left_out)


def _worst(value: float) -> float:
    return math.inf if math.isnan(value) else float(value)


def _sizes(tune: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(_size(value) for _, value in sorted(tune.items()))


def _size(value: Any) -> float:
    return math.inf if isinstance(value, str) else float(value) if isinstance(value, (int, float)) else 0.0


END = 0.05
"""The share of a searched range, at either side, in which a winner counts as lying at its end."""


def at_edge(study: Study, arm: str, tune: str) -> tuple[str, str] | None:
    """The tuned option that lies at an end of what was tried, and "lowest" or "highest"; None if none does.

    A search rarely hits the very end of a range: there the outermost twentieth counts, of a logarithmic one by its
    logarithm.
    """
    spec = study.arms[arm]
    for name, value in study.tunes[tune].items():
        if (end := _end((spec.search or spec.tune).get(name, []), value)) is not None:
            return name, end
    return None


def _end(tried: Any, value: Any) -> str | None:
    if isinstance(tried, Mapping):
        [(kind, ends)] = tried.items()
        low, high, here = (math.log(x) if kind == "log_range" else float(x) for x in (*ends, value))
        room = END * (high - low)
    else:
        sizes, here, room = sorted({_size(each) for each in tried}), _size(value), 0.0
        if len(sizes) < 2:
            return None
        low, high = sizes[0], sizes[-1]
    return "lowest" if here <= low + room else "highest" if here >= high - room else None


def edge_words(study: Study, choices: Choices, cell: Cell) -> str:
    """Which tuned setting of a cell ends what was tried: "learning rate is the highest tried"; empty if none does."""
    choice = choices.get((cell.arm, cell.key))
    end = at_edge(study, cell.arm, choice.tune) if choice else None
    return f"{name_label(end[0])} is the {end[1]} tried" if end else ""


def better_cell(study: Study, choices: Choices, cell: Cell) -> Cell | None:
    """The cell of the same arm with the best validation score, if it is another and its score is better."""
    own = choices.get((cell.arm, cell.key))
    if own is None:
        return None
    known = [other for other in study.cells_of(cell.arm) if (cell.arm, other.key) in choices]
    rivals = [other for other in known if choices[cell.arm, other.key].seeds >= own.seeds]
    best = min(rivals, key=lambda other: choices[cell.arm, other.key].place)
    return best if choices[cell.arm, best.key].place < own.place else None


def tune_at(study: Study, choices: Choices, cell: Cell, at: At) -> str | None:
    """The key of the tune at which `cell` is judged; None where nothing finished or no fixed value ran."""
    if at == "fixed":
        return study.fixed_tune(cell.arm)
    choice = choices.get((cell.arm, cell.key))
    return choice.tune if choice else None


def tuned_name(study: Study, arm: str | None = None) -> str:
    """What the study, or one arm, tunes: "learning rate"; "setting" where arms tune different options."""
    arms = study.arms.values() if arm is None else [study.arms[arm]]
    kinds = {one.tuned for one in arms if one.tuned}
    return " and ".join(map(name_label, kinds.pop())) if len(kinds) == 1 else "setting"


def tune_label(study: Study, tune: str | None, name: bool = True) -> str:
    """A tune in words: "learning rate 0.3", or without its name "0.3"; a dash for none."""
    if tune is None:
        return "–"
    settings = study.tunes[tune]
    if len(settings) == 1:
        [(option, value)] = settings.items()
        return f"{name_label(option)} {value_label(value)}" if name else value_label(value)
    return describe(settings) or ("as given" if name else "–")
