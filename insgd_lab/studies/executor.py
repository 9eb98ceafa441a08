"""Work off a plan with worker processes on this machine.

    tally = execute(plan, StudyFolder("runs/digits"), workers=2)
    tally.done, tally.diverged, tally.failed

Each worker is a fresh Python process with one compute thread (see `worker`). It gets one run at a time over a
pipe, or with packing several that train side by side (see `queue`), and answers in lines of JSON. Nothing is shared
but the study's folder, so one that dies takes only its own runs along: each is tried once more, alone in a fresh
worker, and then recorded as failed while the others go on. A worker that cannot be replaced leaves its runs to the
others. Workers leave at once when their pipe closes, so a scheduler that is killed leaves none behind. Finished runs
are never run again; what was under way or failed goes on from its last checkpoint when the study is run again.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from insgd_lab.config import RunSpec
from insgd_lab.store import FINISHED, DiskError, RunFolder, StoreError, StudyFolder
from insgd_lab.studies.planning import Plan
from insgd_lab.studies.queue import RunQueue

__all__ = ["ExecutionError", "Interrupted", "Tally", "execute", "in_use", "locked", "sweep", "tally_of"]

_ATTEMPTS = 2
_TICK_SECONDS = 0.5
_LEAVE_SECONDS = 5.0
_LOG_LINES = 20
_LOG_BYTES = 1 << 14
# One compute thread, whatever the user's shell says.
_THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
# glibc gives large blocks back to the system at once, and a pack's activations are large blocks, thousands a second.
_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "1073741824"}
# What would have a worker wait for others that share its run: each trains its own.
_TORCHRUN = frozenset({"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"})
_LOCK_SECONDS = 1.0  # longer than `in_use` ever holds the lock


class ExecutionError(Exception):
    """The plan cannot be worked off at all: the folder is in use, or workers do not start."""


class Interrupted(Exception):
    """Ctrl-C; `tally` says how far the study got."""

    def __init__(self, tally: Tally) -> None:
        super().__init__("interrupted")
        self.tally = tally


@dataclass
class Tally:
    """How far a plan has got. `started` is when this call began, on `time.monotonic`'s clock.

    `notes` are what the user must be told beside the counts, such as that a worker could not be replaced.
    """

    total: int
    done: int = 0
    diverged: int = 0
    failed: int = 0
    running: int = 0
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
        """The time that is left at this call's pace; None before the first run of this call has ended."""
        if not self.executed:
            return None
        return self.seconds / self.executed * self.left

    def add(self, status: str) -> None:
        """Count one run that has ended with `status`."""
        setattr(self, status, getattr(self, status) + 1)


def tally_of(plan: Plan, folder: StudyFolder) -> Tally:
    """Count the finished runs of the plan; failed and unfinished ones are still to do."""
    tally = Tally(len(plan.runs))
    for status in folder.statuses(list(plan.runs)).values():
        if status in FINISHED:
            tally.add(status)
    return tally


@contextmanager
def locked(folder: StudyFolder, timeout: float = _LOCK_SECONDS) -> Iterator[None]:
    """Hold the study for this process; `timeout` is how many seconds to wait for it.

    Raises:
        ExecutionError: another process is running it.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.path / ".lock")
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        raise ExecutionError(
            f"{folder.path} is being run by another process; wait for it, or give another folder with --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


def in_use(folder: StudyFolder) -> bool:
    """Whether some process is running the study right now."""
    try:
        with locked(folder, timeout=0):
            return False
    except ExecutionError:
        return True


def sweep(plan: Plan, folder: StudyFolder) -> None:
    """Delete what workers killed at the very end of a run left behind; the caller holds the study's lock."""
    for name, status in folder.statuses(list(plan.runs)).items():
        if status in FINISHED:
            _sweep_run(folder.run(name))


def _sweep_run(run: RunFolder) -> None:
    if run.has_scratch:
        with suppress(StoreError), run.locked():  # held: whoever finished it is at this very work
            run.remove_scratch()


