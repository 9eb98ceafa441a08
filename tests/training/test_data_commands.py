"""The data of image files as the command line sees them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .pictures import each, pictures

Cli = Callable[..., subprocess.CompletedProcess[str]]

STUDY = """
name = "s"
seeds = 1
task = { data = { name = "image-folder", path = "fruit", size = 8 }, model = "linear" }
train = { epochs = 1, batch_size = 8 }
[[arm]]
name = "a"
optimizer = "sgd"
"""


def test_the_state_of_every_set_is_shown(cli: Cli, tmp_path: Path) -> None:
    shown = cli("data", "status", "--data-dir", tmp_path).stdout
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]
    states = {(row[0], row[2]) for row in rows}
    assert {("digits", "needs no files"), ("image-folder", "needs a path"), ("imagenet", "missing")} <= states
    assert ["tiny-imagenet", str(tmp_path / "tiny-imagenet" / "manifest.json"), "missing"] in rows


def test_a_run_on_ones_own_images_names_them_below_the_data_folder(cli: Cli, tmp_path: Path) -> None:
    pictures(tmp_path / "data" / "fruit", each(10))
    settings = ["task.data.path=fruit", "task.data.size=8", "task.data.stream=true", "train.batch_size=8"]
    chosen = [word for setting in settings for word in ("--set", setting)]
    arguments = ("train", "--optimizer", "sgd", "--data", "image-folder", "--model", "linear", "--epochs", 1, *chosen)
    result = cli(*arguments, "--data-dir", "data", "--out", "runs")
    assert result.returncode == 0, result.stderr
    (info,) = (tmp_path / "runs").glob("*/run.json")
    assert json.loads(info.read_text())["spec"]["task"]["data"]["options"]["path"] == "fruit"


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("study", "run", "s.toml"), "fruit is not there; expected a folder of images: mend task.data.path ('fruit'"),
        (("train", "--optimizer", "sgd", "--data", "image-folder"), "image-folder needs the path of your images"),
        (("train", "--optimizer", "sgd", "--data", "imagenet"), "ILSVRC2012_img_val.tar (MD5 29b22e29"),
        (
            ("data", "prepare", "tiny-imagenet", "--source", "s.toml"),
            "expected tiny-imagenet-200.zip (MD5 90528d7ca1a48142e341f4ef8d21d0de)",
        ),
    ],
)
def test_what_is_missing_is_refused_before_anything_runs(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], found: str
) -> None:
    (tmp_path / "s.toml").write_text(STUDY)
    result = cli(*arguments, "--data-dir", "nowhere")
    assert result.returncode == 2, result.stdout + result.stderr
    assert found in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "runs").exists()
