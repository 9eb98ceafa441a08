"""How long a run takes, from a few of its steps.

>>> pace = pilot(spec)
>>> pace.seconds(epochs=200, eval_every=1)
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from insgd_lab.config import RunSpec
from insgd_lab.training.precision import autocast, fp32_arithmetic
from insgd_lab.training.session import Training, examples_of

__all__ = ["Pace", "pilot"]

_MOST_STEPS = 50
_SECONDS = 1.0  # for the steps, and as long again for an evaluation


@dataclass(frozen=True)
class Pace:
    """What the parts of a run take, in seconds.

    Attributes:
        start: making its objects, the data being read already.
        step: one optimizer step, with what the recorder and the start of an epoch take.
        steps: how many an epoch has.
        evaluation: on the validation and the test split, once.
    """

    start: float
    step: float
    steps: int
    evaluation: float

    def seconds(self, epochs: int, eval_every: int) -> float:
        """What a run of that many epochs takes that is evaluated after every so many, and after the last."""
        return self.start + epochs * self.steps * self.step + math.ceil(epochs / eval_every) * self.evaluation


def pilot(spec: RunSpec, *, data_dir: Path | None = None, device: str = "cpu") -> Pace:
    """Train the first steps of a run and evaluate some batches; nothing is written.

    Args:
        spec: of the run.
        data_dir: the folder of the data sets; None as in `files.data_folder`.
        device: "cpu", "cuda" or "cuda:1".

    Raises:
        ConfigError: the run cannot be.
        DataError: data files are missing or wrong.
    """
    train = spec.train.model_copy(update={"epochs": spec.train.epochs + _MOST_STEPS, "eval_every": 1 << 30})
    endless = spec.model_copy(update={"train": train})
    with fp32_arithmetic(spec.train.precision):
        Training(endless, data_dir=data_dir, device=device)  # reads the data
        clock = time.perf_counter()
        training = Training(endless, data_dir=data_dir, device=device, record=True)
        start = time.perf_counter() - clock
        step = _step_seconds(training)
        return Pace(
            start, step, training.batches, sum(_evaluation_seconds(training, split) for split in ("val", "test"))
        )


class _Enough(Exception):
    """Ends the pilot in the middle of an epoch."""


def _step_seconds(training: Training) -> float:
    """The mean over the steps of about a second; the first one, in which buffers are made, is left out if it can be."""
    progress, clock, warm = training.progress, time.perf_counter(), 0

    def after_step() -> None:
        nonlocal clock, warm
        _wait(training)
        if progress.step == 1:
            clock, warm = time.perf_counter(), 1
        elif progress.step >= _MOST_STEPS or time.perf_counter() - clock > _SECONDS:
            raise _Enough

    try:
        while progress.step < _MOST_STEPS and time.perf_counter() - clock < _SECONDS and not training.finished:
            training.run_epoch(after_step)
    except _Enough:
        pass
    seconds = (time.perf_counter() - clock) / max(progress.step - warm, 1)
    if training.recorder is not None:
        training.recorder.close()
    return seconds


@torch.inference_mode()
def _evaluation_seconds(training: Training, split: str) -> float:
    """What a split takes, from its first batches if it is long and its length is known."""
    training.model.eval()
    whole = _length(training, split)
    tally, seen, clock = training.objective.tally(training.device), 0, time.perf_counter()
    for inputs, targets in training.feed.evaluate(split):
        with autocast(training.spec.train.precision, training.device):
            outputs = training.model(inputs)
        tally.add(outputs.float(), targets)
        _wait(training)
        seen += len(targets)
        if whole and time.perf_counter() - clock > _SECONDS / 2:
            break
    seconds = time.perf_counter() - clock
    return seconds * whole / seen if whole and seen else seconds


def _length(training: Training, split: str) -> int:
    """How many examples a split has; 0: not known."""
    return examples_of(training.data).get(split, 0)


def _wait(training: Training) -> None:
    if training.device.type == "cuda":
        torch.cuda.synchronize(training.device)
