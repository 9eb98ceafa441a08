"""A study for other tools: one tidy table, or curves for TensorBoard."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from insgd_lab.store import StudyFolder
from insgd_lab.studies.exporting import ExportError, export_parquet, export_tensorboard

from .made import TEXT, finish_run, make_study, metrics, run_of

Cli = Callable[..., subprocess.CompletedProcess[str]]


def exported(folder: StudyFolder, path: Path) -> pd.DataFrame:
    export_parquet(folder, path)
    return pd.read_parquet(path)


def test_each_row_of_the_plan_has_its_settings_beside_its_metrics(tmp_path: Path, cli: Cli) -> None:
    folder = make_study(tmp_path / "made")
    result = cli("study", "export", "made", "--out", "made.parquet")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "made.parquet: 12 runs, 24 values\n"
    frame = pd.read_parquet(tmp_path / "made.parquet")
    assert list(frame.columns) == [
        "run", "arm", "optimizer", "lr", "p", "task.model.batch_norm", "seed", "status", "epoch", "step", "split",
        "metric", "value",
    ]  # fmt: skip
    run = run_of(folder, "insgd", 1, p="inf")
    rows = frame[frame["run"] == run.id]
    pd.testing.assert_frame_equal(
        rows[["epoch", "step", "split", "metric", "value"]].reset_index(drop=True), run.metrics(), check_dtype=False
    )
    row = rows.iloc[0]
    assert (row["arm"], row["optimizer"], row["lr"], row["p"], row["seed"]) == ("insgd", "insgd-lp", 0.3, math.inf, 1)
    assert row["task.model.batch_norm"] == False  # noqa: E712  (a numpy one)
    assert frame.loc[frame["arm"] == "sgd", "p"].isna().all()


def test_settings_have_the_type_of_their_values(tmp_path: Path) -> None:
    text = TEXT + '[[arm]]\nname = "layers"\noptimizer = { name = "insgd-lp", lr = 1 }\n'
    text += 'axes = { granularity = ["layer", "channel"], "task.model.hidden" = [[4], [8, 8]] }\n'
    folder = make_study(tmp_path / "made", text)
    export_parquet(folder, tmp_path / "made.parquet")
    kinds = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "made.parquet")}
    word = "dictionary<values=string, indices=int32, ordered=0>"
    assert kinds["lr"] == kinds["p"] == kinds["value"] == "double"
    assert kinds["task.model.batch_norm"] == "bool"
    assert kinds["granularity"] == kinds["task.model.hidden"] == word
    frame = pd.read_parquet(tmp_path / "made.parquet")
    assert set(frame.loc[frame["arm"] == "layers", "task.model.hidden"]) == {"[4]", "[8,8]"}


def test_a_run_of_two_arms_stands_there_for_each(tmp_path: Path) -> None:
    text = TEXT + '[[arm]]\nname = "again"\noptimizer = { name = "sgd", lr = 0.1 }\n'
    folder = make_study(tmp_path / "made", text)
    frame = exported(folder, tmp_path / "made.parquet")
    shared = run_of(folder, "again", 0).id
    assert set(frame.loc[frame["run"] == shared, "arm"]) == {"sgd", "again"}
    assert len(frame) == 2 * (12 + 2)


def test_what_is_not_finite_comes_through_and_a_missing_setting_is_null(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "made", finish=False)
    run = run_of(folder, "sgd", 0, lr=0.1)
    run.finish({"status": "diverged"}, metrics([(1, 1, "train", "loss", math.nan), (1, 1, "val", "loss", math.inf)]))
    export_parquet(folder, tmp_path / "made.parquet")
    table = pq.read_table(tmp_path / "made.parquet")
    assert table.column("value").null_count == 0
    assert math.isnan(table.column("value")[0].as_py())
    assert table.column("value")[1].as_py() == math.inf
    assert table.column("p").null_count == 2
    assert table.column("status").to_pylist() == ["diverged"] * 2


def test_trials_of_a_search_are_told_from_its_results(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "made")
    info = folder.info()
    for row in info["plan"]:
        row["stage"] = "final" if row["seed"] else "trial"
    folder.write_info({**info, "search": {"trials": 1}})
    frame = exported(folder, tmp_path / "made.parquet")
    assert frame.groupby("stage", observed=True)["seed"].unique().to_dict() == {"final": [1], "trial": [0]}


def test_damaged_and_unfinished_runs_are_left_out_and_damage_is_named(tmp_path: Path, cli: Cli) -> None:
    folder = make_study(tmp_path / "made", finish=False)
    finish_run(run_of(folder, "sgd", 0, lr=0.1), 0.5)
    finish_run(run_of(folder, "sgd", 1, lr=0.1), 0.5)
    run_of(folder, "sgd", 1, lr=0.1).metrics_path.write_bytes(b"PAR1")
    result = cli("study", "export", "made", "--out", "made.parquet")
    assert result.stdout == "made.parquet: 1 runs, 2 values\n"
    assert "left out: made/" in result.stderr


def test_a_study_that_has_not_begun_is_an_empty_table(tmp_path: Path) -> None:
    assert exported(make_study(tmp_path / "made", finish=False), tmp_path / "made.parquet").empty


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "nothing to write; give --out FILE.parquet, --tensorboard LOGDIR or both"),
        (("--out", "made.csv"), "made.csv: a study is exported as Parquet; give a name that ends in .parquet"),
        (("--tensorboard", "made"), "made is there already and not empty; name a new folder"),
        (("--tensorboard", "made/study.json"), "made/study.json is there already and not empty"),
    ],
)
def test_bad_choices_are_refused(tmp_path: Path, cli: Cli, arguments: tuple[str, ...], expected: str) -> None:
    make_study(tmp_path / "made")
    result = cli("study", "export", "made", *arguments)
    assert result.returncode == 2
    assert expected in result.stderr


def test_without_tensorboard_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ExportError, match=r"pip install 'insgd-lab\[tensorboard\]', or take --out"):
        export_tensorboard(make_study(tmp_path / "made"), tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def test_each_run_has_its_curves_in_tensorboard(tmp_path: Path, cli: Cli) -> None:
    pytest.importorskip("tensorboard", reason="an extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = make_study(tmp_path / "made")
    result = cli("study", "export", "made", "--tensorboard", "logs", PYTHONWARNINGS="default")
    assert result.returncode == 0, result.stderr
    places = {path.parent.relative_to(tmp_path / "logs").as_posix(): path for path in tmp_path.glob("logs/**/events*")}
    assert len(places) == 12
    events = EventAccumulator(str(places["sgd/lr=1.0,seed=1"].parent))
    events.Reload()
    scalars = events.Scalars("val/accuracy")
    expected = run_of(folder, "sgd", 1, lr=1.0).metrics()
    assert [each.step for each in scalars] == expected["step"].tolist()
    assert [each.value for each in scalars] == pytest.approx(expected["value"].tolist())
