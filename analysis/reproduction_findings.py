"""The published and ours in words: means against printed means, and leads over baselines beside printed leads.

for sentence in published_sentences(study, reproduce(study, choices)):
    print(sentence)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from insgd_lab.analysis.labels import number, p_words, percent, signed
from insgd_lab.analysis.mean_tests import ALPHA
from insgd_lab.analysis.primary import primary_of
from insgd_lab.analysis.reproduction import Reproduction
from insgd_lab.analysis.runs import Study

__all__ = ["published_sentences"]


def published_sentences(study: Study, reproduction: Reproduction) -> list[str]:
    """One sentence a published mean that the study has runs for, then one a lead, and what could not be tested."""
    frame = reproduction.table.frame
    ours = frame[frame["difference"].notna()].to_dict("records")
    leads = frame[frame["paper_lead"].notna() & frame["lead"].notna()].to_dict("records")
    return [
        *([_SCALE] if ours else []),
        *(_mean(reproduction, row) for row in ours),
        *(_untested(study, reproduction) if ours else ()),
        *(_lead(reproduction, row) for row in leads),
    ]


_SCALE = (
    "The two are not the same experiment (what differs in scale stands beside the table), so a difference found here "
    "does not contradict the paper, nor does its absence confirm it."
)


def _where(reproduction: Reproduction, row: Mapping[Any, Any]) -> str:
    return f"{reproduction.title}{', ' * bool(row['condition'])}{row['condition']}"


def _mean(reproduction: Reproduction, row: Mapping[Any, Any]) -> str:
    here, there = percent(row["best_mean"]), percent(row["paper_mean"])
    return (
        f"{_where(reproduction, row)}: {row['printed']} has {here} % test accuracy here (best epochs) and {there} % in "
        f"the paper, {signed(row['difference'])} percentage points {_judged(reproduction, row)}{_lost(row)}."
    )


def _judged(reproduction: Reproduction, row: Mapping[Any, Any]) -> str:
    """The interval, the tests and what they say; or why there is none."""
    seeds = f"{row['seeds']} {'seed' if row['seeds'] == 1 else 'seeds'}"
    if math.isnan(row["p_difference"]):
        return f"({seeds}; not tested, as {_lacking(row)})"
    span = f"{signed(row['difference_low'])} to {signed(row['difference_high'])}"
    tested = p_words(row["p_difference"], row["p_difference_holm"])
    apart = row["p_difference_holm"] < ALPHA
    word = ("lower here" if row["difference"] < 0 else "higher here") if apart else "not told apart"
    told = f"(Welch's 95 % interval {span}, {seeds} and {row['paper_n']:.0f} runs); {tested}: {word}"
    return told if reproduction.margin is None else f"{told}, {_equivalent(reproduction.margin, row)}"


def _lost(row: Mapping[Any, Any]) -> str:
    """A best epoch hides that a run diverged after it; one that diverged before any accuracy was known had none."""
    later = row["diverged"] - row["guessed"]
    parts = [
        *([f"{later} of these runs diverged, after their best epochs"] if later else []),
        *([f"{row['guessed']} of these runs diverged before any epoch was tested, and count as guessing"]
          if row["guessed"] else []),
    ]  # fmt: skip
    return f" ({'; '.join(parts)})" if parts else ""


def _equivalent(margin: float, row: Mapping[Any, Any]) -> str:
    said = "" if row["p_equivalence_holm"] < ALPHA else "not shown to be "
    tested = p_words(row["p_equivalence"], row["p_equivalence_holm"])
    return f"{said}equivalent within ±{number(margin)} percentage points ({tested})"


def _lacking(row: Mapping[Any, Any]) -> str:
    printed = {"paper_sd": "no standard deviation", "paper_n": "no number of runs"}
    missing = [words for name, words in printed.items() if pd.isna(row[name])]
    if missing:
        return f"the paper prints {' and '.join(missing)}"
    return "runs stand here as guessing" if row["guessed"] else "it takes two runs of either that differ"


def _untested(study: Study, reproduction: Reproduction) -> Iterator[str]:
    """Why no mean here can be said to be the published one."""
    if reproduction.margin is not None or reproduction.table.frame["p_difference"].isna().all():
        return
    stated = "states none"
    if primary_of(study).margin is not None:
        stated = "states one of a loss, which is none of accuracies"
    yield (
        "That a mean here is equivalent to the published one is not said of any: it takes a margin stated beforehand "
        f"([analysis] primary.margin), and the study file {stated}."
    )


def _lead(reproduction: Reproduction, row: Mapping[Any, Any]) -> str:
    pairs = f"{row['lead_pairs']:.0f} {'seed' if row['lead_pairs'] == 1 else 'seeds'}"
    span = f"95 % interval {signed(row['lead_low'])} to {signed(row['lead_high'])}, {pairs}"
    tested = f"({span}; {p_words(row['p_lead'], row['p_lead_holm'])})"
    if math.isnan(row["p_lead"]):
        tested = f"({pairs}, so no interval)"
    return (
        f"{_where(reproduction, row)}: the lead of {row['printed']} over {row['baseline']} is "
        f"{signed(row['paper_lead'])} percentage points of test accuracy in the paper and {signed(row['lead'])} "
        f"percentage points {tested} here (best epochs on the test set)."
    )
