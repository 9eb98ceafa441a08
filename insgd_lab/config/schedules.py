"""How the learning rate changes over a run, as a study file says it; `training.schedules` does it.

schedule = "cosine"
schedule = { name = "multi-step", milestones = [60, 120], gamma = 0.2, warmup = 5 }
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from insgd_lab.config.base import Spec
from insgd_lab.config.problems import Missing, Problem, ProblemsError

__all__ = ["ScheduleSpec"]

Epochs = Annotated[int, Field(ge=1)]

# By schedule, the keys that it reads; every one reads `warmup`.
_READ: Mapping[str, tuple[str, ...]] = {
    "constant": (),
    "multi-step": ("milestones", "gamma"),
    "step": ("step_size", "gamma"),
    "cosine": ("floor",),
    "cosine-restarts": ("period", "period_factor", "floor"),
    "inverse-sqrt": ("beta1_decay",),
}
_KEYS = tuple(dict.fromkeys(key for keys in _READ.values() for key in keys))
_REQUIRED = {
    "multi-step": ("milestones", "[60, 120]"),
    "step": ("step_size", "30"),
    "cosine-restarts": ("period", "10"),
}


class ScheduleSpec(Spec):
    """What the optimizer's learning rate is multiplied by, from step to step.

    Attributes:
        name: "constant"; "multi-step", times `gamma` after each of the milestones; "step", times `gamma` after every
            `step_size` epochs; "cosine", down to `floor` at the end of the last step; "cosine-restarts", down to
            `floor` in `period` epochs and up again, each period `period_factor` times as long as the one before
            (Loshchilov & Hutter, ICLR 2017); "inverse-sqrt", 1 / sqrt(t) at the t-th optimizer step.
        milestones: epochs of the run, in rising order.
        gamma: in (0, 1].
        step_size: epochs.
        floor: share of the learning rate that is left, in [0, 1).
        period: epochs.
        period_factor: a whole number.
        beta1_decay: lambda in (0, 1]: the first of the optimizer's betas is beta1 lambda^(t-1) at the t-th step.
        warmup: epochs, before anything else, in which the rate rises linearly: at the k-th of n steps, to whole ones
            and at least one, it is k/n of the learning rate. Milestones and `step_size` count the epochs of the run;
            the clocks of the other schedules start when the warm-up ends.
    """

    name: Literal["constant", "multi-step", "step", "cosine", "cosine-restarts", "inverse-sqrt"] = "constant"
    milestones: Annotated[list[Epochs], Field(validate_default=True)] = []
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    step_size: Annotated[Epochs | None, Field(validate_default=True)] = None
    floor: Annotated[float, Field(ge=0, lt=1)] = 0.0
    period: Annotated[Epochs | None, Field(validate_default=True)] = None
    period_factor: Annotated[int, Field(ge=1)] = 1
    beta1_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    warmup: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="before")
    @classmethod
    def _from_toml(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator(*_KEYS)
    @classmethod
    def _as_read(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse a key that the schedule does not read, and miss one that it needs."""
        name, key = info.data.get("name"), str(info.field_name)
        if name is None:  # which the schedule is refused for
            return value
        if value != cls.model_fields[key].default and key not in _READ[name]:
            raise ProblemsError([Problem((), value, _not_read(name, key))])
        needed, example = _REQUIRED.get(name, ("", ""))
        if key == needed and not value:
            raise ProblemsError([Problem((), Missing(), f"is required, such as {example}")])
        return value

    @field_validator("milestones")
    @classmethod
    def _ordered(cls, value: list[int]) -> list[int]:
        if value != sorted(set(value)):
            raise ValueError("expected epochs in rising order")
        return value

    def beyond(self, epochs: int) -> list[Problem]:
        """Return what a run of that many epochs would never come to."""
        within = [m for m in self.milestones if m < epochs]
        problems = []
        if len(within) < len(self.milestones):
            message = _before("milestones", epochs, f"them as well, such as {within or [max(epochs // 2, 1)]}")
            problems.append(Problem(("milestones",), self.milestones, message))
        if self.step_size is not None and self.step_size >= epochs:
            message = _before("step_size", epochs, f"it as well, such as {max(epochs // 2, 1)}")
            problems.append(Problem(("step_size",), self.step_size, message))
        if self.warmup > epochs:
            length = f"{epochs} epoch{'s' * (epochs > 1)}"
            message = f"warmup must not be longer than the run, {length}; set it as well, to {epochs} or less"
            message += ", or more epochs"
            problems.append(Problem(("warmup",), self.warmup, message))
        return problems

    def needs(self) -> dict[str, str]:
        """Return the optimizer's options that the schedule changes, each with the key that asks for it."""
        changed = {}
        if self._changed():
            changed["lr"] = "warmup" if self.name == "constant" else "name"
        if self.beta1_decay != 1:
            changed["betas"] = "beta1_decay"
        return changed

    def plain(self) -> Any:
        """Return the schedule as a study file would have it."""
        if self._changed() <= {"name"}:
            return self.name
        keys = ("name", *_READ[self.name], *(("warmup",) if self.warmup else ()))
        return self.model_dump(include=set(keys))

    def _changed(self) -> set[str]:
        return set(self.model_dump(exclude_defaults=True))


def _not_read(name: str, key: str) -> str:
    readers = " and ".join(f'"{reader}"' for reader, keys in _READ.items() if key in keys)
    return f'is not read by the schedule "{name}", only by {readers}; leave it out, or name another schedule'


def _before(key: str, epochs: int, remedy: str) -> str:
    """What is wrong with drops that a run of that many epochs never comes to, and what to set as well as the epochs.

    The schedule may be the study's, an arm's or an axis's, so the remedy names no place.
    """
    others = 'the schedule "constant", or more epochs'
    return f"{key} must lie before the last epoch, {epochs}; set {f'{remedy}; or ' if epochs > 1 else ''}{others}"
