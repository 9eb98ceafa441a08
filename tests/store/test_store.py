"""Runs on disk: names, schemas, whole files only, and bytes that do not depend on how a run got there."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insgd_lab import store
from insgd_lab.store import RunFolder, StoreError, StudyFolder

NAME = "0123456789abcdef"
words = st.text(st.characters(codec="utf-8"), max_size=5).filter(lambda word: word not in ("inf", "-inf", "nan"))
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


def layers(steps: int = 4) -> pd.DataFrame:
    rows = [
        (step, parameter, quantity, step + 0.5)
        for step in range(1, steps + 1)
        for parameter in ("a.weight", "b.weight")
        for quantity in ("grad_norm", "input_power")
    ]
    return pd.DataFrame(rows, columns=["step", "parameter", "quantity", "value"])


def metrics() -> pd.DataFrame:
    rows = [(1, 10, "train", "loss", math.inf), (1, 10, "val", "accuracy", 0.25)]
    return pd.DataFrame(rows, columns=["epoch", "step", "split", "metric", "value"])


@given(plain)
def test_json_values_come_back(value: Any) -> None:
    text = json.dumps(store.to_json_value(value), allow_nan=False)
    assert store.from_json_value(json.loads(text)) == value


@given(st.dictionaries(words, plain, max_size=4))
def test_a_run_is_named_by_content_not_by_order(spec: dict[str, Any]) -> None:
    assert store.run_id(spec) == store.run_id(dict(reversed(spec.items())))


def test_names_of_runs_never_change() -> None:
    assert store.canonical_json({"b": [1, True], "a": math.inf}) == '{"a":"inf","b":[1,true]}'
    assert store.run_id({"b": [1, True], "a": math.inf}) == "f72e563913009df4"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    store.write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        store.write_json(path, {"new": object()})
    assert store.read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".file.json.new").write_text("half a fi")
    store.write_json(tmp_path / "file.json", {"new": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


def test_tables_have_the_documented_columns_and_types(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / NAME)
    run.write_layers_part(0, layers())
    run.finish({"status": "done"}, metrics())
    assert {f.name: str(f.type) for f in pq.read_schema(run.metrics_path)} == {
        "epoch": "int32", "step": "int64", "split": "string", "metric": "string", "value": "double",
    }  # fmt: skip
    word = "dictionary<values=string, indices=int32, ordered=0>"
    assert {f.name: str(f.type) for f in pq.read_schema(run.layers_path)} == {
        "step": "int64", "parameter": word, "quantity": word, "value": "float",
    }  # fmt: skip


def test_tables_come_back_as_they_were(tmp_path: Path) -> None:
    store.write_table(tmp_path / "metrics.parquet", metrics(), "metrics")
    pd.testing.assert_frame_equal(
        store.read_table(tmp_path / "metrics.parquet"), metrics(), check_dtype=False, check_exact=True
    )


def test_wrong_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="expected the columns"):
        store.write_table(tmp_path / "metrics.parquet", layers(), "metrics")
    assert not list(tmp_path.iterdir())


@given(cuts=st.sets(st.integers(1, 15), max_size=4), categories=st.booleans())
def test_merged_bytes_do_not_depend_on_the_parts(
    cuts: set[int], categories: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    frame = layers().astype({"parameter": "category"}) if categories else layers()
    run, whole = RunFolder(folder / NAME), RunFolder(folder / NAME[::-1])
    edges = [0, *sorted(cuts), len(frame)]
    for number, (start, stop) in enumerate(pairwise(edges)):
        run.write_layers_part(number, frame[start:stop])
    whole.write_layers_part(0, layers())
    for each in (run, whole):
        each.merge_layers()
    assert run.layers_path.read_bytes() == whole.layers_path.read_bytes()


def test_resuming_drops_the_parts_that_no_checkpoint_covers(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / NAME)
    for number in range(3):
        run.write_layers_part(number, layers(number + 1))
    run.drop_parts_from(1)
    assert [path.name for path in run.parts()] == ["part-00000.parquet"]
    assert len(run.layers()) == len(layers(1))


def test_a_run_counts_as_finished_only_by_its_last_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path / NAME)
    run.write_info({"status": "running"})
    run.write_layers_part(0, layers())
    run.checkpoint_path.write_bytes(b"checkpoint")

    def killed(self: RunFolder, info: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_info", killed)
        with pytest.raises(KeyboardInterrupt):
            run.finish({"status": "done"}, metrics())
    assert StudyFolder(tmp_path).statuses() == {NAME: "running"}
    assert run.checkpoint_path.exists()
    assert run.parts(), "a run killed here resumes from its parts"
    run.finish({"status": "done"}, metrics())
    assert StudyFolder(tmp_path).statuses() == {NAME: "done"}
    assert sorted(p.name for p in run.path.iterdir()) == ["layers.parquet", "metrics.parquet", "run.json"]


def test_one_process_at_a_time_holds_a_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / NAME)
    with run.locked(), pytest.raises(StoreError, match=f"{NAME} is being trained by another process"):
        RunFolder(run.path).locked().__enter__()
    with run.locked():
        assert run.is_held
    assert not run.is_held


def test_the_lock_of_an_unfinished_run_stays_for_those_who_wait_at_it_and_that_of_a_finished_one_goes(
    tmp_path: Path,
) -> None:
    run = RunFolder(tmp_path / NAME)
    with run.locked():
        lock = (run.path / ".lock").stat()
        run.write_info({"status": "running"})
    assert (run.path / ".lock").stat().st_ino == lock.st_ino
    with run.locked():
        run.finish({"status": "done"}, metrics())
    assert not (run.path / ".lock").exists()
    assert not run.is_held


def test_a_run_without_records_has_an_empty_table_of_layers(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / NAME)
    run.finish({"status": "done"}, metrics())
    assert not run.layers_path.exists()
    assert list(run.layers().columns) == ["step", "parameter", "quantity", "value"]
    assert len(run.layers()) == 0


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_damaged_file_is_named_with_its_remedy(tmp_path: Path, content: bytes) -> None:
    run = RunFolder(tmp_path / NAME)
    run.path.mkdir()
    run.info_path.write_bytes(content)
    run.metrics_path.write_bytes(content)
    for read, path in ((run.info, run.info_path), (run.metrics, run.metrics_path)):
        with pytest.raises(StoreError, match="run the study again: the file is set aside and only this run") as caught:
            read()
        assert str(path) in str(caught.value)


def test_a_missing_study_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="study run"):
        StudyFolder(tmp_path).info()
    with pytest.raises(StoreError, match="does not exist"):
        RunFolder(tmp_path / NAME).metrics()


def test_a_damaged_study_json_keeps_the_runs(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(StoreError, match="the file is set aside and written anew; finished runs are kept"):
        StudyFolder(tmp_path).info()


def test_only_folders_named_like_runs_are_runs(tmp_path: Path) -> None:
    for name in (NAME, "report", "logs", NAME[:-1]):
        RunFolder(tmp_path / name).finish({"status": "done"}, metrics())
    (tmp_path / NAME[::-1]).mkdir()
    assert [run.id for run in StudyFolder(tmp_path).runs()] == [NAME]
    assert StudyFolder(tmp_path).statuses([NAME, NAME[::-1]]) == {NAME: "done"}


def test_merged_layers_do_not_depend_on_where_the_parts_were_cut(tmp_path):
    rows = 300_000  # more than one page of a Parquet file
    frame = pd.DataFrame({
        "step": np.arange(rows), "parameter": np.where(np.arange(rows) % 3, "a", "b"), "quantity": "q",
        "value": np.random.default_rng(0).normal(size=rows).astype(np.float32),
    })  # fmt: skip
    written = []
    for cuts in (1, 3, 40):
        run = RunFolder(tmp_path / f"{cuts:016x}")
        for number, start in enumerate(range(0, rows, rows // cuts)):
            run.write_layers_part(number, frame.iloc[start : start + rows // cuts])
        run.merge_layers()
        written.append(run.layers_path.read_bytes())
    assert written[0] == written[1] == written[2]
