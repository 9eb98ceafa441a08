"""With what `study run` works a study off: what it is told, and what it refuses beforehand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from insgd_lab.cli.hands import Hands
from insgd_lab.config import parse_study
from insgd_lab.studies import ray_executor
from insgd_lab.studies.planning import Plan, make_plan
from insgd_lab.training.files import DataError

HANDS = Hands(workers=None, device="cpu", data_dir=None, loaders=0, retries=1, ray=False, address=None)


def plan(**tables: Any) -> Plan:
    """Of three runs, one of them of the arm adam."""
    arms: list[dict[str, Any]] = [
        {"name": "sgd", "optimizer": "sgd", "axes": {"lr": [0.1, 0.2]}},
        {"name": "adam", "optimizer": "adam"},
    ]
    arms[1] |= {"resources": tables.pop("adam", {})}
    common = {"name": "s", "seeds": 1, "task": {"data": "digits", "model": "mlp"}, "train": {"epochs": 1}, "arm": arms}
    return make_plan(parse_study(common | tables))


def test_there_are_no_more_workers_than_runs_however_many_are_asked_for() -> None:
    assert replace(HANDS, workers=99).described(plan()) == "3 workers"
    assert HANDS.described(plan(resources={"cpus": 0.01})) == "3 workers"
    assert replace(HANDS, workers=1).described(plan()) == "1 worker"


@pytest.mark.parametrize(
    ("common", "adam", "expected"),
    [
        ({"gpus": 1}, {}, ("(in sgd, adam)", "--set resources.gpus=0")),
        ({}, {"gpus": 0.5}, ("(in adam)", "--set arm.adam.resources.gpus=0")),
        ({"gpus": 1}, {"gpus": 0.5}, ("(in sgd, adam)", "--set resources.gpus=0 --set arm.adam.resources.gpus=0")),
    ],
)
def test_gpus_that_nobody_will_have_are_refused_with_the_settings_that_do_without(
    common: dict[str, Any], adam: dict[str, Any], expected: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    greedy = plan(resources=common, adam=adam)
    with pytest.raises(typer.Exit):
        replace(HANDS, ray=True).check(greedy.runs.values(), greedy.study)
    arms, settings = expected
    told = f"the study asks {arms} for GPUs, and --device is cpu; give --device cuda, or {settings}\n"
    assert capsys.readouterr().err == f"error: {told}"
    replace(HANDS, workers=1).check(greedy.runs.values(), greedy.study)  # which local workers take no notice of


def test_the_data_must_be_where_the_runs_are_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_executor, "require_ray", lambda: None)
    made = plan(task={"data": "cifar10", "model": "mlp"})
    here = replace(HANDS, data_dir=tmp_path)
    for hands in (here, replace(here, ray=True)):
        with pytest.raises(DataError, match="CIFAR-10"):
            hands.check(made.runs.values(), made.study)
    replace(here, ray=True, address="auto").check(made.runs.values(), made.study)
