"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

from insgd_lab.config import list_studies, parse_study
from insgd_lab.studies.planning import make_plan

Cli = Callable[..., subprocess.CompletedProcess[str]]
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
STUDY, TOUR, PLUGIN = (block for _, block in re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)[:3])


def test_the_study_can_be_planned() -> None:
    assert len(make_plan(parse_study(tomllib.loads(STUDY))).runs) == 54


def test_the_tour_in_python_runs(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", TOUR], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "effective_step" in result.stdout or "quantity" in result.stdout


def test_the_plugin_trains(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "signed.py").write_text(PLUGIN)
    arguments = ("--optimizer", "signed", "--plugin", "signed", "--set", "lr=0.003", "--epochs", 1)
    result = cli("train", *arguments, PYTHONPATH=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "epoch 1/1" in result.stdout


def test_the_studies_it_names_are_packaged() -> None:
    for name in re.findall(r"insgd-lab study run ([\w/-]+)(?:\s|$)", README):
        assert name in list_studies() or f"{name}.toml" in README
