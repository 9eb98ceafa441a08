"""A study whose runs start from the weights of another run."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import insgd_lab as lab

RUN = {
    "task": {"data": {"name": "digits", "fraction": 0.1}, "model": {"name": "mlp", "hidden": [8]}},
    "train": {"epochs": 1},
    "record": {"every": 0, "weights": True},
    "optimizer": "sgd",
}
STUDY = """
name = "tuned"
seeds = 2
[task]
data = {{ name = "digits", fraction = 0.1 }}
model = {{ name = "mlp", hidden = [8] }}
init_from = {{ path = "{path}", reset = ["head.*"], frozen = ["linear1.*"] }}
[train]
epochs = 1
packing = "{packing}"
[[arm]]
name = "sgd"
optimizer = "sgd"
"""


def test_every_run_of_a_study_starts_from_the_weights_it_names(
    cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    lab.train(RUN, tmp_path / "first")
    (first,) = (tmp_path / "first").iterdir()
    for packing in ("off", "auto"):
        (tmp_path / f"{packing}.toml").write_text(STUDY.format(path=first, packing=packing))
        result = cli("study", "run", f"{packing}.toml", "--out", packing, "--workers", 1)
        assert result.returncode == 0, result.stderr
        assert "2 done" in result.stdout
        weights = first / "weights.pt"
        told = {"path": str(weights), "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
        infos = [json.loads(path.read_text()) for path in (tmp_path / packing).glob("*/run.json")]
        assert [info["init_from"] for info in infos] == [told, told]
    assert json.loads((first / "run.json").read_text())["init_from"] is None
