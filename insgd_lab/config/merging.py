"""Tables of TOML laid over others: a study over its base, an arm's task and training over the study's.

>>> merged({"epochs": 8, "schedule": "cosine"}, {"schedule": {"warmup": 2}})
{'epochs': 8, 'schedule': {'name': 'cosine', 'warmup': 2}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["as_table", "merged", "merged_study"]

_ONE_VALUE = {"range", "log_range", "box", "ball"}  # tables with one of these say one thing together
_NAMED = ("data", "model", "optimizer", "schedule")


def as_table(key: str, value: Any) -> Any:
    """Return the table that a text stands for: "mlp" is { name = "mlp" }, a path { path = "runs/…" }."""
    if isinstance(value, str):
        return {"path" if key == "init_from" else "name": value}
    if key in _NAMED and isinstance(value, Mapping) and isinstance(value.get("options"), Mapping):
        return {**{k: v for k, v in value.items() if k != "options"}, **value["options"]}
    return value


def merged(beneath: Any, over: Any, key: str = "") -> Any:
    """Return `over` laid over `beneath`: tables merge key by key, anything else replaces.

    A table with another name than the one beneath replaces it as well: the options of one optimizer, model or schedule
    are none of another's.
    """
    if not isinstance(over, Mapping):
        return over
    over, beneath = as_table(key, over), as_table(key, beneath)
    if not isinstance(beneath, Mapping) or _ONE_VALUE & over.keys():
        return dict(over)
    if "name" in over and over["name"] != beneath.get("name"):
        return dict(over)
    return {**beneath, **{name: merged(beneath.get(name), value, name) for name, value in over.items()}}


def merged_study(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables of a study over those of its base. The study keeps its own name, arms merge by theirs."""
    result = {key: value for key, value in base.items() if key != "name"}
    for key, value in over.items():
        result[key] = _merged_arms(base.get(key), value) if key == "arm" else merged(base.get(key), value, key)
    return result


def _merged_arms(base: Any, over: Any) -> Any:
    """Arms of the same name merged, in the order of the base, then the new ones."""
    if not (_are_named(base) and _are_named(over)):
        return over
    own = {arm["name"]: arm for arm in over}
    known = [arm["name"] for arm in base]
    if len(own) < len(over):  # two of one name: for the study to refuse
        return over
    return [merged(arm, own.get(arm["name"], {})) for arm in base] + [arm for arm in over if arm["name"] not in known]


def _are_named(arms: Any) -> bool:
    return isinstance(arms, list) and all(isinstance(a, Mapping) and isinstance(a.get("name"), str) for a in arms)
