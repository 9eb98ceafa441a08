"""Every comparison of a study in one table: which is better, by how much, and how sure one can be.

    frame = compare(load_study("runs/digits"))
    frame[["arm", "setting", "difference", "low", "high", "p", "p_holm", "verdict"]]

One row a statement: an arm against the baseline, or a level of an ablated axis against its base. The study's primary
test is labelled so, all else is exploratory, and `p_holm` corrects for all of them together; what a report tests beside
them joins in `family`. A diverged run counts with
the error of guessing, and as the worst where only ranks count; beside it stands what the survivors alone would say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from insgd_lab.analysis.effects import ablated_axes, base_level, is_level, level_cells
from insgd_lab.analysis.labels import describe
from insgd_lab.analysis.mean_tests import ALPHA, Scores, mean_test, mean_tests
from insgd_lab.analysis.primary import Primary, changes_of, primary_of
from insgd_lab.analysis.runs import Arm, Cell, Study
from insgd_lab.analysis.scores import once, scored
from insgd_lab.analysis.selection import At, Choices, choose
from insgd_lab.analysis.series import main_arms
from insgd_lab.analysis.statistics import holm, holm_together, probability_of_improvement, wilcoxon

__all__ = ["ALPHA", "Statement", "compare", "judged", "statements_of"]


@dataclass(frozen=True)
class Statement:
    """Which cells are compared with which; several cells are averaged seed by seed."""

    kind: str
    """"arm" against the baseline, "level" of an axis against its base, or "cell" against the arm's own first."""
    arm: str
    cells: tuple[Cell, ...]
    reference: tuple[Cell, ...]
    at: At
    axis: str = ""
    level: Any = None
    role: str = "exploratory"
    """"primary"; "changed" for what is called so since results were there; else "exploratory"."""


def statements_of(study: Study, primary: Primary) -> list[Statement]:
    """Every comparison that a report makes, the primary ones first.

    Arms are compared at their base cell, and also at every other cell whose settings the baseline has too. An arm
    without a base cell, as of grids "random" and "zip", is compared with a baseline of other settings only where the
    study file names it: its first cell is one of many, drawn or listed first, and does not stand for it. Levels of
    axes that move alone or are crossed in full are compared with the base level, at each one's own best tune and at the
    fixed one. Cells of other grids are compared with the arm's first.
    """
    arms = [arm for arm in main_arms(study) if arm.name != primary.baseline]
    found = [statement for arm in arms for statement in _arm_statements(study, arm, primary)]
    for arm in study.arms.values():
        found += [*_level_statements(study, arm), *_cell_statements(study, arm)]
    return sorted(found, key=lambda statement: statement.role == "exploratory")


def _arm_statements(study: Study, arm: Arm, primary: Primary) -> Iterator[Statement]:
    shown = study.shown_cell(arm.name)
    reference = study.shown_cell(primary.baseline) if primary.baseline else None
    if shown is None or reference is None or primary.baseline is None:
        return
    has_base, named = study.base_cell(arm.name) is not None, primary.arm == arm.name
    for cell in study.cells_of(arm.name):
        twin = study.find_cell(primary.baseline, cell.settings) if cell.settings else None
        if cell == shown and (has_base or named):
            fixed = "changed" if changes_of(study) else "primary"
            role = fixed if named or primary.arm is None else "exploratory"
            yield Statement("arm", arm.name, (cell,), (twin or reference,), "best", role=role)
        elif twin is not None:
            yield Statement("arm", arm.name, (cell,), (twin,), "best")


def _level_statements(study: Study, arm: Arm) -> Iterator[Statement]:
    modes: tuple[At, ...] = ("best", "fixed") if arm.tuned else ("best",)
    for axis in ablated_axes(arm):
        base = base_level(arm, axis)
        reference = tuple(level_cells(study, arm.name, axis, base))
        for level in arm.levels(axis):
            cells = tuple(level_cells(study, arm.name, axis, level))
            if cells and reference and not is_level(axis, level, base):
                yield from (Statement("level", arm.name, cells, reference, at, axis, level) for at in modes)


