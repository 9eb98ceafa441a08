"""Studies whose runs share a device side by side: what is handed out together, and what happens when it fails."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from insgd_lab.config import RunSpec
from insgd_lab.store import StudyFolder
from insgd_lab.studies import jobs
from insgd_lab.studies.queue import RunQueue
from insgd_lab.training.loop import train

from .made import FATEFUL

Cli = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Pack = tuple[StudyFolder, list[RunSpec], list[str], list[dict[str, Any]]]

STUDY = """
name = "small"
seeds = 4
[task]
data = { name = "digits", fraction = 0.1 }
model = { name = "mlp", hidden = [8] }
[train]
epochs = 4
batch_size = 16
packing = "auto"
[[arm]]
name = "insgd"
optimizer = { name = "insgd-lp", lr = 0.3 }
axes = { p = [1, 2, inf] }
"""
FATES = """
name = "fates"
seeds = 1
plugins = ["fateful"]
[task]
data = { name = "digits", fraction = 0.1 }
model = "linear"
[train]
epochs = 1
packing = 4
[[arm]]
name = "fateful"
optimizer = "fateful"
axes = { fate = ["killed", "raised", "lived", "lived on"] }
"""


def run(seed: int, packing: object = "auto", lr: float = 0.1, epochs: int = 1) -> RunSpec:
    return RunSpec.model_validate(
        {
            "task": {"data": "digits", "model": "linear"},
            "train": {"epochs": epochs, "packing": packing},
            "optimizer": {"name": "sgd", "lr": lr},
            "seed": seed,
        }
    )


def queue_of(runs: list[RunSpec], takers: int = 1) -> RunQueue:
    queue = RunQueue()
    queue.takers = takers
    for each in runs:
        queue.add(each)
    return queue


def test_packing_off_hands_out_one_run_at_a_time_in_order() -> None:
    runs = [run(seed, "off") for seed in range(3)]
    queue = queue_of(runs)
    assert [queue.take() for _ in runs] == [[each] for each in runs]
    assert not queue


def test_runs_of_one_optimizer_are_handed_out_together_and_unlike_ones_apart() -> None:
    rates = [run(seed, 3, lr) for seed in (0, 1, 2) for lr in (0.1, 0.2)]
    longer = [run(0, 3, epochs=2)]
    queue = queue_of([*rates, *longer])
    taken = [[(each.seed, each.optimizer.options["lr"], each.train.epochs) for each in queue.take()] for _ in range(3)]
    assert taken == [
        [(0, 0.1, 1), (1, 0.1, 1), (2, 0.1, 1)],
        [(0, 0.2, 1), (1, 0.2, 1), (2, 0.2, 1)],
        [(0, 0.1, 2)],
    ]


def test_towards_the_end_no_taker_takes_what_another_could_do() -> None:
    queue = queue_of([run(seed, 16) for seed in range(36)], takers=2)
    assert [len(queue.take()) for _ in range(3)] == [16, 10, 8]


def test_runs_that_were_put_back_are_handed_out_first_and_alone() -> None:
    queue = queue_of([run(seed, 3) for seed in range(6)])
    pack = queue.take()
    queue.put_back(pack)
    assert [queue.take() for _ in pack] == [[each] for each in pack]
    assert len(queue.take()) == 3


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "small.toml").write_text(STUDY)
    return tmp_path


def test_a_packed_study_has_the_runs_and_the_numbers_of_one_that_is_not(small: Path, cli: Cli) -> None:
    assert cli("study", "run", "small.toml", "--workers", 1).returncode == 0
    runs = list(StudyFolder(small / "runs/small").runs())
    assert [each.info()["packing"] for each in runs] == [12] * 12
    for each in runs[::4]:
        alone = train(RunSpec.from_canonical(each.info()["spec"])).metrics
        is_loss = (alone.metric == "loss").to_numpy()
        np.testing.assert_allclose(each.metrics().value[is_loss], alone.value[is_loss], rtol=1e-3)


def test_a_packed_study_that_is_killed_goes_on(small: Path, cli: Cli, start_cli: Start) -> None:
    study = StudyFolder(small / "runs/small")
    (small / "small.toml").write_text(STUDY.replace('"auto"', "3"))
    process = start_cli("study", "run", "small.toml", "--workers", 1)
    while "done" not in study.statuses().values():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    again = cli("study", "run", "small.toml")
    assert again.returncode == 0, again.stderr
    assert set(study.statuses().values()) == {"done"}
    assert len(study.statuses()) == 12


def test_a_run_that_kills_or_breaks_its_pack_takes_none_along(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "fates.toml").write_text(FATES)
    (tmp_path / "fateful.py").write_text(FATEFUL)
    result = cli("study", "run", "fates.toml", "--workers", 1, PYTHONPATH=str(tmp_path))
    assert "2 done, 0 diverged, 2 failed" in result.stdout, result.stderr
    study = StudyFolder(tmp_path / "runs/fates")
    fates = {each.info()["spec"]["optimizer"]["options"].get("fate", "lived"): each.info() for each in study.runs()}
    assert "its worker died 2 times" in fates["killed"]["error"]
    assert "RuntimeError: fate has struck" in fates["raised"]["error"]


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """A study's folder, three runs that are packed, their names, and what a process that trains them has told."""
    runs = [run(seed, 3) for seed in range(3)]
    return StudyFolder(tmp_path / "study"), runs, [each.id for each in runs], []


def test_a_pack_that_meets_a_run_that_is_held_is_given_back_untouched(pack: Pack) -> None:
    study, runs, names, told = pack
    with study.run(names[1]).locked():
        jobs.work(jobs.job_of(runs), jobs.Place(study.path), lambda **event: told.append(event))
        assert told == [{"event": "returned", "reason": "", "alone": False}]
        assert study.statuses() == {}, "nothing was written"
        assert [study.run(name).is_held for name in names] == [False, True, False]
    jobs.work(jobs.job_of(runs), jobs.Place(study.path), lambda **event: told.append(event))
    assert told[1:] == [{"event": "ended", "run": name, "status": "done"} for name in names]


def test_a_pack_that_meets_a_run_that_another_has_finished_is_given_back_and_leaves_it(pack: Pack) -> None:
    study, runs, names, told = pack
    train(runs[1], study.run(names[1]))
    before = study.run(names[1]).info()
    jobs.work(jobs.job_of(runs), jobs.Place(study.path), lambda **event: told.append(event))
    assert told == [{"event": "returned", "reason": "", "alone": False}]
    assert study.infos() == {names[1]: before}


def test_runs_that_cannot_be_packed_are_trained_one_by_one_and_the_reason_is_told(small: Path, cli: Cli) -> None:
    vit = 'model = { name = "vit", dim = 8, depth = 1, heads = 2, mlp_dim = 8 }'
    text = STUDY.replace('model = { name = "mlp", hidden = [8] }', vit).replace("seeds = 4", "seeds = 1")
    (small / "vit.toml").write_text(text.replace('"auto"', "3"))
    result = cli("study", "run", "vit.toml", "--workers", 1)
    assert result.returncode == 0, result.stderr
    assert "3 done" in result.stdout
    assert "not packed: the model's VisionTransformer itself has parameters" in result.stderr
    assert {each.info()["packing"] for each in StudyFolder(small / "runs/small").runs()} == {1}
