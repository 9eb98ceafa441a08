"""Comparisons in words and as a table: the primary test first, then what else stands after Holm's correction.

family = family_of(study)
for sentence in primary_sentences(study, family.comparisons):
    print(sentence)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from insgd_lab.analysis.comparisons import ALPHA
from insgd_lab.analysis.effects import Inert, base_level
from insgd_lab.analysis.family import KINDS, Family
from insgd_lab.analysis.labels import (
    MISSING,
    name_label,
    number,
    p_equation,
    p_text,
    p_words,
    signed,
    value_label,
)
from insgd_lab.analysis.primary import Change, Primary, changes_of, primary_of
from insgd_lab.analysis.runs import Study
from insgd_lab.analysis.selection import Choices, better_cell, choose, edge_words, tuned_name
from insgd_lab.analysis.tables import Column, Table, count

__all__ = [
    "changed_primary",
    "comparisons_table",
    "exploratory_sentences",
    "furthest_sentences",
    "introduction",
    "primary_sentences",
]

_TESTS = {
    "paired-t": "the paired t-test by seed",
    "welch": "Welch's t-test",
    "wilcoxon": "the Wilcoxon signed-rank test",
}
_WORDS = {
    "lower": "lower (better)",
    "higher": "higher (worse)",
    "lower by less than the margin": "lower (better), and",
    "higher by less than the margin": "higher (worse), and",
    "equivalent": "",
    "unresolved": "not told apart",
    "untested": "not tested: it takes two pairs or more, whose differences spread",
}


def introduction(study: Study, family: Family) -> str:
    """What was fixed beforehand, what is exploratory, and what p-values are corrected for."""
    primary = primary_of(study)
    usual = "no primary test ([analysis] would), so it is the usual one"
    verb = "now names" if changes_of(study) and primary.declared else "fixes"
    fixed = f"The study file {verb} {'the primary test' if primary.declared else usual}: {_named(study, primary)}."
    frame = family.comparisons
    changed = changed_primary(study)
    return " ".join(
        part
        for part in (
            f"Made from the numbers by program. {fixed}",
            changed,
            f"{'All' if changed else _primary_corrected(frame)} is exploratory{_corrected_over(family)}. Intervals are "
            "each by itself, without correction; what has no p-value is a description.",
        )
        if part
    )


def _primary_corrected(frame: pd.DataFrame) -> str:
    """What the p-values of the primary test are corrected for; one alone is not."""
    firsts = int(frame.loc[frame["role"] == "primary", "p"].notna().sum())
    if firsts < 2:
        return "It is a single test, so nothing is corrected there; all else" if firsts else "All else"
    return f"Its p-values are corrected by Holm's method over {_tests(firsts)}; all else"


def _corrected_over(family: Family) -> str:
    """How many statements the family of the page has, of which kinds."""
    found = family.statements
    counts = found.groupby(["part", "kind"], sort=False).size()
    if len(found) < 2:
        return ""
    each = [kind.counted(counts[kind.part, kind.p]) for kind in KINDS if (kind.part, kind.p) in counts]
    of = f": {', '.join(each)}" if len(each) > 1 else ""
    primary = family.comparisons["role"] == "primary"
    among = ", the primary ones among them" if family.comparisons.loc[primary, "p"].notna().any() else ""
    return (
        f", corrected by Holm's method over all {len(found)} statements of this page that have a p-value{among}{of}; "
        "what is picked as the furthest of many is judged so too, since all of them count"
    )


def _named(study: Study, primary: Primary) -> str:
    """A primary test in words; an arm that is gone since by its name."""
    labels = {name: arm.label for name, arm in study.arms.items()}
    who = labels.get(primary.arm, primary.arm) if primary.arm else "every other arm"
    against = f"{who} against {labels.get(primary.baseline, primary.baseline)}" if primary.baseline else "of one arm"
    margin = f", with a margin of {_margin(primary)}" if primary.margin is not None else ""
    return f"{_TESTS[primary.test]} of the {primary.measure.words}, {against}{margin}"


def changed_primary(study: Study) -> str | None:
    """What to say of a primary test that was changed when results were there; None if it was not."""
    changes = changes_of(study)
    if not changes:
        return None
    each = "; ".join(f"{_was(study, change)} when {_runs(change.finished)} finished" for change in changes)
    return (
        f"The primary test was changed after results were there: {each}. So the one named now is judged and corrected "
        "like what is exploratory."
    )


def _was(study: Study, change: Change) -> str:
    usual = "" if change.before.declared else "none was fixed, so it was the usual one, "
    return f"{usual or 'it was '}{_named(study, change.before)},"


def _runs(number_of: int) -> str:
    return "1 run had" if number_of == 1 else f"{number_of} runs had"


def _tests(number_of: int) -> str:
    return f"{number_of} comparison{'' if number_of == 1 else 's'}"


def primary_sentences(study: Study, frame: pd.DataFrame, choices: Choices | None = None) -> list[str]:
    """One sentence a primary comparison, with its caveats and what these seeds could have found.

    Args:
        study: read from disk.
        frame: what `compare` returned.
        choices: what `selection.choose` chose; chosen anew if None.
    """
    primary, choices = primary_of(study), choose(study) if choices is None else choices
    rows = frame[frame["role"] != "exploratory"].to_dict("records")
    return [
        f"{_sentence(study, primary, row, alone=len(rows) == 1 and row['role'] == 'primary')}"
        f"{_caveats(study, choices, row)}{_detectable(primary, row)}."
        for row in rows
    ]


def _caveats(study: Study, choices: Choices, row: Mapping[Any, Any]) -> str:
    """Where the setting of either side ends what was tried, and where the arm has a better cell than this one."""
    found = []
    for name in (row["arm"], row["reference_arm"]):
        cell = study.shown_cell(name)
        if cell and (words := edge_words(study, choices, cell)):
            whose = "its" if name == row["arm"] else f"{study.arms[name].label}'s"
            found.append(f"{whose} {words}, so a better one may lie beyond")
    cell = study.shown_cell(row["arm"])
    if cell and (best := better_cell(study, choices, cell)):
        found.append(f"its best cell by validation is {study.cell_label(best)}, which is not the one compared")
    return "".join(f"; {caveat}" for caveat in found)


def exploratory_sentences(study: Study, frame: pd.DataFrame) -> list[str]:
    """How many of the other comparisons stand after correction, and each of these; how many could not be tested."""
    primary = primary_of(study)
    mine = frame[frame["role"] == "exploratory"]
    others = mine[mine["p"].notna()]
    lacking = len(mine) - len(others)
    untested = f"{_tests(lacking)} could not be tested, for want of a mean, or of two pairs whose differences spread"
    if others.empty:
        return [f"{untested.capitalize()}."] if lacking else []
    stand = others[others["p_holm"] < ALPHA]
    same = others[others["p_equivalence_corrected"] < ALPHA]
    verb = "stands" if len(stand) == 1 else "stand"
    told = f"Of {_tests(len(others))} {len(stand)} {verb} at {ALPHA:g} after correction"
    if primary.margin is not None:
        told += f", and {len(same)} {'is' if len(same) == 1 else 'are'} equivalent within {_margin(primary)}"
    told += f"; {untested} and are not counted" if lacking else ""
    shown = others.loc[[*stand.index, *same.index.difference(stand.index)]].to_dict("records")
    return [f"{told}{':' if shown else '.'}", *(f"{_sentence(study, primary, row)}." for row in shown)]


def furthest_sentences(study: Study, frame: pd.DataFrame, inert: Sequence[Inert]) -> list[str]:
    """Of each ablated axis the level whose difference from the base is largest, with the p of that comparison.

    Args:
        study: read from disk.
        frame: what `compare` returned.
        inert: axes of these that do nothing at all are left out.
    """
    whole = {(one.arm, one.axis) for one in inert if one.whole}
    axes = frame[frame["kind"] == "level"].groupby(["arm", "axis"], sort=False)
    return [
        _furthest(study, str(arm), str(axis), rows)
        for (arm, axis), rows in axes
        if (arm, axis) not in whole and rows["difference"].notna().any()
    ]


def _furthest(study: Study, arm: str, axis: str, rows: pd.DataFrame) -> str:
    primary, spec = primary_of(study), study.arms[arm]
    base, tuned = value_label(base_level(spec, axis)), tuned_name(study, arm)
    known = rows[rows["difference"].notna()]
    parts = {
        at: _level_words(primary, own.iloc[int(own["difference"].abs().argmax())].to_dict())
        for at in ("best", "fixed")
        if len(own := known[known["at"] == at])
    }
    words = {"best": f", each at its own best {tuned}," if spec.tuned else "", "fixed": f" at the fixed {tuned}"}
    what, of = "error" if primary.measure.is_error else "loss", f"{name_label(axis)} = {base}"
    each = (f"the level whose {what} differs most from that of {of}{words[at]} is {part}" for at, part in parts.items())
    return f"{name_label(axis)} ({spec.label}): {_lost_levels(rows)}{'; '.join(each)}."


def _lost_levels(rows: pd.DataFrame) -> str:
    """The levels without a mean, for runs of theirs diverged and have no loss: they may be the furthest of all."""
    lost = rows[rows["difference"].isna() & (rows["diverged"] > 0)]
    levels = list(dict.fromkeys(f"{value_label(row['level'])} (of {row['n']} runs {row['diverged']} diverged)"
                                for row in lost.to_dict("records")))  # fmt: skip
    return f"no mean has {', '.join(levels)}; of the others, " if levels else ""


def _level_words(primary: Primary, row: Mapping[Any, Any]) -> str:
    level, difference = value_label(row["level"]), _difference(primary, row)
    if math.isnan(row["p"]):
        return f"{level}, {difference} ({_sample(row)}, so no test)"
    span = "" if math.isnan(row["low"]) else f"{_interval_name(primary)} {_span(primary)(row['low'], row['high'])}, "
    tested = p_words(row["p"], row["p_holm"])
    return f"{level}, {difference} ({span}{_sample(row)}); {tested}: {_judged(primary, row)}"


def _difference(primary: Primary, row: Mapping[Any, Any]) -> str:
    unit = " percentage points of" if primary.measure.is_error else " in"
    return f"{primary.measure.signed(row['difference'])}{unit} {primary.measure.words}"


def _margin(primary: Primary) -> str:
    margin = number(math.nan if primary.margin is None else primary.margin)
    return f"±{margin}{primary.measure.points}"


def _sentence(study: Study, primary: Primary, row: Mapping[Any, Any], alone: bool = False) -> str:
    difference = _difference(primary, row)
    if math.isnan(row["difference"]):
        why = "a run has none" if row["pairs"] else "no pair of runs has finished"
        difference = f"no mean difference in {primary.measure.words}, as {why}"
    span = f"{_interval_name(primary)} {_span(primary)(row['low'], row['high'])}, "
    span = "" if math.isnan(row["low"]) else span
    corrected = row["p_primary"] if row["role"] == "primary" else row["p_holm"]
    p = "" if math.isnan(row["p"]) else f"; {p_equation(row['p']) if alone else p_words(row['p'], corrected)}"
    lost = _lost(primary, row)
    return (
        f"{_who(study, row, 'arm', 'setting')}, against {_who(study, row, 'reference_arm', 'reference')}"
        f"{_at(study, row)}: {difference} ({span}{_sample(row)}){p}: {_judged(primary, row)}{lost}"
    )


def _interval_name(primary: Primary) -> str:
    """Wilcoxon's test has no interval of a mean, so that of the paired t-test stands beside it."""
    return "for orientation the paired 95 % t-interval" if primary.test == "wilcoxon" else "95 % interval"


