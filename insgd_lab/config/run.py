"""One training run: what is learned, for how long, what is watched, with which optimizer and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from insgd_lab import hyperparameters, registry, store
from insgd_lab.config.base import Spec, WithPlugins, validated
from insgd_lab.config.options import NamedSpec, checked
from insgd_lab.config.problems import Missing, Problem, ProblemsError, raise_if_any

__all__ = ["RecordSpec", "RunSpec", "ScheduleSpec", "TaskSpec", "TrainSpec", "parse_run"]


class TaskSpec(Spec):
    """What is learned: the data and the model."""

    data: NamedSpec
    model: NamedSpec

    @field_validator("data", "model")
    @classmethod
    def _known(cls, value: NamedSpec, info: ValidationInfo) -> NamedSpec:
        return checked(str(info.field_name), value)


class ScheduleSpec(Spec):
    """How the learning rate changes: not at all, or times `gamma` after each of the milestones (epochs)."""

    name: Literal["constant", "multi-step"] = "constant"
    milestones: list[Annotated[int, Field(ge=1)]] = []
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1

    @model_validator(mode="before")
    @classmethod
    def _from_toml(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.name == "constant" and (self.milestones or self.gamma != 0.1):
            raise ProblemsError([Problem((), self.name, 'takes no options; did you mean name = "multi-step"?')])
        if self.name == "multi-step" and not self.milestones:
            raise ProblemsError([Problem(("milestones",), Missing(), "is required, such as [60, 120]")])
        if self.milestones != sorted(set(self.milestones)):
            raise ProblemsError([Problem(("milestones",), self.milestones, "expected epochs in rising order")])
        return self

    def plain(self) -> Any:
        """Return the schedule as a study file would have it."""
        return self.name if self.name == "constant" else self.model_dump()


class TrainSpec(Spec):
    """How long and in which batches; `augment` crops with 4 pixels of padding and flips horizontally."""

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)] = 128
    augment: bool = False
    eval_every: Annotated[int, Field(ge=1)] = 1
    eval_batch_size: Annotated[int, Field(ge=1)] = 1000
    schedule: ScheduleSpec = ScheduleSpec()

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        late = [m for m in self.schedule.milestones if m >= self.epochs]
        raise_if_any(
            [Problem(("schedule", "milestones"), m, f"must lie before the last epoch, {self.epochs}") for m in late]
        )
        return self


class RecordSpec(Spec):
    """What is watched: layer quantities at every `every`-th step; 0 watches nothing."""

    every: Annotated[int, Field(ge=0)] = 10


class RunSpec(WithPlugins):
    """One training run, complete: same spec, same numbers. Plugins are listed but not part of its name."""

    task: TaskSpec
    train: TrainSpec
    record: RecordSpec = RecordSpec()
    optimizer: NamedSpec
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

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

    def canonical(self) -> dict[str, Any]:
        """Return the run in plain JSON types: defaults left out, revisions and the seed in."""
        plain = {
            "task": {"data": self.task.data.canonical("data"), "model": self.task.model.canonical("model")},
            "train": self.train.model_dump(exclude_defaults=True),
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

    @classmethod
    def from_canonical(cls, canonical: Mapping[str, Any], plugins: Sequence[str] = ()) -> RunSpec:
        """Undo `canonical`; revisions are those of the registry now, so the id tells if they changed."""
        plain = store.from_json_value(store.to_json_value(canonical))
        for named in (plain["optimizer"], plain["task"]["data"], plain["task"]["model"]):
            named.pop("revision", None)
        return cls.model_validate({**plain, "plugins": list(plugins)})


def parse_run(raw: Mapping[str, Any], source: str = "run", plugins: Sequence[str] = ()) -> RunSpec:
    """Check one run given as the tables of its TOML: a study's, with `optimizer` and `seed` for the arms.

    Raises:
        ConfigError: it has mistakes; all are listed.
    """
    return validated(RunSpec, raw, source, plugins)
