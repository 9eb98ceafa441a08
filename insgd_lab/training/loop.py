"""Train one run: from a spec to metrics, layer records and a final status in its folder.

>>> outcome = train(RunSpec.model_validate({...}), RunFolder("runs/mine/0123456789abcdef"))
>>> outcome.status, outcome.metrics.tail(1)

A run whose loss stops being finite ends as "diverged", with everything recorded so far: that is a result, not
an error. A run that is killed goes on from its last checkpoint, and on a CPU ends with the same bytes as one
never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from torch import nn

from insgd_lab.config import RunSpec
from insgd_lab.store import RunFolder
from insgd_lab.training import checkpoint, provenance
from insgd_lab.training.session import Progress, Training, now

Status = Literal["done", "diverged"]
OnEpoch = Callable[[dict[str, Any]], None]


@dataclass
class Outcome:
    """What a finished run leaves: how it ended, the metrics of every epoch, and the trained objects."""

    status: Status
    metrics: pd.DataFrame
    model: nn.Module
    optimizer: torch.optim.Optimizer


def train(
    spec: RunSpec,
    folder: RunFolder | None = None,
    *,
    data_dir: Path | None = None,
    device: str = "cpu",
    on_epoch: OnEpoch | None = None,
    checkpoint_seconds: float = 30.0,
) -> Outcome:
    """Train one run to its end, going on from the checkpoint in its folder if there is one.

    Args:
        spec: what to train.
        folder: where to write; None writes nothing, and records no layers.
        data_dir: the folder of the data sets; None as in `files.data_folder`.
        device: "cpu", "cuda" or "cuda:1".
        on_epoch: called after each epoch with epoch, epochs, step and the epoch's metrics ("val_accuracy",
            …). What it raises ends the run, which a later call resumes.
        checkpoint_seconds: the least time between two checkpoints; they are written at ends of epochs.

    Returns:
        The outcome; status "diverged" if a loss was not finite.

    Raises:
        ConfigError: a batch of one image that batch norm cannot normalise.
        DataError: data files are missing or wrong.
        StoreError: another process is training this very run.
    """
    training_of = partial(Training, spec, data_dir=data_dir, device=device)
    notify = on_epoch or (lambda report: None)
    if folder is None:
        training = training_of(record=False)
        for report in training.epochs():
            notify(report)
        return _outcome(training)
    with folder.locked():
        return _train_in(folder, training_of, _first_info(spec, device), notify, checkpoint_seconds)


def _train_in(
    folder: RunFolder,
    training_of: Callable[..., Training],
    info: dict[str, Any],
    notify: OnEpoch,
    checkpoint_seconds: float,
) -> Outcome:
    progress = Progress()
    folder.write_info({**info, **progress.summary()})
    try:
        training = training_of(progress, record=True)
        keeper = _Keeper(training, folder, checkpoint_seconds)
        for report in training.epochs():
            keeper.after_epoch()
            notify(report)
        keeper.flush()
    except Exception as error:
        failed = {"status": "failed", "error": f"{type(error).__name__}: {error}", "finished": now()}
        folder.write_info({**info, **progress.summary(), **failed})
        raise
    outcome = _outcome(training)
    final = {"status": outcome.status, **progress.summary(), **training.measured(), "finished": now()}
    folder.finish({**info, **final}, outcome.metrics)
    return outcome


def _outcome(training: Training) -> Outcome:
    status: Status = "diverged" if training.progress.diverged_at else "done"
    return Outcome(status, training.progress.table(), training.model, training.optimizer)


class _Keeper:
    """Keeps a run in its folder while it trains: resumes it, and flushes and checkpoints when it is time."""

    def __init__(self, training: Training, folder: RunFolder, every_seconds: float) -> None:
        self.training, self.folder, self.every_seconds = training, folder, every_seconds
        state = checkpoint.load(folder, training.spec.id)
        if state is not None:
            training.load_state_dict(state)
        folder.drop_parts_from(training.progress.parts)
        self.saved = time.monotonic()

    def after_epoch(self) -> None:
        """Write a checkpoint if the last is old enough and there is something left to go on with."""
        if not self.training.finished and time.monotonic() - self.saved >= self.every_seconds:
            self.flush()
            checkpoint.save(self.folder, self.training.state_dict())
            self.saved = time.monotonic()

    def flush(self) -> None:
        """Write what the recorder has gathered as one more part of the layer records."""
        recorder, progress = self.training.recorder, self.training.progress
        records = None if recorder is None else recorder.drain()
        if records is not None and len(records):
            self.folder.write_layers_part(progress.parts, records)
            progress.parts += 1


def _first_info(spec: RunSpec, device: str) -> dict[str, Any]:
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
        "threads": torch.get_num_threads(),
        "finished": None,
        "images_per_second": None,
        "parameters": None,
    }
