"""The primary test of a study: checked with the study, kept with it, and no part of any run."""

from __future__ import annotations

from typing import Any

import pytest

from insgd_lab.config import ConfigError, parse_study
from insgd_lab.studies.planning import make_plan, study_info

STUDY: dict[str, Any] = {
    "name": "mine", "seeds": 2, "task": {"data": "digits", "model": "digits-cnn"}, "train": {"epochs": 4},
    "arm": [{"name": "insgd", "optimizer": "insgd-l2"}, {"name": "sgd", "optimizer": "sgd"}],
}  # fmt: skip


def with_primary(**primary: Any) -> dict[str, Any]:
    return {**STUDY, "analysis": {"primary": primary}}


def test_it_is_in_the_study_and_in_no_run() -> None:
    plan = make_plan(parse_study(with_primary(arm="insgd", baseline="sgd", margin=1)))
    kept = study_info(plan, {}, "")["spec"]["analysis"]["primary"]
    assert kept == {"test": "paired-t", "arm": "insgd", "baseline": "sgd", "metric": "test_error", "margin": 1.0}
    assert plan.runs.keys() == make_plan(parse_study(STUDY)).runs.keys()
    assert parse_study(STUDY).analysis is None


@pytest.mark.parametrize(
    ("primary", "expected"),
    [
        ({"arm": "insgdd"}, """analysis.primary.arm = "insgdd": unknown arm 'insgdd'; did you mean 'insgd'"""),
        ({"baseline": "adam"}, """analysis.primary.baseline = "adam": unknown arm 'adam'"""),
        ({"arm": "sgd", "baseline": "sgd"}, 'analysis.primary.baseline = "sgd": is the arm itself; name another'),
        ({"test": "t"}, "analysis.primary.test"),
        ({"metric": "accuracy"}, "analysis.primary.metric"),
        ({"margin": 0}, "analysis.primary.margin = 0"),
        ({"margin": float("inf")}, "analysis.primary.margin = inf"),
        ({"tests": "welch"}, "analysis.primary.tests"),
    ],
)
def test_mistakes_are_named(primary: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_study(with_primary(**primary))
    [problem] = caught.value.problems
    assert str(problem).startswith(expected)


LOSSES = {**STUDY, "task": {"data": "quadratic", "model": "point"}}


def test_without_classes_the_metric_is_a_loss() -> None:
    primary = parse_study({**LOSSES, "analysis": {"primary": {"arm": "insgd"}}}).analysis.primary
    assert primary.metric == "test_loss"
    stated = parse_study({**LOSSES, "analysis": {"primary": {"arm": "insgd", "metric": "test_loss"}}}).analysis.primary
    assert stated == primary
    assert study_info(make_plan(parse_study(LOSSES)), {}, "")["labels"] is False
    assert study_info(make_plan(parse_study(STUDY)), {}, "")["labels"] is True


@pytest.mark.parametrize("metric", ["test_error", "best_test_error"])
def test_an_error_of_what_has_no_classes_is_refused_with_the_remedy(metric: str) -> None:
    told = f"""analysis.primary.metric = "{metric}": quadratic has no classes, so its runs have losses and no errors;"""
    with pytest.raises(ConfigError) as caught:
        parse_study({**LOSSES, "analysis": {"primary": {"metric": metric}}})
    assert str(caught.value.problems[0]).startswith(told)


def test_only_the_tasks_that_are_compared_count() -> None:
    odd = {"name": "odd", "optimizer": "sgd", "task": {"data": "quadratic", "model": "point"}}
    study = {**STUDY, "arm": [*STUDY["arm"], odd]}
    primary = parse_study({**study, "analysis": {"primary": {"arm": "insgd", "baseline": "sgd"}}}).analysis.primary
    assert primary.metric == "test_error"
    with pytest.raises(ConfigError, match="quadratic has no classes"):
        parse_study({**study, "analysis": {"primary": {"metric": "test_error"}}})


def test_a_single_arm_has_nothing_to_be_compared_with() -> None:
    with pytest.raises(ConfigError, match="compares arms, and there is only one"):
        parse_study({**with_primary(), "arm": STUDY["arm"][:1]})
