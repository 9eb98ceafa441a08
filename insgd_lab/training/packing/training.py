"""The objects of several runs that train side by side, and their epochs.

What `session.Training` is to one run: the same random streams, steps, metrics and checkpoints, for all members at
once. A member whose loss stops being finite goes on to the epoch's end, as it would alone, and leaves the pack there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from insgd_lab.config import RunSpec
from insgd_lab.training.feeds import BatchPlan, Feed
from insgd_lab.training.packing.batches import evaluation_batches, training_batches
from insgd_lab.training.packing.layers import NotPackable
from insgd_lab.training.packing.model import PackedModel
from insgd_lab.training.packing.objectives import Tallies, packed_objective
from insgd_lab.training.packing.optimizers import Shared, share_optimizers
from insgd_lab.training.packing.records import Records
from insgd_lab.training.precision import autocast
from insgd_lab.training.progress import Progress, results
from insgd_lab.training.schedules import Schedule
from insgd_lab.training.session import classes_of, examples_of, initial_model, load_data
from insgd_lab.training.splits import ImageSplits
from insgd_lab.training.streams import generator
from insgd_lab.training.transfer import keep_frozen_in_eval

__all__ = ["Member", "PackedTraining"]

AfterStep = Callable[[], None]


@dataclass(eq=False)
class Member:
    """One run of a pack, with what `session.Training` would have of it."""

    number: int
    spec: RunSpec
    progress: Progress
    data: Any
    feed: Feed
    model: nn.Module
    shared: Shared
    records: Records | None

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Its optimizer, which may be others' too."""
        return self.shared.optimizer

    @property
    def finished(self) -> bool:
        """Whether no epoch is left to train, or going on would be pointless."""
        return self.progress.epoch >= self.spec.train.epochs or self.progress.diverged_at is not None

    def measured(self) -> dict[str, Any]:
        """For run.json, as `session.Training.measured`; seconds are this run's share of the pack's."""
        return {
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "classes": classes_of(self.spec, self.data),
            "examples": examples_of(self.data),
            "data_fingerprint": getattr(self.data, "fingerprint", None),
            **self.progress.speed(self.feed.examples),
            "results": results(self.progress.rows),
        }

    def drain(self) -> pd.DataFrame | None:
        """The layer records since the last call; None if they are not wanted."""
        return None if self.records is None else self.records.drain(self.number)


