"""What a study remembers of its plan: primary tests that were changed when results were there.

    info["primary_changes"] = primary_changes(folder, before, info["spec"])

A primary test says something only if it was fixed before anyone could look. Changing it later is no error, but the
report tells it, so `study.json` keeps what stood there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from insgd_lab.config import PrimarySpec
from insgd_lab.store import FINISHED, StudyFolder

__all__ = ["joined_changes", "primary_changes", "told"]

Changes = list[dict[str, Any]]


def primary_changes(folder: StudyFolder, before: Mapping[str, Any], spec: Mapping[str, Any]) -> Changes:
    """Return the changes of the primary test that `study.json` is to tell, the first one first.

    Args:
        folder: of the study.
        before: its `study.json` as it stands; empty where there is none.
        spec: of the study, as `study.json` will have it.

    Returns:
        Of each change: before, the primary test as it had been (None for the usual one), and finished, how many runs
        had finished by then. A test that was changed before any had is not told: it was fixed beforehand.
    """
    changes = list(before.get("primary_changes") or [])
    stood = _primary(before.get("spec") or {})
    if not before or stood == _primary(spec):
        return changes
    finished = sum(status in FINISHED for status in folder.statuses().values())
    return [*changes, {"before": stood, "finished": finished}] if finished else changes


def _primary(spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """The primary test of a study's spec with all its keys, also of a spec that an earlier version wrote.

    One without a metric is of the time when there were errors alone; since then the spec says which it is.
    """
    given = (spec.get("analysis") or {}).get("primary")
    return None if given is None else {**PrimarySpec(metric="test_error").model_dump(), **given}


def joined_changes(infos: Iterable[Mapping[str, Any]]) -> Changes:
    """The changes that any of several `study.json` tells, each once."""
    found: Changes = []
    for info in infos:
        found += [change for change in info.get("primary_changes") or [] if change not in found]
    return found


def told(info: Mapping[str, Any]) -> str | None:
    """One line for the terminal about what `study.json` remembers; None where the primary test was fixed beforehand."""
    changes = info.get("primary_changes")
    if not changes:
        return None
    finished = changes[-1]["finished"]
    runs = "1 run had" if finished == 1 else f"{finished} runs had"
    return (
        f"{info['name']}: the primary test was changed when {runs} finished; the report says so, and judges the "
        "new one like the exploratory ones"
    )
