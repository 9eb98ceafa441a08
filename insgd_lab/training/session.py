"""The objects of one run and its epochs: what happens between reading the spec and writing the results.

The data go to the device once, as uint8; each step gathers a batch there, crops and mirrors it if asked, and
makes floats of it. Nothing asks the device for a value before the epoch's end, so a loss that stops being
finite is seen then.

Every random number comes from a stream addressed by the seed, a purpose and the epoch (see `streams`), so
that there is no generator state to keep.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from insgd_lab import registry
from insgd_lab.config import ConfigError, Problem, RunSpec
from insgd_lab.recorders import Recorder
from insgd_lab.training.augmentation import Draws, Normalize, crop_and_flip, draw
from insgd_lab.training.recall import by_class
from insgd_lab.training.splits import ImageSplits, Split
from insgd_lab.training.streams import generator, global_stream
from insgd_lab.training.subsets import SubsetError


def now() -> str:
    """The time in UTC, to the second, as in run.json."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Progress:
    """What a run has come to; all of it goes into checkpoints.

    Attributes:
        epoch: epochs done.
        step: optimizer steps done.
        rows: rows of the metrics table.
        diverged_at: epoch and step of the first loss that was not finite.
        parts: parts of the layer records written.
        seconds: wall time of the epochs, evaluation included; training_seconds: without it.
        started: when the run first started.
    """

    epoch: int = 0
    step: int = 0
    rows: list[tuple[int, int, str, str, float]] = field(default_factory=list)
    diverged_at: dict[str, int] | None = None
    parts: int = 0
    seconds: float = 0.0
    training_seconds: float = 0.0
    started: str = field(default_factory=now)

    def table(self) -> pd.DataFrame:
        """The metrics: epoch, step, split, metric, value."""
        return pd.DataFrame.from_records(self.rows, columns=["epoch", "step", "split", "metric", "value"])

    def summary(self) -> dict[str, Any]:
        """How far the run has come, for run.json."""
        return {
            "started": self.started,
            "seconds": self.seconds,
            "epochs_done": self.epoch,
            "diverged_at": self.diverged_at,
        }

    def latest(self) -> dict[str, float]:
        """The metrics of the last epoch, such as {"train_loss": 0.3, "val_accuracy": 0.9}."""
        return {f"{split}_{metric}": value for epoch, _, split, metric, value in self.rows if epoch == self.epoch}


def load_data(spec: RunSpec, data_dir: Path | None = None) -> ImageSplits:
    """The data set of a run.

    Raises:
        ConfigError: the data cannot give the part of the training split that the spec asks for.
    """
    entry, chosen = registry.get_data(spec.task.data.name), spec.task.data.options
    try:
        splits: ImageSplits = registry.resolve_factory(entry.factory)(data_dir, **{**entry.defaults, **chosen})
    except SubsetError as error:
        raise ConfigError("run", [Problem(("task", "data", error.option), error.value, error.reason)]) from None
    return splits


