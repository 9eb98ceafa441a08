"""The one comparison that a study is about: as its file fixed it, or the paired t-test of every arm.

primary = primary_of(study)
primary.baseline, primary.metric, primary.declared
changes_of(study)               # what it was before, where it was changed after runs had finished
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from insgd_lab.analysis.measures import MEASURES, Measure
from insgd_lab.analysis.runs import Study, StudyError
from insgd_lab.analysis.series import main_arms

__all__ = ["Change", "Metric", "Primary", "baseline_of", "changes_of", "primary_of"]

Kind = Literal["paired-t", "welch", "wilcoxon"]
Metric = Literal["test_error", "best_test_error", "test_loss", "val_error", "val_loss"]


@dataclass(frozen=True)
class Primary:
    """The primary test of a study."""

    test: Kind
    arm: str | None
    """The arm whose cell is compared; None for every arm but the baseline."""
    baseline: str | None
    """None where the study has no arm with a cell."""
    metric: Metric
    margin: float | None
    """The smallest difference that matters: percentage points of error, or loss."""
    declared: bool
    """Whether the study file fixed it."""

    @property
    def measure(self) -> Measure:
        """What is compared, with its words and its unit."""
        return MEASURES[self.metric]

    @property
    def unit(self) -> float:
        """How many of the printed units there are in one of the scores: errors are printed in percent."""
        return self.measure.unit


def primary_of(study: Study) -> Primary:
    """Read the primary test from `study.json`; where there is none, it is the paired t-test of final test errors.

    A study whose task has losses alone is then compared by its final test loss.

    Raises:
        StudyError: it names an arm that the study does not have, or an error where the task has losses alone.
    """
    written = (study.info.get("spec") or {}).get("analysis") or {}
    given: Mapping[str, Any] = written.get("primary") or {}
    _check_arms(study, given)
    return _primary(study, given)


def _check_arms(study: Study, given: Mapping[str, Any]) -> None:
    for key in ("arm", "baseline"):
        if given.get(key) is not None and given[key] not in study.arms:
            raise StudyError(
                f"{study.path}: analysis.primary.{key} is {given[key]!r}, and the arms are {list(study.arms)}; "
                "correct the study file and run it again, which repeats no run"
            )
    if study.loss_alone and str(given.get("metric")).endswith("error"):
        raise StudyError(
            f"{study.path}: analysis.primary.metric is {given['metric']!r}, and its runs have losses and no errors; "
            'set metric = "test_loss" in the study file and run it again, which repeats no run'
        )


def _primary(study: Study, given: Mapping[str, Any]) -> Primary:
    return Primary(
        test=given.get("test") or "paired-t",
        arm=given.get("arm"),
        baseline=given.get("baseline") or baseline_of(study, but=given.get("arm")),
        metric=given.get("metric") or ("test_loss" if study.loss_alone else "test_error"),
        margin=given.get("margin"),
        declared=bool(given),
    )


@dataclass(frozen=True)
class Change:
    """The primary test as the study file had it before it was changed."""

    before: Primary
    finished: int
    """How many runs were finished by then, so that their results could be known."""


def changes_of(study: Study) -> list[Change]:
    """What the primary test was before, the first one first; empty where it was fixed before any run had finished.

    Arms that an earlier test names may be gone since.
    """
    changed = study.info.get("primary_changes") or []
    return [Change(_primary(study, one["before"] or {}), int(one["finished"])) for one in changed]


def baseline_of(study: Study, but: str | None = None) -> str | None:
    """The arm that others are compared with, other than `but`: the first of plain SGD, else the first of all."""
    arms = [arm for arm in main_arms(study) if arm.name != but]
    plain = next((arm.name for arm in arms if arm.optimizer == "sgd"), None)
    return plain or (arms[0].name if arms else None)
