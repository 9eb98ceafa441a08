"""One training run: what is learned, for how long, what is watched, with which optimizer and seed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from insgd_lab import hyperparameters, registry, store
from insgd_lab.config.base import Spec, WithPlugins, validated
from insgd_lab.config.initial import InitSpec
from insgd_lab.config.options import NamedSpec, checked
from insgd_lab.config.problems import Missing, Problem, ProblemsError, raise_if_any
from insgd_lab.config.resources import ResourcesSpec
from insgd_lab.config.schedules import ScheduleSpec

__all__ = ["RecordSpec", "RunSpec", "TaskSpec", "TrainSpec", "parse_run"]


class TaskSpec(Spec):
    """What is learned: the data and the model, and where its weights come from if not from chance."""

    data: NamedSpec
    model: NamedSpec
    init_from: InitSpec | None = None

    @field_validator("data", "model")
    @classmethod
    def _known(cls, value: NamedSpec, info: ValidationInfo) -> NamedSpec:
        kind, problems = str(info.field_name), list[Problem]()
        try:
            value = checked(kind, value)
        except ProblemsError as error:
            problems += error.problems
        if kind == "model" and "data" in info.data and value.name in registry.list_models():
            problems += _unfit(value.name, info.data["data"].name)
        raise_if_any(problems)
        return value

    def canonical(self) -> dict[str, Any]:
        """Return the plain form that is hashed."""
        named = {"data": self.data.canonical("data"), "model": self.model.canonical("model")}
        return named if self.init_from is None else {**named, "init_from": self.init_from.canonical()}

    @cached_property
    def canonical_text(self) -> str:
        """`canonical` as the text that is hashed; many runs share it."""
        return store.canonical_json(self.canonical())


def _unfit(model: str, data: str) -> list[Problem]:
    """What is wrong with a model that is for the data of others, or for data that are for another model."""
    wanted = registry.get_data(data).model
    if wanted is None:
        theirs = [name for name in registry.list_data() if registry.get_data(name).model == model]
        message = f"is for {' and '.join(theirs)}, not for {data}; name another model"
        return [Problem((), model, message)] if theirs else []
    return [] if model == wanted else [Problem((), model, f"{data} is for the model {wanted}; name that one")]


class TrainSpec(Spec):
    """How long, in which batches and how they are computed.

    Attributes:
        epochs: passes over the training images.
        batch_size: images of one optimizer step.
        augment: crop with 4 pixels of padding and flip horizontally.
        eval_every: evaluate after every so many epochs, and after the last.
        eval_batch_size: images evaluated at once.
        schedule: how the learning rate changes.
        precision: of forward and backward pass: "float32"; "tf32", float32 with products in TensorFloat-32;
            "bfloat16" and "float16" by torch.autocast, the latter with scaled gradients. Weights stay float32.
        accumulate: parts in which each batch is computed, one after the other.
        clip_norm: the norm to which the gradient of all parameters together is clipped before the step.
        label_smoothing: share of a target that is spread over all classes.
        channels_last: keep images with their channels innermost.
        compile: compile the model with torch.compile.
        cuda_graph: record the step as one CUDA graph.
        packing: how many runs share a device side by side: "off", "auto" or a number. It is not part of a run's
            name, for it does not say what is computed.
    """

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)] = 128
    augment: bool = False
    eval_every: Annotated[int, Field(ge=1)] = 1
    eval_batch_size: Annotated[int, Field(ge=1)] = 1000
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = "float32"
    cuda_graph: bool = False  # before the schedule, whose check reads it
    schedule: ScheduleSpec = ScheduleSpec()
    accumulate: Annotated[int, Field(ge=1)] = 1
    clip_norm: Annotated[float, Field(gt=0)] = math.inf
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    channels_last: bool = True
    compile: bool = False
    packing: Literal["off", "auto"] | int = "off"

    @field_validator("packing", mode="before")
    @classmethod
    def _packable(cls, value: Any) -> Any:
        is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not (is_number or value in ("off", "auto")):
            raise ValueError('expected "off", "auto" or a whole number of runs, at least 1')
        return value

    @field_validator("cuda_graph")
    @classmethod
    def _possible_graph(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("precision") == "float16":
            raise ValueError("float16 looks at every gradient before the step, which no graph can; take bfloat16")
        return value

    @field_validator("schedule")
    @classmethod
    def _possible_schedule(cls, value: ScheduleSpec, info: ValidationInfo) -> ScheduleSpec:
        problems = value.beyond(info.data["epochs"]) if "epochs" in info.data else []
        if info.data.get("cuda_graph") and value.beta1_decay != 1:
            message = "cannot change from step to step in a CUDA graph; set train.cuda_graph = false"
            problems.append(Problem(("beta1_decay",), value.beta1_decay, message))
        raise_if_any(problems)
        return value

    @field_validator("accumulate")
    @classmethod
    def _possible_parts(cls, value: int, info: ValidationInfo) -> int:
        size = info.data.get("batch_size", value)
        if value > size:
            raise ValueError(f"a batch of {size} cannot be computed in more parts than it has images")
        return value

    def canonical(self) -> dict[str, Any]:
        """Return the plain form that is hashed: defaults left out, and what does not change the numbers."""
        return self.model_dump(exclude_defaults=True, exclude={"packing"})

    @cached_property
    def canonical_text(self) -> str:
        """`canonical` as the text that is hashed; many runs share it."""
        return store.canonical_json(self.canonical())


class RecordSpec(Spec):
    """What is kept: layer quantities at every `every`-th step (0: none), and with `weights` the trained weights."""

    every: Annotated[int, Field(ge=0)] = 10
    weights: bool = False


class RunSpec(WithPlugins):
    """One training run, complete: same spec, same numbers. Plugins and resources are not part of its name."""

    task: TaskSpec
    optimizer: NamedSpec
    train: TrainSpec  # after what it asks something of
    record: RecordSpec = RecordSpec()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    resources: ResourcesSpec = ResourcesSpec()

    @field_validator("optimizer")
    @classmethod
    def _known(cls, value: NamedSpec) -> NamedSpec:
        spec = checked("optimizer", value)
        try:
            defaults = registry.get_optimizer(spec.name).defaults
            hyperparameters.check_together(spec.name, {**defaults, **spec.options})
        except ValueError as error:
            raise ProblemsError([Problem((), Missing(), str(error))]) from None
        return spec

    @field_validator("train")
    @classmethod
    def _trainable(cls, value: TrainSpec, info: ValidationInfo) -> TrainSpec:
        """Check that the data and the optimizer are up to what the training asks of them."""
        problems: list[Problem] = []
        if "optimizer" in info.data:
            problems += _unscheduled(value, info.data["optimizer"].name)
        if "task" in info.data:
            problems += _unlike_the_data(value, info.data["task"].data.name)
        if "optimizer" in info.data:
            problems += _not_held_in_a_graph(value, info.data["optimizer"].name)
        raise_if_any(problems)
        return value

    def canonical(self) -> dict[str, Any]:
        """Return the run in plain JSON types: defaults left out, revisions and the seed in."""
        plain = {
            "task": self.task.canonical(),
            "train": self.train.canonical(),
            "optimizer": self.optimizer.canonical("optimizer"),
            "seed": self.seed,
        }
        record = self.record.model_dump(exclude_defaults=True)
        result: dict[str, Any] = store.to_json_value({**plain, **({"record": record} if record else {})})
        return result

    @cached_property
    def id(self) -> str:
        """The run's name: the hash of `canonical()`."""
        return store.run_id(self.canonical())

    def with_seeds(self, seeds: Iterable[int]) -> Iterator[RunSpec]:
        """Give this run with each of the seeds; as only that differs, none is checked or written out anew."""
        # The text that is hashed has its keys sorted, so the seed cuts it in two.
        optimizer = store.canonical_json(self.optimizer.canonical("optimizer"))
        record = self.record.model_dump(exclude_defaults=True)
        before = f'{{"optimizer":{optimizer}' + (f',"record":{store.canonical_json(record)}' if record else "")
        after = f'"task":{self.task.canonical_text},"train":{self.train.canonical_text}}}'
        for seed in seeds:
            run = self.model_copy(update={"seed": seed})
            text = f'{before},"seed":{seed},{after}'
            run.__dict__["id"] = hashlib.sha256(text.encode()).hexdigest()[:16]  # as store.run_id has it
            yield run

    @cached_property
    def pack_key(self) -> str:
        """What runs must have in common to train side by side: all but optimizer and seed."""
        alike = {name: part for name, part in self.canonical().items() if name not in ("optimizer", "seed")}
        return store.canonical_json(alike)

    @classmethod
    def from_canonical(
        cls, canonical: Mapping[str, Any], plugins: Sequence[str] = (), init_from: str | None = None
    ) -> RunSpec:
        """Undo `canonical`; revisions are those of the registry now, so the id tells if they changed.

        `init_from` is where the weights lie that the run starts from, if it starts from any.

        Raises:
            ValueError: they are needed and not given, or others.
        """
        plain = store.from_json_value(store.to_json_value(canonical))
        task = plain["task"]
        for named in (plain["optimizer"], task["data"], task["model"]):
            named.pop("revision", None)
        if "init_from" in task:
            if init_from is None:
                needed = task["init_from"]["sha256"]
                raise ValueError(f"the run starts from weights with sha256 {needed}; give their path as init_from")
            task["init_from"]["path"] = init_from
        return cls.model_validate({**plain, "plugins": list(plugins)})