def _sample(row: Mapping[Any, Any]) -> str:
    if row["test"] == "welch":
        return f"{row['n']} and {row['n_reference']} runs"
    return f"{row['pairs']} pair{'' if row['pairs'] == 1 else 's'}"


def _judged(primary: Primary, row: Mapping[Any, Any]) -> str:
    """The verdict; where a margin was stated also whether a difference as large is ruled out, and by what."""
    word = _WORDS[row["verdict"]]
    if row["verdict"] == "untested" and math.isnan(row["difference"]) and row["diverged"] + row["reference_diverged"]:
        word = f"not tested, since a diverged run has no loss; by ranks alone, where it is the worst, {_by_ranks(row)}"
    corrected = row["p_equivalence_corrected"]
    if math.isnan(corrected):
        return word
    within = f"equivalent within {_margin(primary)}"
    span = _span(primary)(row["inner_low"], row["inner_high"])
    inner = "" if math.isnan(row["inner_low"]) else f"90 % interval {span}, "
    by = f"({inner}{p_words(row['p_equivalence'], corrected)})"
    said = within if corrected < ALPHA else f"not shown to be {within}"
    joint = " " if word.endswith("and") else ", " if word else ""
    return f"{word}{joint}{said} {by}"


def _by_ranks(row: Mapping[Any, Any]) -> str:
    """How often the arm is ahead; a description, for its p-value would be one outside the page's family."""
    return f"a run of it beats one of the others with chance {row['improvement']:.2f}"


