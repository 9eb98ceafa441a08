"""What a study's analysis is about, fixed before it runs: the one comparison that is not exploratory.

[analysis]
primary = { arm = "insgd", baseline = "sgd", margin = 0.5 }
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Literal

from pydantic import Field

from insgd_lab.config.base import Spec
from insgd_lab.config.problems import Problem, unknown

__all__ = ["AnalysisSpec", "PrimarySpec"]


class PrimarySpec(Spec):
    """The primary test of a study. It is no part of a run's name: nothing that is computed depends on it.

    Attributes:
        test: "paired-t" by seed, "welch", or "wilcoxon", the signed-rank test.
        arm: whose cell at its base is compared; every other arm's, with Holm's correction, unless given.
        baseline: the arm that it is compared with; the first arm of plain SGD, or the first of all, unless given.
        metric: what is compared: "test_error" or "test_loss" after the last epoch, or "best_test_error", that of the
            epoch that was best on the test set, as the papers report it. Unless given, "test_error", and "test_loss"
            where an arm learns data without classes.
        margin: the smallest difference that would matter; with it the arms are also tested for equivalence.
    """

    test: Literal["paired-t", "welch", "wilcoxon"] = "paired-t"
    arm: str | None = None
    baseline: str | None = None
    metric: Literal["test_error", "best_test_error", "test_loss"] | None = None
    margin: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    def problems(self, arms: Collection[str], unlabelled: Mapping[str, str]) -> list[Problem]:
        """Return what is wrong with the primary test in a study of these arms.

        Args:
            arms: their names.
            unlabelled: by arm the data that it learns, of those whose data have no classes, and so no errors.
        """
        named = {"arm": self.arm, "baseline": self.baseline}
        strange = {key: name for key, name in named.items() if name is not None and name not in arms}
        found = [Problem((key,), name, unknown(name, arms, "arm")) for key, name in strange.items()]
        if self.arm is not None and self.arm == self.baseline:
            found.append(Problem(("baseline",), self.baseline, "is the arm itself; name another"))
        compared = [arm for arm in unlabelled if self.arm is None or arm in (self.arm, self.baseline)]
        if compared and self.metric in ("test_error", "best_test_error"):
            message = (
                f'{unlabelled[compared[0]]} has no classes, so its runs have losses and no errors; set "test_loss"'
            )
            found.append(Problem(("metric",), self.metric, message))
        if len(arms) < 2 and not found:
            found.append(Problem((), self.model_dump(exclude_defaults=True), "compares arms, and there is only one"))
        return found

    def resolved(self, unlabelled: Collection[str]) -> PrimarySpec:
        """The same with its metric, in a study in which these arms' data have no classes."""
        if self.metric is not None:
            return self
        compared = [arm for arm in unlabelled if self.arm is None or arm in (self.arm, self.baseline)]
        return self.model_copy(update={"metric": "test_loss" if compared else "test_error"})


class AnalysisSpec(Spec):
    """What is fixed beforehand about the analysis of a study."""

    primary: PrimarySpec
