"""The objects of one run and its epochs: what happens between reading the spec and writing the results.

Nothing asks the device for a value before the epoch's end, so a loss that stops being finite is seen then.

Every random number comes from a stream addressed by the seed, a purpose and the epoch (see `streams`). Only dropout
draws from torch's global generator, whose place in the epoch a checkpoint keeps.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from insgd_lab import registry
from insgd_lab.config import ConfigError, Problem, RunSpec
from insgd_lab.recorders import Recorder
from insgd_lab.rules.input_power import Measuring
from insgd_lab.training.feeds import BatchPlan, Feed
from insgd_lab.training.graphs import GraphedStep
from insgd_lab.training.objectives import Objective
from insgd_lab.training.precision import autocast
from insgd_lab.training.progress import Progress, results
from insgd_lab.training.ranks import ALONE, Ranks
from insgd_lab.training.schedules import Schedule
from insgd_lab.training.step import Step, Take
from insgd_lab.training.streams import global_stream
from insgd_lab.training.subsets import SubsetError
from insgd_lab.training.transfer import freeze, keep_frozen_in_eval, load_initial

__all__ = ["Training", "build_model", "classes_of", "examples_of", "initial_model", "load_data"]

AfterStep = Callable[[], None]


def load_data(spec: RunSpec, data_dir: Path | None = None) -> Any:
    """The data object of a run.

    Raises:
        ConfigError: the data cannot give the part of the training split that the spec asks for.
    """
    entry, chosen = registry.get_data(spec.task.data.name), spec.task.data.options
    try:
        return registry.resolve_factory(entry.factory)(data_dir, **{**entry.defaults, **chosen})
    except SubsetError as error:
        raise ConfigError("run", [Problem(("task", "data", error.option), error.value, error.reason)]) from None


def build_model(spec: RunSpec, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """The model of a run with the initial weights of its seed, drawn on the CPU whatever the device.

    Raises:
        ConfigError: the model cannot be with these options, or for these data.
    """
    entry, chosen = registry.get_model(spec.task.model.name), spec.task.model.options
    make = registry.resolve_factory(entry.factory)
    try:
        with global_stream(spec.seed, "initial weights"):
            model: nn.Module = make(input_shape, classes, **{**entry.defaults, **chosen})
    except ValueError as error:
        message = f"{error}{registry.raised_in(error, make)}"
        raise ConfigError("run", [Problem(("task", "model"), spec.task.model.name, message)]) from error
    return model


def initial_model(spec: RunSpec, data: Any, examples: int, device: torch.device, ranks: Ranks = ALONE) -> nn.Module:
    """The model with which a run begins, on its device.

    Args:
        spec: the run.
        data: its data object.
        examples: of an epoch.
        device: where it will train.
        ranks: the processes that share the run.

    Raises:
        ConfigError: weights of a file that do not fit; a batch of one image that batch norm cannot normalise.
    """
    model = build_model(spec, data.input_shape, data.classes)
    if (init := spec.task.init_from) is not None:
        load_initial(model, init)
        freeze(model, init.frozen)
    _check_single_example(model, examples, data.input_shape, spec, ranks)
    model = model.to(device)
    if spec.train.channels_last:
        # Convolutions on the CPU are a fifth to a third faster with the channels innermost.
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.ndim == 4:
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return model


class Training:
    """The objects of one run, and its epochs; `progress` says how far it has come.

    Args:
        spec: what to train.
        progress: where to put how far it has come.
        data_dir: the folder of the data sets; None as in `files.data_folder`.
        device: "cpu", "cuda" or "cuda:1".
        record: whether the layers are watched, if the spec asks for it.
        ranks: the processes that share the run.
        loaders: processes that read and decode files.
    """

    def __init__(
        self,
        spec: RunSpec,
        progress: Progress | None = None,
        *,
        data_dir: Path | None = None,
        device: str = "cpu",
        record: bool = False,
        ranks: Ranks = ALONE,
        loaders: int = 0,
    ) -> None:
        self.spec, self.progress, self.device, self.ranks = spec, progress or Progress(), torch.device(device), ranks
        self.data = load_data(spec, data_dir)
        settings = spec.train
        plan = BatchPlan(
            spec.seed, settings.batch_size, settings.eval_batch_size, settings.augment, self.device,
            ranks.rank, ranks.size, loaders,
        )  # fmt: skip
        self.feed: Feed = self.data.feed(plan)
        self.objective: Objective = self.data.objective(settings.label_smoothing)
        self.model = initial_model(spec, self.data, self.feed.examples, self.device, ranks)
        self.optimizer = self._optimizer()
        self.schedule = Schedule(settings.schedule, self.optimizer, self.batches, settings.epochs)
        watched = record and spec.record.every > 0 and ranks.leads
        self.recorder = Recorder(self.model, self.optimizer, every=spec.record.every) if watched else None
        self.tally = self.objective.tally(self.device)
        self.losses = torch.zeros(self.batches, device=self.device)
        self.step = Step(self._network(), self.optimizer, self.objective, settings, self.device, ranks)
        take: Take = self._take
        if self._is_graphed:
            take = GraphedStep(take, min(settings.batch_size, self.feed.examples), self.device, self.recorder)
        self.take: Take = take
        self._partial: Mapping[str, Any] | None = None  # of a checkpoint, until its epoch goes on

    # ------------------------------------------------------------------------------------------ the objects

    def _optimizer(self) -> torch.optim.Optimizer:
        name, options = self.spec.optimizer.name, dict(self.spec.optimizer.options)
        able = registry.get_optimizer(name).capabilities
        if self.ranks.size > 1 and able.reads_inputs:
            options["process_group"] = torch.distributed.group.WORLD
        if self._is_graphed:
            options |= _capturable(self.spec, self.device, self.ranks)
        optimizer: torch.optim.Optimizer = registry.create_optimizer(name, self.model, **options)
        for rule in getattr(optimizer, "rules", ()):
            if isinstance(rule, Measuring):
                rule.sensor.by_examples = True  # as this harness weights gradients
        return optimizer

    def _network(self) -> nn.Module:
        """What is called to train. The sensors are on the model by now: compiled code does not look for new hooks."""
        network = self.ranks.parallel(self.model, self.device)
        return torch.compile(network) if self.spec.train.compile else network  # type: ignore[return-value]

    @property
    def _is_graphed(self) -> bool:
        return self.spec.train.cuda_graph and self.device.type == "cuda"

    def _take(self, inputs: Tensor, targets: Tensor, count: int) -> Tensor:
        share = self.step(inputs, targets, self.tally, count)
        if self.step.skipped:
            self.progress.skipped += self.step.skipped
            self.step.skipped = 0
            if self.recorder is not None:
                self.recorder.pass_by()  # its steps are the run's, the optimizer's are its own
        return share

    # ------------------------------------------------------------------------------------------- the epochs

    @property
    def batches(self) -> int:
        """How many an epoch has."""
        return math.ceil(self.feed.examples / self.spec.train.batch_size)

    def epochs(self, after_step: AfterStep = lambda: None) -> Iterator[dict[str, Any]]:
        """Train to the end, giving after each epoch its number, the last one's, the step, the metrics and the speed.

        Args:
            after_step: called after each step; `state_dict` holds everything then. What it raises ends the run.
        """
        while not self.finished:
            self.run_epoch(after_step)
            progress = self.progress
            speed = progress.speed(self.feed.examples)["epochs"][-1]
            yield {**speed, "epochs": self.spec.train.epochs, "step": progress.step, **progress.latest()}
        if self.recorder is not None:
            self.recorder.close()

    @property
    def finished(self) -> bool:
        """Whether no epoch is left to train, or going on would be pointless."""
        return self.progress.epoch >= self.spec.train.epochs or self.progress.diverged_at is not None

    def run_epoch(self, after_step: AfterStep = lambda: None) -> None:
        """Train one epoch, or what is left of it, evaluate if it is due, and put both into the progress."""
        progress = self.progress
        self._train_epoch(after_step)
        start = time.perf_counter()
        if self.finished or progress.epoch % self.spec.train.eval_every == 0:
            self._evaluate()
        progress.seconds.append(progress.training_seconds[-1] + time.perf_counter() - start)

    def _train_epoch(self, after_step: AfterStep) -> None:
        progress, number, size = self.progress, self.progress.epoch + 1, self.spec.train.batch_size
        clock = time.perf_counter()
        purpose = f"dropout, epoch {number}" + (f", rank {self.ranks.rank}" if self.ranks.rank else "")
        with global_stream(self.spec.seed, purpose, self.device):
            first = self._begin_epoch()
            for k, (inputs, targets) in enumerate(self.feed.epoch(number, first), first):
                self.schedule.set(progress.step)
                if k == 0:
                    progress.rate = float(self.optimizer.param_groups[0].get("lr", math.nan))
                self.losses[k] = self.take(inputs, targets, min(size, self.feed.examples - k * size))
                progress.step += 1
                if k + 1 < self.batches:  # the epoch's last step is followed by its end
                    progress.spent += time.perf_counter() - clock
                    after_step()
                    clock = time.perf_counter()
        self._end_epoch()
        progress.training_seconds.append(progress.spent + time.perf_counter() - clock)
        progress.spent = 0.0

    def _begin_epoch(self) -> int:
        """Make ready for the steps of an epoch; the number of the first that is left."""
        self.model.train()
        keep_frozen_in_eval(self.model)
        partial, self._partial = self._partial, None
        if partial is None:
            self.tally.totals.zero_()
            return 0
        batch = int(partial["batch"])
        if not self.ranks.leads:  # what has been counted is counted once
            self.tally.totals.zero_()
            self.losses.zero_()
            return batch
        self.losses[:batch] = partial["losses"].to(self.device)
        self.tally.totals.copy_(partial["totals"])
        torch.set_rng_state(partial["generator"])
        if partial["device_generator"] is not None:
            torch.cuda.set_rng_state(partial["device_generator"], self.device)
        return batch

    def _end_epoch(self) -> None:
        """Wait for the device, and tell what the epoch has come to."""
        progress = self.progress
        progress.epoch += 1
        self.tally.totals.copy_(self.ranks.total(self.tally.totals))
        losses = self.ranks.total(self.losses).cpu().numpy()
        progress.add("train", **self.tally.metrics(), lr=progress.rate)
        bad = np.flatnonzero(~np.isfinite(losses))
        if bad.size:
            step = progress.step - self.batches + int(bad[0]) + 1
            progress.diverged_at = {"epoch": progress.epoch, "step": step}

    def _evaluate(self) -> None:
        self.ranks.alike(self.model)
        for name in ("val", "test"):
            metrics = self._measure(name)
            self.progress.add(name, **metrics)
            if not np.isfinite(metrics["loss"]) and self.progress.diverged_at is None:
                self.progress.diverged_at = {"epoch": self.progress.epoch, "step": self.progress.step}

    @torch.inference_mode()
    def _measure(self, split: str) -> dict[str, float]:
        """The metrics of a split, in evaluation mode; of the test split also what the feed finds in the model."""
        self.model.eval()
        tally = self.objective.tally(self.device)
        for inputs, targets in self.feed.evaluate(split):
            with autocast(self.spec.train.precision, self.device):
                outputs = self.model(inputs)
            tally.add(outputs.float(), targets)
        tally.totals.copy_(self.ranks.total(tally.totals))
        inspect = getattr(self.feed, "inspect", None) if split == "test" else None
        return {**tally.metrics(), **(inspect(self.model) if inspect is not None else {})}

    # ----------------------------------------------------------------------------------- results and state

    @property
    def fingerprint(self) -> str | None:
        """What tells these data from others of the same name; None where the name is enough."""
        found: str | None = getattr(self.data, "fingerprint", None)
        return found

    def measured(self) -> dict[str, Any]:
        """For run.json: the model's size, the speed (evaluation left out), the final and the best results."""
        return {
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "classes": classes_of(self.spec, self.data),
            "examples": examples_of(self.data),
            "data_fingerprint": self.fingerprint,
            **self.progress.speed(self.feed.examples),
            "results": results(self.progress.rows),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything a checkpoint needs, in tensors and plain types; after any step, called from `after_step`."""
        parts = {"scaler": self.step.scaler, "recorder": self.recorder}
        return {
            "run": self.spec.id,
            "data": self.fingerprint,
            "processes": self.ranks.size,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **{name: part.state_dict() for name, part in parts.items() if part is not None},
            "partial": self._epoch_under_way(),
            **vars(self.progress),
        }

    def _epoch_under_way(self) -> dict[str, Any] | None:
        """What the steps of an unfinished epoch have come to; None between epochs."""
        batch = self.progress.step - self.progress.epoch * self.batches
        if not batch:
            return None
        on_gpu = self.device.type == "cuda"
        return {
            "batch": batch,
            "losses": self.losses[:batch].clone(),
            "totals": self.tally.totals.clone(),
            "generator": torch.get_rng_state(),
            "device_generator": torch.cuda.get_rng_state(self.device) if on_gpu else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        _load_optimizer(self.optimizer, state["optimizer"])
        self.step.scaler.load_state_dict(state["scaler"])
        if self.recorder is not None:
            self.recorder.load_state_dict(state["recorder"])
        self.progress.load(state)
        self._partial = state["partial"]


def classes_of(spec: RunSpec, data: Any) -> int | None:
    """How many classes the data of a run have, by which a diverged run is scored as a guess; None without labels."""
    return data.classes if registry.get_data(spec.task.data.name).labels else None


def examples_of(data: Any) -> dict[str, int]:
    """How many examples each split has, of those that know."""
    parts: dict[str, Any] = {split: getattr(data, split, None) for split in ("train", "val", "test")}
    return {split: len(part) for split, part in parts.items() if hasattr(part, "__len__")}


def _load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load a state, but keep the very tensors that a captured step reads, and where it reads them."""
    before = [dict(group) for group in optimizer.param_groups]
    optimizer.load_state_dict(dict(state))
    for group, own in zip(optimizer.param_groups, before, strict=True):
        rate = own.get("lr")
        if isinstance(rate, Tensor):
            rate.fill_(float(group["lr"]))
            group["lr"] = rate
        elif isinstance(group.get("lr"), Tensor):
            group["lr"] = float(group["lr"])
        if "capturable" in own:
            group["capturable"] = own["capturable"]


def _capturable(spec: RunSpec, device: torch.device, ranks: Ranks) -> dict[str, Any]:
    """The options by which an optimizer can be held in a CUDA graph: a rate that is read from the device.

    Raises:
        ConfigError: several processes share the run.
    """
    if ranks.size > 1:
        message = f"{ranks.size} processes share this run, and a graph holds no exchange between them; set it to false"
        raise ConfigError("run", [Problem(("train", "cuda_graph"), True, message)])
    rate = {**registry.get_optimizer(spec.optimizer.name).defaults, **spec.optimizer.options}["lr"]
    return {"capturable": True, "lr": torch.tensor(rate, dtype=torch.float64, device=device)}


def _check_single_example(
    model: nn.Module, examples: int, input_shape: tuple[int, ...], spec: RunSpec, ranks: Ranks
) -> None:
    """Refuse at once what would leave batch norm with one image, over which it has no spread."""
    size, parts = spec.train.batch_size, spec.train.accumulate * ranks.size
    least = min(count // parts for count in (min(size, examples), examples % size or size))
    if least > 1 or not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return
    try:
        trial = copy.deepcopy(model).train()
        keep_frozen_in_eval(trial)
        with torch.no_grad(), global_stream(spec.seed, "one image"):
            trial(torch.zeros(1, *input_shape))
    except ValueError:
        what = "a batch of one" if parts == 1 else "a part of a batch with one, or none,"
        message = (
            f"leaves {what} of the {examples} training images, over which this model's batch norm has no "
            f"spread; choose another, such as {size + 1}, or set task.model.batch_norm = false"
        )
        raise ConfigError("run", [Problem(("train", "batch_size"), size, message)]) from None
