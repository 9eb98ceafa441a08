"""Comparisons in words and as a table: the primary test first, then what else stands after Holm's correction.

frame = compare(study)
for sentence in primary_sentences(study, frame):
    print(sentence)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from insgd_lab.analysis.comparisons import ALPHA
from insgd_lab.analysis.labels import MISSING, number, signed
from insgd_lab.analysis.primary import Primary, primary_of
from insgd_lab.analysis.runs import Study
from insgd_lab.analysis.selection import tuned_name
from insgd_lab.analysis.tables import Column, Table, count

__all__ = ["comparisons_table", "exploratory_sentences", "introduction", "p_text", "primary_sentences"]

_TESTS = {
    "paired-t": "the paired t-test by seed",
    "welch": "Welch's t-test",
    "wilcoxon": "the Wilcoxon signed-rank test",
}
_METRICS = {
    "test_error": "final test error",
    "best_test_error": "test error of the epoch that was best on the test set",
    "test_loss": "final test loss",
    "val_error": "final validation error",
    "val_loss": "final validation loss",
}
_WORDS = {
    "lower": "lower",
    "higher": "higher",
    "lower by less than the margin": "lower, and",
    "higher by less than the margin": "higher, and",
    "equivalent": "",
    "unresolved": "not told apart",
    "untested": "not tested: it takes two pairs that differ",
}


def introduction(study: Study, frame: pd.DataFrame) -> str:
    """What was fixed beforehand, what is exploratory, and what p-values are corrected for."""
    primary = primary_of(study)
    what = f"{_TESTS[primary.test]} of the {_METRICS[primary.metric]}"
    who = study.arms[primary.arm].label if primary.arm else "every other arm"
    against = f"{who} against {study.arms[primary.baseline].label}" if primary.baseline else "of one arm"
    fixed = (
        f"The study file fixes the primary test: {what}, {against}."
        if primary.declared
        else f"The study file fixes no primary test ([analysis] would), so it is the usual one: {what}, {against}."
    )
    firsts = int((frame["role"] == "primary").sum())
    others = f"corrected over all {_tests(len(frame))} of this page, " if len(frame) > firsts else ""
    return (
        f"Made from the numbers by program. {fixed} Its p-values are corrected by Holm's method over {_tests(firsts)}; "
        f"all else is exploratory, {others}and what has no p-value is a description."
    )


def _tests(number_of: int) -> str:
    return f"{number_of} comparison{'' if number_of == 1 else 's'}"


def primary_sentences(study: Study, frame: pd.DataFrame) -> list[str]:
    """One sentence a primary comparison, with what these seeds could have found."""
    primary = primary_of(study)
    rows = frame[frame["role"] == "primary"].to_dict("records")
    return [f"{_sentence(study, primary, row)}{_detectable(primary, row)}." for row in rows]


def exploratory_sentences(study: Study, frame: pd.DataFrame) -> list[str]:
    """How many of the other comparisons stand after correction, and each of these."""
    primary = primary_of(study)
    others = frame[frame["role"] != "primary"]
    if others.empty:
        return []
    stand = others[others["p_holm"] < ALPHA]
    same = others[others["p_equivalence_corrected"] < ALPHA]
    verb = "stands" if len(stand) == 1 else "stand"
    told = f"Of {_tests(len(others))} {len(stand)} {verb} at {ALPHA:g} after correction"
    if primary.margin is not None:
        told += f", and {len(same)} {'is' if len(same) == 1 else 'are'} equivalent within {_margin(primary)}"
    shown = others.loc[[*stand.index, *same.index.difference(stand.index)]].to_dict("records")
    return [f"{told}{':' if shown else '.'}", *(f"{_sentence(study, primary, row)}." for row in shown)]


def _margin(primary: Primary) -> str:
    margin = number(math.nan if primary.margin is None else primary.margin)
    return f"±{margin}{' percentage points' if primary.unit == 100 else ''}"


def _sentence(study: Study, primary: Primary, row: Mapping[Any, Any]) -> str:
    unit = " percentage points of" if primary.unit == 100 else " in"
    difference = f"{signed(row['difference'])}{unit} {_METRICS[primary.metric]}"
    if math.isnan(row["difference"]):
        difference = f"no mean difference in {_METRICS[primary.metric]}, as a run has none"
    span = f"{_interval_name(primary)} {signed(row['low'])} to {signed(row['high'])}, "
    span = "" if math.isnan(row["low"]) else span
    corrected = row["p_primary"] if row["role"] == "primary" else row["p_holm"]
    p = "" if math.isnan(row["p"]) else f"; {_equation(row['p'])}, corrected {p_text(corrected)}"
    lost = _lost(row)
    return (
        f"{_who(study, row, 'arm', 'setting')}, against {_who(study, row, 'reference_arm', 'reference')}"
        f"{_at(study, row)}: {difference} ({span}{_sample(row)}){p}: {_judged(primary, row)}{lost}"
    )


def _interval_name(primary: Primary) -> str:
    """Wilcoxon's test has no interval of a mean, so that of the paired t-test stands beside it."""
    return "for orientation the paired 95 % t-interval" if primary.test == "wilcoxon" else "95 % interval"


