"""Who is better, and what next: the few sentences that a report's findings begin with.

    for sentence in in_short(study, choose(study), family_of(study).comparisons):
        print(sentence)

They follow the verdicts of `comparisons`, which are corrected for how much is tested, and claim no more than these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from insgd_lab.analysis.labels import number
from insgd_lab.analysis.primary import Primary, changes_of, primary_of
from insgd_lab.analysis.runs import Study
from insgd_lab.analysis.selection import Choices, edge_words

__all__ = ["in_short"]

Row = Mapping[Any, Any]
Detail = Callable[[Primary, Row], str]
SHOWN = 4
"""Arms of which the summary gives intervals."""


def in_short(study: Study, choices: Choices, frame: pd.DataFrame) -> list[str]:
    """What came out of the primary test, what it would take to know more, and which learning rates to widen first.

    Args:
        study: read from disk.
        choices: what `selection.choose` chose.
        frame: of `comparisons.compare`, or the corrected one of a `family.Family`.
    """
    primary = primary_of(study)
    rows = frame[frame["role"] != "exploratory"].to_dict("records")
    if not rows:
        return []
    outcome = _one(study, primary, rows[0]) if len(rows) == 1 else _several(study, primary, rows)
    changed = "By a test that was chosen when results were there: " if changes_of(study) else ""
    sentences = [f"{changed}{outcome}.", _power(primary, rows), *_widen(study, choices, rows)]
    return [sentence for sentence in sentences if sentence]


# ------------------------------------------------------------------------------------------------ who is better


def _one(study: Study, primary: Primary, row: Row) -> str:
    who, other = (study.arms[row[key]].label for key in ("arm", "reference_arm"))
    of, verdict = primary.measure.words, row["verdict"]
    if verdict == "untested":
        return f"Not known: {who} could not be tested against {other} ({of})"
    if verdict == "equivalent":
        return f"{who} is equivalent to {other} within {_margin(primary)} ({of})"
    if verdict == "unresolved":
        return f"Undecided: {who} {_may_be(primary, row)} than {other} ({of}){_not_same(primary, row)}"
    better = "better" if verdict.startswith("lower") else "worse"
    less = f", by less than the margin of {_margin(primary)}" if verdict.endswith("margin") else ""
    return f"{who} is {better} than {other}{_by(primary, row)} ({of}){less}"


def _several(study: Study, primary: Primary, rows: Sequence[Row]) -> str:
    """The arms by what was found of them."""
    names = dict.fromkeys(study.arms[row["reference_arm"]].label for row in rows)
    other, of = " or ".join(names), primary.measure.words
    undecided = [row for row in rows if row["verdict"] == "unresolved"]
    if len(undecided) == len(rows):
        each = _listed(study, primary, rows, _open, "; ")
        return f"Undecided: none of {len(rows)} arms is told apart from {other} ({of}): {each}"
    kinds: dict[str, tuple[str, Detail | None]] = {
        "better": ("lower", _by),
        "worse": ("higher", _by),
        f"equivalent within {_margin(primary)}": ("equivalent", None),
        "undecided": ("unresolved", _open),
        "not tested": ("untested", None),
    }
    told = [
        f"{words}: {_listed(study, primary, found, how)}"
        for words, (start, how) in kinds.items()
        if (found := [row for row in rows if row["verdict"].startswith(start)])
    ]
    return f"Of {len(rows)} arms against {other} ({of}), {'; '.join(told)}"


def _open(primary: Primary, row: Row) -> str:
    return f" {_may_be(primary, row)}"


def _listed(study: Study, primary: Primary, rows: Sequence[Row], how: Detail | None, joint: str = ", ") -> str:
    """The arms' labels, each with its numbers where there are few of them."""
    shown = how if len(rows) <= SHOWN else None
    return joint.join(f"{study.arms[row['arm']].label}{shown(primary, row) if shown else ''}" for row in rows)


def _may_be(primary: Primary, row: Row) -> str:
    """How much better or worse the interval leaves open, as far as the test's own interval can say it."""
    low, high, text = row["low"], row["high"], primary.measure.text
    if math.isnan(low) or primary.test == "wilcoxon":
        return "is not known to be better or worse"
    if low < 0 < high:
        return f"may be up to {text(-low)}{_points(primary)} better or {text(high)} worse"
    better, near, far = ("better", -high, -low) if high <= 0 else ("worse", low, high)
    own = f"{text(near)} to {text(far)}{_points(primary)} {better}"
    alone = f"would be {own} by its interval alone, which does not stand after correction"
    return f"{alone}, so it is not known to be {better}"


def _not_same(primary: Primary, row: Row) -> str:
    if primary.margin is None or math.isnan(row["p_equivalence"]):
        return ""
    return f"; nor are the two shown to be equivalent within {_margin(primary)}"


def _by(primary: Primary, row: Row) -> str:
    """By how much, if the mean leans to the side of the verdict, as ranks need not."""
    difference, text = row["difference"], primary.measure.text
    if primary.test == "wilcoxon" or math.isnan(difference):
        return " by ranks"
    low, high = sorted((row["low"], row["high"])) if difference > 0 else sorted((-row["low"], -row["high"]))
    return f" by {text(abs(difference))} ({text(low)} to {text(high)}){_points(primary)}"


def _points(primary: Primary) -> str:
    return " points" if primary.measure.is_error else ""


def _margin(primary: Primary) -> str:
    return f"±{number(primary.margin or 0.0)}{_points(primary)}"


# ------------------------------------------------------------------------------------------------ what next


def _power(primary: Primary, rows: Sequence[Row]) -> str:
    """What would settle what is undecided; nothing where all is decided, or where the test is not of means."""
    left = [row for row in rows if row["verdict"] == "unresolved" and not math.isnan(row["detectable"])]
    if not left or primary.test == "wilcoxon":
        return ""
    needed = max((n for row in left if not math.isnan(n := row["seeds_for_margin"])), default=0.0)
    least = min(min(row["n"], row["n_reference"]) if primary.test == "welch" else row["pairs"] for row in left)
    if primary.margin is not None and needed > least:
        found = f"{number(primary.margin)}{_points(primary)} (the stated margin)"
        return f"With this spread about {needed:.0f} seeds would find {found} in 4 of 5 such tests, before correction."
    sizes = [row["detectable"] for row in left]
    if primary.measure.is_error and max(sizes) > 100:
        return "So few seeds, with this spread, can find no difference at all that is possible."
    low, high = (primary.measure.text(size) for size in (min(sizes), max(sizes)))
    span = f"{low if low == high else f'{low} to {high}'}{_points(primary)}"
    each = "" if low == high else " (depending on the arm)"
    return (
        f"With {least:.0f} seeds and this spread, a true difference of {span}{each} would be found 4 times in 5, "
        "before correction."
    )


def _widen(study: Study, choices: Choices, rows: Sequence[Row]) -> Iterator[str]:
    """The arms compared whose chosen setting ends what was tried, on either side."""
    names = dict.fromkeys(name for key in ("reference_arm", "arm") for name in (row[key] for row in rows))
    cells = [cell for name in names if (cell := study.shown_cell(name))]
    found = [(study.arms[cell.arm].label, words) for cell in cells if (words := edge_words(study, choices, cell))]
    if found:
        each = "; ".join(f"{label}: its {words}" for label, words in found)
        yield f"Widen what is tried first, since a better setting may lie beyond ({each})."
