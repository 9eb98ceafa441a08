"""What a machine of a Ray cluster does with a job: it looks whether it is up to it, and trains its runs.

    answer({"job": job_of(runs), "study": "/shared/runs/digits", …})      # the events that `jobs.work` tells

One thing that is missing on a machine would fail every run that comes to it, so it is not a run's failure:

    [{"event": "unfit", "reason": "node 10.0.0.2 does not see …"}]
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from insgd_lab.store import FINISHED, StudyFolder
from insgd_lab.studies.jobs import TORCHRUN, Job, Place, prepare_torch, work

__all__ = ["Unfit", "answer"]


_SHARED = "its folder must be on a disk that all nodes share: name one with --out"


class Unfit(Exception):
    """This machine cannot train the study's runs."""


def answer(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Train the runs of a job; return what there is to tell of them.

    Args:
        asked: the `job`; the `study`'s folder and when it was `created`; `device`, `data_dir` and `loaders` of the
            `Place`; the `version` of the lab and the working `directory` of the process that asks.
    """
    events: list[dict[str, Any]] = []

    def tell(**event: Any) -> None:
        events.append(event)

    try:
        place = _place(asked)
        _check(asked, place)
    except Unfit as error:
        return [{"event": "unfit", "reason": f"{socket.gethostname()} {error}"}]
    job = _without_finished(asked["job"], place, tell)
    if job["runs"]:
        work(job, place, tell)
    return events


def _place(asked: Mapping[str, Any]) -> Place:
    for name in TORCHRUN:
        os.environ.pop(name, None)
    with suppress(OSError):  # it matters to relative paths only
        os.chdir(asked["directory"])
    data_dir = None if asked["data_dir"] is None else Path(asked["data_dir"])
    return Place(Path(asked["study"]), asked["device"], data_dir, asked["loaders"])


def _without_finished(job: Job, place: Place, tell: Any) -> Job:
    """A job that is tried again without the runs that had ended before their worker died."""
    statuses = StudyFolder(place.study).statuses([run["run"] for run in job["runs"]])
    for name, status in statuses.items():
        if status in FINISHED:
            tell(event="ended", run=name, status=status)
    return {**job, "runs": [run for run in job["runs"] if statuses.get(run["run"]) not in FINISHED]}


def _check(asked: Mapping[str, Any], place: Place) -> None:
    """Raise `Unfit` for what is missing here."""
    _check_version(asked["version"])
    _check_study(place.study, asked["created"])
    _check_torch(place.device)  # before plugins, which may start threads
    for run in asked["job"]["runs"]:
        data = run["spec"]["task"]["data"]
        _check_data(tuple(run["plugins"]), data["name"], str(data["options"].get("path", "")), place.data_dir)


@cache
def _check_version(theirs: str) -> None:
    ours = version("insgd-lab")
    if theirs != ours:
        raise Unfit(f"has insgd-lab {ours}, and the study is run by {theirs}; install the same on all nodes")


@cache
def _check_study(study: Path, created: str) -> None:
    """Whether the study's folder is here: the very one, not another of that path on a disk of this machine's own."""
    folder = StudyFolder(study)
    if not folder.exists:
        raise Unfit(f"does not see {folder.info_path}; {_SHARED}")
    there = folder.info().get("created")
    if there != created:
        raise Unfit(f"has another study in {study}, created {there}; {_SHARED}")


@cache
def _check_torch(device: str) -> None:
    prepare_torch()
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise Unfit(f"cannot train on {device} ({str(error).splitlines()[0]}); give another --device") from None


@cache
def _check_data(plugins: tuple[str, ...], name: str, path: str, data_dir: Path | None) -> None:
    from insgd_lab import registry
    from insgd_lab.training import availability
    from insgd_lab.training.files import DataError

    try:
        registry.load_plugins(plugins)
        availability.check(name, path, data_dir)
    except (DataError, ImportError) as error:
        raise Unfit(f"lacks what the study needs: {error}") from None