def _sample(row: Mapping[Any, Any]) -> str:
    return f"{row['n']} and {row['n_reference']} runs" if row["test"] == "welch" else f"{row['pairs']} pairs"


def _judged(primary: Primary, row: Mapping[Any, Any]) -> str:
    """The verdict; where a margin was stated also whether a difference as large is ruled out, and by what."""
    word = _WORDS[row["verdict"]]
    corrected = row["p_equivalence_corrected"]
    if math.isnan(corrected):
        return word
    within = f"equivalent within {_margin(primary)}"
    inner = "" if math.isnan(row["inner_low"]) else f"90 % interval {_span(row['inner_low'], row['inner_high'])}, "
    by = f"({inner}{_equation(row['p_equivalence'])}, corrected {p_text(corrected)})"
    said = within if corrected < ALPHA else f"not shown to be {within}"
    joint = " " if word.endswith("and") else ", " if word else ""
    return f"{word}{joint}{said} {by}"


def _who(study: Study, row: Mapping[Any, Any], arm: str, setting: str) -> str:
    plain = row[setting] in ("base", "defaults", "")
    return study.arms[row[arm]].label + ("" if plain else f" ({row[setting]})")


def _at(study: Study, row: Mapping[Any, Any]) -> str:
    arm = study.arms[row["arm"]]
    if not arm.tuned:
        return ""
    tuned = tuned_name(study, arm.name)
    return f", each at its own best {tuned}" if row["at"] == "best" else f", at the fixed {tuned}"


def _lost(row: Mapping[Any, Any]) -> str:
    """What the survivors alone would say, where a run diverged."""
    if not row["diverged"] and not row["reference_diverged"]:
        return ""
    lost = f"{row['diverged']} of its runs and {row['reference_diverged']} of the others diverged"
    if math.isnan(row["survivor_difference"]):
        return f" ({lost}, which leaves nothing to compare)"
    if row["test"] == "welch":
        return f" ({lost}; the means of those that survived differ by {signed(row['survivor_difference'])})"
    return f" ({lost}; the {row['survivor_pairs']} pairs that survived differ by {signed(row['survivor_difference'])})"


def _detectable(primary: Primary, row: Mapping[Any, Any]) -> str:
    if math.isnan(row["detectable"]):
        return ""
    spread = "scores" if primary.test == "welch" else "differences"
    if primary.unit == 100 and row["detectable"] > 100:
        return f". So many seeds, with {spread} spread as these are, can find no difference of 100 points in one test"
    found = f"{number(round(row['detectable'], 2))}{' percentage points' if primary.unit == 100 else ''}"
    return f". So many seeds, with {spread} spread as these are, find {found} in 4 of 5 single tests"


def _equation(p: float) -> str:
    return f"p {p_text(p)}".replace("<", "< ") if p < 0.001 else f"p = {p_text(p)}"


def p_text(p: float) -> str:
    """A p-value to two digits: 0.25, 0.031, <0.001."""
    if math.isnan(p):
        return MISSING
    return "<0.001" if p < 0.001 else f"{p:.2f}" if p >= 0.1 else f"{p:.2g}"


# ------------------------------------------------------------------------------------------------ the table


