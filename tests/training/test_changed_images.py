"""A finished run whose images have changed since is kept, named, and on request done again."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from insgd_lab.config import parse_run
from insgd_lab.training.availability import fingerprints

from .pictures import each, picture, pictures

Cli = Callable[..., subprocess.CompletedProcess[str]]
TASK = """
[task]
data = { name = "image-folder", path = "scans", size = 8, val_share = 0.25, test_share = 0.25 }
model = { name = "mlp", hidden = [4] }
[train]
epochs = 1
batch_size = 4
"""
STUDY = f'name = "mine"\nseeds = 2\n{TASK}\n[[arm]]\nname = "sgd"\noptimizer = "sgd"\n'
CHANGED = "mine: the images in scans have changed since 2 finished runs learnt from them: "


def scans(folder: Path) -> Path:
    return pictures(folder / "scans", each(8), size=(8, 8))


def test_a_study_names_its_runs_and_does_them_again_on_request(cli: Cli, tmp_path: Path) -> None:
    images = scans(tmp_path)
    (tmp_path / "mine.toml").write_text(STUDY)
    command = ("study", "run", "mine.toml", "--data-dir", tmp_path, "--workers", 1)
    assert "2 done" in cli(*command).stdout
    assert cli(*command).stderr == ""
    runs = [path.parent for path in (tmp_path / "runs/mine").glob("*/run.json")]
    before = json.loads((runs[0] / "run.json").read_text())["data_fingerprint"]
    picture(images / "apple" / "more.png", 0, seed=99, size=(8, 8))
    told = cli(*command)
    assert told.stderr.startswith(CHANGED)
    assert all(run.name in told.stderr for run in runs)
    assert "all 2 runs are finished" in told.stdout
    again = cli(*command, "--rerun", "stale")
    assert "2 runs of other versions of the lab, or of other images, are set aside" in again.stdout, again.stderr
    assert "2 done" in again.stdout
    assert json.loads((runs[0] / "run.json").read_text())["data_fingerprint"] != before
    assert json.loads((runs[0] / "run.json.stale-1").read_text())["data_fingerprint"] == before
    assert cli(*command).stderr == ""


def test_one_run_says_so_too(cli: Cli, tmp_path: Path) -> None:
    images = scans(tmp_path)
    (tmp_path / "run.toml").write_text(TASK)
    command = ("train", "run.toml", "--optimizer", "sgd", "--data-dir", tmp_path, "--out", "runs")
    assert cli(*command).returncode == 0
    (images / "apple" / "000.png").unlink()
    told = cli(*command)
    assert (
        told.stderr == "The images in scans have changed since this run learnt from them; --rerun stale does it again\n"
    )
    assert "This run is done already" in told.stdout
    again = cli(*command, "--rerun", "stale")
    assert "its stale result is set aside, to be done again" in again.stdout
    assert "epoch 1/1" in again.stdout
    assert "epoch 1/1" not in cli(*command, "--rerun", "stale").stdout, "what is not stale is kept"


def test_only_images_of_ones_own_that_are_there_are_looked_at(tmp_path: Path) -> None:
    raw = {"task": {"data": "digits", "model": "mlp"}, "train": {"epochs": 1}, "optimizer": "sgd"}
    own = {"name": "image-folder", "path": "scans"}
    runs = [parse_run(raw), parse_run({**raw, "task": {"data": own, "model": "mlp"}})]
    assert fingerprints(runs, tmp_path) == {}
    scans(tmp_path)
    assert list(fingerprints(runs, tmp_path)) == [runs[1].id]
