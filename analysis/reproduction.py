"""A study beside the table of a paper that it repeats at its own scale.

reproduction = reproduce(study, choices)      # None where study.json names no paper
reproduction.table.markdown()

Our mean is tested against the printed one where the table prints its standard deviation and number of runs: whether
they differ (Welch), and whether they are the same within the margin that the study file states (two one-sided tests).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from insgd_lab.analysis.audit import summaries
from insgd_lab.analysis.labels import MISSING, describe, interval, number, option_name, p_text, signed
from insgd_lab.analysis.primary import Primary, primary_of
from insgd_lab.analysis.published import Paper, PublishedCell, PublishedTable, load_paper
from insgd_lab.analysis.runs import Cell, Study, StudyError, key_of, sampled
from insgd_lab.analysis.selection import Choices, tune_at
from insgd_lab.analysis.setup import training_text
from insgd_lab.analysis.statistics import holm_together, paired_t, summarize, tost_published
from insgd_lab.analysis.tables import Column, Table, count, text

__all__ = ["Reproduction", "reproduce"]

_TESTED = ("p_difference", "p_equivalence", "p_lead")
"""The columns of the table's frame that are p-values; each has a corrected one beside it, `…_holm`."""

_NORMS = {"1": "insgd-l1", "1.0": "insgd-l1", "2": "insgd-l2", "2.0": "insgd-l2", "inf": "insgd-linf"}


@dataclass(frozen=True)
class Reproduction:
    """The published table beside ours, and what differs between the two in scale."""

    title: str
    table: Table
    differences: tuple[str, ...]
    margin: float | None
    """Percentage points within which a mean here counts as the published one; None where none was stated for it."""


def reproduce(study: Study, choices: Choices) -> Reproduction | None:
    """Put the published table that the study names beside its results.

    A published cell is matched by optimizer and condition: at the learning rate it names, not at our best. The margin
    is that of the study's primary test if that is of an error, for it is in percentage points of accuracy as well.

    Returns:
        Of the table's frame: optimizer, printed (its name in the paper), baseline (that of its baseline's), condition;
        paper_mean, paper_sd, paper_n; seeds, diverged (of these), guessed (of the diverged: before any accuracy was
        known, so they stand as guessing, and nothing is tested against the paper); best_mean, best_sd, best_low,
        best_high (accuracy in % at the epoch that was best on the test set), final_… (after the last). Ours less the
        paper's: difference, difference_low, difference_high, p_difference (Welch, of our best accuracies and the
        printed mean, sd and n), p_equivalence (against the margin). Leads over the baseline: paper_lead, lead,
        lead_low, lead_high, lead_pairs, p_lead (paired by seed). p_…_holm: corrected over these p-values; on the page
        of a report over all of that page, see `family`.

    Raises:
        PublishedError: the study names a paper or table that is not on record.
        StudyError: runs that match it have losses alone.
    """
    compare = study.info.get("compare")
    if not compare:
        return None
    paper = load_paper(compare["paper"])
    printed = paper.find_table(compare["table"])
    margin = _margin(primary_of(study), printed)
    rows = {_key(cell): _row(study, choices, paper, cell) for cell in paper.cells(printed.number)}
    for row in rows.values():
        row |= _against_paper(row, margin)
    for cell, base in paper.pairs(printed.number):
        rows[_key(cell)] |= _leads(rows[_key(cell)], rows[_key(base)])
    frame = pd.DataFrame(rows.values(), columns=_COLUMNS)
    corrected = holm_together(*(frame[name].to_numpy(dtype=float) for name in _TESTED))
    frame = frame.assign(**{f"{name}_holm": p for name, p in zip(_TESTED, corrected, strict=True)})
    title = f"{paper.citation}, Table {printed.number}"
    return Reproduction(title, _table(title, printed, frame, margin), tuple(_differences(study, printed)), margin)


_COLUMNS = (
    "optimizer", "printed", "baseline", "condition", "paper_mean", "paper_sd", "paper_n", "seeds", "diverged",
    "guessed",
    *(f"{name}_{part}" for name in ("best", "final") for part in ("mean", "sd", "low", "high")),
    "difference", "difference_low", "difference_high", "p_difference", "p_equivalence",
    "paper_lead", "lead", "lead_low", "lead_high", "lead_pairs", "p_lead",
)  # fmt: skip


def _margin(primary: Primary, printed: PublishedTable) -> float | None:
    """The stated margin in percentage points; that of a loss says nothing of a table of accuracies."""
    accuracies = "accuracy" in printed.metric and printed.unit == "%"
    return primary.margin if primary.metric.endswith("error") and accuracies else None


def _key(cell: PublishedCell) -> tuple[str, str]:
    return cell.optimizer, key_of(cell.condition)


# ------------------------------------------------------------------------------------------------ matching


