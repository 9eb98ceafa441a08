"""How the learning rate changes over a run, as a study file says it; `training.schedules` does it.

schedule = "cosine"
schedule = { name = "multi-step", milestones = [60, 120], gamma = 0.2, warmup = 5 }
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from insgd_lab.config.base import Spec
from insgd_lab.config.problems import Missing, Problem, raise_if_any

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
    milestones: list[Epochs] = []
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    step_size: Epochs | None = None
    floor: Annotated[float, Field(ge=0, lt=1)] = 0.0
    period: Epochs | None = None
    period_factor: Annotated[int, Field(ge=1)] = 1
    beta1_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    warmup: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="before")
    @classmethod
    def _from_toml(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        raise_if_any([*self._unread(), *self._missing(), *self._unordered()])
        return self

    def _unread(self) -> list[Problem]:
        changed = [key for key in self._changed() if key not in (*_READ[self.name], "name", "warmup")]
        return [Problem((key,), getattr(self, key), self._not_read(key)) for key in changed]

    def _not_read(self, key: str) -> str:
        readers = " and ".join(f'"{name}"' for name, keys in _READ.items() if key in keys)
        return f'is not read by the schedule "{self.name}", only by {readers}; leave it out, or name another schedule'

    def _missing(self) -> list[Problem]:
        if self.name not in _REQUIRED:
            return []
        key, example = _REQUIRED[self.name]
        return [] if getattr(self, key) else [Problem((key,), Missing(), f"is required, such as {example}")]

    def _unordered(self) -> list[Problem]:
        if self.milestones == sorted(set(self.milestones)):
            return []
        return [Problem(("milestones",), self.milestones, "expected epochs in rising order")]

    def beyond(self, epochs: int) -> list[Problem]:
        """Return what a run of that many epochs would never come to."""
        before = f"must lie before the last epoch, {epochs}"
        problems = [Problem(("milestones",), m, before) for m in self.milestones if m >= epochs]
        if self.step_size is not None and self.step_size >= epochs:
            problems.append(Problem(("step_size",), self.step_size, before))
        if self.warmup > epochs:
            problems.append(Problem(("warmup",), self.warmup, f"must not be longer than the run, {epochs} epochs"))
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
