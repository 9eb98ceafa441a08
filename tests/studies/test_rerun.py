"""`study run --rerun stale`: what another version of the lab has made is done again, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

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
