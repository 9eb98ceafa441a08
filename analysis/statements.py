"""What a study says, in sentences made from its numbers.

    for sentence in findings(study, choices, compare(study, choices), inert_levels(study)):
        print(sentence)

Sentences give means, intervals and numbers of seeds, and describe; who is better, and how surely, say `verdicts`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pandas as pd

from insgd_lab.analysis.effects import Inert, level_notes
from insgd_lab.analysis.labels import describe, interval, number, percent
from insgd_lab.analysis.primary import primary_of
from insgd_lab.analysis.runs import Cell, Study
from insgd_lab.analysis.selection import Choices, tune_at, tune_label
from insgd_lab.analysis.series import main_arms
from insgd_lab.analysis.setup import trials_by_arm
from insgd_lab.analysis.statistics import Summary, summarize
from insgd_lab.analysis.verdicts import furthest_sentences
from insgd_lab.store import FINISHED

__all__ = ["findings", "headline", "mixture"]


LISTED = 12
"""Cells that one sentence names."""


def headline(study: Study) -> str | None:
    """What is missing from an unfinished study; None for a finished one."""
    if study.complete:
        return None
    counts = study.counts()
    finished = counts.pop("done", 0) + counts.pop("diverged", 0)
    words = {"missing": "not started", "running": "unfinished"}
    rest = ", ".join(f"{count} {words.get(status, status)}" for status, count in sorted(counts.items()))
    share = f"{finished} of {len(study.runs)} runs have finished ({rest})"
    return f"Incomplete: {share}. What follows covers those only."


def mixture(study: Study) -> str | None:
    """Which versions of the lab, or revisions of an optimizer, stand beside each other; None if they are all one."""
    ran = study.runs[study.runs["status"].isin(FINISHED)]
    parts = [part for part in (_mixed_labs(ran), *_mixed_revisions(ran)) if part]
    if not parts:
        return None
    return (
        f"Mixed: {'; '.join(parts)}. Their numbers may differ for that reason alone; `insgd-lab study run` with "
        "`--rerun stale` makes all of them anew with one version."
    )


def _mixed_labs(ran: pd.DataFrame) -> str | None:
    versions = [str(versions["insgd_lab"]) if "insgd_lab" in versions else None for versions in ran["versions"]]
    commits = [commit if isinstance(commit, str) else None for commit in ran["commit"]]
    if max(len(set(versions) - {None}), len(set(commits) - {None})) < 2:
        return None
    labs = Counter(
        f"{version or 'an unknown version'}{f' at {commit[:10]}' if commit else ''}"
        for version, commit in zip(versions, commits, strict=True)
    )
    return f"runs by different versions of the lab: {_numbered(labs)}"


def _mixed_revisions(ran: pd.DataFrame) -> Iterator[str]:
    for optimizer, runs in ran.dropna(subset=["optimizer", "revision"]).groupby("optimizer"):
        revisions = Counter(f"revision {revision}" for revision in runs["revision"])
        if len(revisions) > 1:
            yield f"runs of {optimizer} in different revisions: {_numbered(revisions)}"


def _numbered(counts: Counter[str]) -> str:
    return ", ".join(f"{text} ({count} {'run' if count == 1 else 'runs'})" for text, count in sorted(counts.items()))


def findings(study: Study, choices: Choices, compared: pd.DataFrame, inert: Sequence[Inert]) -> list[str]:
    """All sentences, in the order of the report.

    Args:
        study: read from disk.
        choices: what `selection.choose` chose.
        compared: what `comparisons.compare` returned, corrected over all of the page.
        inert: levels that change nothing.
    """
    parts = (
        _arms(study, choices),
        _crossed(study, choices),
        furthest_sentences(study, compared, inert),
        (one.sentence(study) for one in inert),
        level_notes(study),
        _unequal_trials(study),
        _edges(study, choices),
        _left_out(study, choices),
        _failures(study),
    )
    return [sentence for part in parts for sentence in part]


# ------------------------------------------------------------------------------------------------ arms


def _arms(study: Study, choices: Choices) -> Iterator[str]:
    cells = [(arm, cell) for arm in main_arms(study) if (cell := study.shown_cell(arm.name))]
    cells = [(arm, cell) for arm, cell in cells if tune_at(study, choices, cell, "best")]
    baseline = primary_of(study).baseline
    for _, cell in sorted(cells, key=lambda pair: pair[0].name != baseline):
        yield f"{_subject(study, choices, cell)}."


def _subject(study: Study, choices: Choices, cell: Cell) -> str:
    settings = describe(cell.settings)
    error = summarize(list(_scores(study, choices, cell).values())) * 100
    tune = tune_at(study, choices, cell, "best")
    own = f" at its own best {tune_label(study, tune)}" if tune and study.tunes[tune] else ""
    return f"{study.arms[cell.arm].label}{f' ({settings})' if settings else ''}{own}: {error_text(error)}"


def _scores(study: Study, choices: Choices, cell: Cell) -> dict[int, float]:
    tune = tune_at(study, choices, cell, "best")
    return study.by_seed(cell.arm, cell.key, tune) if tune else {}


def error_text(error: Summary) -> str:
    """A mean in words: "2.14 % test error (95 % interval 1.90 to 2.38, 5 seeds)"."""
    if error.n < 2:
        return f"{percent(error.mean)} % test error ({seeds_text(error.n)}, so no interval)"
    span = interval(error.low, error.high)
    return f"{percent(error.mean)} % test error (95 % interval {span}, {seeds_text(error.n)})"


def seeds_text(count: int) -> str:
    """A count in words: "1 seed", "5 seeds"."""
    return f"{count} seed" if count == 1 else f"{count} seeds"


def _crossed(study: Study, choices: Choices) -> Iterator[str]:
    for arm in study.arms.values():
        found = [(choices[arm.name, c.key], c) for c in study.cells_of(arm.name) if (arm.name, c.key) in choices]
        most = max((choice.seeds for choice, _ in found), default=0)
        ranked = [(choice.val_error, cell) for choice, cell in found if choice.seeds == most]
        if arm.grid != "full" or len(arm.axes) < 2 or len(ranked) < 2:
            continue
        cell = min(ranked, key=lambda pair: pair[0])[1]
        error = summarize(list(_scores(study, choices, cell).values())) * 100
        tune = tune_label(study, tune_at(study, choices, cell, "best"))
        yield (
            f"{arm.label}: of {len(ranked)} cells the lowest validation error is at "
            f"{describe(cell.settings)} ({tune}): {error_text(error)}. "
            f"Being the best of {len(ranked)}, it flatters itself somewhat."
        )


# ------------------------------------------------------------------------------------------------ warnings


def _unequal_trials(study: Study) -> Iterator[str]:
    counts = trials_by_arm(study)
    if len(set(counts.values())) > 1:
        each = ", ".join(f"{label} {count}" for label, count in counts.items())
        yield f"The arms' cells were tuned by unequal numbers of trials ({each}): more trials find lower errors."


def _edges(study: Study, choices: Choices) -> Iterator[str]:
    names = [
        f"{study.arms[arm].label} / {study.cell_label(study.cells[arm, cell])} ({choice.edge})"
        for (arm, cell), choice in choices.items()
        if choice.edge
    ]
    if names:
        yield (
            f"In {len(names)} of {len(choices)} cells the chosen setting is the lowest or highest of its "
            f"grid, so a better one may lie outside: {'; '.join(names)}."
        )


def _left_out(study: Study, choices: Choices) -> Iterator[str]:
    names = []
    for (arm, cell), choice in choices.items():
        if choice.left_out:
            tunes = ", ".join(tune_label(study, tune) for tune in choice.left_out)
            chosen = f"chosen among those with {seeds_text(choice.seeds)}"
            names.append(f"{study.arms[arm].label} / {study.cell_label(study.cells[arm, cell])} ({tunes}; {chosen})")
    if names:
        rest = f"; and {len(names) - LISTED} more" if len(names) > LISTED else ""
        yield (
            f"In {len(names)} of {len(choices)} cells tuned values were left out of the choice, since fewer seeds "
            f"finished there than at others: {'; '.join(names[:LISTED])}{rest}."
        )


def _failures(study: Study) -> Iterator[str]:
    counts = study.counts()
    diverged, failed = counts.get("diverged", 0), counts.get("failed", 0)
    bad = counts.get("unreadable", 0)
    guess = number(100 * study.guess_error)
    if diverged or failed or bad:
        yield (
            f"Of {len(study.runs)} runs {diverged} diverged (each counts with {guess} % error, that of "
            f"guessing), {failed} failed and {bad} could not be read; all are listed under Failures."
        )
    else:
        started = len(study.runs) - counts.get("missing", 0)
        yield f"None of the {started} runs that were started diverged or failed."