def _who(study: Study, row: Mapping[Any, Any], arm: str, setting: str) -> str:
    plain = row[setting] in ("base", "defaults", "")
    return study.arms[row[arm]].label + ("" if plain else f" ({row[setting]})")


def _at(study: Study, row: Mapping[Any, Any]) -> str:
    arm = study.arms[row["arm"]]
    if not arm.tuned:
        return ""
    tuned = tuned_name(study, arm.name)
    return f", each at its own best {tuned}" if row["at"] == "best" else f", at the fixed {tuned}"


def _lost(primary: Primary, row: Mapping[Any, Any]) -> str:
    """What the survivors alone would say, where a run diverged."""
    if not row["diverged"] and not row["reference_diverged"]:
        return ""
    lost = f"{row['diverged']} of its runs and {row['reference_diverged']} of the others diverged"
    left = f"{primary.measure.signed(row['survivor_difference'])}{primary.measure.points}"
    if math.isnan(row["survivor_difference"]):
        return f" ({lost}, which leaves nothing to compare)"
    if row["test"] == "welch":
        return f" ({lost}; the means of those that survived differ by {left})"
    pairs = "pair that survived differs" if row["survivor_pairs"] == 1 else "pairs that survived differ"
    return f" ({lost}; the {row['survivor_pairs']} {pairs} by {left})"


