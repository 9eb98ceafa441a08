"""What is wrong with a study or run: where, which value, and the remedy; pydantic's errors in these terms."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from insgd_lab import registry

__all__ = ["ConfigError", "Missing", "Problem", "ProblemsError", "problems_of", "raise_if_any", "unknown"]


@dataclass(frozen=True)
class Problem:
    """One mistake: where (keys from the top), what was given, and what to do instead."""

    path: tuple[str | int, ...]
    value: Any
    message: str

    def __str__(self) -> str:
        where = ".".join(str(key) for key in self.path) + _shown(self.value)
        return f"{where}: {self.message}" if where else self.message


class Missing:
    """Stands for the value of a key that is not there."""


def _shown(value: Any) -> str:
    if isinstance(value, Missing):
        return ""
    text = repr(value) if not isinstance(value, str) else f'"{value}"'
    return " = " + (text if len(text) <= 60 else text[:57] + "...")


class ConfigError(ValueError):
    """A study or run that cannot be; `problems` lists every mistake found in it."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = list(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n  ".join([f"{source}: {count}", *map(str, problems)]))


class ProblemsError(ValueError):
    """Carries several problems through one pydantic validator; their paths are relative to it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(map(str, self.problems)))


def raise_if_any(problems: Sequence[Problem]) -> None:
    """Raise the problems, if there are any, from within a pydantic validator."""
    if problems:
        raise ProblemsError(problems)


def unknown(name: str, known: Iterable[str], what: str) -> str:
    """Return what is wrong with `name`, which is not among the `known` ones, and the nearest of them."""
    try:
        registry.check_known(name, known, what)
    except registry.UnknownName as error:
        return str(error)
    raise AssertionError(f"{name} is known")


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Return the mistakes that pydantic found in a `model`, each with its full path and in plain words."""
    found: list[Problem] = []
    for item in error.errors(include_url=False):
        path = tuple(item["loc"])
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, ProblemsError):
            found += [Problem(path + p.path, p.value, p.message) for p in cause.problems]
        elif item["type"] == "missing":
            found.append(Problem(path, Missing(), "is required and missing"))
        elif item["type"] == "extra_forbidden":
            found.append(Problem(path, item["input"], _unknown_key(str(path[-1]), _model_at(model, path[:-1]))))
        else:
            found.append(Problem(path, item["input"], _plain_message(item["type"], item["msg"], item["input"])))
    return found


_PLAIN = {
    "string_pattern_mismatch": "expected letters, digits and - _ . +, with a letter or digit first",
    "too_short": "expected at least one entry",
    "byte_size": 'expected bytes, or a size such as "2 GiB"',
    "byte_size_unit": 'expected bytes, or a size such as "2 GiB"',
}


_UNQUOTED = re.compile(r"[-+]?[0-9][0-9_.eE+-]*|true|false")  # what would be a number or a truth value without quotes


def _plain_message(kind: str, message: str, value: Any) -> str:
    if kind in _PLAIN:
        return _PLAIN[kind]
    message = message.removeprefix("Value error, ").replace("Input should be", "expected")
    message = message.replace("a valid ", "a ").replace("a integer", "an integer").replace("a boolean", "true or false")
    if isinstance(value, str) and _UNQUOTED.fullmatch(value) and re.search(r"integer|number|true or false", message):
        message += f"; write {value} without quotes"
    return message


def _unknown_key(key: str, model: type[BaseModel]) -> str:
    """What is wrong with a key that `model` does not have; if a table inside has it, that too."""
    message = unknown(key, list(model.model_fields), "key")
    inner = [name for name, kind in _inner(model) if key in kind.model_fields]
    return f"{message}; {inner[0]} has it: write {inner[0]}.{key}" if inner else message


def _inner(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """The tables that a model holds by name."""
    for name, field in model.model_fields.items():
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        yield from ((name, kind) for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))


def _model_at(model: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel]:
    for key in path:
        if not isinstance(key, int):
            model = dict(_inner(model))[key]
    return model
