"""What each ablated axis does: main effects, and axes that do nothing.

    effects = main_effects(study, choose(study))
    effects.query("axis == 'beta' and at == 'best'")[["level", "mean", "difference", "difference_low"]]

Changing p, granularity or dampening moves the step by orders of magnitude, so a level is judged at its own
best rate. The comparison at one fixed rate beside it says something else: how far the rate must move.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from insgd_lab.analysis.labels import describe, name_label, value_label
from insgd_lab.analysis.measures import reported
from insgd_lab.analysis.runs import Arm, Cell, Study, key_of
from insgd_lab.analysis.selection import At, Choices, tune_at, tune_label, tuned_name
from insgd_lab.analysis.statistics import Summary, paired_difference, summarize

__all__ = [
    "Inert",
    "ablated_axes",
    "base_level",
    "inert_levels",
    "is_level",
    "level_cells",
    "level_notes",
    "main_effects",
]


def ablated_axes(arm: Arm) -> list[str]:
    """The axes whose effect can be told apart: those that move alone or are crossed in full."""
    if arm.grid not in ("one-at-a-time", "full"):
        return []
    return [axis for axis in arm.axes if len(arm.levels(axis)) > 1]


def level_cells(study: Study, arm: str, axis: str, level: Any) -> list[Cell]:
    """The cells that a level's main effect is averaged over.

    One factor at a time: the single cell with every other axis at its base. Crossed in full: all cells with
    that level, so the other axes are averaged out; only those that were planned at every other level too, or cells
    that the study excludes or includes would make levels differ by what they are averaged over.
    """
    spec = study.arms[arm]
    if spec.grid == "one-at-a-time":
        cell = study.find_cell(arm, {**spec.base, axis: level})
        return [cell] if cell else []
    with_level = [cell for cell in study.cells_of(arm) if is_level(axis, cell.settings[axis], level)]
    return [
        cell
        for cell in with_level
        if all(study.find_cell(arm, {**cell.settings, axis: other}) for other in spec.levels(axis))
    ]


def level_notes(study: Study) -> list[str]:
    """Over which cells main effects are averaged where they are not all of the arm's, and which take no part.

    Cells that the study excludes leave levels of crossed arms with unlike partners; those that it includes have none.
    """
    return [note for arm in study.arms.values() if ablated_axes(arm) and (note := _level_note(study, arm))]


def _level_note(study: Study, arm: Arm) -> str:
    used = {
        axis: [level_cells(study, arm.name, axis, level) for level in arm.levels(axis)] for axis in ablated_axes(arm)
    }
    cells = study.cells_of(arm.name)
    parts = [_averaged_over(axis, levels, len(cells)) for axis, levels in used.items()] if arm.grid == "full" else []
    seen = {cell.key for levels in used.values() for each in levels for cell in each}
    apart = [describe(cell.settings) for cell in cells if cell.key not in seen]
    if apart:
        named = "; ".join(apart[:_NAMED]) + (f"; and {len(apart) - _NAMED} more" if len(apart) > _NAMED else "")
        parts.append(f"cells that take no part in any: {named}")
    told = "; ".join(part for part in parts if part)
    return f"Main effects of {arm.label}: {told}." if told else ""


_NAMED = 6
"""Cells that one note names."""


def _averaged_over(axis: str, levels: list[list[Cell]], cells: int) -> str:
    """Nothing where every cell of the arm takes part."""
    if sum(map(len, levels)) == cells:
        return ""
    if not levels[0]:
        return f"{name_label(axis)} has none, as no other settings were planned at all of its levels"
    many = f"the {len(levels[0])} cells" if len(levels[0]) > 1 else "the one cell"
    return f"a level of {name_label(axis)} is averaged over {many} whose other settings were planned at every level"


def main_effects(study: Study, choices: Choices) -> pd.DataFrame:
    """One row a level and way of judging it; where the arm tunes nothing there is one way, "best".

    Returns:
        Columns arm, axis, level, base (is this the base level), at ("best" or "fixed"), tune (in words), n,
        mean, sd, low, high (final test error, %), difference, difference_low, difference_high, pairs
        (level minus base, percentage points, paired by seed), diverged (runs), median, lowest, highest (over seeds).
        Of a task with losses alone it is the final test loss: mean and difference are then of the n seeds none of whose
        runs diverged, and in median, lowest and highest those that did count as infinitely bad.
    """
    rows = [
        row
        for arm in study.arms.values()
        for axis in ablated_axes(arm)
        for row in _axis_rows(study, choices, arm, axis)
    ]
    columns = ["arm", "axis", "level", "base", "at", "tune", *_SUMMARY, *_DIFFERENCE, "diverged", *_RANGE]
    return pd.DataFrame(rows, columns=columns)


_SUMMARY = ("n", "mean", "sd", "low", "high")
_DIFFERENCE = ("pairs", "difference", "difference_low", "difference_high")
_RANGE = ("median", "lowest", "highest")


def _axis_rows(study: Study, choices: Choices, arm: Arm, axis: str) -> Iterator[dict[str, Any]]:
    base = base_level(arm, axis)
    modes: tuple[At, ...] = ("best", "fixed") if arm.tuned else ("best",)
    for at in modes:
        base_cells = level_cells(study, arm.name, axis, base)
        reference = _level_scores(study, choices, base_cells, at)
        for level in arm.levels(axis):
            cells = level_cells(study, arm.name, axis, level)
            scores = _level_scores(study, choices, cells, at)
            is_base = is_level(axis, level, base)
            known = _finite(scores)
            moved = paired_difference(known, _finite(reference))
            if not all(_survived(study, choices, side, at) for side in (cells, base_cells)):
                moved = replace(moved, low=math.nan, high=math.nan)  # as in `comparisons`: guesses have no spread
            yield {
                "arm": arm.name,
                "axis": axis,
                "level": level,
                "base": is_base,
                "at": at,
                "tune": _tunes(study, choices, cells, at),
                **_fields(_SUMMARY, summarize(list(known.values()))),
                **(_fields(_DIFFERENCE, moved) if not is_base else {}),
                "diverged": _diverged(study, choices, cells, at),
                **({"median": median(scores.values()), **_ends(scores)} if scores else {}),
            }


def _finite(scores: Mapping[int, float]) -> dict[int, float]:
    """Those of the seeds none of whose runs diverged, where a diverged one has no finite score."""
    return {seed: score for seed, score in scores.items() if math.isfinite(score)}


def _ends(scores: Mapping[int, float]) -> dict[str, float]:
    return {"lowest": min(scores.values()), "highest": max(scores.values())}


def base_level(arm: Arm, axis: str) -> Any:
    """The arm's own value of an axis; the first level where a full grid does not list it."""
    levels = arm.levels(axis)
    return next((level for level in levels if is_level(axis, level, arm.base.get(axis))), levels[0])


