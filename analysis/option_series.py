"""What options matter, as figures and tables show it: shares of variance, interactions, tuning, valleys of rates.

    shares_of(study, choices), interaction_maps(study, interactions(study)), budget_panels(study)

All numbers are those of `ablation`; nothing is computed anew.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd

from insgd_lab.analysis.ablation import forest_importance, importance, lr_sensitivity, tuning_budget
from insgd_lab.analysis.effects import base_level
from insgd_lab.analysis.labels import describe, name_label, number, value_label
from insgd_lab.analysis.measures import chosen_by
from insgd_lab.analysis.primary import primary_of
from insgd_lab.analysis.runs import Study, load_study
from insgd_lab.analysis.selection import Choices, tuned_name
from insgd_lab.analysis.series import LINES, Line, Panel
from insgd_lab.analysis.tables import Column, Table, count

__all__ = [
    "Importances",
    "InteractionMap",
    "Shares",
    "budget_note",
    "budget_panels",
    "budgets_of",
    "importances_of",
    "interaction_maps",
    "setting_words",
    "shares_of",
    "valleys_table",
]

EFFECTS = 8
"""Effects that one panel shows; the smaller ones are added up in one more."""
FEWEST = 4
"""Settings that an arm must have tried for its tuning budget to be drawn: of fewer there is no sample to draw from."""
MAPS = 6
"""Maps of interactions that one figure holds."""


@dataclass(frozen=True)
class Shares:
    """How the variance of one crossed arm splits: the effects, the largest first, and last what seeds explain."""

    arm: str
    at: str
    """In words: "own best learning rate"; empty where nothing is tuned."""
    frame: pd.DataFrame
    """effect (in words), share (%), corrected (ω², %), seeds (whether it is what no option explains)."""


def shares_of(study: Study, choices: Choices) -> list[Shares]:
    """Split the variance of every arm crossed in full; see `ablation.importance`."""
    known = importance(study, choices).dropna(subset="share")
    return [
        Shares(study.arms[str(arm)].label, _at(study, str(arm), str(at)), _largest(rows))
        for (arm, at), rows in known.groupby(["arm", "at"], sort=False)
    ]


def _at(study: Study, arm: str, at: str) -> str:
    tuned = tuned_name(study, arm)
    words = {"best": f"own best {tuned}", "fixed": f"fixed {tuned}", "every": f"every {tuned}"}
    return words[at] if study.arms[arm].tuned else ""


def _largest(rows: pd.DataFrame) -> pd.DataFrame:
    effects = rows[rows["order"] > 0].sort_values("share", ascending=False, kind="stable")
    shown = list(zip(effects["effect"], 100 * effects["share"], 100 * effects["omega_squared"], strict=True))
    if len(shown) > EFFECTS + 1:
        rest = shown[EFFECTS:]
        whole = [sum(part[k] for part in rest) for k in (1, 2)]
        shown = [*shown[:EFFECTS], (f"{len(rest)} others", *whole)]
    alone = [100 * float(rows.loc[rows["order"] == 0, name].sum()) for name in ("share", "omega_squared")]
    frame = pd.DataFrame([*shown, ("seeds", *alone)], columns=["effect", "share", "corrected"])
    return frame.assign(seeds=frame.index == len(shown))


# ------------------------------------------------------------------------------------------------ random grids


@dataclass(frozen=True)
class Importances:
    """What a forest leans on in one random grid, and what the forest is worth."""

    arm: str
    unit: str
    """Of an importance, in words."""
    settings: int
    lost: int
    """Settings left out, as a diverged run has no loss."""
    r_squared: float
    frame: pd.DataFrame
    """option (in words), importance, low, high; the most important first."""


def importances_of(study: Study) -> list[Importances]:
    """Permutation importances of every random grid of ten settings or more; see `ablation.forest_importance`."""
    measure = primary_of(study).measure
    unit = measure.points.strip() or measure.noun
    found = []
    for arm, rows in forest_importance(study).groupby("arm", sort=False):
        frame = rows.sort_values("importance", ascending=False, kind="stable", ignore_index=True)
        frame = frame.assign(option=frame["axis"].map(name_label))[["option", "importance", "low", "high"]]
        first = rows.iloc[0]
        whole = (int(first["settings"]), int(first["lost"]), float(first["r_squared"]))
        found.append(Importances(study.arms[str(arm)].label, unit, *whole, frame))
    return found


# ------------------------------------------------------------------------------------------------ interactions


@dataclass(frozen=True)
class InteractionMap:
    """Differences of differences over the levels, other than the base, of two axes [first axis, second axis]."""

    title: str
    first: str
    """In words, with the base level: "p (against 2)"."""
    second: str
    tables: dict[str, pd.DataFrame]
    """interaction, low, high (in the unit of the primary metric) and p_holm."""


def interaction_maps(study: Study, frame: pd.DataFrame) -> list[InteractionMap]:
    """The interactions of every two axes of the arms crossed in full; of more than six pairs those with the smallest p.

    Args:
        study: read from disk.
        frame: what `ablation.interactions` returned; those left out count in its p_holm as well.
    """
    parts = list(frame.groupby(["arm", "first", "second"], sort=False))
    smallest = sorted(range(len(parts)), key=lambda k: parts[k][1]["p"].min())[:MAPS]
    return [_map(study, parts[k][1]) for k in sorted(smallest)]


def _map(study: Study, rows: pd.DataFrame) -> InteractionMap:
    arm, first, second = (str(rows[name].iloc[0]) for name in ("arm", "first", "second"))
    places = [rows[f"{side}_level"].map(value_label) for side in ("first", "second")]
    tables = {}
    for name in ("interaction", "low", "high", "p_holm"):
        table = rows.assign(first=places[0], second=places[1]).pivot(index="first", columns="second", values=name)
        tables[name] = table.reindex(index=places[0].unique(), columns=places[1].unique())
    return InteractionMap(study.arms[arm].label, _against(study, arm, first), _against(study, arm, second), tables)


def _against(study: Study, arm: str, axis: str) -> str:
    return f"{name_label(axis)} (against {value_label(base_level(study.arms[arm], axis))})"


# ------------------------------------------------------------------------------------------------ tuning


def budgets_of(study: Study) -> pd.DataFrame:
    """What tuning costs, of `ablation.tuning_budget`; of a study with a search the settings are its trials."""
    searched = any(row.get("stage") == "trial" for row in study.info.get("plan", ()))
    return tuning_budget(load_study(study.path, trials=True) if searched else study)


def budget_panels(study: Study, frame: pd.DataFrame | None = None) -> list[Panel]:
    """The expected score of each arm by how many of its settings are tried, six arms a panel.

    Arms with fewer than four settings are left out, and those of whose runs too many diverged for a mean loss;
    `budget_note` names them.

    Args:
        study: read from disk.
        frame: of `budgets_of`; made anew if None.
    """
    frame = budgets_of(study) if frame is None else frame
    lines = [
        _budget_line(study.arms[str(arm)].label, rows)
        for arm, rows in frame.groupby("arm", sort=False)
        if len(rows) >= FEWEST and np.isfinite(rows["expected"]).any()
    ]
    return [Panel("", "arm", tuple(lines[k : k + LINES])) for k in range(0, len(lines), LINES)]


def budget_note(study: Study, frame: pd.DataFrame) -> str:
    """Which arms `budget_panels` leaves out, and up to how many settings a score is infinite, and why."""
    notes = []
    for arm, rows in frame.groupby("arm", sort=False):
        label, lost = study.arms[str(arm)].label, int(np.isinf(rows["expected"]).sum())
        if len(rows) < FEWEST:
            notes.append(f"{label} is left out: fewer settings than {FEWEST} ({len(rows)}) are no sample.")
        elif lost == len(rows):
            notes.append(f"{label} is left out: a run diverged at the setting that validation chooses, or at all.")
        elif lost:
            notes.append(
                f"{label} is infinite up to {lost} setting{'s'[: lost > 1]} tried, and its line begins after: a run "
                "diverged at so many, and chance may try these alone."
            )
    untold = set(study.arms) - set(frame["arm"])
    notes += [f"{arm.label} is left out: no run has finished." for name, arm in study.arms.items() if name in untold]
    if np.isinf(frame["high"]).any():
        notes.append("There is no band where its upper end would be infinite.")
    return " ".join(notes)


def _budget_line(label: str, rows: pd.DataFrame) -> Line:
    budget, mean, low, high = rows[["budget", "expected", "low", "high"]].to_numpy(dtype=float).T
    return Line(label, budget, mean, low, high)


def valleys_table(study: Study, within: float = 1.0) -> Table:
    """How far the learning rate of each cell may be off; see `ablation.lr_sensitivity`."""
    measure = chosen_by(study)
    frame = lr_sensitivity(study, within)
    settings = [setting_words(study, arm, key) for arm, key in zip(frame["arm"], frame["setting"], strict=True)]
    labels = [study.arms[arm].label for arm in frame["arm"]]
    frame = frame.assign(label=labels, words=settings)
    columns = (
        Column("arm", ("label",)),
        Column("setting", ("words",)),
        Column("rates", ("rates",), count, True),
        Column("best rate", ("best_rate",), number, True),
        Column("error at it (%)" if measure.is_error else "loss at it", ("best_error",), measure.text, True),
        Column("rates near it", ("tried_within",), count, True),
        Column("width (decades)", ("decades", "open_low", "open_high"), _width, True),
        Column("share of the tried range", ("share",), lambda share: f"{100 * share:.0f} %", True),
    )
    near = f"{number(within)} percentage point{'' if within == 1 else 's'} of its mean {measure.noun}"
    near = near if measure.is_error else f"{number(1 + within)} times its mean {measure.noun}"
    lost = "with the error of guessing" if measure.is_error else "as infinitely bad"
    caption = f"How far the learning rate may be off: near the best is within {near}. The width is that of the range "
    caption += (
        "around the best rate, in powers of ten, interpolated between tried rates; ≥ where it reaches the end of "
    )
    caption += f"what was tried. Diverged runs count {lost}."
    return Table("learning-rates", caption, frame, columns)


def setting_words(study: Study, arm: str, key: str) -> str:
    """Settings other than the learning rate in words, by their key."""
    cell = study.cells.get((arm, key))
    return study.cell_label(cell) if cell else describe(json.loads(key)) or "base"


def _width(decades: float, open_low: bool, open_high: bool) -> str:
    return f"{'≥ ' if open_low or open_high else ''}{decades:.2f}"
