"""Weights to start from: their content names a run, their place does not, and what is wrong with them is said."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from insgd_lab.cli import training
from insgd_lab.config import ConfigError, RunSpec, initial, parse_run, parse_study
from insgd_lab.studies.planning import make_plan, study_info

CONTENT = b"as good as weights: nothing here reads them"
SUM = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "first" / "weights.pt"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


def run(init_from: Any = None) -> RunSpec:
    task = {"data": "digits", "model": "mlp", **({} if init_from is None else {"init_from": init_from})}
    return parse_run({"task": task, "train": {"epochs": 1}, "optimizer": "sgd"})


def refusal(init_from: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        run(init_from)
    assert len(caught.value.problems) == 1
    return str(caught.value.problems[0])


def test_the_content_of_the_file_names_the_run_and_its_place_does_not(weights: Path, tmp_path: Path) -> None:
    spec = run(str(weights))
    assert spec.canonical()["task"]["init_from"] == {"sha256": SUM}
    assert spec.id != run().id
    moved = shutil.copy(weights, tmp_path / "moved.pt")
    assert run(str(moved)).id == spec.id
    Path(moved).write_bytes(b"other")
    assert run(str(moved)).id != spec.id


def test_what_is_reset_or_frozen_is_part_of_the_name_in_any_order(weights: Path) -> None:
    one = run({"path": str(weights), "reset": ["a", "b"], "frozen": ["c"]})
    assert one.id == run({"path": str(weights), "reset": ["b", "a"], "frozen": ["c"]}).id
    assert len({one.id, run(str(weights)).id, run({"path": str(weights), "reset": ["a", "b"]}).id}) == 3


def test_the_folder_of_a_run_stands_for_the_weights_in_it(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(weights.parent.parent)
    spec = run("first")
    assert spec.task.init_from is not None
    assert spec.task.init_from.path == str(weights)  # whoever trains the run may be in another folder


def test_a_run_is_rebuilt_from_its_canonical_form_and_the_place_of_the_weights(weights: Path, tmp_path: Path) -> None:
    spec = run({"path": str(weights), "reset": ["head.*"], "frozen": ["stem.*"]})
    moved = str(shutil.copy(weights, tmp_path / "moved.pt"))
    again = RunSpec.from_canonical(spec.canonical(), init_from=moved)
    assert again.id == spec.id
    assert again.task.init_from is not None
    assert again.task.init_from.path == moved
    with pytest.raises(ValueError, match=f"weights with sha256 {SUM}; give their path"):
        RunSpec.from_canonical(spec.canonical())
    Path(moved).write_bytes(b"other")
    with pytest.raises(ValueError, match="it is another file"):
        RunSpec.from_canonical(spec.canonical(), init_from=moved)


def test_a_given_sum_is_held_against_the_file(weights: Path) -> None:
    assert run({"path": str(weights), "sha256": SUM.upper()}).id == run(str(weights)).id
    said = refusal({"path": str(weights), "sha256": "0" * 64})
    assert said.startswith("task.init_from.sha256")
    assert f"{weights} has {SUM}; it is another file" in said


def test_files_that_are_not_there_are_named(weights: Path, tmp_path: Path) -> None:
    missing = tmp_path / "no.pt"
    assert f"there is no file {missing}; check the path" in refusal(str(missing))
    assert "the folder holds no weights.pt; a run keeps its weights if record.weights = true" in refusal(str(tmp_path))
    assert "task.init_from.resets = []: unknown key 'resets'; did you mean 'reset'?" in refusal(
        {"path": str(weights), "resets": []}
    )
    assert refusal({"reset": ["head.*"]}) == "task.init_from.path: is required and missing"
    assert refusal(3).startswith("task.init_from = 3: expected")


def test_a_study_starts_all_its_runs_from_the_file_and_reads_it_once(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    monkeypatch.setattr(initial, "sha256_of", lambda path: read.append(path) or SUM)
    arm = {"name": "a", "optimizer": "sgd", "axes": {"task.model.hidden": [[8], [9]], "lr": [0.1, 1]}}
    task = {"data": "digits", "model": "mlp", "init_from": {"path": str(weights), "frozen": ["0.*"]}}
    study = {"name": "mine", "seeds": 2, "task": task, "train": {"epochs": 1}, "arm": [arm]}
    plan = make_plan(parse_study(study))
    assert [spec.canonical()["task"]["init_from"] for spec in plan.runs.values()] == [
        {"sha256": SUM, "frozen": ["0.*"]}
    ] * 8
    assert read == [weights]
    assert study_info(plan, versions={}, created="now")["task"]["init_from"]["sha256"] == SUM


def test_weights_are_no_axis_of_a_study(weights: Path) -> None:
    arm = {"name": "a", "optimizer": "sgd", "axes": {"task.init_from.path": [str(weights)]}}
    study = {
        "name": "mine", "seeds": 1, "task": {"data": "digits", "model": "mlp"}, "train": {"epochs": 1}, "arm": [arm],
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"expected task\.model\.OPTION or task\.data\.OPTION"):
        parse_study(study)


def test_the_command_line_names_weights_and_what_is_kept_of_them(weights: Path) -> None:
    chosen = dict.fromkeys(["optimizer", "data", "model", "epochs", "seed"], None)
    settings = [f"task.init_from={weights}", 'task.init_from.reset=["head.*"]', "record.weights=true"]
    raw = training._with_options({"optimizer": "sgd"}, chosen, settings)
    assert raw["task"]["init_from"] == {"path": str(weights), "reset": ["head.*"]}
    assert raw["record"] == {"weights": True}
    assert parse_run(raw).task.init_from is not None