def is_level(axis: str, one: Any, other: Any) -> bool:
    """Whether two values of an axis are one level; 1 and 1.0 are."""
    return key_of({axis: one}) == key_of({axis: other})


def _fields(names: tuple[str, ...], summary: Summary) -> dict[str, float]:
    values = {
        "n": summary.n,
        "pairs": summary.n,
        "mean": summary.mean,
        "difference": summary.mean,
        "sd": summary.sd,
    }
    values |= {"low": summary.low, "difference_low": summary.low}
    values |= {"high": summary.high, "difference_high": summary.high}
    return {name: values[name] for name in names}


def _level_scores(study: Study, choices: Choices, cells: list[Cell], at: At) -> dict[int, float]:
    """Test error of each seed (%), or loss, averaged over the cells; seeds that lack a cell are left out.

    To percent first, then sums without rounding, as `scores.scored` has it: a difference in two tables is one number.
    """
    measure = reported(study)
    found = [
        {seed: measure.unit * score for seed, score in study.by_seed(cell.arm, cell.key, tune, measure.name).items()}
        for cell in cells
        if (tune := tune_at(study, choices, cell, at)) is not None
    ]
    if not found or len(found) < len(cells):
        return {}
    seeds = set.intersection(*map(set, found))
    return {seed: math.fsum(scores[seed] for scores in found) / len(found) for seed in sorted(seeds)}


def _tunes(study: Study, choices: Choices, cells: list[Cell], at: At) -> str:
    tunes = [tune_at(study, choices, cell, at) for cell in cells]
    return " / ".join(dict.fromkeys(tune_label(study, tune, name=False) for tune in tunes))


def _diverged(study: Study, choices: Choices, cells: list[Cell], at: At) -> int:
    return sum(int((rows["status"] == "diverged").sum()) for rows in _runs(study, choices, cells, at))


def _survived(study: Study, choices: Choices, cells: list[Cell], at: At) -> bool:
    """Whether there is a seed none of whose runs diverged."""
    alive = [set(rows.loc[rows["status"] == "done", "seed"]) for rows in _runs(study, choices, cells, at)]
    return bool(alive and set.intersection(*alive))


