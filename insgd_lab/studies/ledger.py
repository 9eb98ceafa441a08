"""The books of a study that is being worked off: what is still to do, what others hold, how the rest went.

    ledger = Ledger(plan, StudyFolder("runs/digits"))
    runs = ledger.take()                    # to be trained, together where they are several
    ledger.record(runs[0], "done")
    ledger.tally.done, ledger.tally.left

Executors differ in how they train; what is to be trained, and what becomes of a run whose worker died, stands here.
Several processes may work off one study, each with books of its own, and know of each other by the runs' locks and
files alone: each begins at another place in the plan, a run that another one holds is waited for, and is taken over
if that one dies.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from insgd_lab.config import RunSpec
from insgd_lab.store import FINISHED, DiskError, InUse, RunFolder, StoreError, StudyFolder
from insgd_lab.studies.planning import Plan, Stages
from insgd_lab.studies.queue import RunQueue

__all__ = ["Ledger", "Tally", "sweep", "tally_of"]

_LOOK_SECONDS = 1.0
_LOOK_SHARE = 20  # between two looks, as many times as long as one takes
_GOLDEN = (5**0.5 - 1) / 2


@dataclass
class Tally:
    """How far a plan has got. `started` is when this call began, on `time.monotonic`'s clock.

    `elsewhere` are runs that other processes are at and that this one waits for. `notes` are what the user must be told
    beside the counts, such as that a worker could not be replaced. Of a search, `stages` says how many runs there are
    in all, and `finals` how many final ones have ended; `total` are those that are planned by now.
    """

    total: int
    stages: Stages | None = None
    finals: int = 0
    done: int = 0
    diverged: int = 0
    failed: int = 0
    running: int = 0
    elsewhere: tuple[str, ...] = ()
    executed: int = 0
    started: float = field(default_factory=time.monotonic)
    notes: list[str] = field(default_factory=list)

    @property
    def finished(self) -> int:
        """Runs with a result: done or diverged."""
        return self.done + self.diverged

    @property
    def left(self) -> int:
        """Runs that have not ended yet."""
        return self.total - self.finished - self.failed

    @property
    def seconds(self) -> float:
        """Since this call began."""
        return time.monotonic() - self.started

    @property
    def seconds_left(self) -> float | None:
        """The time that is left at this call's pace; None before the first run of this call has ended.

        Runs that other processes have ended since count too, for they will go on helping.
        """
        if not self.executed:
            return None
        return self.seconds / self.executed * (self.in_all - self.ended)

    @property
    def ended(self) -> int:
        """Runs that are finished or have failed."""
        return self.finished + self.failed

    @property
    def in_all(self) -> int:
        """Runs that the study comes to, planned or not."""
        return self.total if self.stages is None else max(self.total, self.stages.trials + self.stages.finals)

    def add(self, status: str, run: str) -> None:
        """Count a run that has ended with `status`."""
        setattr(self, status, getattr(self, status) + 1)
        self.finals += self.stages is not None and run in self.stages.final


def tally_of(plan: Plan, folder: StudyFolder) -> Tally:
    """Count the finished runs of the plan; failed and unfinished ones are still to do."""
    tally = Tally(len(plan.runs), plan.stages)
    for name, status in folder.statuses(list(plan.runs)).items():
        if status in FINISHED:
            tally.add(status, name)
    return tally


def sweep(plan: Plan, folder: StudyFolder) -> None:
    """Delete what workers killed at the very end of a run left behind; what someone holds is left alone."""
    for name, status in folder.statuses(list(plan.runs)).items():
        if status in FINISHED:
            _sweep_run(folder.run(name))


def _sweep_run(run: RunFolder) -> None:
    if run.has_scratch:
        with suppress(StoreError), run.locked():  # held: whoever finished it is at this very work
            run.remove_scratch()


class Ledger:
    """One process's books of a plan.

    Attributes:
        tally: how far the plan has got.
        queue: what is still to do; `queue.takers` is how many workers take from it.
        shared: whether other processes are known to be at work on it: then `look_elsewhere` now and then.
    """

    def __init__(self, plan: Plan, folder: StudyFolder, *, number: int = 0, attempts: int = 2) -> None:
        """Take up what the folder has of the plan.

        Args:
            plan: what to run.
            folder: the study's.
            number: this process's among those at work on the study (`presence.at_work`).
            attempts: how often a run may lose its worker, the last time failing for it.
        """
        self.folder, self.tally, self.queue = folder, Tally(len(plan.runs), plan.stages), RunQueue()
        self._allowed = attempts
        self._attempts: dict[str, int] = {}
        self._given_up: dict[str, str] = {}  # runs that have lost their last worker, with why
        self._failed_before: dict[str, Mapping[str, Any]] = {}  # with what run.json says of it
        self._elsewhere: dict[str, RunSpec] = {}
        self.shared = number > 0
        self._look_again = time.monotonic() + _LOOK_SECONDS
        infos = folder.infos(list(plan.runs))
        for name in _from_another_place(list(plan.runs), number):
            info = infos.get(name, {})
            if info.get("status") in FINISHED:
                self.tally.add(str(info["status"]), name)
                continue
            if info.get("status") == "failed":
                self._failed_before[name] = info
            self.queue.add(plan.runs[name])

    @property
    def waiting(self) -> bool:
        """Whether other processes hold runs that may come back."""
        return bool(self._elsewhere)

    def take(self) -> list[RunSpec]:
        """The next runs that nobody has done or holds, to be trained side by side; none if there are none now."""
        while self.queue:
            runs = [run for run in self.queue.take() if self._is_ours(run)]
            if runs:
                return runs
        return []

    def _is_ours(self, run: RunSpec) -> bool:
        if self._ended_elsewhere(run.id):
            return False
        if self.folder.run(run.id).is_held:
            self._wait_for(run)
            return False
        return True

    def _ended_elsewhere(self, name: str) -> bool:
        """Count a run if another process has brought it to its end since these books were opened."""
        info = self.folder.infos([name]).get(name, {})
        status = str(info.get("status"))
        if status not in FINISHED and (status != "failed" or info == self._failed_before.get(name)):
            return False
        self.shared = True
        self.tally.executed += 1
        self.tally.add(status, name)
        return True

    def _wait_for(self, run: RunSpec) -> None:
        self.shared = True
        self._elsewhere[run.id] = run
        self.tally.elsewhere = tuple(self._elsewhere)

    def look_elsewhere(self) -> None:
        """See what others have come to: what they have ended is counted, what they let go of is to do again.

        It looks at most once a second, and more rarely where a look takes long.
        """
        if time.monotonic() < self._look_again:
            return
        began = time.monotonic()
        for run in list(self.queue):
            if self._ended_elsewhere(run.id):
                self.queue.drop(run.id)
        for name, run in list(self._elsewhere.items()):
            if not self.folder.run(name).is_held:
                del self._elsewhere[name]
                self._take_over(run)
        self.tally.elsewhere = tuple(self._elsewhere)
        self._look_again = time.monotonic() + max(_LOOK_SECONDS, _LOOK_SHARE * (time.monotonic() - began))

    def _take_over(self, run: RunSpec) -> None:
        """A run that nobody holds any more has ended, is to do again, or had been given up here already."""
        if self._ended_elsewhere(run.id):
            return
        if run.id in self._given_up:
            self._fail(run, self._given_up[run.id])
        else:
            self.queue.add(run)

    def record(self, run: RunSpec, status: str, error: str = "") -> None:
        """Enter what became of a run that was taken.

        Args:
            run: which.
            status: "done", "diverged", "failed", "busy" (another process holds it) or "stopped" (by the disk).
            error: what a failed or stopped run says.

        Raises:
            DiskError: the disk has stopped the run, and would the others.
        """
        if status == "busy":
            self._wait_for(run)
        elif status == "stopped":
            raise DiskError(error)
        elif status == "failed":
            self._fail(run, error)
        else:
            self.tally.executed += 1
            self.tally.add(status, run.id)

    def put_back(self, runs: Iterable[RunSpec], reason: str = "", *, alone: bool = True) -> None:
        """Take back runs that were to be trained side by side, to be trained one by one unless `alone` is false."""
        self.queue.put_back(runs, alone=alone)
        self.note(reason)

    def note(self, reason: str) -> None:
        """Keep something for the user, once."""
        if reason and reason not in self.tally.notes:
            self.tally.notes.append(reason)

    def pack_died(self, runs: Iterable[RunSpec], cause: str) -> None:
        """Enter that the worker of runs side by side has died: each is tried alone, whoever's fault it was."""
        left = [run for run in runs if not self._was_done(run)]
        self.put_back(left, f"a pack lost its worker and its runs were trained one by one: {cause.splitlines()[0]}")

    def died(self, run: RunSpec, cause: str) -> None:
        """Enter that the worker of a run has died: it is tried again, as often as is allowed, or has failed."""
        if self._was_done(run):
            return
        self._attempts[run.id] = self._attempts.get(run.id, 0) + 1
        if self._attempts[run.id] < self._allowed:
            self.put_back([run], f"a worker died and its run was tried again: {cause.splitlines()[0]}")
        else:
            times = f" {self._allowed} times, at last" if self._allowed > 1 else ""
            self._fail(run, f"its worker died{times}: {cause}")

    def _was_done(self, run: RunSpec) -> bool:
        """Enter a run whose worker died after its last file was written, and tidy up after it."""
        status = self.folder.statuses([run.id]).get(run.id)
        if status in FINISHED:
            _sweep_run(self.folder.run(run.id))
            self.record(run, str(status))
        return status in FINISHED

    def _fail(self, run: RunSpec, error: str) -> None:
        folder = self.folder.run(run.id)
        try:
            with folder.locked():
                info = folder.info() if folder.exists else {"id": run.id, "spec": run.canonical(), "seed": run.seed}
                if info.get("status") in FINISHED:  # someone took it over just now
                    self.record(run, str(info["status"]))
                    return
                folder.write_info({**info, "status": "failed", "error": error})
                if run.id in self._failed_before:  # twice: the reason may lie in what it goes on from
                    folder.remove_scratch()
        except InUse:  # someone has taken it over, and may do better
            self._given_up[run.id] = error
            self._wait_for(run)
            return
        except StoreError as error_of_disk:
            self.note(str(error_of_disk))
        self.tally.executed += 1
        self.tally.add("failed", run.id)


def _from_another_place(names: list[str], number: int) -> list[str]:
    """The names from a place on that is as far as may be from where earlier numbers begin."""
    start = int(number * _GOLDEN % 1 * len(names))
    return names[start:] + names[:start]
