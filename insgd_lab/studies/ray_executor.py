"""Work off a plan on a Ray cluster.

    tally = execute(plan, StudyFolder("/shared/runs/digits"), address="auto")

Ray does the scheduling, the placement and the retries. A run, or a pack of runs that train side by side, is a task
that asks for its resources; the machine that gets it answers with what became of its runs (see `ray_task`). If the
worker or its machine dies, Ray tries the task again elsewhere, and the runs go on from their checkpoints; a pack that
has used up its retries is given out once more as single runs, so that one bad run does not cost the others.

Only a few more tasks are handed to Ray than the cluster has room for: enough for it, and an autoscaler, to see that
there is more to do, and few enough that what is left is still shared out as the cluster grows and shrinks.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from insgd_lab.config import ArmSpec, ResourcesSpec, RunSpec
from insgd_lab.store import StudyFolder
from insgd_lab.studies.executor import ExecutionError, Interrupted
from insgd_lab.studies.jobs import job_of, variables
from insgd_lab.studies.ledger import Ledger, Tally
from insgd_lab.studies.placement import gpu_slots, settings_over, times_in
from insgd_lab.studies.planning import Plan
from insgd_lab.studies.ray_address import check_answers

__all__ = ["execute", "lifetime", "requested", "require_ray", "slots"]

_AHEAD = 2
_TICK_SECONDS = 0.5
_LOOK_SECONDS = 2.0  # between two looks at what the cluster has
_PATIENCE_SECONDS = 120.0  # for a cluster without any room
_OBJECTS = 100 * 2**20  # bytes of Ray's object store, which nothing of ours uses
_DIGITS = 4  # of a resource, as Ray counts them


def execute(
    plan: Plan,
    folder: StudyFolder,
    *,
    address: str | None = None,
    workers: int | None = None,
    cores: int = 1,
    device: str = "cpu",
    data_dir: Path | None = None,
    loaders: int = 0,
    number: int = 0,
    retries: int = 1,
    on_change: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Run every run of the plan that has no result yet, or wait for other processes that do.

    Args:
        plan: what to run.
        folder: the study's folder, which all nodes see; `study.json` is there already.
        address: of the cluster, as `ray.init` takes it; None starts a Ray on this machine for the time of this call.
        workers: at most so many tasks at a time; None: what the cluster has room for.
        cores: of the Ray that is started.
        device: "cpu", or "cuda" for the GPU that Ray gives to a run.
        data_dir: the folder of the data sets, None for each node's default.
        loaders: processes beside each run that decode the image files of data that are streamed.
        number: this process's among those at work on the study (`presence.at_work`).
        retries: how often a task whose worker dies is tried again.
        on_change: called whenever a run starts or ends, and about twice a second. `running` counts the runs that Ray
            has been given and has room for.

    Raises:
        ExecutionError: Ray is missing, cannot be reached or is lost, or its nodes are not up to the study.
        Interrupted: Ctrl-C was pressed.
        DiskError: the disk is full or read-only; the same call goes on once it is not.
    """
    ray = require_ray()
    ledger = Ledger(plan, folder, number=number, attempts=1)  # retries are Ray's
    asked = {
        "study": str(folder.path.resolve()),
        "created": folder.info().get("created"),
        "device": device,
        "data_dir": None if data_dir is None else str(data_dir.resolve()),
        "loaders": loaders,
        "version": version("insgd-lab"),
        "directory": os.getcwd(),
    }
    with _quiet(folder.path / "logs" / "ray.log"), _connected(ray, address, cores):
        try:
            _Scheduler(ray, plan, ledger, asked, retries, workers, on_change).run()
        except KeyboardInterrupt:
            raise Interrupted(ledger.tally) from None
        except ray.exceptions.RayTaskError as error:  # not of a run, which `ray_task` would tell
            raise ExecutionError(f"a node ({error.ip}) cannot train runs: {_reason(error)}") from error
        except ray.exceptions.RayError as error:
            raise ExecutionError(f"Ray gave up: {_reason(error)}; the same command goes on") from error
    return ledger.tally