def _row(study: Study, choices: Choices, paper: Paper, cell: PublishedCell) -> dict[str, Any]:
    found = _match(study, choices, cell)
    runs = study.scores.iloc[:0] if found is None else study.finished(found[0].arm, found[0].key, found[1])
    best, final = _accuracies(study, runs, "best_test_error"), _accuracies(study, runs, "test_error")
    row = {
        "optimizer": cell.optimizer,
        "printed": paper.printed_name(cell.optimizer),
        "condition": describe(cell.condition),
        "paper_mean": cell.mean,
        "paper_sd": cell.sd,
        "paper_n": cell.n,
        "seeds": len(best),
        "diverged": int((runs["status"] == "diverged").sum()),
        "guessed": _unmeasured(study, runs),
        "scores": best,
        "runs": runs,
    }
    for name, scores in (("best", best), ("final", final)):
        summary = summarize(list(scores.values()))
        row |= {f"{name}_{part}": getattr(summary, part) for part in ("mean", "sd", "low", "high")}
    return row


def _accuracies(study: Study, runs: pd.DataFrame, score: str) -> dict[int, float]:
    known = runs[runs[score].notna()]
    if len(runs) and known.empty:
        raise StudyError(
            f"{study.path} compares itself with a paper ([study] compare), and its arm {runs['arm'].iloc[0]!r} has "
            "losses alone: expected runs with accuracies, as papers print; leave compare out of the study file"
        )
    return {seed: 100 * (1 - error) for seed, error in zip(known["seed"], known[score], strict=True)}


def _unmeasured(study: Study, runs: pd.DataFrame) -> int:
    """How many diverged before their test error was known, and stand here as guessing."""
    lost = runs.loc[runs["status"] == "diverged", "run"]
    known = study.curves["test_error"].dropna().index.get_level_values("run")
    return int((~lost.isin(known)).sum())


def _match(study: Study, choices: Choices, published: PublishedCell) -> tuple[Cell, str] | None:
    for cell in study.cells.values():
        arm = study.arms[cell.arm]
        for tune in study.tunes_of(cell.arm):
            options = {**_common(study), **arm.options, **cell.settings, **study.tunes[tune]}
            same = key_of({name: _said(options, name) for name in published.condition}) == key_of(published.condition)
            free = [name for name in study.tunes[tune] if name not in published.condition]
            judged = not free or tune == tune_at(study, choices, cell, "best")
            if _optimizer(arm.optimizer, options) == published.optimizer and same and judged:
                return cell, tune
    return None


def _common(study: Study) -> dict[str, Any]:
    """What all arms share of what a published condition may name: the data, the model, the training."""
    parts = {part: study.info.get(part) or {} for part in ("task", "train")}
    return {f"{part}.{name}": value for part, given in parts.items() for name, value in given.items()}


def _said(options: Mapping[str, Any], name: str) -> Any:
    """What the options say of a condition: data and models by their names, "task.model.layer_norm" from the model's."""
    whole, _, last = name.rpartition(".")
    found, table = options.get(name), options.get(whole)
    if found is None and isinstance(table, Mapping):
        return table.get("options", table).get(last)
    return option_name(found) if isinstance(found, Mapping) else found


def _optimizer(name: str, options: Mapping[str, Any]) -> str:
    """The preset that `insgd-lp` with this p is."""
    return _NORMS.get(str(options.get("p")), name) if name == "insgd-lp" else name


def _against_paper(row: Mapping[str, Any], margin: float | None) -> dict[str, Any]:
    """Our mean less the printed one; tested where the table prints a standard deviation and a number of runs.

    Papers do not say what they counted for a run that diverged, and it is hardly guessing: then there is no test.
    """
    scores = [row["scores"][seed] for seed in sampled(row["scores"], [row["runs"]])]
    mean, sd, n = row["paper_mean"], row["paper_sd"], row["paper_n"]
    found = {"difference": row["best_mean"] - mean}
    if sd is None or n is None or min(n, len(scores)) < 2 or row["guessed"] or not row["best_sd"] + sd > 0:
        return found
    ours, theirs = summaries.Summary(row["best_mean"], row["best_sd"], len(scores)), summaries.Summary(mean, sd, n)
    low, high = summaries.interval(ours, theirs)
    found |= {"difference_low": low, "difference_high": high, "p_difference": summaries.p_value(ours, theirs)}
    return found if margin is None else found | {"p_equivalence": tost_published(scores, mean, sd, n, margin).p}


