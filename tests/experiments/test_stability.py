"""The search for the largest stable step sizes: against 2 / L, and that it covers and finds again."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from insgd_lab import catalogue, registry
from insgd_lab.experiments.theory.stability import ARMS, RISE, bisect, is_stable, start_loss
from insgd_lab.store import StudyFolder

BY_NAME = {arm.name: arm for arm in ARMS}


def metrics(*losses: float) -> pd.DataFrame:
    rows = [(k, 10 * k, "train", "loss", loss) for k, loss in enumerate(losses, 1)]
    return pd.DataFrame(rows, columns=["epoch", "step", "split", "metric", "value"])


def test_every_rule_of_the_lab_has_an_arm_and_those_with_momentum_two() -> None:
    ours = [spec for spec in catalogue.SPECS if isinstance(spec, registry.OptimizerSpec)]
    assert {spec.name for spec in ours} == {arm.optimizer for arm in ARMS}
    for spec in ours:
        if spec.defaults.keys() & {"momentum", "betas"}:
            assert {spec.name, f"{spec.name}-momentum"} <= BY_NAME.keys()


@pytest.mark.parametrize(
    ("status", "losses", "expected"),
    [
        ("done", (0.9, 0.1), True),
        ("done", (0.5, 1.1), False),
        ("done", (2 * RISE, 0.1), False),
        ("done", (100.0, 0.1), True),
        ("diverged", (0.9, 0.1), False),
        ("done", (math.nan, math.nan), False),
    ],
)
def test_stable_is_ending_below_the_start_without_a_huge_rise(
    status: str, losses: tuple[float, ...], expected: bool
) -> None:
    assert is_stable(status, metrics(*losses), start=1.0) is expected


def test_the_search_brackets_two_over_l_and_finds_it_again_without_training(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    tried = bisect(BY_NAME["sgd"], 1.0, folder)
    stable = {
        info["spec"]["optimizer"]["options"].get("lr", 0.001): is_stable(
            info["status"], folder.run(name).metrics(), start_loss(1.0)
        )
        for name, info in folder.infos().items()
    }
    assert sorted(stable) == sorted(tried)
    low = max(lr for lr, good in stable.items() if good)
    high = min(lr for lr, good in stable.items() if not good)
    assert low < high < 1.011 * low
    assert 0.99 * low < 2.0 < 1.01 * high
    before = {run.id: run.info_path.stat().st_mtime_ns for run in folder.runs()}
    assert bisect(BY_NAME["sgd"], 1.0, folder) == tried
    assert before == {run.id: run.info_path.stat().st_mtime_ns for run in folder.runs()}
