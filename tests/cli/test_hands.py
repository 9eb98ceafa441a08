"""With what `study run` works a study off: what it is told, and what it refuses beforehand."""

from __future__ import annotations

from dataclasses import replace

from insgd_lab.cli.hands import Hands
from insgd_lab.config import parse_study
from insgd_lab.studies.planning import Plan, make_plan

HANDS = Hands(workers=None, device="cpu", data_dir=None, loaders=0, retries=1, ray=False, address=None)


def plan(**tables: object) -> Plan:
    """Of three runs, one of them of the arm adam."""
    arms = [{"name": "sgd", "optimizer": "sgd", "axes": {"lr": [0.1, 0.2]}}, {"name": "adam", "optimizer": "adam"}]
    arms[1] |= {"resources": tables.pop("adam", {})}
    task = {"data": "digits", "model": "mlp"}
    return make_plan(parse_study({"name": "s", "seeds": 1, "task": task, "train": {"epochs": 1}, "arm": arms} | tables))


def test_there_are_no_more_workers_than_runs_however_many_are_asked_for() -> None:
    assert replace(HANDS, workers=99).described(plan()) == "3 workers"
    assert HANDS.described(plan(resources={"cpus": 0.01})) == "3 workers"
    assert replace(HANDS, workers=1).described(plan()) == "1 worker"
