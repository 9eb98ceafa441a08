"""Train one run: from a spec to metrics, layer records and a final status in its folder.

>>> outcome = train(RunSpec.model_validate({...}), RunFolder("runs/mine/0123456789abcdef"))
>>> outcome.status, outcome.metrics.tail(1)

A run whose loss stops being finite ends as "diverged", with everything recorded so far: that is a result, not
an error. A run that is killed goes on from its last checkpoint, at any step, and on a CPU ends with the same bytes as
one never stopped.

Under `torchrun` the same call trains one run on several processes: each batch is shared among them, the first keeps
the run's folder, and checkpoints are written at ends of epochs.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import pandas as pd
import torch
from torch import nn

from insgd_lab.config import RunSpec
from insgd_lab.store import DiskError, RunFolder, replacing
from insgd_lab.training import checkpoint, provenance
from insgd_lab.training.precision import fp32_arithmetic
from insgd_lab.training.progress import Progress, now, results
from insgd_lab.training.ranks import Ranks, current, ranks_of_environment
from insgd_lab.training.session import Training

__all__ = ["Outcome", "finish", "first_info", "train", "write_records"]

Status = Literal["done", "diverged"]
OnEpoch = Callable[[dict[str, Any]], None]


warn = partial(warnings.warn, category=RuntimeWarning, stacklevel=2)


def _never() -> bool:
    return False


def _quietly(report: dict[str, Any]) -> None:
    """Tell nobody."""


@dataclass
class Outcome:
    """What a finished run leaves.

    Attributes:
        status: how it ended.
        metrics: of every epoch: epoch, step, split, metric, value.
        results: the final and the best ones, labelled (see `progress.results`).
        model: the trained model; None where the run had been finished before.
        optimizer: its optimizer, likewise.
    """

    status: Status
    metrics: pd.DataFrame
    results: dict[str, Any]
    model: nn.Module | None = None
    optimizer: torch.optim.Optimizer | None = None


def train(
    spec: RunSpec,
    folder: RunFolder | None = None,
    *,
    data_dir: Path | None = None,
    device: str = "cpu",
    on_epoch: OnEpoch | None = None,
    checkpoint_seconds: float = 30.0,
    stop: Callable[[], bool] = _never,
    loaders: int = 0,
) -> Outcome:
    """Train one run to its end, going on from the checkpoint in its folder if there is one.

    Args:
        spec: what to train.
        folder: where to write; None writes nothing, and records no layers. A run that is finished there is read, not
            trained again.
        data_dir: the folder of the data sets; None as in `files.data_folder`.
        device: "cpu", "cuda" or "cuda:1".
        on_epoch: called after each epoch with epoch, epochs, step, the epoch's metrics ("val_accuracy", …), its
            seconds and images_per_second. What it raises ends the run, which a later call resumes.
        checkpoint_seconds: the least time between two checkpoints; they are written after steps.
        stop: asked after each step; once it says True a checkpoint is written and the call ends.
        loaders: processes that read and decode the files of data that are streamed; 0: this one does.

    Returns:
        The outcome; status "diverged" if a loss was not finite.

    Raises:
        KeyboardInterrupt: `stop` said True.
        ConfigError: a batch of one image that batch norm cannot normalise.
        DataError: data files are missing or wrong.
        StoreError: another process is training this very run, or the disk refuses (`DiskError`).
    """
    with ranks_of_environment(device) as (ranks, own), current(own), fp32_arithmetic(spec.train.precision):
        new = partial(Training, spec, data_dir=data_dir, device=own, ranks=ranks, loaders=loaders)
        notify = on_epoch if on_epoch is not None and ranks.leads else _quietly
        if folder is None or not ranks.leads:
            return _train_unkept(new(record=False), stop, notify)
        info = first_info(spec, own, ranks)
        with folder.locked():
            folder.set_damage_aside()
            # By another process, while this one was on its way. Ranks that share a run would be left waiting.
            if ranks.size == 1 and folder.is_finished:
                return _read(folder)
            return _train_in(folder, new, info, _Habits(checkpoint_seconds, stop), notify)


def _read(folder: RunFolder) -> Outcome:
    info = folder.info()
    return Outcome(info["status"], folder.metrics(), info["results"])


@dataclass(frozen=True)
class _Habits:
    """When to write a checkpoint: so many seconds after the last, and when asked to stop."""

    every_seconds: float
    stop: Callable[[], bool]


def _train_unkept(training: Training, stop: Callable[[], bool], on_epoch: OnEpoch) -> Outcome:
    """Train without a folder: nothing is to be kept, or another rank keeps it, whose checkpoint all go on from."""
    state = training.ranks.told(None)
    if state is not None:
        training.load_state_dict(state)
    alone = training.ranks.size == 1

    def after_step() -> None:
        if alone and stop():
            raise KeyboardInterrupt

    for report in training.epochs(after_step):
        if training.ranks.told(stop()) and not training.finished:  # just where the rank that keeps the run does
            raise KeyboardInterrupt
        on_epoch(report)
    return _outcome(training)


def _train_in(
    folder: RunFolder, new: Callable[..., Training], info: dict[str, Any], habits: _Habits, on_epoch: OnEpoch
) -> Outcome:
    progress = Progress()
    state = checkpoint.load(folder, info["id"])
    if state is not None:
        progress.load(state)
    folder.write_info({**info, **progress.summary()})
    try:
        training = new(progress, record=True)
        keeper = _Keeper(training, folder, info, habits)
        keeper.resume(state)
        for report in training.epochs(keeper.after_step):
            keeper.after_epoch()
            on_epoch(report)
        keeper.flush()
    except Exception as error:
        failed = {"status": "failed", "error": f"{type(error).__name__}: {error}", "finished": now()}
        with suppress(DiskError):  # perhaps the very reason; the error itself must come through
            folder.write_info({**info, **progress.summary(), **failed})
        raise
    return finish(training, folder, info)


class Finished(Protocol):
    """A run that has come to its end, alone or in a pack."""

    spec: RunSpec
    progress: Progress
    model: nn.Module

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """What trained it."""

    def measured(self) -> dict[str, Any]:
        """Size, speed and results, for run.json."""


def finish(run: Finished, folder: RunFolder, info: Mapping[str, Any]) -> Outcome:
    """Write the results of a run whose layer records are all in their parts; `info` is what run.json had so far."""
    outcome = _outcome(run)
    if run.spec.record.weights:
        with replacing(folder.weights_path) as temporary, temporary.open("wb") as file:  # so that a full disk is known
            torch.save(run.model.state_dict(), file)
    final = {"status": outcome.status, **run.progress.summary(), **run.measured(), "finished": now()}
    folder.finish({**info, **final}, outcome.metrics)
    return outcome


def _outcome(run: Finished) -> Outcome:
    progress = run.progress
    status: Status = "diverged" if progress.diverged_at else "done"
    return Outcome(status, progress.table(), results(progress.rows), run.model, run.optimizer)


def write_records(folder: RunFolder, progress: Progress, records: pd.DataFrame | None) -> None:
    """Write what has been recorded as one more part of the layer records."""
    if records is not None and len(records):
        folder.write_layers_part(progress.parts, records)
        progress.parts += 1


class _Keeper:
    """Keeps a run in its folder while it trains: resumes it, and flushes and checkpoints when it is time."""

    def __init__(self, training: Training, folder: RunFolder, info: Mapping[str, Any], habits: _Habits) -> None:
        self.training, self.folder, self.info, self.habits = training, folder, info, habits
        self.saved = time.monotonic()

    def resume(self, state: Mapping[str, Any] | None) -> None:
        """Go on from a checkpoint if there is one, unless it was made of other data; all ranks do."""
        training = self.training
        if state is not None and state["data"] != training.fingerprint:
            warn(f"{self.folder.path}: its data changed since the checkpoint was written; the run starts over")
            state = None
            training.progress.load(vars(Progress()))
        if state is not None and state["processes"] != training.ranks.size:
            change = f"{state['processes']} processes, now {training.ranks.size}"
            warn(f"{self.folder.path}: trained by {change}; what sees a part of a batch, such as dropout, changes")
        state = training.ranks.told(state)
        if state is not None:
            training.load_state_dict(state)
        self.folder.drop_parts_from(training.progress.parts)

    def after_step(self) -> None:
        """Write a checkpoint if it is time. Ranks that share a run are at one only after an epoch."""
        if self.training.ranks.size == 1:
            self._keep(stopping=self.habits.stop())

    def after_epoch(self) -> None:
        """Write a checkpoint if it is time and there is something left to go on with."""
        stopping = self.training.ranks.told(self.habits.stop())
        if not self.training.finished:
            self._keep(stopping=stopping)

    def _keep(self, *, stopping: bool) -> None:
        if stopping or time.monotonic() - self.saved >= self.habits.every_seconds:
            self.flush()
            checkpoint.save(self.folder, self.training.state_dict())
            self.folder.write_info({**self.info, **self.training.progress.summary()})
            self.saved = time.monotonic()
        if stopping:
            raise KeyboardInterrupt

    def flush(self) -> None:
        """Write what the recorder has gathered as one more part of the layer records."""
        recorder = self.training.recorder
        write_records(self.folder, self.training.progress, None if recorder is None else recorder.drain())


def first_info(spec: RunSpec, device: str, ranks: Ranks, packing: int = 1) -> dict[str, Any]:
    """What run.json says of a run from the start; `packing` is how many share the device side by side."""
    commit, dirty = provenance.commit()
    return {
        "id": spec.id,
        "spec": spec.canonical(),
        "seed": spec.seed,
        "status": "running",
        "error": None,
        "versions": dict(provenance.versions()),
        "commit": commit,
        "dirty": dirty,
        "device": device,
        "device_name": provenance.device_name(device),
        "processes": ranks.size,
        "packing": packing,
        "threads": torch.get_num_threads(),
        "init_from": None if (init := spec.task.init_from) is None else {"path": init.path, "sha256": init.sha256},
        "finished": None,
        "images_per_second": None,
        "parameters": None,
    }
