"""`--set KEY=VALUE`: values put into the tables of a run or study file before it is checked."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from insgd_lab.cli.common import refuse

__all__ = ["StudySettings", "put", "put_settings", "run_path", "study_path"]

StudySettings = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Over the file: epochs=2, seeds=2, task.model.width=32, arm.NAME.optimizer.lr=0.1; repeatable.",
    ),
]
_TABLES = ("task", "train", "record")


def put_settings(tables: dict[str, Any], settings: Sequence[str], path_of: Callable[[str], str]) -> None:
    """Put each "KEY=VALUE" into the tables; `path_of` says which dotted path a key stands for."""
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            refuse(f"--set {setting}: expected KEY=VALUE, such as lr=0.1")
        put(tables, path_of(key), _value(text))


def run_path(key: str) -> str:
    """The place of a key in the file of a run: a bare one is the seed, a key of training or an optimizer's option."""
    from insgd_lab.config import TrainSpec

    if key == "seed" or key.startswith(tuple(f"{table}." for table in (*_TABLES, "optimizer"))):
        return key
    return f"train.{key}" if key in TrainSpec.model_fields else f"optimizer.{key}"


def study_path(key: str) -> str:
    """The place of a key in the file of a study: one at the top or in a table there; a bare one of training there."""
    from insgd_lab.config import StudySpec, TrainSpec

    first = key.split(".")[0]
    if key in TrainSpec.model_fields:
        return f"train.{key}"
    if first not in StudySpec.model_fields or (first == "arm" and key.count(".") < 2):
        tables = ", ".join(f"{table}.KEY" for table in (*_TABLES, "resources", "search"))
        arms = "arm.NAME.KEY such as arm.NAME.optimizer.lr"
        refuse(f"--set {key}: expected seeds, a key of training such as epochs, {tables}, or {arms}")
    return key


def put(tables: dict[str, Any], path: str, value: Any, *, keep: bool = False) -> None:
    """Set the value at a dotted path; a text on the way becomes a table. `keep` spares what is there."""
    keys = path.split(".")
    if keys[0] == "arm":
        tables, keys = _arm(tables, keys[1]), keys[2:]
    keys = _joined(keys)
    for key in keys[:-1]:
        inner = tables.setdefault(key, {})
        if isinstance(inner, str):
            inner = tables[key] = {"path" if key == "init_from" else "name": inner}
        if not isinstance(inner, dict):
            refuse(f"{path}: {key} is not a table, but {inner!r}")
        tables = inner
    if not (keep and keys[-1] in tables):
        tables[keys[-1]] = value


def _arm(tables: dict[str, Any], name: str) -> dict[str, Any]:
    """The table of an arm."""
    arms = [arm for arm in tables.get("arm", []) if isinstance(arm, dict)]
    found = next((arm for arm in arms if arm.get("name") == name), None)
    if found is None:
        known = ", ".join(str(arm.get("name")) for arm in arms)
        refuse(f"--set arm.{name}: there is no such arm; there are: {known}")
    return found


def _joined(keys: list[str]) -> list[str]:
    """The keys with those of a path that is itself a key put together again: axes, task.model.width."""
    return [keys[0], ".".join(keys[1:])] if keys[0] in ("axes", "tune", "search") and len(keys) > 2 else keys


def _value(text: str) -> Any:
    """Read a value as TOML does; what is none of its types is a text, without need of quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
