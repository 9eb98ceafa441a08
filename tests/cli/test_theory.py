"""`insgd-lab theory`: what it refuses, and that what is finished is read and the page written."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from insgd_lab.cli import app
from insgd_lab.experiments.theory import regret

Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_an_unknown_part_is_refused(cli: Cli) -> None:
    result = cli("theory", "regrets")
    assert result.returncode == 2
    assert "regret" in result.stderr


def test_a_file_in_the_place_of_the_folder_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = cli("theory", "regret", "--out", tmp_path / "file")
    assert result.returncode == 2
    assert "is a file; expected a folder" in result.stderr


def test_a_part_is_measured_once_and_told_on_a_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (first,) = (problem for problem in regret.PROBLEMS if problem.name == "period-3-3")
    short = {"problems": [replace(first, rounds=30)], "seeds": 2, "workers": 1}
    monkeypatch.setattr(regret.work_off, "__kwdefaults__", {**(regret.work_off.__kwdefaults__ or {}), **short})
    asked = ["theory", "regret", "--out", str(tmp_path), "--workers", "1"]
    once, again = (CliRunner().invoke(app, asked) for _ in range(2))
    assert once.exit_code == again.exit_code == 0, once.output
    assert "theory/regret (games): 6 done" in once.output
    assert "theory/regret (games): 0 done" in again.output
    assert f"Findings: {tmp_path / 'theory.html'}" in again.output
