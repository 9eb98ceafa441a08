"""Work off a plan with worker processes on this machine.

    tally = execute(plan, StudyFolder("runs/digits"), workers=2)
    tally.done, tally.diverged, tally.failed

Each worker is a fresh Python process with one compute thread (see `worker`). It gets one run at a time over a
pipe, or with packing several that train side by side (see `queue`), and answers in lines of JSON. Nothing is shared
but the study's folder, so one that dies takes only its own runs along: each is tried once more, alone in a fresh
worker, and then recorded as failed while the others go on. A worker that cannot be replaced leaves its runs to the
others. Workers leave at once when their pipe closes, so a scheduler that is killed leaves none behind. Finished runs
are never run again; what was under way or failed goes on from its last checkpoint when the study is run again.
Several such calls, of several processes, share the work of one study (see `ledger`).
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from insgd_lab.config import RunSpec
from insgd_lab.store import StudyFolder
from insgd_lab.studies.jobs import TORCHRUN, Place, job_of, variables
from insgd_lab.studies.ledger import Ledger, Tally
from insgd_lab.studies.placement import device_of
from insgd_lab.studies.planning import Plan

__all__ = ["ExecutionError", "Interrupted", "execute"]

_TICK_SECONDS = 0.5
_LEAVE_SECONDS = 5.0
_LOG_LINES = 20
_LOG_BYTES = 1 << 14


class ExecutionError(Exception):
    """The plan cannot be worked off at all: no worker starts."""


class Interrupted(Exception):
    """Ctrl-C; `tally` says how far the study got."""

    def __init__(self, tally: Tally) -> None:
        super().__init__("interrupted")
        self.tally = tally


def execute(
    plan: Plan,
    folder: StudyFolder,
    *,
    workers: int,
    device: str = "cpu",
    data_dir: Path | None = None,
    loaders: int = 0,
    number: int = 0,
    retries: int = 1,
    gpus: int = 1,
    on_change: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Run every run of the plan that has no result yet, or wait for other processes that do.

    Args:
        plan: what to run.
        folder: the study's folder; `study.json` is there already.
        workers: how many processes train at the same time.
        device: the torch device of all of them; "cuda" shares out all that there are.
        data_dir: the folder of the data sets, None for the default.
        loaders: processes beside each worker that decode the image files of data that are streamed.
        number: this process's among those at work on the study (`presence.at_work`).
        retries: how often a run whose worker dies is tried again.
        gpus: how many torch sees here.
        on_change: called whenever a run starts or ends, and about twice a second.

    Raises:
        ExecutionError: not one worker starts.
        Interrupted: Ctrl-C was pressed.
        DiskError: the disk is full or read-only; the same call goes on once it is not.
    """
    ledger = Ledger(plan, folder, number=number, attempts=retries + 1)
    logs = [folder.path / "logs" / f"worker-{f'{number}-' if number else ''}{k}.log" for k in range(workers)]
    devices = [device_of(number + k, device, gpus) for k in range(workers)]
    commands = [_command(Place(folder.path, own, data_dir, loaders)) for own in devices]
    scheduler = _Scheduler(ledger, commands, logs, on_change)
    try:
        scheduler.run()
    except KeyboardInterrupt:
        raise Interrupted(ledger.tally) from None
    finally:
        scheduler.dismiss_all()
    return ledger.tally


def _command(place: Place) -> list[str]:
    # -P keeps the working directory off sys.path, where a folder of the user's could shadow a library.
    command = [sys.executable, "-P", "-m", "insgd_lab.studies.worker", str(place.study), "--device", place.device]
    command += ["--loaders", str(place.loaders)]
    return command if place.data_dir is None else [*command, "--data-dir", str(place.data_dir)]