def _leads(row: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's lead over its baseline under the same condition: the paper's, and ours paired by seed."""
    both = sampled(row["scores"].keys() & base["scores"].keys(), [row["runs"], base["runs"]])
    lead = paired_t({seed: row["scores"][seed] for seed in both}, {seed: base["scores"][seed] for seed in both})
    return {
        "baseline": base["printed"],
        "paper_lead": row["paper_mean"] - base["paper_mean"],
        "lead": lead.difference,
        "lead_low": lead.low,
        "lead_high": lead.high,
        "lead_pairs": lead.sizes[0],
        "p_lead": lead.p,
    }


# ------------------------------------------------------------------------------------------------ printing


def _spread(mean: float | None, sd: float | None, decimals: int = 2) -> str:
    if mean is None or pd.isna(mean):
        return MISSING
    return f"{mean:.{decimals}f}" + ("" if pd.isna(sd) else f" ± {sd:.{decimals}f}")


def _table(title: str, printed: PublishedTable, frame: pd.DataFrame, margin: float | None) -> Table:
    columns = (
        Column("optimizer", ("printed",)),
        Column("condition", ("condition",)),
        Column(
            f"paper ({printed.unit})", ("paper_mean", "paper_sd"), partial(_spread, decimals=printed.decimals), True
        ),
        Column("n", ("paper_n",), count, True),
        Column("ours, best (%)", ("best_mean", "best_sd"), _spread, True),
        Column("95 % interval", ("best_low", "best_high"), interval, True),
        Column("ours, final (%)", ("final_mean", "final_sd"), _spread, True),
        Column("seeds", ("seeds",), count, True),
        Column("ours less the paper's", ("difference", "difference_low", "difference_high"), _spanned, True),
        *_tested("p_difference", "p"),
        *(() if margin is None else _tested("p_equivalence", f"p within ±{number(margin)}", " (equivalence)")),
        Column("baseline", ("baseline",), text),
        Column("lead over it, paper", ("paper_lead",), signed, True),
        Column("lead, ours", ("lead", "lead_low", "lead_high"), _spanned, True),
        *_tested("p_lead", "p of our lead", " (lead)"),
    )
    return Table("published", _caption(title, printed, margin), frame, columns)


def _tested(name: str, title: str, which: str = "") -> tuple[Column, Column]:
    return (
        Column(title, (name,), p_text, True),
        Column(f"corrected{which}", (f"{name}_holm",), p_text, True),
    )


def _spanned(mean: float, low: float, high: float) -> str:
    return signed(mean) if pd.isna(low) else f"{signed(mean)} ({signed(low)} to {signed(high)})"


def _caption(title: str, printed: PublishedTable, margin: float | None) -> str:
    same = f"; p within ±{number(margin or 0)}: two one-sided tests that they differ by less" if margin else ""
    return (
        f"{title}, “{printed.caption.rstrip('.')}”, as printed ({printed.metric}), and this study's test accuracy. "
        "Mean ± standard deviation. Best: at the epoch that was best on the test set. Final: after the last. Ours less "
        "the paper's: of the best accuracies, in percentage points, with Welch's 95 % interval from the printed mean, "
        f"the figure behind ± read as a standard deviation, and n, where there are such{same}. "
        "Leads are in percentage points, ours of the best accuracies, paired by seed, with 95 % t-intervals. All "
        "p-values are exploratory and corrected by Holm's method over all that this page tests."
    )


def _differences(study: Study, printed: PublishedTable) -> list[str]:
    train = study.info.get("train", {})
    data, model = (study.info.get("task", {}).get(part) for part in ("data", "model"))
    options = data.get("options", data) if isinstance(data, dict) else {}
    fraction = float(options.get("fraction", 1.0))
    chosen = [f"{name} = {options[name]}" for name in ("shots", "imbalance", "imbalance_ratio") if name in options]
    subset = f" with {', '.join(chosen)}" if chosen else ""
    seeds = len(study.info.get("seeds") or [])
    found = [
        f"Epochs: {train.get('epochs', '?')} here, {printed.epochs or 'not printed'} in the paper.",
        f"Training data: {100 * fraction:g} % of the training split here{subset}, from which our validation split "
        f"has been taken before; the paper's text names no validation split{_images(printed)}.",
        f"Repetitions: {seeds} seeds here; the paper's number is in the column n.",
        f"What is reported: in the paper, {printed.metric}; here, the best epoch on the test set, flattered by "
        "being chosen on it, and the last epoch.",
    ]
    ours, theirs = (option_name(model), option_name(data)), (printed.model, printed.data)
    if any(name not in (own, None) for own, name in zip(ours, theirs, strict=True)):
        found.append(f"Task: {' on '.join(ours)} here, {' on '.join(filter(None, theirs))} in the paper.")
    settings = {name: value for name, value in train.items() if name != "epochs"}
    found.append(f"Training here: {training_text(settings)}; the rest is under Setup.")
    return [*found, *(f"Paper: {note}" for note in printed.notes)]


def _images(printed: PublishedTable) -> str:
    count = printed.training_images
    return "" if count is None else f" ({printed.data} has {count:,} training images)"