def _cell_statements(study: Study, arm: Arm) -> Iterator[Statement]:
    cells = study.cells_of(arm.name)
    if arm.grid not in ("one-at-a-time", "full"):
        yield from (Statement("cell", arm.name, (cell,), (cells[0],), "best") for cell in cells[1:])


# ------------------------------------------------------------------------------------------------ the table


def compare(study: Study, choices: Choices | None = None, level: float = 0.95) -> pd.DataFrame:
    """Compare all that the study compares; one row a statement.

    Errors and their differences are in percent and percentage points, losses as they are; a negative difference means
    that the arm is lower, that is better, than what it is compared with.

    Args:
        study: read from disk.
        choices: what `selection.choose` chose; chosen anew if None.
        level: coverage of the intervals, in (0, 1).

    Returns:
        What is compared: kind, arm, axis, level, setting, reference_arm, reference (in words), at, role ("primary";
        "changed" if it is so since results were there, and then judged and corrected like the rest; or "exploratory"),
        test, metric. How it came out: pairs, n, n_reference, mean, reference_mean, difference, low,
        high (t-interval: Welch's where that is the primary test, else paired by seed), p (of the primary test's kind;
        NaN where there are fewer than two pairs, or all differ by one amount, other than 0),
        p_primary (Holm over the primary statements alone), p_holm (Holm over all statements, those of equivalence
        among them; on the page of a report over all of that page, see `family`), verdict. Beside it:
        p_paired, p_welch, p_wilcoxon with its rank_lean (the sum of the ranks of higher differences less what chance
        expects) and smallest_p, g, g_low, g_high (Hedges', unpaired for Welch's test, else paired), g_unpaired,
        improvement, improvement_low, improvement_high (chance that a run of the arm beats one of the reference),
        detectable (the difference that so many pairs, or for Welch's test runs, with their sd find with power 0.8).
        Where a margin was stated: margin, p_equivalence, p_equivalence_holm (as p_holm), p_equivalence_corrected (by
        Holm over the primary statements for these, p_equivalence_holm for the rest; the verdict follows it), inner_low,
        inner_high (the 90 % interval, which lies within the margin exactly if p_equivalence is below 0.05),
        seeds_for_margin (how many seeds find a difference as large with power 0.8, spread as these are). And
        diverged, reference_diverged, and of the survivors: survivor_pairs, survivor_difference, survivor_low,
        survivor_high. Where no run of a side survived, whatever rests on a spread (intervals, g, equivalence,
        detectable differences) is NaN: its scores are guesses.

    Raises:
        ValueError: an impossible level.
        StudyError: the study's primary test names an arm that it does not have.
    """
    choices = choose(study) if choices is None else choices
    primary = primary_of(study)
    rows = [_row(study, choices, primary, one, level) for one in statements_of(study, primary)]
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    different, same = holm_together(frame["p"].to_numpy(dtype=float), frame["p_equivalence"].to_numpy(dtype=float))
    return judged(frame.assign(p_holm=different, p_equivalence_holm=same))


def judged(frame: pd.DataFrame) -> pd.DataFrame:
    """Judge every comparison by p_holm and p_equivalence_holm, the primary ones by Holm's correction over these alone.

    Args:
        frame: of `compare`; the two may have been corrected over more statements than these (see `family`).
    """
    is_primary = frame["role"] == "primary"
    of_difference, of_equivalence = (
        _alone(frame.loc[is_primary, name]).reindex(frame.index).where(is_primary, frame[f"{name}_holm"])
        for name in ("p", "p_equivalence")
    )
    columns = (of_difference, _directions(frame), of_equivalence)
    return frame.assign(
        p_primary=of_difference.where(is_primary),
        p_equivalence_corrected=of_equivalence,
        verdict=[_verdict(*values) for values in zip(*columns, strict=True)],
    )


def _alone(p: pd.Series) -> pd.Series:
    return pd.Series(holm(p.to_numpy(dtype=float)), p.index, dtype=float)


