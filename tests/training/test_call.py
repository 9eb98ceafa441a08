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


def test_a_plugins_model_is_told_where_it_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["from insgd_lab import ModelSpec, register_model", "", "def tiny(input_shape, classes, width=8):"]
    lines += ["    return [int(width) for width in ('x',)]", "", "register_model(ModelSpec('odd-one', tiny))"]
    (tmp_path / "odd_model.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    raw = {"task": {"data": "digits", "model": "odd-one"}, "train": {"epochs": 1}, "optimizer": "sgd"}
    with pytest.raises(ConfigError) as caught:
        lab.train(raw, plugins=["odd_model"])
    place = f"(raised in {tmp_path / 'odd_model.py'}, line 4)"
    assert str(caught.value).endswith(f"invalid literal for int() with base 10: 'x' {place}")


def test_our_own_models_are_not() -> None:
    raw = {
        "task": {"data": "digits", "model": {"name": "vit", "dim": 10, "heads": 3}},
        "train": {"epochs": 1},
        "optimizer": "sgd",
    }
    with pytest.raises(ConfigError, match="choose heads that divide it") as caught:
        lab.train(raw)
    assert "raised in" not in str(caught.value)