def comparisons_table(study: Study, frame: pd.DataFrame) -> Table:
    """Every comparison: the difference, its tests, its size, and what so many seeds could have found."""
    primary = primary_of(study)
    unit = " (points)" if primary.unit == 100 else ""
    named = frame.assign(
        who=[_who(study, row, "arm", "setting") for row in frame.to_dict("records")],
        against=[_who(study, row, "reference_arm", "reference") for row in frame.to_dict("records")],
        corrected=frame["p_primary"].where(frame["role"] == "primary", frame["p_holm"]),
    )
    columns = (
        Column("compared", ("who",)),
        Column("against", ("against",)),
        Column("role", ("role",)),
        *((Column("tuned", ("at",)),) if study.tuned else ()),
        Column(f"difference{unit}", ("difference",), signed, True),
        Column("95 % interval", ("low", "high"), _span, True),
        Column("p", ("p",), p_text, True),
        Column("corrected", ("corrected",), p_text, True),
        Column("verdict", ("verdict",)),
        *(_equivalence_columns(primary) if primary.margin is not None else ()),
        *((_RUNS,) if primary.test == "welch" else (Column("pairs", ("pairs",), count, True),)),
        Column("Hedges' g", ("g", "g_low", "g_high"), _size, True),
        Column("chance of a better run", ("improvement", "improvement_low", "improvement_high"), _chance, True),
        Column("detectable", ("detectable",), _at_most(primary), True),
    )
    return Table("comparisons", _caption(study, primary, frame), named, columns)


_RUNS = Column("runs", ("n", "n_reference"), lambda n, other: f"{count(n)} and {count(other)}", True)


def _equivalence_columns(primary: Primary) -> tuple[Column, ...]:
    return (
        Column("90 % interval", ("inner_low", "inner_high"), _span, True),
        Column(f"p within {_margin(primary)}", ("p_equivalence",), p_text, True),
        Column("corrected (equivalence)", ("p_equivalence_corrected",), p_text, True),
    )


def _at_most(primary: Primary) -> Callable[[float], str]:
    """No error differs from another by more than 100 points, whatever a t-distribution says of two seeds."""
    return lambda value: ">100" if primary.unit == 100 and value > 100 else _plain(value)


def _caption(study: Study, primary: Primary, frame: pd.DataFrame) -> str:
    least = frame["smallest_p"].min()
    ranks = f" A Wilcoxon test of so few pairs cannot get below p = {p_text(least)}." if least >= 0.01 else ""
    return (
        f"Differences in {_METRICS[primary.metric]}, negative where the first is lower, that is better: "
        f"{_TESTS[primary.test]}; p corrected by Holm's method, primary ones among themselves, others over all. "
        f"{_detectable_by(primary)}{_equivalence_note(primary)}{ranks} "
        f"{_beside(primary)}, and what the runs that survived say alone."
    )


def _detectable_by(primary: Primary) -> str:
    if primary.test == "welch":
        return "Detectable: found with power 0.8 in a single test by so many runs of either, spread as these are."
    return "Detectable: found with power 0.8 in a single test by so many pairs whose differences spread as these do."


def _equivalence_note(primary: Primary) -> str:
    """What is needed to read the columns of equivalence, and which interval is not of the named test."""
    orientation = " The intervals, g and detectable differences are those of the paired t-test, for orientation."
    note = orientation if primary.test == "wilcoxon" else ""
    if primary.margin is None:
        return note
    kind = "Welch tests" if primary.test == "welch" else "paired t-tests"
    return (
        f"{note} Equivalent: two one-sided {kind} rule out a difference of {_margin(primary)} or more, p corrected "
        "likewise; before correction that is so where the 90 % interval lies within."
    )


def _beside(primary: Primary) -> str:
    others = {"paired-t": "Welch's and Wilcoxon's tests", "welch": "the paired t-test and Wilcoxon's test"}
    return f"The CSV has {others.get(primary.test, 'the t-tests')} beside it"


def _span(low: float, high: float) -> str:
    return MISSING if math.isnan(low) else f"{signed(low)} to {signed(high)}"


def _size(value: float, low: float, high: float) -> str:
    return MISSING if math.isnan(value) else f"{signed(value)} ({signed(low)} to {signed(high)})"


def _chance(value: float, low: float, high: float) -> str:
    return MISSING if math.isnan(value) else f"{value:.2f} ({low:.2f} to {high:.2f})"


def _plain(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:.2f}"
