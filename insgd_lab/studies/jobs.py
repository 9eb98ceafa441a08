"""A job: one run, or several that train side by side, as plain values that travel between processes.

    job = job_of(runs)                               # the scheduler's side
    work(job, Place(Path("runs/digits")), tell)      # the side of the process that trains, wherever it is

`work` tells what becomes of the runs:

    tell(event="ended", run="0123456789abcdef", status="done")

Several runs of one job train side by side. If they cannot, or need not (`always` is false and it would not be
faster), they are given back, to be trained one by one:

    tell(event="returned", reason="…")
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from insgd_lab.config import RunSpec
    from insgd_lab.store import RunFolder

__all__ = ["TORCHRUN", "Job", "Place", "Tell", "job_of", "prepare_torch", "variables", "work"]

Job = dict[str, Any]
Tell = Callable[..., None]
TORCHRUN = frozenset({"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"})
"""What would have a process wait for others that share its run: each trains its own."""

# One compute thread, whatever the user's shell says.
_THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
# glibc gives large blocks back to the system at once, and a pack's activations are large blocks, thousands a second.
_MEMORY = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
_LARGE = "1073741824"


@dataclass(frozen=True)
class Place:
    """Where and on what a process trains.

    Attributes:
        study: the study's folder.
        device: the torch device.
        data_dir: the folder of the data sets, None for the default.
        loaders: processes that decode the image files of data that are streamed.
    """

    study: Path
    device: str = "cpu"
    data_dir: Path | None = None
    loaders: int = 0


def variables() -> dict[str, str]:
    """The environment variables that a process which trains must have at its start."""
    return {**{name: os.environ.get(name, _LARGE) for name in _MEMORY}, **_THREADS}


def job_of(runs: Sequence[RunSpec]) -> Job:
    """Return the job of training these runs side by side."""
    asked = [
        {
            "run": run.id,
            "spec": run.canonical(),
            "plugins": run.plugins,
            "init_from": run.task.init_from.path if run.task.init_from else None,
        }
        for run in runs
    ]
    return {"runs": asked, "always": runs[0].train.packing != "auto"}


def prepare_torch() -> None:
    """Import what training needs, with one thread; once in a process."""
    import torch

    import insgd_lab.training.loop  # noqa: F401  (a process that cannot import it must not take a job)

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)


def work(job: Job, place: Place, tell: Tell) -> None:
    """Train the runs of a job to their ends."""
    waiting = {asked["run"]: asked for asked in job["runs"]}
    if len(waiting) > 1:
        try:
            _train_side_by_side(job, waiting, place, tell)
        except Exception as error:  # of a run or a plugin: alone, each will show whose it is
            traceback.print_exc()
            tell(event="broke", reason=f"a pack broke and its runs were trained one by one: {error!r}")
    for asked in list(waiting.values()):
        tell(event="ended", run=asked["run"], **_outcome(asked, place))


def _outcome(asked: Mapping[str, Any], place: Place) -> dict[str, Any]:
    from insgd_lab.store import DiskError, InUse

    try:
        return {"status": _train(asked, place)}
    except InUse:  # by a worker of another scheduler
        return {"status": "busy"}
    except DiskError as error:  # every other run would meet it too
        return {"status": "stopped", "error": str(error)}
    except Exception:  # whatever a run or a plugin raises is that run's failure, not the worker's
        return {"status": "failed", "error": traceback.format_exc()}


def _train(asked: Mapping[str, Any], place: Place) -> str:
    from insgd_lab.training.loop import train

    spec = _spec(asked)
    folder, device = _folder(spec, place), place.device
    return train(spec, folder, data_dir=place.data_dir, device=device, loaders=place.loaders).status


def _train_side_by_side(job: Job, waiting: dict[str, dict[str, Any]], place: Place, tell: Tell) -> None:
    """Train runs together, telling of each when it ends; `waiting` is left with those that have not been told of."""
    from insgd_lab.store import InUse
    from insgd_lab.training.loop import Outcome
    from insgd_lab.training.packing import NotPackable, train_packed, worth_packing

    specs = [_spec(asked) for asked in waiting.values()]

    def ended(spec: RunSpec, outcome: Outcome) -> None:
        del waiting[spec.id]
        tell(event="ended", run=spec.id, status=outcome.status)

    try:
        if not job["always"] and not worth_packing(specs[0], place.device, place.data_dir):
            raise NotPackable("")
        folders = [_folder(spec, place) for spec in specs]
        train_packed(specs, folders, data_dir=place.data_dir, device=place.device, on_end=ended)
    except InUse:  # a worker of another scheduler has been faster with one of them
        waiting.clear()
        tell(event="returned", reason="", alone=False)
    except NotPackable as reason:
        waiting.clear()
        tell(event="returned", reason=f"not packed: {reason}" if job["always"] else "", alone=True)


def _spec(asked: Mapping[str, Any]) -> RunSpec:
    from insgd_lab.config import RunSpec

    spec = RunSpec.from_canonical(asked["spec"], asked["plugins"], asked["init_from"])
    if spec.id != asked["run"]:
        raise RuntimeError(f"run {asked['run']} came out as {spec.id}: the registry changed since it was planned")
    return spec


def _folder(spec: RunSpec, place: Place) -> RunFolder:
    from insgd_lab.store import StudyFolder

    return StudyFolder(place.study).run(spec.id)
