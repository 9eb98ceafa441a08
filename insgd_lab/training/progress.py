"""What a run has come to: its metrics, its clock, and its final and best results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pandas as pd

__all__ = ["Progress", "now", "results"]

Row = tuple[int, int, str, str, float]


def now() -> str:
    """The time in UTC, to the second, as in run.json."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Progress:
    """What a run has come to; all of it goes into checkpoints.

    Attributes:
        epoch: epochs done.
        step: steps done, with those that float16's scaler has left out.
        skipped: how many it has.
        rows: rows of the metrics table.
        diverged_at: epoch and step of the first loss that was not finite.
        parts: parts of the layer records written.
        seconds: wall time of each epoch done, evaluation included; training_seconds: without it.
        spent: wall time of the steps of the epoch under way.
        rate: the learning rate at its first step.
        started: when the run first started.
    """

    epoch: int = 0
    step: int = 0
    skipped: int = 0
    rows: list[Row] = field(default_factory=list)
    diverged_at: dict[str, int] | None = None
    parts: int = 0
    seconds: list[float] = field(default_factory=list)
    training_seconds: list[float] = field(default_factory=list)
    spent: float = 0.0
    rate: float = math.nan
    started: str = field(default_factory=now)

    def add(self, split: str, **metrics: float) -> None:
        """Put metrics of a split into the table, as of this epoch and step."""
        self.rows += [(self.epoch, self.step, split, name, value) for name, value in metrics.items()]

    def table(self) -> pd.DataFrame:
        """The metrics: epoch, step, split, metric, value."""
        return pd.DataFrame.from_records(self.rows, columns=["epoch", "step", "split", "metric", "value"])

    def summary(self) -> dict[str, Any]:
        """How far the run has come, for run.json."""
        return {
            "started": self.started,
            "seconds": sum(self.seconds),
            "epochs_done": self.epoch,
            "skipped_steps": self.skipped,
            "diverged_at": self.diverged_at,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint has of it."""
        for name in vars(self):
            setattr(self, name, state[name])

    def speed(self, examples: int) -> dict[str, Any]:
        """For run.json: images (or other examples) per second of training, in all and epoch by epoch, and the clock.

        Times stay out of metrics.parquet, whose bytes are promised.
        """
        each = [examples / seconds if seconds else None for seconds in self.training_seconds]
        total = sum(self.training_seconds)
        return {
            "images_per_second": examples * len(each) / total if total else None,
            "epochs": [
                {"epoch": k, "seconds": seconds, "images_per_second": rate}
                for k, (seconds, rate) in enumerate(zip(self.seconds, each, strict=True), 1)
            ],
        }

    def latest(self) -> dict[str, float]:
        """The metrics of the last epoch, such as {"train_loss": 0.3, "val_accuracy": 0.9}."""
        return {f"{split}_{metric}": value for epoch, _, split, metric, value in self.rows if epoch == self.epoch}


def results(rows: list[Row]) -> dict[str, Any]:
    """The final and the best result, each labelled, for run.json.

    Of each split the accuracy is told, or the loss where there is none: ``final_test_accuracy`` of the last evaluation;
    ``best_test_accuracy`` of the best one, with ``best_test_accuracy_epoch``: chosen on the test set itself, as both
    papers report it, and so too good; and ``test_accuracy_at_best_val``, chosen on the validation split.
    """
    metric, better = ("accuracy", max) if any(row[3] == "accuracy" for row in rows) else ("loss", min)
    series: dict[str, dict[int, float]] = {"val": {}, "test": {}}
    for epoch, _, split, name, value in rows:
        if name == metric and split in series:
            series[split][epoch] = value
    found: dict[str, Any] = {}
    for split, values in series.items():
        finite = {epoch: value for epoch, value in values.items() if math.isfinite(value)}
        if values:
            found[f"final_{split}_{metric}"] = values[max(values)]
        if finite:
            epoch = better(finite, key=lambda e: finite[e])
            found |= {f"best_{split}_{metric}": finite[epoch], f"best_{split}_{metric}_epoch": epoch}
    chosen = found.get(f"best_val_{metric}_epoch")
    if chosen in series["test"]:
        found[f"test_{metric}_at_best_val"] = series["test"][chosen]
    return found
