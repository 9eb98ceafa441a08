"""The metrics of many runs in one file: a cache that is never wrong and never the only copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from insgd_lab.store import RunFolder, StudyFolder, compaction

RUNS = [f"{number:016x}" for number in range(6)]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyFolder:
    monkeypatch.setattr(compaction, "_WORTH_KEEPING", 3)
    for number, name in enumerate(RUNS):
        write(RunFolder(tmp_path / name), number)
    return StudyFolder(tmp_path)


def write(run: RunFolder, value: float) -> None:
    rows = [(epoch, 10 * epoch, "val", "accuracy", value + epoch / 10) for epoch in (1, 2)]
    run.finish({"status": "done"}, pd.DataFrame(rows, columns=["epoch", "step", "split", "metric", "value"]))


def read(study: StudyFolder, names: list[str] = RUNS) -> pd.DataFrame:
    frame: pd.DataFrame = study.metrics(study.infos(names)).table.to_pandas()
    return frame


def plain(study: StudyFolder, names: list[str] = RUNS) -> pd.DataFrame:
    """The same, run by run."""
    return pd.concat([study.run(name).metrics().assign(run=name) for name in names], ignore_index=True)


def same(left: pd.DataFrame, right: pd.DataFrame) -> bool:
    columns = ["run", "epoch", "step", "split", "metric", "value"]
    return left[columns].astype({"run": str}).equals(right[columns].astype({"run": str}))


def cache(study: StudyFolder) -> Path:
    return study.path / compaction.COMPACTED


def refuse(*arguments: Any) -> Any:
    raise AssertionError("a run's own file was opened")


def test_the_second_reading_opens_no_run(study: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert same(read(study), plain(study))
    assert cache(study).is_file()
    whole = plain(study)
    monkeypatch.setattr(compaction, "read_arrow", refuse)
    assert same(read(study), whole)


@pytest.mark.parametrize("names", [RUNS[::-1], RUNS[2:4], [RUNS[5], RUNS[0]], []])
def test_runs_come_in_the_order_asked_for(study: StudyFolder, names: list[str]) -> None:
    read(study)
    found = read(study, names)
    assert list(dict.fromkeys(found["run"])) == names
    if names:
        assert same(found, plain(study, names))


SPOILS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "a wrong bit": lambda path: path.write_bytes(flipped(path.read_bytes())),
    "foreign": lambda path: path.write_bytes(next(path.parent.glob("*/metrics.parquet")).read_bytes()),
}


def flipped(content: bytes) -> bytes:
    """One bit of the last column's first page is another: the format itself would not notice."""
    at = content.index(b"PAR1", 4) if content.count(b"PAR1") > 2 else len(content) // 3
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_a_cache_that_is_damaged_is_made_again(study: StudyFolder, spoil: Callable[[Path], object]) -> None:
    read(study)
    before = cache(study).read_bytes()
    spoil(cache(study))
    assert same(read(study), plain(study))
    assert cache(study).read_bytes() == before


def test_a_run_made_anew_is_read_anew(study: StudyFolder) -> None:
    read(study)
    write(study.run(RUNS[1]), 40.0)
    assert same(read(study), plain(study))
    assert read(study, [RUNS[1]])["value"].tolist() == [40.1, 40.2]


def test_few_new_runs_do_not_make_the_cache_be_written_again(study: StudyFolder) -> None:
    read(study)
    before = cache(study).stat().st_mtime_ns
    write(study.run("f" * 16), 7)
    assert same(read(study, [*RUNS, "f" * 16]), plain(study, [*RUNS, "f" * 16]))
    assert cache(study).stat().st_mtime_ns == before


def test_runs_without_a_digest_are_read_and_not_kept(study: StudyFolder) -> None:
    for name in RUNS[:5]:
        run = study.run(name)
        run.write_info({"status": "done"})
    assert same(read(study), plain(study))
    assert not cache(study).exists()


def test_a_damaged_run_is_left_out_and_named(study: StudyFolder) -> None:
    path = study.run(RUNS[2]).metrics_path
    infos = study.infos()
    path.write_bytes(b"PAR1")
    found = study.metrics(infos)
    assert list(found.damaged) == [RUNS[2]]
    assert found.damaged[RUNS[2]].path == path
    assert found.table.num_rows == 2 * 5


def test_a_folder_that_cannot_be_written_is_read_all_the_same(
    study: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(self: Path, target: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "replace", read_only)
    assert same(read(study), plain(study))
    assert not cache(study).exists()
    assert not list(study.path.glob(".*"))