def _runs(study: Study, choices: Choices, cells: list[Cell], at: At) -> list[pd.DataFrame]:
    tunes = [(cell, tune_at(study, choices, cell, at)) for cell in cells]
    return [study.finished(cell.arm, cell.key, tune) for cell, tune in tunes if tune is not None]


# ------------------------------------------------------------------------------------------------ inert axes


@dataclass(frozen=True)
class Inert:
    """Levels of an axis whose runs repeat those of the base level bit for bit."""

    arm: str
    axis: str
    base: Any
    levels: tuple[Any, ...]
    whole: bool
    """Whether every level of the axis does so: then the axis is inert."""
    pairs: int
    """How many pairs of runs were compared."""
    clipped: float
    """Share of recorded steps in which log P fell below ε (NaN where not recorded)."""
    power: float
    """The smallest recorded input power (NaN where not recorded)."""

    def sentence(self, study: Study) -> str:
        """The finding in words, with the reason where the records show one."""
        name = name_label(self.axis)
        base = value_label(self.base)
        levels = ", ".join(value_label(level) for level in self.levels)
        tuned = f"{tuned_name(study, self.arm)} and " if study.arms[self.arm].tuned else ""
        subject = f"{name} is inert" if self.whole else f"{name} = {levels} changes nothing"
        text = (
            f"{subject} ({study.arms[self.arm].label}): the runs at {name} = {levels} are bit-identical in "
            f"every metric to those at {name} = {base} ({self.pairs} pairs of runs, every {tuned}seed)."
        )
        return text + (self._reason() if self.axis == "eps" else "")

    def _reason(self) -> str:
        if np.isnan(self.clipped) or self.clipped > 0:
            return ""
        reason = " Reason: log P never fell below ε in any recorded step"
        if self.power > 0:
            reason += f" (the smallest recorded log P is {np.log(self.power):.2f})"
        return reason + ", so the maximum of the two is always log P."


def inert_levels(study: Study) -> list[Inert]:
    """Find levels that change no bit of any metric, at any tune or seed, whatever the other axes' levels.

    Diverged runs count too. A pair with a missing, failed or unreadable run is not compared, and a level
    needs at least one pair that trained to the end.
    """
    found = (_inert(study, arm, axis) for arm in study.arms.values() for axis in ablated_axes(arm))
    return [inert for inert in found if inert]


def _inert(study: Study, arm: Arm, axis: str) -> Inert | None:
    base = base_level(arm, axis)
    others = [level for level in arm.levels(axis) if not is_level(axis, level, base)]
    same, pairs, runs = [], 0, set()
    for level in others:
        found = [
            _digests(study, reference).join(_digests(study, cell).add_suffix("_2"), how="inner")
            for reference, cell in _matched(study, arm, axis, base, level)
        ]
        joined = pd.concat(found) if found else pd.DataFrame(columns=["status"])
        if (joined["status"] == "done").any() and (joined["digest"] == joined["digest_2"]).all():
            same.append(level)
            pairs += len(joined)
            runs |= {*joined["run"], *joined["run_2"]}
    if not same:
        return None
    clipped, power = _clipping(study, sorted(runs)) if axis == "eps" else (np.nan, np.nan)
    return Inert(arm.name, axis, base, tuple(same), len(same) == len(others), pairs, clipped, power)


def _matched(study: Study, arm: Arm, axis: str, base: Any, level: Any) -> list[tuple[Cell, Cell]]:
    """Pairs of cells at the base and at `level` of the axis that agree in every other axis."""
    pairs = []
    for cell in level_cells(study, arm.name, axis, level):
        reference = study.find_cell(arm.name, {**cell.settings, axis: base})
        if reference is not None:
            pairs.append((reference, cell))
    return pairs


def _digests(study: Study, cell: Cell) -> pd.DataFrame:
    rows = study.scores[(study.scores["arm"] == cell.arm) & (study.scores["cell"] == cell.key)]
    return rows.set_index(["tune", "seed"])[["run", "status", "digest"]]


def _clipping(study: Study, runs: list[str]) -> tuple[float, float]:
    """Share of clipped steps and the smallest input power over the layer records of `runs`."""
    records = pd.concat([study.layers(run) for run in runs])
    values = records["value"].groupby(records["quantity"])
    none = pd.Series(dtype=float)
    clipped = values.get_group("clipped") if "clipped" in values.groups else none
    power = values.get_group("input_power") if "input_power" in values.groups else none
    return float(clipped.mean()), float(power.min())