def _unscheduled(train: TrainSpec, optimizer: str) -> list[Problem]:
    message = f"{optimizer} has no option {{!r}} to change; leave it out, or take another optimizer"
    return [
        Problem(("schedule", key), getattr(train.schedule, key), message.format(option))
        for option, key in train.schedule.needs().items()
        if option not in registry.get_optimizer(optimizer).defaults
    ]


def _unlike_the_data(train: TrainSpec, name: str) -> list[Problem]:
    data, problems = registry.get_data(name), []
    if train.augment and not data.images:
        problems.append(Problem(("augment",), True, f"{name} has no images to crop and mirror; leave it out"))
    if train.label_smoothing and not data.labels:
        message = f"{name} has no classes whose labels could be smoothed; leave it out"
        problems.append(Problem(("label_smoothing",), train.label_smoothing, message))
    return problems


def _not_held_in_a_graph(train: TrainSpec, optimizer: str) -> list[Problem]:
    if not train.cuda_graph or registry.get_optimizer(optimizer).capabilities.capturable:
        return []
    message = f"{optimizer} cannot be held in a CUDA graph; leave it out, or take another optimizer"
    return [Problem(("cuda_graph",), True, message)]


def parse_run(raw: Mapping[str, Any], source: str = "run", plugins: Sequence[str] = ()) -> RunSpec:
    """Check one run given as the tables of its TOML: a study's, with `optimizer` and `seed` for the arms.

    Raises:
        ConfigError: it has mistakes; all are listed.
    """
    return validated(RunSpec, raw, source, plugins)
