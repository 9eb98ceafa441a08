"""Who gets which runs when packs come back or die: the local scheduler with workers that only say what they do."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from insgd_lab.config import RunSpec, StudySpec
from insgd_lab.store import StudyFolder
from insgd_lab.studies import executor
from insgd_lab.studies.planning import Plan, make_plan

STUDY = """
name = "packed"
seeds = 8
task = { data = "digits", model = "mlp" }
train = { epochs = 2, packing = 8 }
[[arm]]
name = "sgd"
optimizer = "sgd"
"""


class Worker:
    """Answers at once, and keeps what it was given: packs come back, single runs are done."""

    given: list[tuple[int, int]]

    def __init__(self, number: int, command: list[str], log: Path) -> None:
        self.number, self.log = number, log
        self.ready, self.runs = False, dict[str, RunSpec]()
        self.pipe, self.end = os.pipe()
        self.process = SimpleNamespace(stdout=self.pipe, stdin=SimpleNamespace(close=lambda: None))
        self.answers: list[dict[str, Any]] = []
        self.answer({"event": "ready"})

    def answer(self, message: dict[str, Any]) -> None:
        self.answers.append(message)
        os.write(self.end, b".")

    def start(self, runs: list[RunSpec]) -> None:
        self.runs = {run.id: run for run in runs}
        self.given.append((self.number, len(runs)))
        if len(runs) > 1:
            self.take_pack()
        else:
            self.answer({"event": "ended", "run": runs[0].id, "status": "done"})

    def take_pack(self) -> None:
        self.answer({"event": "returned", "reason": "not worth it", "alone": True})

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        os.read(self.pipe, 1)
        return [self.answers.pop(0)], True

    def dismiss(self) -> int:
        os.close(self.pipe)
        os.close(self.end)
        return -9

    def last_words(self) -> str:
        return ""


class Mortal(Worker):
    """Dies of its packs."""

    def take_pack(self) -> None:
        self.answer({})

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        messages, _ = super().read()
        return ([], False) if messages == [{}] else (messages, True)


@pytest.fixture
def plan() -> Plan:
    return make_plan(StudySpec.model_validate(tomllib.loads(STUDY)))


def worked(monkeypatch: pytest.MonkeyPatch, kind: type[Worker]) -> list[tuple[int, int]]:
    kind.given = []
    monkeypatch.setattr(executor, "_Worker", kind)
    return kind.given


def test_a_pack_that_comes_back_is_shared_out(tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    given = worked(monkeypatch, Worker)
    tally = executor.execute(plan, StudyFolder(tmp_path), workers=2)
    assert tally.done == 8
    assert max(size for _, size in given) > 1
    alone = [number for number, size in given if size == 1]
    assert len(alone) == 8
    assert set(alone) == {0, 1}, "nobody was sent away while packs were out"


def test_a_pack_that_dies_costs_its_runs_nothing(tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    worked(monkeypatch, Mortal)
    tally = executor.execute(plan, StudyFolder(tmp_path), workers=2, retries=0)
    assert (tally.done, tally.failed) == (8, 0)
    assert any("trained one by one: killed by SIGKILL" in note for note in tally.notes)
