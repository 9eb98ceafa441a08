"""The books of one process among several: what is taken, waited for, taken over, tried again and given up."""

from __future__ import annotations

from pathlib import Path

import pytest

from insgd_lab.config import RunSpec
from insgd_lab.store import DiskError, StudyFolder
from insgd_lab.studies import ledger
from insgd_lab.studies.ledger import Ledger

from .made import finish_run, make_study, plan_of

RUNS = 12


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    return make_study(tmp_path / "made", finish=False)


@pytest.fixture(autouse=True)
def _looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(ledger, "_LOOK_SHARE", 0)


def books(study: StudyFolder, **settings: int) -> Ledger:
    return Ledger(plan_of(), study, **settings)


def take_all(mine: Ledger) -> list[RunSpec]:
    taken = []
    while runs := mine.take():
        taken += runs
    return taken


def fail(study: StudyFolder, run: RunSpec, error: str) -> None:
    study.run(run.id).write_info({"id": run.id, "spec": run.canonical(), "status": "failed", "error": error})


def test_everything_is_taken_once(study: StudyFolder) -> None:
    taken = [run.id for run in take_all(books(study))]
    assert len(taken) == len(set(taken)) == RUNS


def test_each_process_begins_where_no_other_is(study: StudyFolder) -> None:
    orders = [[run.id for run in take_all(books(study, number=number))] for number in range(4)]
    assert len({tuple(sorted(order)) for order in orders}) == 1
    first = [orders[0].index(order[0]) for order in orders]
    assert min(abs(a - b) for k, a in enumerate(first) for b in first[:k]) >= 2


def test_what_another_process_has_finished_meanwhile_is_counted_and_not_taken(study: StudyFolder) -> None:
    mine = books(study)
    theirs = take_all(books(study))[3:6]
    finish_run(study.run(theirs[0].id), 0.5)
    finish_run(study.run(theirs[1].id), 0.5, status="diverged")
    fail(study, theirs[2], "their error")
    assert len(take_all(mine)) == RUNS - 3
    assert (mine.tally.done, mine.tally.diverged, mine.tally.failed) == (1, 1, 1)


def test_a_failed_run_is_tried_again_by_one_of_those_who_knew_of_it(study: StudyFolder) -> None:
    run = take_all(books(study))[0]
    fail(study, run, "an earlier error")
    mine, theirs = books(study), books(study)
    assert theirs.take() == [run]
    theirs.record(run, "failed", "the same again")
    assert run not in take_all(mine)
    assert mine.tally.failed == theirs.tally.failed == 1


def test_a_run_that_is_held_is_waited_for_and_taken_over(study: StudyFolder) -> None:
    mine = books(study)
    held, done = (study.run(run.id) for run in take_all(books(study))[:2])
    with held.locked():
        with done.locked():
            assert len(take_all(mine)) == RUNS - 2
            assert mine.waiting
            mine.look_elsewhere()
            assert mine.take() == []
            assert set(mine.tally.elsewhere) == {held.id, done.id}
            finish_run(done, 0.5)
        mine.look_elsewhere()
        assert (mine.tally.done, mine.tally.elsewhere) == (1, (held.id,))
    mine.look_elsewhere()
    assert [run.id for run in mine.take()] == [held.id]
    assert not mine.waiting


def test_a_run_that_is_held_by_the_time_it_is_begun_or_given_up_is_waited_for(study: StudyFolder) -> None:
    mine = books(study, attempts=1)
    (late,), (lost,) = mine.take(), mine.take()
    with study.run(lost.id).locked():
        mine.record(late, "busy")
        mine.died(lost, "killed by SIGKILL")
        assert (mine.tally.elsewhere, mine.tally.failed) == ((late.id, lost.id), 0)
    mine.look_elsewhere()
    assert mine.tally.failed == 1, "its tries are spent"
    assert late in take_all(mine)


def test_a_run_that_someone_finishes_just_before_it_is_given_up_stays_done(study: StudyFolder) -> None:
    mine = books(study, attempts=1)
    (run,), (other,) = mine.take(), mine.take()
    mine.folder.run(run.id).write_info({"id": run.id, "spec": run.canonical(), "status": "running"})
    finish_run(study.run(run.id), 0.5)
    mine.record(run, "failed", "its own try")
    assert (mine.tally.done, mine.tally.failed) == (1, 0)
    assert study.run(run.id).info()["status"] == "done"
    mine.record(other, "failed", "its own try")
    assert mine.tally.failed == 1


def test_what_others_have_ended_is_counted_before_the_queue_comes_to_it(study: StudyFolder) -> None:
    mine = books(study, number=1)
    *_, near_the_end, last = take_all(books(study, number=1))
    finish_run(study.run(last.id), 0.5)
    fail(study, near_the_end, "their error")
    mine.look_elsewhere()
    assert (mine.tally.done, mine.tally.failed) == (1, 1)
    assert len(take_all(mine)) == RUNS - 2


def test_the_death_of_a_pack_costs_none_of_its_runs_a_try(study: StudyFolder) -> None:
    mine = books(study, attempts=1)
    done, *pack = [mine.take()[0], mine.take()[0], mine.take()[0]]
    finish_run(study.run(done.id), 0.5)
    study.run(done.id).checkpoint_path.touch()
    mine.pack_died([done, *pack], "killed by SIGKILL")
    assert (mine.tally.done, mine.tally.failed) == (1, 0)
    assert not study.run(done.id).has_scratch
    assert [mine.take(), mine.take()] == [[run] for run in pack]
    assert "were trained one by one: killed by SIGKILL" in mine.tally.notes[0]


def test_a_run_whose_worker_dies_is_tried_as_often_as_is_allowed(study: StudyFolder) -> None:
    mine = books(study, attempts=3)
    (run,) = mine.take()
    for _ in range(2):
        mine.died(run, "killed by SIGKILL")
        assert mine.take() == [run]
    mine.died(run, "killed by SIGSEGV")
    assert mine.tally.failed == 1
    assert run not in take_all(mine)
    assert study.run(run.id).info()["error"] == "its worker died 3 times, at last: killed by SIGSEGV"


def test_a_run_whose_worker_dies_after_its_last_file_is_done(study: StudyFolder) -> None:
    mine = books(study)
    (run,) = mine.take()
    finish_run(study.run(run.id), 0.5)
    study.run(run.id).checkpoint_path.touch()
    mine.died(run, "killed by SIGKILL")
    assert (mine.tally.done, mine.tally.failed) == (1, 0)
    assert not study.run(run.id).has_scratch


def test_a_disk_that_refuses_ends_it(study: StudyFolder) -> None:
    mine = books(study)
    with pytest.raises(DiskError, match="no space"):
        mine.record(mine.take()[0], "stopped", "no space")


def test_what_the_user_must_know_is_kept_once(study: StudyFolder) -> None:
    mine = books(study)
    for reason in ("", "not packed", "", "not packed"):
        mine.put_back([], reason)
    assert mine.tally.notes == ["not packed"]