def _detectable(primary: Primary, row: Mapping[Any, Any]) -> str:
    if math.isnan(row["detectable"]):
        return ""
    if primary.measure.is_error and row["detectable"] > 100:
        return (
            ". With this many seeds and this spread, not even 100 points of true difference would be found 4 times in 5"
        )
    found = number(round(row["detectable"], 2)) if primary.measure.is_error else primary.measure.text(row["detectable"])
    found += " points" if primary.measure.is_error else ""
    return f". With this many seeds and this spread, a true difference of {found} would be found 4 times in 5"


# ------------------------------------------------------------------------------------------------ the table


def comparisons_table(study: Study, frame: pd.DataFrame) -> Table:
    """Every comparison: the difference, its tests, its size, and what so many seeds could have found."""
    primary = primary_of(study)
    unit = " (points)" if primary.measure.is_error else ""
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
        Column(f"difference{unit}", ("difference",), primary.measure.signed, True),
        Column("95 % interval", ("low", "high"), _span(primary), True),
        Column("verdict", ("verdict",)),
        Column("p", ("p",), p_text, True),
        Column("corrected", ("corrected",), p_text, True),
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
        Column("90 % interval", ("inner_low", "inner_high"), _span(primary), True),
        Column(f"p within {_margin(primary)}", ("p_equivalence",), p_text, True),
        Column("corrected (equivalence)", ("p_equivalence_corrected",), p_text, True),
    )


def _at_most(primary: Primary) -> Callable[[float], str]:
    """No error differs from another by more than 100 points, whatever a t-distribution says of two seeds."""
    return lambda value: ">100" if primary.measure.is_error and value > 100 else primary.measure.text(value)


def _caption(study: Study, primary: Primary, frame: pd.DataFrame) -> str:
    least = frame["smallest_p"].min()
    few = 0.01 <= least < 1.0  # one pair has no such test
    ranks = f" A Wilcoxon test of so few pairs cannot get below p = {p_text(least)}." if few else ""
    return (
        f"Differences in {primary.measure.words}, negative where the first is lower, that is better: "
        f"{_TESTS[primary.test]}{_correction(frame)}. "
        f"{_detectable_by(primary)}{_equivalence_note(primary)}{ranks} "
        f"{_beside(primary)}, and what the runs that survived say alone."
    )


def _correction(frame: pd.DataFrame) -> str:
    """What p-values are corrected over; nothing where there is but one."""
    tested = frame[frame["p"].notna()]
    kinds = frame[["p", "p_equivalence"]].notna().sum().sum()
    if kinds < 2 and (tested["p"] == tested["p_holm"]).all():
        return ""
    others = "others over all that this page tests"
    firsts = int((tested["role"] == "primary").sum())
    if firsts:
        own = "primary ones among themselves" if firsts > 1 else "but the one primary p not at all"
        return f"; p corrected by Holm's method, {own}, {others}"
    return "; p corrected by Holm's method over all that this page tests"


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


def _span(primary: Primary) -> Callable[[float, float], str]:
    show = primary.measure.signed
    return lambda low, high: MISSING if math.isnan(low) else f"{show(low)} to {show(high)}"


def _size(value: float, low: float, high: float) -> str:
    return MISSING if math.isnan(value) else f"{signed(value)} ({signed(low)} to {signed(high)})"


def _chance(value: float, low: float, high: float) -> str:
    return MISSING if math.isnan(value) else f"{value:.2f} ({low:.2f} to {high:.2f})"
