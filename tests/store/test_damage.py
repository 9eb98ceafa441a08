"""Damage and full disks: named with the remedy, set aside and never deleted, and made again."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch

from insgd_lab import store
from insgd_lab.store import Damaged, DiskError, RunFolder, StudyFolder, read_arrow, runs

NAME = "0123456789abcdef"
OTHER = NAME[::-1]
METRICS = pd.DataFrame(
    [(1, 10, "train", "loss", math.inf), (1, 10, "val", "accuracy", 0.25)],
    columns=["epoch", "step", "split", "metric", "value"],
)
LAYERS = pd.DataFrame([(1, "a.weight", "grad_norm", 0.5)], columns=["step", "parameter", "quantity", "value"])

Spoil = Callable[[Path], object]
SPOILS: dict[str, Spoil] = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "corrupt": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "foreign": lambda path: path.write_bytes(b"[]"),
}


def finished(path: Path) -> RunFolder:
    run = RunFolder(path)
    run.write_layers_part(0, LAYERS)
    run.finish({"status": "done"}, METRICS)
    return run


def names(run: RunFolder) -> list[str]:
    return sorted(path.name for path in run.path.iterdir() if path.name != ".lock")


def full(path: Path) -> None:
    """Have the next write of `path` meet a full disk, a real one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f".{path.name}.new").symlink_to("/dev/full")


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
@pytest.mark.parametrize("name", ["run.json", "metrics.parquet", "layers.parquet"])
def test_a_damaged_file_of_a_finished_run_is_named_and_the_run_set_aside(
    tmp_path: Path, name: str, spoil: Spoil
) -> None:
    run = finished(tmp_path / NAME)
    spoil(run.path / name)
    content = (run.path / name).read_bytes()
    (found,) = StudyFolder(tmp_path).set_damage_aside()
    assert found.path == run.path / name
    assert str(found).startswith(f"{run.path / name} cannot be read (")
    assert "run the study again" in str(found)
    assert names(run) == [f"{file}.damaged-1" for file in ("layers.parquet", "metrics.parquet", "run.json")]
    assert (run.path / f"{name}.damaged-1").read_bytes() == content
    assert StudyFolder(tmp_path).statuses([NAME]) == {}
    finished(run.path)
    assert StudyFolder(tmp_path).statuses([NAME]) == {NAME: "done"}


def test_a_missing_file_is_damage(tmp_path: Path) -> None:
    run = finished(tmp_path / NAME)
    run.metrics_path.unlink()
    assert StudyFolder(tmp_path).infos()[NAME]["damaged"] == "metrics.parquet"
    assert [str(damage.why) for damage in run.damage()] == ["it is missing"]


