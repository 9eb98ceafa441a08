"""Results from several machines become one study: nothing lost, nothing written over, nothing mixed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from insgd_lab.store import RunFolder, StudyFolder
from insgd_lab.studies import merging
from insgd_lab.studies.merging import MergeError, merge
from insgd_lab.studies.presence import at_work

from .made import MADE, TEXT, finish_run, make_study

Cli = Callable[..., subprocess.CompletedProcess[str]]


def runs(folder: StudyFolder) -> list[str]:
    return list(dict.fromkeys(row["run"] for row in folder.info()["plan"]))


@pytest.fixture
def halves(tmp_path: Path) -> tuple[StudyFolder, StudyFolder]:
    """The same study on two machines; each has finished half of it and they share one run."""
    one, two = (make_study(tmp_path / name, finish=False) for name in "ab")
    names = runs(one)
    for number, name in enumerate(names):
        if number <= len(names) // 2:
            finish_run(one.run(name), number / 100)
        if number >= len(names) // 2:
            finish_run(two.run(name), number / 100)
    return one, two


def content(folder: StudyFolder) -> dict[str, bytes]:
    paths = sorted(path for path in folder.path.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder.path).as_posix(): path.read_bytes() for path in paths}


def start(run: RunFolder, epochs: int, checkpoint: bytes = b"") -> None:
    run.write_info({**MADE, "status": "running", "epochs_done": epochs})
    if checkpoint:
        run.checkpoint_path.write_bytes(checkpoint)


def test_two_halves_become_the_whole(tmp_path: Path, halves: tuple[StudyFolder, StudyFolder], cli: Cli) -> None:
    one, two = halves
    before = content(one), content(two)
    result = cli("study", "merge", "a", "b", "--out", "c")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "c: 12 runs copied\n"
    assert (content(one), content(two)) == before
    whole = content(StudyFolder(tmp_path / "c"))
    assert whole == {**before[1], **before[0]}
    again = cli("study", "merge", "b", "a", "--out", "c")
    assert again.stdout == "c: 0 runs copied, 12 there already\n"
    assert content(StudyFolder(tmp_path / "c")) == whole


def test_an_interrupted_merge_is_given_again(
    tmp_path: Path, halves: tuple[StudyFolder, StudyFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, copied = StudyFolder(tmp_path / "c"), []

    def copy(source: Path, path: Path) -> None:
        if len(copied) == 5:
            raise KeyboardInterrupt
        copied.append(path)
        path.write_bytes(source.read_bytes())

    with monkeypatch.context() as patch:
        patch.setattr(merging.shutil, "copyfile", copy)
        with pytest.raises(KeyboardInterrupt):
            merge(halves, target)
    assert 0 < len(target.statuses()) < 12
    merged = merge(halves, target)
    assert merged.copied + merged.there == 12
    assert set(target.statuses().values()) == {"done"}
    assert not any(name.endswith(".new") for name in content(target))


def test_what_is_not_finished_anywhere_is_told_and_goes_on(
    tmp_path: Path, halves: tuple[StudyFolder, StudyFolder]
) -> None:
    one, two = halves
    name = runs(one)[-1]
    two.run(name).set_aside("lost")
    start(one.run(name), 1)
    start(two.run(name), 1, b"checkpoint")
    merged = merge(halves, StudyFolder(tmp_path / "c"))
    assert (merged.copied, merged.unfinished, merged.missing) == (11, 1, 1)
    assert (tmp_path / "c" / name / "checkpoint.pt").read_bytes() == b"checkpoint"
    assert not list((tmp_path / "c" / name).glob("*.lost-1")), "what was set aside stays where it is"


def test_a_finished_run_goes_before_an_unfinished_one_in_the_target_too(
    tmp_path: Path, halves: tuple[StudyFolder, StudyFolder]
) -> None:
    one, _ = halves
    target, name = StudyFolder(tmp_path / "c"), runs(one)[0]
    merge([one], target)
    target.run(name).set_aside("lost")
    start(target.run(name), 1, b"checkpoint")
    merge(halves, target)
    assert target.statuses()[name] == "done"
    assert (target.run(name).path / "checkpoint.pt.merged-1").read_bytes() == b"checkpoint"


def test_other_studies_are_refused_and_what_differs_is_named(tmp_path: Path, cli: Cli) -> None:
    make_study(tmp_path / "a")
    make_study(tmp_path / "b", TEXT.replace("epochs = 2", "epochs = 3").replace("lr = 0.3", "lr = 0.4"))
    result = cli("study", "merge", "a", "b", "--out", "c")
    assert result.returncode == 2
    assert "a and b hold different studies: " in result.stderr
    assert "train.epochs is 2 and 3; arm[1].optimizer.options.lr is 0.3 and 0.4" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "c").exists()


def test_the_same_file_planned_by_another_lab_is_refused(tmp_path: Path) -> None:
    one, two = (make_study(tmp_path / name) for name in "ab")
    info = two.info()
    info["plan"][0]["run"] = "f" * 16
    two.write_info(info)
    with pytest.raises(MergeError, match=r"plan\[0\]\.run is '[0-9a-f]{16}' and 'f{16}'.*labs of the same version"):
        merge([one, two], StudyFolder(tmp_path / "c"))


def test_what_an_earlier_version_did_not_write_of_the_labels_may_be_missing(tmp_path: Path) -> None:
    one, two = (make_study(tmp_path / name) for name in "ab")
    info = two.info()
    del info["labels"]
    two.write_info(info)
    assert merge([one, two], StudyFolder(tmp_path / "c")).copied == 12
    assert merge([two, one], StudyFolder(tmp_path / "d")).copied == 12
    two.write_info({**info, "labels": False})
    with pytest.raises(MergeError, match="labels is True and False"):
        merge([one, two], StudyFolder(tmp_path / "e"))


def test_when_and_by_what_a_study_was_planned_and_its_title_may_differ(tmp_path: Path) -> None:
    one = make_study(tmp_path / "a")
    two = make_study(tmp_path / "b", 'title = "Another"\n' + TEXT, created="2026-01-01", versions={"torch": "3"})
    assert merge([one, two], StudyFolder(tmp_path / "c")).copied == 12
    assert StudyFolder(tmp_path / "c").info() == one.info()


def test_results_that_contradict_each_other_are_refused_before_anything_is_copied(
    tmp_path: Path, halves: tuple[StudyFolder, StudyFolder]
) -> None:
    one, two = halves
    shared = runs(one)[6]
    finish_run(two.run(shared), 0.9)
    with pytest.raises(MergeError, match="1 runs have different metrics though") as caught:
        merge(halves, StudyFolder(tmp_path / "c"))
    assert str(one.run(shared).metrics_path) in str(caught.value)
    assert str(two.run(shared).metrics_path) in str(caught.value)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("other", [{"device_name": "Other processor"}, {"versions": {"torch": "3"}}, {"threads": 4}])
def test_results_of_different_machines_may_differ_and_the_first_is_taken(
    tmp_path: Path, halves: tuple[StudyFolder, StudyFolder], other: dict[str, object]
) -> None:
    one, two = halves
    shared = runs(one)[6]
    finish_run(two.run(shared), 0.9, **other)
    merged = merge([two, one], StudyFolder(tmp_path / "c"))
    assert merged.notes == ["1 runs differ between machines or versions; the first folder's are taken"]
    assert (tmp_path / "c" / shared / "metrics.parquet").read_bytes() == two.run(shared).metrics_path.read_bytes()


def test_damaged_and_unplanned_runs_are_left_out_and_named(
    tmp_path: Path, halves: tuple[StudyFolder, StudyFolder]
) -> None:
    one, two = halves
    damaged = one.run(runs(one)[0])
    damaged.metrics_path.write_bytes(bytes(damaged.metrics_path.stat().st_size))
    finish_run(two.run("f" * 16), 0.5)
    merged = merge(halves, StudyFolder(tmp_path / "c"))
    assert merged.notes == [
        f"left out: {damaged.metrics_path}, which cannot be read (its SHA-256 is not the one in run.json)",
        f"left out: 1 runs in {two.path} that are not in the plan",
    ]
    assert (merged.copied, merged.missing) == (11, 1)


def test_bad_choices_of_folders_are_refused(tmp_path: Path, halves: tuple[StudyFolder, StudyFolder]) -> None:
    one, two = halves
    with pytest.raises(MergeError, match="is a source and the target"):
        merge([one, two], StudyFolder(tmp_path / "x" / ".." / "a"))
    with pytest.raises(MergeError, match="given twice"):
        merge([one, one], StudyFolder(tmp_path / "c"))
    with at_work(two), pytest.raises(MergeError, match="is being run by a process"):
        merge([one, two], StudyFolder(tmp_path / "c"))
    with pytest.raises(Exception, match="is not a study"):
        merge([one, StudyFolder(tmp_path / "nowhere")], StudyFolder(tmp_path / "c"))