def require_ray() -> Any:
    """Import Ray.

    Raises:
        ExecutionError: it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ExecutionError(
            f"running a study on Ray needs the package ray ({error}); install it with pip install 'insgd-lab[ray]', "
            "or use --executor local"
        ) from None


@contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """Keep what Ray prints and logs, which goes on while it works, off the terminal and in a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    handlers = [handler for handler in logging.getLogger("ray").handlers if isinstance(handler, logging.StreamHandler)]
    with log.open("a", encoding="utf-8", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        streams = [handler.setStream(file) for handler in handlers]
        try:
            yield
        finally:
            for handler, stream in zip(handlers, streams, strict=True):
                handler.setStream(stream)


@contextmanager
def _connected(ray: Any, address: str | None, cores: int) -> Iterator[None]:
    """Join a cluster, or start one of this machine alone; leave it, or end what was started.

    Whichever it is, what still runs ends with it: Ray kills the workers of whoever has left. Every file of theirs is
    whole, and the runs go on from their checkpoints. (`ray.cancel` with force would wait for them, but Ray 2.60 aborts
    this process if a task ends just then.)
    """
    if address is not None:
        check_answers(address)
    common = {"log_to_driver": False, "runtime_env": {"env_vars": variables()}}
    try:
        try:
            if address is None:
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
                ray.init("local", num_cpus=cores, include_dashboard=False, object_store_memory=_OBJECTS, **common)
            else:
                ray.init(address, **common)
        except (ConnectionError, RuntimeError, ValueError, OSError, ImportError) as error:
            where = "no Ray could be started here" if address is None else f"there is no Ray to join at {address}"
            raise ExecutionError(f"{where}: {_reason(error)}") from error
        yield
    finally:
        ray.shutdown()


def requested(demand: ResourcesSpec, device: str) -> dict[str, float]:
    """What a task asks Ray for: `num_cpus`, `num_gpus` and, where it is counted, `memory`."""
    gpus = (demand.gpus or 1.0) if device != "cpu" else demand.gpus
    asked = {"num_cpus": round(demand.cpus, _DIGITS), "num_gpus": round(gpus, _DIGITS)}
    return asked if demand.memory is None else {**asked, "memory": demand.memory}


def lifetime(device: str, retries: int) -> dict[str, int]:
    """How often Ray tries a task, and how many a worker process takes: with a GPU one, for the next gets another GPU.

    Torch keeps to the GPU that it found first for as long as its process lives. Ray would end the process by itself if
    `num_gpus` were said where the function is defined; where it is called is too late.
    """
    return {"max_retries": retries, "max_calls": 0 if device == "cpu" else 1}


def slots(asked: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> int:
    """How many tasks that ask for this the nodes hold at a time, given the resources of each."""
    return sum(_slots_of(asked, node) for node in nodes)


def _slots_of(asked: Mapping[str, float], node: Mapping[str, float]) -> int:
    room = [times_in(node.get("CPU", 0), asked["num_cpus"])]
    if asked["num_gpus"]:
        room.append(gpu_slots(node.get("GPU", 0), asked["num_gpus"]))
    if "memory" in asked:
        room.append(times_in(node.get("memory", 0), asked["memory"]))
    return min(room)


class _Scheduler:
    """Hands the runs of a ledger to Ray, and enters what comes back."""

    def __init__(
        self,
        ray: Any,
        plan: Plan,
        ledger: Ledger,
        asked: Mapping[str, Any],
        retries: int,
        workers: int | None,
        on_change: Callable[[Tally], None],
    ) -> None:
        self.ray, self.plan, self.ledger, self.asked = ray, plan, ledger, asked
        self.tries, self.workers, self.on_change = retries + 1, workers, on_change
        self.task = ray.remote(**lifetime(asked["device"], retries))(_far_function(os.getcwd()))
        self.tasks: dict[Any, list[RunSpec]] = {}
        self.demands = {run.resources for run in ledger.queue}
        self.had_room = self.looked = time.monotonic()
        self.room = self._room()

    def run(self) -> None:
        """Work until nothing is left."""
        self._check_room()
        while self.tasks or self.ledger.queue or self.ledger.waiting:
            self._look_at_the_cluster()
            self._fill()
            for task in self._ended():
                self._enter(task)
            if self.ledger.shared:
                self.ledger.look_elsewhere()
            # Ray starts them in about this order; those beyond wait for room.
            self.ledger.tally.running = sum(map(len, islice(self.tasks.values(), self.room)))
            self.on_change(self.ledger.tally)

    # ------------------------------------------------------------------------------------------ the cluster

    def _nodes(self) -> list[Mapping[str, float]]:
        with self._connection():
            return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    @contextmanager
    def _connection(self) -> Iterator[None]:
        """Tell that the cluster cannot be reached any more, for which Ray has no error of its own."""
        try:
            yield
        except self.ray.exceptions.RayError:  # of a task, even if it is a RuntimeError as well
            raise
        except (ConnectionError, RuntimeError) as error:
            raise ExecutionError(f"the Ray cluster is lost: {_reason(error)}; the same command goes on") from error

    def _room(self) -> int:
        """How many tasks fit at a time, going by those that take least."""
        nodes = self._nodes()
        return max((slots(self._requested(demand), nodes) for demand in self.demands), default=0)

    def _requested(self, demand: ResourcesSpec) -> dict[str, float]:
        return requested(demand, self.asked["device"])

    def _check_room(self) -> None:
        """Refuse what would wait for ever: Ray does, for a node that some day may be added."""
        nodes = self._nodes()
        for demand in self.demands:
            if not slots(self._requested(demand), nodes):
                there = ", ".join(sorted({_described(node) for node in nodes})) or "none"
                arms = _arms_of(self.plan, demand)
                names, settings = ", ".join(arm.name for arm in arms), settings_over(arms, *_short(demand, nodes))
                raise ExecutionError(
                    f"a run of {names} takes {demand}, and no node of the Ray cluster has that (nodes: {there}); "
                    f"change [resources] in the study, or over it such as {settings}, or add a node"
                )

    def _look_at_the_cluster(self) -> None:
        """Follow nodes as they come and go; if for long no task that Ray has been given fits any, give up."""
        if time.monotonic() - self.looked < _LOOK_SECONDS:
            return
        self.looked, self.room = time.monotonic(), self._room()
        given = {runs[0].resources for runs in self.tasks.values()}
        if not given or any(slots(self._requested(demand), self._nodes()) for demand in given):
            self.had_room = self.looked
        elif self.looked - self.had_room > _PATIENCE_SECONDS:
            raise ExecutionError("the Ray cluster has lost the nodes that had room; the same command goes on")

    # -------------------------------------------------------------------------------------------- the tasks

    def _fill(self) -> None:
        room = self.room if self.workers is None else min(self.room, self.workers)
        self.ledger.queue.takers = max(room, 1)
        most = room + _AHEAD if self.workers is None else min(room + _AHEAD, self.workers)
        while len(self.tasks) < most and (runs := self.ledger.take()):
            self._start(runs)

    def _start(self, runs: list[RunSpec]) -> None:
        name = f"{runs[0].id} and {len(runs) - 1} more" if len(runs) > 1 else runs[0].id
        task = self.task.options(name=name, **self._requested(runs[0].resources))
        with self._connection():
            self.tasks[task.remote({**self.asked, "job": job_of(runs)})] = runs

    def _ended(self) -> Sequence[Any]:
        """Wait a moment for tasks to end."""
        if not self.tasks:
            time.sleep(_TICK_SECONDS)
            return []
        with self._connection():
            ended, others = self.ray.wait(list(self.tasks), timeout=_TICK_SECONDS)
            more, _ = self.ray.wait(others, num_returns=len(others), timeout=0) if ended and others else ([], [])
        return [*ended, *more]

    def _enter(self, task: Any) -> None:
        """Keep the books of a task that has ended."""
        runs = {run.id: run for run in self.tasks.pop(task)}
        for event in self._answer(task, list(runs.values())):
            if event["event"] == "unfit":
                raise ExecutionError(f"node {event['reason']}; the same command goes on")
            if event["event"] == "ended":
                self.ledger.record(runs.pop(event["run"]), event["status"], event.get("error", ""))
            elif event["event"] == "returned":
                self.ledger.put_back(runs.values(), event["reason"], alone=event["alone"])
            elif event["event"] == "broke":
                self.ledger.note(event["reason"])

    def _answer(self, task: Any, runs: list[RunSpec]) -> list[dict[str, Any]]:
        """The events of a task; none where its workers died, which is entered."""
        gone = self.ray.exceptions
        try:
            with self._connection():
                events: list[dict[str, Any]] = self.ray.get(task)
        except (gone.WorkerCrashedError, gone.NodeDiedError, gone.OutOfMemoryError, gone.ObjectLostError) as error:
            if len(runs) > 1:
                self.ledger.put_back(runs, f"a pack lost its workers and its runs were trained one by one: {error}")
            else:
                self.ledger.died(runs[0], f"{self.tries} tries on Ray, at last {type(error).__name__}: {error}")
            return []
        return events


def _far_function(directory: str) -> Callable[[Mapping[str, Any]], list[dict[str, Any]]]:
    """The function that a node calls. It travels as code, so that it can do something before the lab is imported."""

    def answer(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        # Ray puts the working directory on sys.path, where a folder of the user's could shadow a library.
        chosen = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        sys.path[:] = [path for path in sys.path if path != directory or path in chosen]
        from insgd_lab.studies import ray_task

        return ray_task.answer(asked)

    return answer


def _described(node: Mapping[str, float]) -> str:
    return str(ResourcesSpec.model_construct(cpus=node.get("CPU", 0), gpus=node.get("GPU", 0)))


def _arms_of(plan: Plan, demand: ResourcesSpec) -> list[ArmSpec]:
    names = {row["arm"] for row in plan.rows if plan.runs[row["run"]].resources == demand}
    return [arm for arm in plan.study.arm if arm.name in names]


def _short(demand: ResourcesSpec, nodes: Sequence[Mapping[str, float]]) -> tuple[str, float]:
    """Of what the demand has more than any node, and the most that one has of it."""
    for key, theirs in (("cpus", "CPU"), ("gpus", "GPU"), ("memory", "memory")):
        most = max((node.get(theirs, 0) for node in nodes), default=0)
        if 0 < most < (getattr(demand, key) or 0):
            return key, most
    return "cpus", 1


def _reason(error: BaseException) -> str:
    """The last line of what Ray says, which is a whole traceback if its code or a node's was at fault."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