_COLUMNS = (
    "kind", "arm", "axis", "level", "setting", "reference_arm", "reference", "at", "role", "test", "metric",
    "pairs", "n", "n_reference", "mean", "reference_mean", "difference", "low", "high", "p", "p_primary", "p_holm",
    "verdict", "p_paired", "p_welch", "p_wilcoxon", "rank_lean", "smallest_p", "g", "g_low", "g_high", "g_unpaired",
    "improvement", "improvement_low", "improvement_high", "detectable",
    "margin", "p_equivalence", "p_equivalence_holm", "p_equivalence_corrected", "inner_low", "inner_high",
    "seeds_for_margin",
    "diverged", "reference_diverged", "survivor_pairs", "survivor_difference", "survivor_low", "survivor_high",
)  # fmt: skip


_OF_RUNS = (
    "low", "high", "g", "g_low", "g_high", "g_unpaired", "detectable", "p_equivalence", "inner_low", "inner_high",
)  # fmt: skip
"""What is said of the spread of runs: of a side none of whose runs survived, guesses in their place have none."""

_P = {"paired-t": "p_paired", "welch": "p_welch", "wilcoxon": "p_wilcoxon"}


def _row(study: Study, choices: Choices, primary: Primary, one: Statement, level: float) -> dict[str, Any]:
    side, reference = once(*(scored(study, choices, cells, one.at, primary) for cells in (one.cells, one.reference)))
    tests = {
        **mean_tests(side.scores, reference.scores, primary.test, primary.margin, level),
        **_rank_tests(side.ranks, reference.ranks, level),
    }
    if not side.survivors or not reference.survivors:
        tests = {name: value for name, value in tests.items() if name not in _OF_RUNS}
    left = mean_test(side.survivors, reference.survivors, primary.test, level)
    return {
        **_words(study, one),
        "test": primary.test,
        "metric": primary.metric,
        "n": len(side.scores),
        "n_reference": len(reference.scores),
        "mean": side.mean,
        "reference_mean": reference.mean,
        **tests,
        "p": tests.get(_P[primary.test], math.nan),
        "margin": math.nan if primary.margin is None else primary.margin,
        "diverged": side.diverged,
        "reference_diverged": reference.diverged,
        "survivor_pairs": len(side.survivors.keys() & reference.survivors.keys()),
        "survivor_difference": left.difference,
        "survivor_low": left.low,
        "survivor_high": left.high,
    }


def _words(study: Study, one: Statement) -> dict[str, Any]:
    reference = one.reference[0]
    single = len(one.cells) == 1
    return {
        "kind": one.kind,
        "arm": one.arm,
        "axis": one.axis,
        "level": one.level,
        "setting": study.cell_label(one.cells[0]) if single else describe({one.axis: one.level}),
        "reference_arm": reference.arm,
        "reference": study.cell_label(reference) if single else describe({one.axis: reference.settings[one.axis]}),
        "at": one.at,
        "role": one.role,
    }


def _rank_tests(scores: Scores, reference: Scores, level: float) -> dict[str, Any]:
    """What only ranks: diverged runs are infinitely bad."""
    ranked = wilcoxon(scores, reference)
    beats = probability_of_improvement(
        [-value for value in scores.values()], [-value for value in reference.values()], level
    )
    moved = ranked.pairs - ranked.zeros
    return {
        "p_wilcoxon": ranked.p,
        "rank_lean": ranked.statistic - moved * (moved + 1) / 4,
        "smallest_p": ranked.smallest_p,
        "improvement": beats.value,
        "improvement_low": beats.low,
        "improvement_high": beats.high,
    }


def _directions(frame: pd.DataFrame) -> pd.Series:
    """The sign of what was tested: of the mean difference, or where ranks were, or there is no mean, of the ranks' sum.

    The two may differ: many small wins and one diverged run lower the ranks and raise the mean.
    """
    return frame["difference"].where(frame["test"] != "wilcoxon").fillna(frame["rank_lean"])


def _verdict(p: float, difference: float, equivalence: float) -> str:
    """Whether the arm is "lower" or "higher", or that is "unresolved"; "equivalent" if the margin says so."""
    if math.isnan(p):
        return "untested"
    small = not math.isnan(equivalence) and equivalence < ALPHA
    if p >= ALPHA or difference == 0:
        return "equivalent" if small else "unresolved"
    return ("lower" if difference < 0 else "higher") + (" by less than the margin" if small else "")