def test_what_was_set_aside_is_never_overwritten(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        run = finished(tmp_path / NAME)
        run.info_path.write_bytes(content)
        run.set_damage_aside()
    assert (run.path / "run.json.damaged-1").read_bytes() == b"first"
    assert (run.path / "run.json.damaged-2").read_bytes() == b"second"


def test_one_damaged_run_does_not_hide_the_others(tmp_path: Path) -> None:
    finished(tmp_path / NAME)
    finished(tmp_path / OTHER).info_path.write_text("{")
    study = StudyFolder(tmp_path)
    assert study.statuses() == {NAME: "done", OTHER: "damaged"}
    assert "run the study again" in study.infos()[OTHER]["error"]


def test_sound_runs_are_left_alone(tmp_path: Path) -> None:
    run = finished(tmp_path / NAME)
    RunFolder(tmp_path / OTHER).write_info({"status": "running"})
    RunFolder(tmp_path / OTHER).write_layers_part(0, LAYERS)
    before = names(run)
    assert StudyFolder(tmp_path).set_damage_aside() == []
    assert names(run) == before


def test_runs_that_carry_no_fingerprints_are_read(tmp_path: Path) -> None:
    run = finished(tmp_path / NAME)
    run.write_info({"status": "done"})
    assert run.damage() == []
    SPOILS["corrupt"](run.layers_path)
    assert [damage.path for damage in run.damage()] == [run.layers_path]


def test_an_unfinished_run_with_a_damaged_description_keeps_its_checkpoint(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / NAME)
    run.write_info({"status": "running"})
    run.write_layers_part(0, LAYERS)
    run.checkpoint_path.write_bytes(b"checkpoint")
    run.info_path.write_bytes(b"")
    run.set_damage_aside()
    assert names(run) == ["checkpoint.pt", "layers", "run.json.damaged-1"]


def test_damaged_layer_records_of_an_unfinished_run_take_its_checkpoint_along(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / NAME)
    run.write_info({"status": "running"})
    run.write_layers_part(0, LAYERS)
    run.checkpoint_path.write_bytes(b"checkpoint")
    run.parts()[0].write_bytes(b"PAR1")
    (found,) = run.set_damage_aside()
    assert found.path.name == "part-00000.parquet"
    assert names(run) == ["checkpoint.pt.damaged-1", "layers.damaged-1", "run.json.damaged-1"]


def test_a_run_that_someone_trains_is_not_set_aside(tmp_path: Path) -> None:
    run = finished(tmp_path / NAME)
    run.info_path.write_bytes(b"")
    with run.locked():
        assert StudyFolder(tmp_path).set_damage_aside() == []
    assert run.exists


def test_a_damaged_plan_is_set_aside(tmp_path: Path) -> None:
    study = StudyFolder(tmp_path)
    study.info_path.write_text('{"name": "digi')
    with pytest.raises(Damaged, match="finished runs are kept"):
        study.info()
    (found,) = study.set_damage_aside()
    assert found.path == study.info_path
    assert {path.name for path in tmp_path.iterdir()} == {"study.json.damaged-1", ".plan-lock"}


def save_weights(run: RunFolder) -> None:
    with store.replacing(run.weights_path) as temporary, temporary.open("wb") as file:
        torch.save(torch.zeros(100_000), file)


WRITES: dict[str, Callable[[RunFolder], None]] = {
    "run.json": lambda run: run.write_info({"status": "done", "error": "x" * 100_000}),
    "metrics.parquet": lambda run: run.write_metrics(METRICS),
    "layers/part-00000.parquet": lambda run: run.write_layers_part(0, LAYERS),
    "weights.pt": save_weights,
}


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full to write to")
@pytest.mark.parametrize(("name", "write"), WRITES.items(), ids=WRITES)
def test_a_full_disk_is_named_with_the_remedy_and_the_old_file_stays(
    tmp_path: Path, name: str, write: Callable[[RunFolder], None]
) -> None:
    run = RunFolder(tmp_path / NAME)
    write(run)
    path = run.path / name
    before = path.read_bytes()
    full(path)
    with pytest.raises(DiskError, match=r"cannot be written \(No space left on device\); free some space") as caught:
        write(run)
    assert str(caught.value).startswith(str(path))
    assert path.read_bytes() == before
    assert not path.with_name(f".{path.name}.new").is_symlink()


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.EROFS, "a disk that cannot be written to: name another folder"),
        (errno.EACCES, "give yourself the permission to write there"),
        (errno.EIO, "check the path and its disk"),
    ],
)
def test_a_disk_that_refuses_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
) -> None:
    def refuse(self: Path, *arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code), str(self))

    run = finished(tmp_path / NAME)
    for method, use in {
        "write_text": lambda: run.write_info({}),
        "replace": lambda: run.write_metrics(METRICS),
        "mkdir": lambda: RunFolder(tmp_path / OTHER).write_info({}),
        "rename": lambda: store.set_aside(run.info_path),
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, refuse)
            with pytest.raises(DiskError, match=remedy):
                use()


def test_a_file_that_may_not_be_read_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    run = finished(tmp_path / NAME)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(store.StoreError, match="check its permissions") as caught:
        run.set_damage_aside()
    assert not isinstance(caught.value, Damaged)


def test_other_mistakes_are_not_blamed_on_the_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), store.replacing(tmp_path / "new"):
        (tmp_path / "source").read_bytes()
    with pytest.raises(RuntimeError, match="ours"), store.replacing(tmp_path / "new"):
        raise RuntimeError("ours")


def test_a_run_that_ends_while_it_is_looked_at_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path / NAME)
    run.write_info({"status": "running"})
    run.write_layers_part(0, LAYERS)
    reads = []

    def read_while_it_ends(path: Path, *columns: object) -> object:
        reads.append(path)
        if len(reads) == 1:
            finished(run.path)
            run.remove_scratch()
        return read_arrow(path, *columns)

    monkeypatch.setattr(runs, "read_arrow", read_while_it_ends)
    assert StudyFolder(tmp_path).set_damage_aside() == []
    assert run.info()["status"] == "done"


def test_a_damaged_plan_is_set_aside_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = StudyFolder(tmp_path)
    study.info_path.write_bytes(b"")
    entered = StudyFolder.writing

    @contextmanager
    def after_another(folder: StudyFolder) -> Iterator[None]:
        with entered(folder):
            study.write_info({"name": "written anew by another process"})
            yield

    monkeypatch.setattr(StudyFolder, "writing", after_another)
    assert study.set_damage_aside() == []
    assert study.info()["name"] == "written anew by another process"


@pytest.mark.parametrize("info", [{"a": 1}, {"status": "weird"}, {"status": None}])
def test_a_run_json_that_is_no_runs_is_damage(tmp_path: Path, info: dict[str, object]) -> None:
    run = finished(tmp_path / NAME)
    run.write_info(info)
    assert StudyFolder(tmp_path).infos()[NAME]["damaged"] == "run.json"
    (found,) = StudyFolder(tmp_path).set_damage_aside()
    assert found.path == run.info_path
    assert (run.path / "run.json.damaged-1").is_file()


def test_numbers_are_read_only_from_the_file_that_run_json_speaks_of(tmp_path: Path) -> None:
    run = finished(tmp_path / NAME)
    store.write_table(run.metrics_path, METRICS.assign(value=0.5), "metrics")
    info = run.info()
    metrics = StudyFolder(tmp_path).metrics({NAME: info})
    assert list(metrics.damaged) == [NAME]
    assert "its SHA-256 is not the one in run.json" in str(metrics.damaged[NAME])
