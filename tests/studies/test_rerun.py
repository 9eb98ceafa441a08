"""`study run --rerun stale`: what another version of the lab has made is done again, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from insgd_lab.studies import status
from insgd_lab.studies.presence import at_work, join
from insgd_lab.studies.status import Lab, set_stale_aside

from .made import MADE, TEXT, finish_run, make_study

STUDY = """
name = "small"
seeds = 3
task = { data = { name = "digits", fraction = 0.1 }, model = { name = "mlp", hidden = [8] } }
train = { epochs = 1 }
record = { every = 0 }
[[arm]]
name = "sgd"
optimizer = "sgd"
"""


def test_runs_of_another_version_are_set_aside_and_done_again(
    cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "small.toml").write_text(STUDY)
    command = ("study", "run", "small.toml", "--workers", 1, "--loaders", 1)
    assert cli(*command).returncode == 0
    old, *others = sorted((tmp_path / "runs/small").glob("*/run.json"))
    info = json.loads(old.read_text())
    old.write_text(json.dumps({**info, "versions": {**info["versions"], "insgd_lab": "0.0.1"}}))
    before = [path.stat().st_mtime_ns for path in others]
    assert "all 3 runs are finished" in cli(*command).stdout
    again = cli(*command, "--rerun", "stale")
    assert again.returncode == 0, again.stderr
    assert "1 runs of other versions of the lab are set aside" in again.stdout
    assert json.loads(old.read_text())["versions"] == info["versions"]
    assert json.loads((old.parent / "run.json.stale-1").read_text())["versions"]["insgd_lab"] == "0.0.1"
    assert [path.stat().st_mtime_ns for path in others] == before


def test_nothing_is_set_aside_by_a_command_that_is_refused(
    cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "made.toml").write_text(TEXT)
    study = make_study(tmp_path / "runs/made")
    finish_run(next(study.runs()), 0.5, versions={**MADE["versions"], "insgd_lab": "0.0.1"})
    command = ("study", "run", "made.toml", "--rerun", "stale")
    for refused in (("--ray", "nonsense"), ("--device", "no-such")):
        assert cli(*command, *refused).returncode == 2, refused
        assert len(list(study.runs())) == 12
    with at_work(study) as number:
        join(study, number, "of another study file")
        assert "from another version of this study" in cli(*command).stderr
    assert len(list(study.runs())) == 12


def test_what_another_process_has_done_again_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(tmp_path / "made")
    first, *others = [run.id for run in study.runs()]
    found = status.stale_runs

    def look_and_be_slow(infos: dict[str, object], lab: Lab) -> dict[str, Lab]:
        stale = found(infos, lab)
        if len(infos) > 1:
            finish_run(study.run(first), 0.7, versions={**MADE["versions"], "insgd_lab": "9.9"})
        return stale

    monkeypatch.setattr(status, "stale_runs", look_and_be_slow)
    assert set_stale_aside(study, [first, *others], Lab("9.9")) == others
    assert study.run(first).info()["status"] == "done"
