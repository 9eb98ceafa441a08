"""What every spec is: strict and frozen; and, where it stands on its own, checked as a whole with its plugins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from insgd_lab import registry
from insgd_lab.config.problems import ConfigError, Problem, problems_of

__all__ = ["Spec", "WithPlugins", "validated"]

_Model = TypeVar("_Model", bound=BaseModel)
_UNREGISTERED = ("unknown optimizer ", "unknown model ", "unknown data set ")


class Spec(BaseModel):
    """A table of TOML: no unknown keys, no guessed types, no change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy as pydantic does, but for what was computed from the old values and kept, such as a run's name."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - type(self).model_fields.keys():
            del copied.__dict__[name]
        return copied


class WithPlugins(Spec):
    """A spec that names the plugins which its other fields may need."""

    plugins: list[str] = []

    @field_validator("plugins")
    @classmethod
    def _loaded(cls, value: list[str]) -> list[str]:
        """Import the plugins; being the first field, before anything is looked up that they may register."""
        try:
            registry.load_plugins(value)
        except ImportError as error:
            raise ValueError(str(error)) from None
        return value


def validated(model: type[_Model], raw: Mapping[str, Any], source: str, plugins: Sequence[str]) -> _Model:
    """Return `raw` as a `model`, with `plugins` added to its own; `source` names it in messages.

    Raises:
        ConfigError: it has mistakes; all are listed.
    """
    given = raw.get("plugins", [])
    merged = [*given, *(p for p in plugins if p not in given)] if isinstance(given, list) else given
    try:
        return model.model_validate({**raw, "plugins": merged})
    except ValidationError as error:
        found = problems_of(error, model)
        if any(p.path[:1] == ("plugins",) for p in found):  # what it would register is no mistake
            found = [p for p in found if not p.message.startswith(_UNREGISTERED)]
        problems = [Problem(_named_arms(p.path, raw), p.value, p.message) for p in found]
        raise ConfigError(source, problems) from None


def _named_arms(path: tuple[str | int, ...], raw: Mapping[str, Any]) -> tuple[str | int, ...]:
    """Return `path` with the number of an arm replaced by its name, where it has one of its own."""
    match path:
        case ("arm", int(k), *rest):
            arms = raw["arm"]
            name = arms[k].get("name") if isinstance(arms[k], dict) else None
            names = [arm.get("name") for arm in arms if isinstance(arm, dict)]
            return ("arm", name if isinstance(name, str) and names.count(name) == 1 else k, *rest)
    return path