def build_model(spec: RunSpec, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The model of a run with the initial weights of its seed, drawn on the CPU whatever the device."""
    entry, chosen = registry.get_model(spec.task.model.name), spec.task.model.options
    with global_stream(spec.seed, "initial weights"):
        model: nn.Module = registry.resolve_factory(entry.factory)(input_shape, classes, **{**entry.defaults, **chosen})
    return model


class Training:
    """The objects of one run, and its epochs; `progress` says how far it has come."""

    def __init__(
        self,
        spec: RunSpec,
        progress: Progress | None = None,
        *,
        data_dir: Path | None = None,
        device: str = "cpu",
        record: bool = False,
    ) -> None:
        self.spec, self.progress, self.device = spec, progress or Progress(), torch.device(device)
        self.data = load_data(spec, data_dir).to(self.device)
        self.normalize = Normalize(self.data.scale, self.data.mean, self.data.std, self.device)
        model = build_model(spec, self.data.input_shape, self.data.classes)
        _check_single_image(model, self.data.train, spec)
        # Convolutions on the CPU are a fifth to a third faster with the channels innermost.
        self.model = model.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer: torch.optim.Optimizer = registry.create_optimizer(
            spec.optimizer.name, self.model, **spec.optimizer.options
        )
        self.schedule = _schedule(spec, self.optimizer)
        watched = record and spec.record.every > 0
        self.recorder = Recorder(self.model, self.optimizer, every=spec.record.every) if watched else None

    def epochs(self) -> Iterator[dict[str, Any]]:
        """Train to the end, giving after each epoch its number, the last one's, the step, and the metrics."""
        while not self.finished:
            self.run_epoch()
            progress, last = self.progress, self.spec.train.epochs
            yield {"epoch": progress.epoch, "epochs": last, "step": progress.step, **progress.latest()}
        if self.recorder is not None:
            self.recorder.close()

    @property
    def finished(self) -> bool:
        """Whether no epoch is left to train, or going on would be pointless."""
        return self.progress.epoch >= self.spec.train.epochs or self.progress.diverged_at is not None

    def run_epoch(self) -> None:
        """Train one epoch, evaluate if it is due, and put both into the progress."""
        start = time.perf_counter()
        progress, settings = self.progress, self.spec.train
        progress.epoch += 1
        rate = float(self.optimizer.param_groups[0].get("lr", float("nan")))
        losses, loss, accuracy = self._train_epoch()
        progress.training_seconds += time.perf_counter() - start
        first = progress.step
        progress.step += len(losses)
        self._add("train", loss=loss, accuracy=accuracy, lr=rate)
        bad = np.flatnonzero(~np.isfinite(losses))
        if bad.size:
            progress.diverged_at = {"epoch": progress.epoch, "step": first + int(bad[0]) + 1}
        if self.finished or progress.epoch % settings.eval_every == 0:
            self._evaluate()
        if self.schedule is not None:
            self.schedule.step()
        progress.seconds += time.perf_counter() - start

    def _train_epoch(self) -> tuple[NDArray[np.float64], float, float]:
        """The loss of each step, then mean loss and accuracy over the images as they were trained on."""
        images, labels = self.data.train.images, self.data.train.labels
        batches = torch.split(self._order(), self.spec.train.batch_size)
        draws = self._draws()
        losses = torch.zeros(len(batches), device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self.model.train()
        with global_stream(self.spec.seed, self._purpose("dropout"), self.device):
            for k, rows in enumerate(batches):
                batch, wanted = images[rows], labels[rows]
                if draws is not None:
                    batch = crop_and_flip(batch, draws.offsets[rows], draws.flips[rows])
                scores, loss = self._step(self.normalize(batch), wanted)
                losses[k] = loss
                correct += (scores.argmax(1) == wanted).sum()
        values = losses.cpu().numpy().astype(np.float64)
        sizes = np.array([len(rows) for rows in batches])
        return values, float((values * sizes).sum() / sizes.sum()), float(correct) / len(labels)

    def _step(self, batch: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        self.optimizer.zero_grad()
        scores = self.model(batch)
        loss = functional.cross_entropy(scores, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return scores.detach(), loss.detach()

    def _order(self) -> Tensor:
        # Drawn on the CPU, so that the order is the same on every device.
        stream = generator(self.spec.seed, self._purpose("order"))
        return torch.randperm(len(self.data.train), generator=stream).to(self.device)

    def _draws(self) -> Draws | None:
        if not self.spec.train.augment:
            return None
        stream = generator(self.spec.seed, self._purpose("augmentation"))
        return draw(len(self.data.train), stream).to(self.device)

    def _purpose(self, what: str) -> str:
        return f"{what}, epoch {self.progress.epoch}"

    def _evaluate(self) -> None:
        for name, split in (("val", self.data.val), ("test", self.data.test)):
            metrics = self._measure(split)
            self._add(name, **metrics)
            if not np.isfinite(metrics["loss"]) and self.progress.diverged_at is None:
                self.progress.diverged_at = {"epoch": self.progress.epoch, "step": self.progress.step}

    @torch.inference_mode()
    def _measure(self, split: Split) -> dict[str, float]:
        """Mean loss and accuracy over a split, in evaluation mode, and how each class fares if the data ask for it."""
        self.model.eval()
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        hits = torch.zeros(self.data.classes, dtype=torch.int64, device=self.device)
        size = self.spec.train.eval_batch_size
        batches = zip(torch.split(split.images, size), torch.split(split.labels, size), strict=True)
        for images, labels in batches:
            scores = self.model(self.normalize(images))
            loss += functional.cross_entropy(scores, labels, reduction="sum")
            hits.index_add_(0, labels, (scores.argmax(1) == labels).long())
        means = {"loss": float(loss) / len(split), "accuracy": float(hits.sum()) / len(split)}
        return {**means, **(by_class(hits, split.labels) if self.data.by_class else {})}

    def _add(self, split: str, **metrics: float) -> None:
        progress = self.progress
        progress.rows += [(progress.epoch, progress.step, split, name, value) for name, value in metrics.items()]

    def measured(self) -> dict[str, Any]:
        """For run.json: the model's size, and training images per second (evaluation left out)."""
        seconds, images = self.progress.training_seconds, self.progress.epoch * len(self.data.train)
        return {
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "images_per_second": images / seconds if seconds else None,
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything a checkpoint needs, in tensors and plain types."""
        parts = {"schedule": self.schedule, "recorder": self.recorder}
        return {
            "run": self.spec.id,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **{name: part.state_dict() for name, part in parts.items() if part is not None},
            **vars(self.progress),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        if self.recorder is not None:
            self.recorder.load_state_dict(state["recorder"])
        for name in vars(self.progress):
            setattr(self.progress, name, state[name])


def _check_single_image(model: nn.Module, images: Split, spec: RunSpec) -> None:
    """Refuse at once a batch of one image that batch norm cannot normalise, which is the last of an epoch."""
    count, size = len(images), spec.train.batch_size
    if count % size != 1 % size or not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return
    try:
        with torch.no_grad(), global_stream(spec.seed, "one image"):
            copy.deepcopy(model).train()(images.images[:1].cpu().float())
    except ValueError:
        message = (
            f"leaves a batch of one of the {count} training images, over which this model's batch norm has no "
            f"spread; choose another, such as {size + 1}, or set task.model.batch_norm = false"
        )
        raise ConfigError("run", [Problem(("train", "batch_size"), size, message)]) from None


def _schedule(spec: RunSpec, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.MultiStepLR | None:
    schedule = spec.train.schedule
    if schedule.name == "constant":
        return None
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, schedule.milestones, schedule.gamma)
