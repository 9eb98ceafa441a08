"""What runs are judged by: its column in the frames, its words, its unit, and how its numbers read.

    measure = reported(study)                     # the test error; of a task with losses alone the test loss
    measure.label, measure.text(study.scores[measure.name].iloc[0] * measure.unit)

A diverged run has the error of guessing. A loss has no such level: there a diverged run is infinitely bad, so a mean is
one of the runs that survived, and beside it stands the median of all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from insgd_lab.analysis.labels import MISSING, interval, metric_label, number, percent, signed
from insgd_lab.analysis.runs import Study

__all__ = ["MEASURES", "Measure", "chosen_by", "reported", "rounded"]


@dataclass(frozen=True)
class Measure:
    """One column of `Study.scores` and `Study.curves`; lower is better."""

    name: str
    words: str
    """Of a run's score: "final test error"."""

    @property
    def is_error(self) -> bool:
        """Whether it is an error, with the level of guessing, rather than a loss."""
        return self.name.endswith("error")

    @property
    def unit(self) -> float:
        """How many of the printed units there are in one of the scores: errors are printed in percent."""
        return 100.0 if self.is_error else 1.0

    @property
    def label(self) -> str:
        """For axes and heads of tables: "test error (%)", "test loss"."""
        return metric_label(self.name)

    @property
    def noun(self) -> str:
        """What it is, without its unit: "test error", "test loss"."""
        return self.label.removesuffix(" (%)")

    @property
    def points(self) -> str:
        """The unit of a difference, to be put after a number."""
        return " percentage points" if self.is_error else ""

    def text(self, value: float) -> str:
        """A number in the printed unit: two decimals of an error, three digits of a loss."""
        if self.is_error:
            return percent(value)
        return ("\N{MINUS SIGN}" if value < 0 else "") + number(abs(rounded(value)))

    def signed(self, value: float) -> str:
        """A difference, with its sign."""
        if self.is_error or math.isnan(value):
            return signed(value)
        return ("\N{MINUS SIGN}" if value < 0 else "+") + number(abs(rounded(value)))

    def interval(self, low: float, high: float) -> str:
        """An interval, "1.90 to 2.38"; a dash where there is none."""
        if self.is_error:
            return interval(low, high)
        return MISSING if math.isnan(low) or math.isnan(high) else f"{self.text(low)} to {self.text(high)}"


def rounded(value: float, digits: int = 3) -> float:
    """A number with so many significant digits."""
    return float(f"{value:.{digits}g}")


MEASURES = {
    name: Measure(name, words)
    for name, words in {
        "test_error": "final test error",
        "best_test_error": "test error of the epoch that was best on the test set",
        "test_loss": "final test loss",
        "val_error": "final validation error",
        "val_loss": "final validation loss",
    }.items()
}


def reported(study: Study) -> Measure:
    """What tables and figures show: the final test error; the final test loss where the task has losses alone."""
    return MEASURES["test_loss" if study.loss_alone else "test_error"]


def chosen_by(study: Study) -> Measure:
    """What settings are chosen by: the validation error, or loss where the task has losses alone."""
    return MEASURES["val_loss" if study.loss_alone else "val_error"]