def execute(
    plan: Plan,
    folder: StudyFolder,
    *,
    workers: int,
    device: str = "cpu",
    data_dir: Path | None = None,
    loaders: int = 0,
    on_change: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Run every run of the plan that has no result yet; the caller holds the study's lock.

    Args:
        plan: what to run.
        folder: the study's folder; `study.json` is there already.
        workers: how many processes train at the same time.
        device: the torch device of all of them.
        data_dir: the folder of the data sets, None for the default.
        loaders: processes beside each worker that decode the image files of data that are streamed.
        on_change: called whenever a run starts or ends, and about twice a second.

    Raises:
        ExecutionError: not one worker starts.
        Interrupted: Ctrl-C was pressed.
        DiskError: the disk is full or read-only; the same call goes on once it is not.
    """
    scheduler = _Scheduler(plan, folder, _command(folder, device, data_dir, loaders), on_change)
    try:
        scheduler.run(workers)
    except KeyboardInterrupt:
        raise Interrupted(scheduler.tally) from None
    finally:
        scheduler.dismiss_all()
    return scheduler.tally


def _command(folder: StudyFolder, device: str, data_dir: Path | None, loaders: int) -> list[str]:
    # -P keeps the working directory off sys.path, where a folder of the user's could shadow a library.
    command = [sys.executable, "-P", "-m", "insgd_lab.studies.worker", str(folder.path), "--device", device]
    command += ["--loaders", str(loaders)]
    return command if data_dir is None else [*command, "--data-dir", str(data_dir)]


class _Worker:
    """One worker process, its pipe and the runs it is at."""

    def __init__(self, number: int, command: list[str], log: Path) -> None:
        self.number, self.log = number, log
        self.ready = False
        self.runs: dict[str, RunSpec] = {}
        self._buffer = b""
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = log.stat().st_size if log.exists() else 0
        inherited = {name: value for name, value in os.environ.items() if name not in _TORCHRUN}
        environment = {**_MEMORY, **inherited, **_THREADS}
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=environment
            )

    def start(self, runs: list[RunSpec]) -> None:
        """Hand runs to the worker, to train side by side."""
        self.runs = {run.id: run for run in runs}
        asked = [
            {
                "run": run.id,
                "spec": run.canonical(),
                "plugins": run.plugins,
                "init_from": run.task.init_from.path if run.task.init_from else None,
            }
            for run in runs
        ]
        job = {"runs": asked, "always": runs[0].train.packing != "auto"}
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has died, which reading from it will tell
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
            self.process.stdin.flush()

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """Return the messages that have come, and whether the worker is still there."""
        assert self.process.stdout is not None
        chunk = os.read(self.process.stdout.fileno(), 1 << 16)
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        return [json.loads(line) for line in lines], bool(chunk)

    def dismiss(self) -> int:
        """Close the pipes, wait until the process has left (in the end by force), return its exit code."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        try:
            return self.process.wait(_LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def last_words(self) -> str:
        """The end of what this worker, and no earlier one, wrote into its log."""
        with self.log.open("rb") as log:
            log.seek(max(self._log_start, log.seek(0, os.SEEK_END) - _LOG_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES:])


class _Scheduler:
    def __init__(self, plan: Plan, folder: StudyFolder, command: list[str], on_change: Callable[[Tally], None]) -> None:
        self.folder, self.command, self.on_change = folder, command, on_change
        self.tally = Tally(len(plan.runs))
        self.queue = RunQueue()
        self.attempts: dict[str, int] = {}
        self.failed_before: set[str] = set()
        self.started = False  # whether any worker has ever been ready
        self.workers: list[_Worker] = []
        self.selector = selectors.DefaultSelector()
        self._enqueue(plan)

    def _enqueue(self, plan: Plan) -> None:
        statuses = self.folder.statuses(list(plan.runs))
        for name, run in plan.runs.items():
            status = statuses.get(name)
            if status in FINISHED:
                self.tally.add(str(status))
                continue
            if status == "failed":
                self.failed_before.add(name)
            self.queue.add(run)

    def run(self, workers: int) -> None:
        self.queue.takers = workers
        for number in range(min(workers, len(self.queue))):
            self._hire(number)
        while self.workers:
            for key, _ in self.selector.select(_TICK_SECONDS):
                self._listen(key.data)
            self.tally.running = sum(len(worker.runs) for worker in self.workers)
            self.on_change(self.tally)

    def _hire(self, number: int) -> None:
        try:
            worker = _Worker(number, self.command, self.folder.path / "logs" / f"worker-{number}.log")
        except OSError as error:  # no memory or no process to be had
            self._do_without(number, str(error))
            return
        self.workers.append(worker)
        self.selector.register(worker.process.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]

    def _listen(self, worker: _Worker) -> None:
        messages, alive = worker.read()
        for message in messages:
            if message["event"] == "ready":
                worker.ready = self.started = True
            elif message["event"] == "ended":
                self._record(worker, message)
            elif message["event"] == "returned":
                self._take_back(worker, message)
            elif message["event"] == "broke":
                self._note(message["reason"])
        if not alive:
            self._bury(worker)
        elif worker.ready and not worker.runs:
            self._next(worker)

    def _next(self, worker: _Worker) -> None:
        if self.queue:
            worker.start(self.queue.take())
        else:
            self._dismiss(worker)

    def _record(self, worker: _Worker, message: dict[str, Any]) -> None:
        run = worker.runs.pop(message["run"])
        if message["status"] in FINISHED:
            self.tally.executed += 1
            self.tally.add(message["status"])
        elif message["status"] == "stopped":
            raise DiskError(message["error"])
        else:
            self._fail(run, message["error"])

    def _take_back(self, worker: _Worker, message: dict[str, Any]) -> None:
        """Runs that the worker does not train side by side are trained one by one."""
        runs, worker.runs = list(worker.runs.values()), {}
        self.queue.put_back(runs)
        self._note(message["reason"])

    def _note(self, reason: str) -> None:
        if reason and reason not in self.tally.notes:
            self.tally.notes.append(reason)

    def _bury(self, worker: _Worker) -> None:
        """A worker has died: its runs are tried once more, in a fresh worker, and then recorded as failed."""
        code = self._dismiss(worker)
        if not worker.ready:
            self._do_without(worker.number, f"{_cause(code)}; end of {worker.log}:\n{worker.last_words()}")
            return
        for run in worker.runs.values():
            self._try_again(run, f"{_cause(code)}; end of {worker.log}:\n{worker.last_words()}")
        if self.queue:
            self._hire(worker.number)

    def _do_without(self, number: int, cause: str) -> None:
        """A worker could not start: if none ever did, nothing can be done, else the others go on without it."""
        if not self.started:
            raise ExecutionError(f"worker {number} could not start: {cause}")
        self.tally.notes.append(f"worker {number} could not be replaced: {cause}")

    def _try_again(self, run: RunSpec, cause: str) -> None:
        status = self.folder.statuses([run.id]).get(run.id)
        self.attempts[run.id] = self.attempts.get(run.id, 0) + 1
        if status in FINISHED:  # it died after the last file was written
            _sweep_run(self.folder.run(run.id))
            self.tally.executed += 1
            self.tally.add(str(status))
        elif self.attempts[run.id] < _ATTEMPTS:
            self.queue.put_back([run])
        else:
            self._fail(run, f"its worker died {_ATTEMPTS} times, at last: {cause}")

    def _fail(self, run: RunSpec, error: str) -> None:
        folder = self.folder.run(run.id)
        try:
            with folder.locked():
                info = folder.info() if folder.exists else {"id": run.id, "spec": run.canonical(), "seed": run.seed}
                folder.write_info({**info, "status": "failed", "error": error})
                if run.id in self.failed_before:  # twice: the reason may lie in what it goes on from
                    folder.remove_scratch()
        except StoreError as held:
            self.tally.notes.append(str(held))
        self.tally.executed += 1
        self.tally.add("failed")

    def _dismiss(self, worker: _Worker) -> int:
        self.workers.remove(worker)
        self.selector.unregister(worker.process.stdout)  # type: ignore[arg-type]
        return worker.dismiss()

    def dismiss_all(self) -> None:
        for worker in self.workers:  # close every pipe before waiting for any
            assert worker.process.stdin is not None
            with suppress(BrokenPipeError):
                worker.process.stdin.close()
        for worker in list(self.workers):
            self._dismiss(worker)
        self.selector.close()


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    hint = ", perhaps for lack of memory" if name == "SIGKILL" else ""
    return f"killed by {name}{hint}"