class _Worker:
    """One worker process, its pipe and the runs it is at."""

    def __init__(self, number: int, command: list[str], log: Path) -> None:
        self.number, self.log = number, log
        self.ready = False
        self.runs: dict[str, RunSpec] = {}
        self._buffer = b""
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = log.stat().st_size if log.exists() else 0
        inherited = {name: value for name, value in os.environ.items() if name not in TORCHRUN}
        environment = {**inherited, **variables()}
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=environment
            )

    def start(self, runs: list[RunSpec]) -> None:
        """Hand runs to the worker, to train side by side."""
        self.runs = {run.id: run for run in runs}
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has died, which reading from it will tell
            self.process.stdin.write(json.dumps(job_of(runs)).encode() + b"\n")
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
    """Hands the runs of a ledger to workers, one for each command and its log."""

    def __init__(
        self, ledger: Ledger, commands: list[list[str]], logs: list[Path], on_change: Callable[[Tally], None]
    ) -> None:
        self.ledger, self.commands, self.logs, self.on_change = ledger, commands, logs, on_change
        self.started = False  # whether any worker has ever been ready
        self.workers: list[_Worker] = []
        self.selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Work until nothing is left, or nobody to do it."""
        ledger = self.ledger
        ledger.queue.takers = len(self.logs)
        for number in range(min(len(self.logs), len(ledger.queue))):
            self._hire(number)
        while self.workers:
            for key, _ in self.selector.select(_TICK_SECONDS):
                self._listen(key.data)
            if ledger.shared:
                ledger.look_elsewhere()
            self._call_the_idle()
            ledger.tally.running = sum(len(worker.runs) for worker in self.workers)
            self.on_change(ledger.tally)

    def _hire(self, number: int) -> None:
        try:
            worker = _Worker(number, self.commands[number], self.logs[number])
        except OSError as error:  # no memory or no process to be had
            self._do_without(number, str(error))
            return
        self.workers.append(worker)
        self.selector.register(worker.process.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]

    def _listen(self, worker: _Worker) -> None:
        messages, alive = worker.read()
        for message in messages:
            self._enter(worker, message)
        if not alive:
            self._bury(worker)

    def _enter(self, worker: _Worker, message: dict[str, Any]) -> None:
        """Keep the books of what a worker tells."""
        if message["event"] == "ready":
            worker.ready = self.started = True
        elif message["event"] == "ended":
            run = worker.runs.pop(message["run"])
            self.ledger.record(run, message["status"], message.get("error", ""))
        elif message["event"] == "returned":
            runs, worker.runs = list(worker.runs.values()), {}
            self.ledger.put_back(runs, message["reason"], alone=message["alone"])
        elif message["event"] == "broke":
            self.ledger.note(message["reason"])

    def _call_the_idle(self) -> None:
        """Give the next runs to those who have none; who can expect none leaves."""
        for worker in [worker for worker in self.workers if worker.ready and not worker.runs]:
            runs = self.ledger.take()
            if runs:
                worker.start(runs)
            elif not self._more_may_come:
                self._dismiss(worker)

    @property
    def _more_may_come(self) -> bool:
        """Whether runs may come back: what another process holds, or a pack whose runs are then trained one by one."""
        return self.ledger.waiting or any(len(worker.runs) > 1 for worker in self.workers)

    def _bury(self, worker: _Worker) -> None:
        """A worker has died: a fresh one takes its place, if there is something left to do."""
        code = self._dismiss(worker)
        if not worker.ready:
            self._do_without(worker.number, f"{_cause(code)}; end of {worker.log}:\n{worker.last_words()}")
            return
        cause = f"{_cause(code)}; end of {worker.log}:\n{worker.last_words()}"
        if len(worker.runs) > 1:
            self.ledger.pack_died(worker.runs.values(), cause)
        for run in worker.runs.values() if len(worker.runs) == 1 else ():
            self.ledger.died(run, cause)
        if self.ledger.queue or self._more_may_come:
            self._hire(worker.number)

    def _do_without(self, number: int, cause: str) -> None:
        """A worker could not start: the others go on without it; if none ever did or may yet, nothing can be done."""
        if not self.started and not self.workers:
            raise ExecutionError(f"worker {number} could not start: {cause}")
        self.ledger.note(f"worker {number} could not {'be replaced' if self.started else 'start'}: {cause}")

    def _dismiss(self, worker: _Worker) -> int:
        self.workers.remove(worker)
        self.selector.unregister(worker.process.stdout)  # type: ignore[arg-type]
        return worker.dismiss()

    def dismiss_all(self) -> None:
        """Send all workers away."""
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