class PackedTraining:
    """The objects of several runs; they have data, model, training and recording in common (`RunSpec.pack_key`).

    Args:
        specs: what to train.
        progresses: where to put how far each has come.
        data_dir: the folder of the data sets; None as in `files.data_folder`.
        device: "cpu", "cuda" or "cuda:1".
        record: whether the layers are watched, if the specs ask for it.

    Attributes:
        members: the runs that are not finished.

    Raises:
        NotPackable: the model, or a setting, has no packed form.
    """

    def __init__(
        self,
        specs: Sequence[RunSpec],
        progresses: Sequence[Progress] | None = None,
        *,
        data_dir: Path | None = None,
        device: str = "cpu",
        record: bool = False,
    ) -> None:
        _check(specs)
        self.settings, self.device = specs[0].train, torch.device(device)
        data = load_data(specs[0], data_dir)
        self.data = data.to(self.device) if isinstance(data, ImageSplits) else data  # once for all members
        self.objective = self.data.objective(self.settings.label_smoothing)
        self.packed_objective = packed_objective(self.objective)
        feeds = [self.data.feed(self._plan(spec, len(specs))) for spec in specs]
        models = [
            initial_model(spec, self.data, feed.examples, self.device) for spec, feed in zip(specs, feeds, strict=True)
        ]
        self.model = PackedModel(models, self.data.input_shape)
        self.shared = share_optimizers(specs, self.model)
        self.schedules = [
            Schedule(self.settings.schedule, shared.optimizer, self._batches(feeds[0]), self.settings.epochs)
            for shared in self.shared
        ]
        every = specs[0].record.every if record else 0
        self.members: list[Member] = []
        for shared in self.shared:
            records = Records(self.model, shared, every) if every else None
            for number in shared.members:
                progress = progresses[number] if progresses else Progress()
                self.members.append(
                    Member(number, specs[number], progress, self.data, feeds[number], models[number], shared, records)
                )
        self.members.sort(key=lambda member: member.number)
        self.batches = self._batches(feeds[0])
        self._begin()

    def _plan(self, spec: RunSpec, count: int) -> BatchPlan:
        settings = self.settings
        # As many activations in evaluation as a run alone has, or as in training.
        size = max(settings.eval_batch_size // count, min(settings.batch_size, settings.eval_batch_size))
        return BatchPlan(spec.seed, settings.batch_size, size, settings.augment, self.device)

    def _batches(self, feed: Feed) -> int:
        return math.ceil(feed.examples / self.settings.batch_size)

    def _begin(self) -> None:
        """Make room for an epoch of the members that there are."""
        count = len(self.members)
        self.losses = torch.zeros(self.batches, count, device=self.device)
        self.tallies: Tallies = self.packed_objective.tallies(count, self.device)
        self._first = 0  # the batch to go on from

    # ------------------------------------------------------------------------------------------- the epochs

    def epochs(self, after_step: AfterStep = lambda: None) -> Iterator[list[Member]]:
        """Train to the end, giving the members after each epoch; then those that have finished leave.

        Args:
            after_step: called after each step; `state_dict` holds everything then. What it raises ends the runs.
        """
        while self.members:
            self.run_epoch(after_step)
            yield self.members
            self._part_with_the_finished()

    def run_epoch(self, after_step: AfterStep = lambda: None) -> None:
        """Train one epoch, or what is left of it, and evaluate if it is due for anyone."""
        self._train_epoch(after_step)
        start = time.perf_counter()
        every = self.settings.eval_every
        due = [member.finished or member.progress.epoch % every == 0 for member in self.members]
        if any(due):
            self._evaluate(due)
        share = (time.perf_counter() - start) / len(self.members)
        for member in self.members:
            member.progress.seconds.append(member.progress.training_seconds[-1] + share)

    def _train_epoch(self, after_step: AfterStep) -> None:
        clock = time.perf_counter()
        epoch = self.members[0].progress.epoch + 1
        self._make_ready(epoch)
        batches = training_batches([member.feed for member in self.members], epoch, self._first)
        for k, (inputs, targets) in enumerate(batches, self._first):
            self._set_rates(first=k == 0)
            self.losses[k] = self._step(inputs, targets)
            for member in self.members:
                member.progress.step += 1
            if k + 1 < self.batches:  # the epoch's last step is followed by its end
                clock = self._spend(clock)
                after_step()
        self._end_epoch()
        self._spend(clock)
        for member in self.members:
            member.progress.training_seconds.append(member.progress.spent)
            member.progress.spent = 0.0

    def _spend(self, since: float) -> float:
        """Charge each member its share of the time since then."""
        now = time.perf_counter()
        for member in self.members:
            member.progress.spent += (now - since) / len(self.members)
        return now

    def _make_ready(self, epoch: int) -> None:
        """Training mode, but for what is frozen; and the random streams of the epoch, unless it goes on."""
        self.model.train()
        model = self.model.members[0]
        keep_frozen_in_eval(model)
        for name, module in self.model.body.named_modules():
            module.training = model.get_submodule(name).training
        if not self._first:
            self.model.set_streams(
                [generator(member.spec.seed, f"dropout, epoch {epoch}", self.device) for member in self.members]
            )

    def _set_rates(self, *, first: bool) -> None:
        step = self.members[0].progress.step
        for schedule in self.schedules:
            schedule.set(step)
        if first:
            for member in self.members:
                member.progress.rate = float(member.optimizer.param_groups[0].get("lr", math.nan))

    def _step(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """One optimizer step of every member; their mean losses ``[members]``."""
        self.model.clear_gradients()
        pieces, count = self.settings.accumulate, targets.shape[1]
        parts = zip(inputs.tensor_split(pieces), targets.tensor_split(pieces, 1), strict=True)
        losses = torch.zeros(len(self.members), device=self.device)
        for x, y in parts:
            if y.shape[1]:
                losses = losses + self._part(x, y, count)
        self.model.share_gradients()
        if math.isfinite(self.settings.clip_norm):
            for member in self.members:
                torch.nn.utils.clip_grad_norm_(member.model.parameters(), self.settings.clip_norm)
        for shared in self.shared:
            shared.optimizer.step()
        return losses

    def _part(self, inputs: Tensor, targets: Tensor, count: int) -> Tensor:
        """Forward and backward over one part of the batches of `count` examples; its share of the mean losses."""
        outputs = self._outputs(inputs)
        losses = self.packed_objective.losses(outputs, targets)
        weight = targets.shape[1] / count
        # A member's parameters are in its own loss alone, so the sum has everyone's gradient.
        (losses if weight == 1 else losses * weight).sum().backward()  # type: ignore[no-untyped-call]
        self.tallies.add(outputs.detach(), targets, losses.detach())
        return losses.detach() * weight

    def _outputs(self, inputs: Tensor) -> Tensor:
        if self.settings.channels_last and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with autocast(self.settings.precision, self.device):
            outputs = self.model(inputs)
        return self.model.apart(outputs.float())

    def _end_epoch(self) -> None:
        """Wait for the device, and tell what the epoch has come to."""
        losses, totals = self.losses.cpu().numpy(), self.tallies.totals()
        for place, member in enumerate(self.members):
            progress = member.progress
            progress.epoch += 1
            progress.add("train", **self._metrics(totals[place]), lr=progress.rate)
            bad = np.flatnonzero(~np.isfinite(losses[:, place]))
            if bad.size:
                step = progress.step - self.batches + int(bad[0]) + 1
                progress.diverged_at = {"epoch": progress.epoch, "step": step}
        self._begin()

    def _metrics(self, totals: Tensor) -> dict[str, float]:
        tally = self.objective.tally("cpu")
        tally.totals.copy_(totals)
        metrics: dict[str, float] = tally.metrics()
        return metrics

    def _evaluate(self, due: Sequence[bool]) -> None:
        for split in ("val", "test"):
            for member, wanted, totals in zip(self.members, due, self._measure(split), strict=True):
                if wanted:
                    self._add(member, split, self._metrics(totals))

    @torch.inference_mode()
    def _measure(self, split: str) -> list[Tensor]:
        """The sums of a split for every member, in evaluation mode."""
        self.model.eval()
        tallies = self.packed_objective.tallies(len(self.members), self.device)
        for inputs, targets in evaluation_batches([member.feed for member in self.members], split):
            tallies.add(self._outputs(inputs), targets)
        return tallies.totals()

    def _add(self, member: Member, split: str, metrics: Mapping[str, float]) -> None:
        progress = member.progress
        inspect = getattr(member.feed, "inspect", None) if split == "test" else None
        found = {} if inspect is None else inspect(member.model)
        progress.add(split, **metrics, **found)
        if not math.isfinite(metrics["loss"]) and progress.diverged_at is None:
            progress.diverged_at = {"epoch": progress.epoch, "step": progress.step}

    def _part_with_the_finished(self) -> None:
        staying = [place for place, member in enumerate(self.members) if not member.finished]
        if len(staying) == len(self.members):
            return
        if staying:
            self.model.keep(staying)
        self.members = [self.members[place] for place in staying]
        left = {id(member.shared) for member in self.members}
        for shared in self.shared:
            if id(shared) not in left:
                getattr(shared.optimizer, "close", lambda: None)()
        self.shared = [shared for shared in self.shared if id(shared) in left]
        self._begin()

    # ------------------------------------------------------------------------------------------------ state

    def state_dict(self, member: Member) -> dict[str, Any]:
        """As `session.Training.state_dict` of the run alone: it may go on alone, or in another pack."""
        records = member.records
        return {
            "run": member.spec.id,
            "data": getattr(self.data, "fingerprint", None),
            "processes": 1,
            "model": {name: value.clone() for name, value in member.model.state_dict().items()},
            "optimizer": member.shared.state_dict(member.number),
            "scaler": {},
            **({} if records is None else {"recorder": records.recorder.state_dict()}),
            "partial": self._epoch_under_way(member),
            **vars(member.progress),
        }

    def _epoch_under_way(self, member: Member) -> dict[str, Any] | None:
        place, progress = self.members.index(member), member.progress
        batch = progress.step - progress.epoch * self.batches
        if not batch:
            return None
        stream, on_gpu = self.model.streams[place].get_state(), self.device.type == "cuda"
        return {
            "batch": batch,
            "losses": self.losses[:batch, place].clone(),
            "totals": self.tallies.totals()[place].clone(),
            "generator": torch.get_rng_state() if on_gpu else stream,
            "device_generator": stream if on_gpu else None,
        }

    def load_state_dicts(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Go on from what `state_dict` gave of each member, or `session.Training` of the runs, all at one step."""
        for member, state in zip(self.members, states, strict=True):
            member.model.load_state_dict(state["model"])
            member.progress.load(state)
            if member.records is not None:
                member.records.recorder.load_state_dict(state["recorder"])
        for shared in self.shared:
            shared.load_state_dicts({number: states[number]["optimizer"] for number in shared.members})
        partials = [state["partial"] for state in states if state["partial"] is not None]
        if partials:
            self._go_on(partials)

    def _go_on(self, partials: Sequence[Mapping[str, Any]]) -> None:
        """Take up an epoch that was broken off."""
        self._first = int(partials[0]["batch"])
        self.losses[: self._first] = torch.stack([part["losses"] for part in partials], 1).to(self.device)
        self.tallies.load([part["totals"] for part in partials])
        streams = [torch.Generator(self.device) for _ in partials]
        for stream, part in zip(streams, partials, strict=True):
            state = part["device_generator" if self.device.type == "cuda" else "generator"]
            stream.set_state(state)
        self.model.set_streams(streams)


def _check(specs: Sequence[RunSpec]) -> None:
    settings = specs[0].train
    if any(spec.pack_key != specs[0].pack_key for spec in specs):
        raise NotPackable("runs that differ in task, train or record; pack those that are alike")
    if settings.precision == "float16":
        raise NotPackable("precision float16, whose scaler looks at all gradients; take bfloat16")
    for option in ("compile", "cuda_graph"):
        if getattr(settings, option):
            raise NotPackable(f"{option}, which holds one run's step; set it to false")
