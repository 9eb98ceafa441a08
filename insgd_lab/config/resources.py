"""What a run asks of the machine that trains it: cores, GPUs and memory.

It decides where runs are put and how many there are at a time, never what they compute, and so is no part of
their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ByteSize, Field, ValidationError, field_validator

from insgd_lab.config.base import Spec
from insgd_lab.config.problems import Problem, problems_of

__all__ = ["ResourcesSpec", "laid_over", "resource_problems"]


_LEAST = 0.01  # of a core or GPU; a slip such as 1e-9 would ask for a billion runs at a time


class ResourcesSpec(Spec):
    """What a run is given room for.

    Attributes:
        cpus: processor cores, at least 0.01. A run computes on one thread whatever this says; more leave it room for
            loaders.
        gpus: GPUs: none, a share of one, at least 0.01, or whole ones.
        memory: main memory, in bytes or as a text such as "2 GiB"; None counts none.
    """

    cpus: Annotated[float, Field(ge=_LEAST, allow_inf_nan=False)] = 1.0
    gpus: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    memory: Annotated[ByteSize, Field(gt=0)] | None = None

    @field_validator("gpus")
    @classmethod
    def _shared_or_whole(cls, value: float) -> float:
        if 0 < value < _LEAST:
            raise ValueError(f"expected 0, or at least {_LEAST} of a GPU")
        if value > 1 and not value.is_integer():
            raise ValueError("expected a share of one GPU, such as 0.5, or a whole number of them")
        return value

    def covering(self, other: ResourcesSpec) -> ResourcesSpec:
        """Return what is enough for both: of each the greatest."""
        memory = max(self.memory or ByteSize(0), other.memory or ByteSize(0))
        return ResourcesSpec(cpus=max(self.cpus, other.cpus), gpus=max(self.gpus, other.gpus), memory=memory or None)

    def __str__(self) -> str:
        memory = "" if self.memory is None else f", {self.memory.human_readable()} of memory"
        return f"{self.cpus:g} cpus, {self.gpus:g} gpus{memory}"


def laid_over(beneath: ResourcesSpec, over: Mapping[str, Any]) -> ResourcesSpec:
    """Return what an arm asks for, whose own table lies over the study's.

    Raises:
        ValidationError: the table has mistakes.
    """
    return ResourcesSpec.model_validate({**beneath.model_dump(), **over})


def resource_problems(arm: Any) -> list[Problem]:
    """The mistakes in what an arm, or the raw table of one, asks for."""
    over = arm.get("resources") if isinstance(arm, Mapping) else getattr(arm, "resources", None)
    if not isinstance(over, Mapping):
        return []  # which the arm itself is refused for
    try:
        laid_over(ResourcesSpec(), over)
    except ValidationError as error:
        return [Problem(("resources", *p.path), p.value, p.message) for p in problems_of(error, ResourcesSpec)]
    return []
