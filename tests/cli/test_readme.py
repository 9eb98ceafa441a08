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
BLOCKS = [block for _, block in re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)]
STUDY, RUN, CALL, TOUR, PLUGIN, LAWS, RULE, _, DATA = BLOCKS[:9]


def test_the_study_can_be_planned() -> None:
    assert len(make_plan(parse_study(tomllib.loads(STUDY))).runs) == 54


def test_the_run_takes_the_settings_that_are_shown(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN)
    settings = re.findall(r"--set \S+", next(line for line in README.splitlines() if "run.toml --set" in line))
    assert len(settings) == 3
    result = cli("train", "run.toml", *" ".join(settings).split())
    assert result.returncode == 0, result.stderr
    assert "epoch 2/2" in result.stdout


def test_the_call_trains(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", CALL]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("0.9")
    assert len(list((tmp_path / "runs/single").glob("*/run.json"))) == 1


def test_data_and_model_of_ones_own_are_trained(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "rings.py").write_text(DATA)
    arguments = ("--data", "rings", "--model", "tiny", "--optimizer", "sgd", "--set", "lr=0.1", "--epochs", 30)
    result = cli("train", *arguments, "--plugin", "rings", PYTHONPATH=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "final test accuracy 1.0" in result.stdout


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


def test_the_plugin_keeps_its_laws_in_a_test_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "signed.py").write_text(PLUGIN)
    (tmp_path / "test_signed.py").write_text(LAWS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "state or closure",
        "test_signed.py",
    ]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert re.search(r"[3-9] passed", result.stdout)


def test_the_rule_steps(tmp_path: Path) -> None:
    step = "\nmodel(torch.ones(1, 3)).sum().backward()\noptimizer.step()\nprint(optimizer.rules)"
    (tmp_path / "rule.py").write_text(RULE + step)  # a dataclass wants a module
    result = subprocess.run([sys.executable, "rule.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Sign()" in result.stdout


def test_the_studies_it_names_are_packaged() -> None:
    for name in re.findall(r"insgd-lab study run ([\w/-]+)(?:\s|$)", README):
        assert name in list_studies() or f"{name}.toml" in README
