"""A study beside the table of a paper that it repeats at its own scale.

reproduction = reproduce(study)      # None where study.json names no paper
reproduction.table.markdown()
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from insgd_lab.analysis.labels import MISSING, describe, interval, option_name, signed
from insgd_lab.analysis.published import Paper, PublishedCell, PublishedTable, load_paper
from insgd_lab.analysis.runs import Cell, Study, key_of
from insgd_lab.analysis.selection import Choices, tune_at
from insgd_lab.analysis.setup import training_text
from insgd_lab.analysis.statistics import paired_difference, summarize
from insgd_lab.analysis.tables import Column, Table, count

__all__ = ["Reproduction", "reproduce"]

_NORMS = {"1": "insgd-l1", "1.0": "insgd-l1", "2": "insgd-l2", "2.0": "insgd-l2", "inf": "insgd-linf"}


@dataclass(frozen=True)
class Reproduction:
    """The published table beside ours, and what differs between the two in scale."""

    title: str
    table: Table
    differences: tuple[str, ...]


def reproduce(study: Study, choices: Choices) -> Reproduction | None:
    """Put the published table that the study names beside its results.

    A published cell is matched by optimizer and condition: at the learning rate it names, not at our best.

    Raises:
        PublishedError: the study names a paper or table that is not on record.
    """
    compare = study.info.get("compare")
    if not compare:
        return None
    paper = load_paper(compare["paper"])
    printed = paper.find_table(compare["table"])
    rows = [_row(study, choices, paper, cell) for cell in paper.cells(printed.number)]
    frame = pd.DataFrame(_with_gains(rows))
    title = f"{paper.citation}, Table {printed.number}"
    return Reproduction(title, _table(title, printed, frame), tuple(_differences(study, printed)))


# ------------------------------------------------------------------------------------------------ matching


def _row(study: Study, choices: Choices, paper: Paper, cell: PublishedCell) -> dict[str, Any]:
    found = _match(study, choices, cell)
    best = {} if found is None else _accuracies(study, *found, "best_test_error")
    final = {} if found is None else _accuracies(study, *found, "test_error")
    row = {
        "optimizer": cell.optimizer,
        "printed": paper.printed_name(cell.optimizer),
        "condition": describe(cell.condition),
        "paper_mean": cell.mean,
        "paper_sd": cell.sd,
        "paper_n": cell.n,
        "seeds": len(best),
        "scores": best,
    }
    for name, scores in (("best", best), ("final", final)):
        summary = summarize(list(scores.values()))
        row |= {f"{name}_{part}": getattr(summary, part) for part in ("mean", "sd", "low", "high")}
    return row


def _accuracies(study: Study, cell: Cell, tune: str, score: str) -> dict[int, float]:
    return {seed: 100 * (1 - error) for seed, error in study.by_seed(cell.arm, cell.key, tune, score).items()}


def _match(study: Study, choices: Choices, published: PublishedCell) -> tuple[Cell, str] | None:
    for cell in study.cells.values():
        arm = study.arms[cell.arm]
        for tune in study.tunes_of(cell.arm):
            options = {**arm.options, **cell.settings, **study.tunes[tune]}
            wanted = {name: options.get(name) for name in published.condition}
            same = key_of(wanted) == key_of(published.condition)
            free = [name for name in study.tunes[tune] if name not in published.condition]
            judged = not free or tune == tune_at(study, choices, cell, "best")
            if _optimizer(arm.optimizer, options) == published.optimizer and same and judged:
                return cell, tune
    return None


def _optimizer(name: str, options: Mapping[str, Any]) -> str:
    """The preset that `insgd-lp` with this p is."""
    return _NORMS.get(str(options.get("p")), name) if name == "insgd-lp" else name


def _with_gains(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add each optimizer's lead over SGD under the same condition: the paper's, and ours paired by seed."""
    baselines = {row["condition"]: row for row in rows if row["optimizer"] == "sgd"}
    for row in rows:
        base = baselines.get(row["condition"])
        if base is None or base is row:
            continue
        lead = paired_difference(row["scores"], base["scores"])
        row |= {"paper_lead": row["paper_mean"] - base["paper_mean"], "lead": lead.mean}
        row |= {"lead_low": lead.low, "lead_high": lead.high, "lead_pairs": lead.n}
    return [{name: value for name, value in row.items() if name != "scores"} for row in rows]


# ------------------------------------------------------------------------------------------------ printing


def _spread(mean: float | None, sd: float | None, decimals: int = 2) -> str:
    if mean is None or pd.isna(mean):
        return MISSING
    return f"{mean:.{decimals}f}" + ("" if pd.isna(sd) else f" ± {sd:.{decimals}f}")


def _table(title: str, printed: PublishedTable, frame: pd.DataFrame) -> Table:
    for name in ("paper_lead", "lead", "lead_low", "lead_high", "lead_pairs"):
        if name not in frame:
            frame[name] = float("nan")
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
        Column("lead over SGD, paper", ("paper_lead",), signed, True),
        Column("lead, ours", ("lead",), signed, True),
        Column("95 % interval of our lead", ("lead_low", "lead_high"), interval, True),
    )
    caption = (
        f"{title}, “{printed.caption.rstrip('.')}”, as printed ({printed.metric}), and this study's test accuracy. "
    )
    caption += "Mean ± standard deviation. "
    caption += "Best: at the epoch that was best on the test set. Final: after the last. Leads are in percentage "
    caption += "points, ours of the best accuracies, paired by seed; they are exploratory."
    return Table("published", caption, frame, columns)


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
