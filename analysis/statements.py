"""What a study says, in sentences made from its numbers.

    for sentence in findings(study, choices, compare(study, choices), inert_levels(study)):
        print(sentence)

Sentences give means, intervals and numbers of seeds, and describe; who is better, and how surely, say `verdicts`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median

import pandas as pd

from insgd_lab.analysis.ablation.crossed import crossed
from insgd_lab.analysis.effects import Inert, level_notes
from insgd_lab.analysis.labels import describe, number
from insgd_lab.analysis.measures import MEASURES, Measure, chosen_by, reported
from insgd_lab.analysis.primary import primary_of
from insgd_lab.analysis.runs import Cell, Study
from insgd_lab.analysis.selection import Choices, tune_at, tune_label
from insgd_lab.analysis.series import main_arms
from insgd_lab.analysis.setup import settings_by_arm
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
        _uncrossed(study, choices),
        _unequal_trials(study),
        _edges(study, choices),
        _left_out(study, choices),
        _same_seeds(study),
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
    tune = tune_at(study, choices, cell, "best")
    own = f" at its own best {tune_label(study, tune)}" if tune and study.tunes[tune] else ""
    return (
        f"{study.arms[cell.arm].label}{f' ({settings})' if settings else ''}{own}: {_score_text(study, choices, cell)}"
    )


def _score_text(study: Study, choices: Choices, cell: Cell) -> str:
    """The mean of a cell in words; where a diverged run has no loss, that of the others, after the median of all."""
    measure, tune = reported(study), tune_at(study, choices, cell, "best")
    scores = list(study.by_seed(cell.arm, cell.key, tune, measure.name).values()) if tune else []
    scored = [score * measure.unit for score in scores if not math.isnan(score)]
    known = [score for score in scored if math.isfinite(score)]
    lacking = f"; {len(scores) - len(scored)} of {len(scores)} runs have none" if len(scored) < len(scores) else ""
    if len(known) == len(scored):
        return mean_text(summarize(known), measure) + lacking
    lost = f"median {measure.text(median(scored))}, as {len(scored) - len(known)} of {len(scores)} runs diverged"
    others = f"; {mean_text(summarize(known), measure)} of the others" if known else ""
    return f"{measure.noun} {lost}{others}{lacking}"


def mean_text(mean: Summary, measure: Measure = MEASURES["test_error"]) -> str:
    """A mean in words: "2.14 % test error (95 % interval 1.90 to 2.38, 5 seeds)", "test loss 0.0123 (…)"."""
    value = measure.text(mean.mean)
    said = f"{value} % {measure.noun}" if measure.is_error else f"{measure.noun} {value}"
    if math.isnan(mean.low):
        alike = " that do not spread" if mean.n > 1 else ""
        return f"{said} ({seeds_text(mean.n)}{alike}, so no interval)"
    return f"{said} (95 % interval {measure.interval(mean.low, mean.high)}, {seeds_text(mean.n)})"


def seeds_text(count: int) -> str:
    """A count in words: "1 seed", "5 seeds"."""
    return f"{count} seed" if count == 1 else f"{count} seeds"


def _crossed(study: Study, choices: Choices) -> Iterator[str]:
    for arm in study.arms.values():
        found = [(choices[arm.name, c.key], c) for c in study.cells_of(arm.name) if (arm.name, c.key) in choices]
        most = max((choice.seeds for choice, _ in found), default=0)
        ranked = [(choice.place, cell) for choice, cell in found if choice.seeds == most]
        if arm.grid != "full" or len(arm.axes) < 2 or len(ranked) < 2:
            continue
        cell = min(ranked, key=lambda pair: pair[0])[1]
        tune = tune_label(study, tune_at(study, choices, cell, "best"))
        yield (
            f"{arm.label}: of {len(ranked)} cells the lowest {chosen_by(study).noun} is at "
            f"{describe(cell.settings)} ({tune}): {_score_text(study, choices, cell)}. "
            f"Being the best of {len(ranked)}, it flatters itself somewhat."
        )


# ------------------------------------------------------------------------------------------------ warnings


def _uncrossed(study: Study, choices: Choices) -> Iterator[str]:
    """Which arms are crossed in full, and yet have no interactions."""
    told = {arm.arm for arm in crossed(study, choices, "best")}
    for arm in study.arms.values():
        if arm.grid == "full" and arm.name not in told and sum(len(values) > 1 for values in arm.axes.values()) > 1:
            yield (
                f"{arm.label} is crossed in full and has no interactions and no shares of variance: these take a score "
                "of every cell from the same seeds, which a run that is missing, or diverged and has no loss, breaks."
            )


def _unequal_trials(study: Study) -> Iterator[str]:
    counts = settings_by_arm(study)
    if len(set(counts.values())) > 1:
        each = ", ".join(f"{label} {count}" for label, count in counts.items())
        lower = "losses" if study.loss_alone else "errors"
        by = "trials" if study.info.get("search") else "settings"
        how = f"by unequal numbers of trials ({each})" if by == "trials" else f"among unequal numbers of {by} ({each})"
        yield f"The arms' cells were tuned {how}: more {by} find lower {lower}."


def _edges(study: Study, choices: Choices) -> Iterator[str]:
    names = [
        f"{study.arms[arm].label} / {study.cell_label(study.cells[arm, cell])} ({choice.edge})"
        for (arm, cell), choice in choices.items()
        if choice.edge
    ]
    if names:
        yield (
            f"In {_share(len(names), len(choices))} the chosen setting is the lowest or highest {_tried(study)}, so a "
            f"better one may lie outside: {'; '.join(names)}."
        )


def _tried(study: Study) -> str:
    return "of those searched (of a range, in its outermost twentieth)" if study.info.get("search") else "of its grid"


def _share(part: int, cells: int) -> str:
    return "the one cell" if cells == 1 else f"{part} of {cells} cells"


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
            f"In {_share(len(names), len(choices))} tuned values were left out of the choice, since fewer seeds "
            f"finished there than at others: {'; '.join(names[:LISTED])}{rest}."
        )


def _same_seeds(study: Study) -> Iterator[str]:
    """Where nothing is random: then seeds are no sample."""
    done = study.scores[study.scores["status"] == "done"]
    digests = done.groupby(["arm", "cell", "tune"], sort=False)["digest"].agg(["size", "nunique"])
    several = digests[digests["size"] > 1]
    same = int((several["nunique"] == 1).sum())
    if same:
        yield (
            f"In {same} of {len(several)} settings with several seeds their runs are bit-identical, since nothing in "
            "them is random: these seeds are one run and no sample, their intervals mean nothing, and two such sides "
            "are not tested against each other."
        )


def _failures(study: Study) -> Iterator[str]:
    counts = study.counts()
    diverged, failed = counts.get("diverged", 0), counts.get("failed", 0)
    bad = counts.get("unreadable", 0)
    if diverged or failed or bad:
        yield (
            f"Of {len(study.runs)} runs {diverged} diverged{_counted(study, diverged)}, {failed} failed and {bad} "
            "could not be read; all are listed under Failures."
        )
        return
    started = len(study.runs) - counts.get("missing", 0)
    if started:
        which = (
            "The one run that was started neither" if started == 1 else f"None of the {started} runs that were started"
        )
        yield f"{which} diverged {'nor' if started == 1 else 'or'} failed."


def _counted(study: Study, diverged: int) -> str:
    """As what diverged runs count, in brackets; nothing where there are none."""
    if not diverged:
        return ""
    each = "it counts" if diverged == 1 else "each counts"
    if study.loss_alone:
        return f" ({each} as infinitely bad, so means are of the others)"
    return f" ({each} with the error of guessing, {_guesses(study)})"


def _guesses(study: Study) -> str:
    """The error of guessing that most arms have, and those of the others."""
    first = study.plan.drop_duplicates("arm")
    errors = dict(zip(first["arm"].tolist(), study.runs.loc[first["run"], "guess"].tolist(), strict=True))
    guesses = {study.arms[arm].label: f"{number(100 * error)} %" for arm, error in errors.items()}
    [(usual, _)] = Counter(guesses.values()).most_common(1)
    return ", ".join([usual, *(f"of {arm} {guess}" for arm, guess in guesses.items() if guess != usual)])
