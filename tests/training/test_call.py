"""The one Python call."""

from pathlib import Path

import pytest

import insgd_lab as lab
from insgd_lab.config import ConfigError

RUN = {
    "task": {"data": {"name": "digits", "fraction": 0.1}, "model": "mlp"},
    "train": {"epochs": 1},
    "optimizer": {"name": "insgd-l1", "lr": 0.3},
}
TOML = """
task = { data = { name = "digits", fraction = 0.1 }, model = "mlp" }
train = { epochs = 1 }
optimizer = { name = "insgd-l1", lr = 0.3 }
"""


def test_tables_and_a_file_that_say_the_same_are_one_run(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(TOML)
    outcome = lab.train(RUN, tmp_path / "runs")
    assert outcome.metrics.equals(lab.train(tmp_path / "run.toml").metrics)
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "metrics.parquet").exists()
    again = lab.train(str(tmp_path / "run.toml"), str(tmp_path / "runs"))  # as a notebook's cell is run again
    assert (again.status, again.model, again.results) == ("done", None, outcome.results)
    assert again.metrics.value.tolist() == outcome.metrics.value.tolist()


def test_mistakes_are_listed() -> None:
    with pytest.raises(ConfigError, match=r"train\.epoch = 1: unknown key 'epoch'; did you mean 'epochs'"):
        lab.train({**RUN, "train": {"epoch": 1}})
