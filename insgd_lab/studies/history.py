"""What a study remembers of its plan: primary tests that were changed when results were there.

    info["primary_changes"] = primary_changes(folder, remembered(folder), info)

A primary test says something only if it was fixed before anyone could look. Changing it later is no error, but the
report tells it, so `study.json` keeps what stood there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest
from typing import Any

from insgd_lab.config import PrimarySpec
from insgd_lab.store import FINISHED, StoreError, StudyFolder, read_json

__all__ = ["joined_changes", "primary_changes", "remembered", "told"]

Changes = list[dict[str, Any]]
_READ = ("spec", "labels", "primary_changes")  # of `study.json`, here


def remembered(folder: StudyFolder) -> dict[str, Any]:
    """Return `study.json`, or what can still be read of the damaged one that was set aside last; else nothing.

    Raises:
        StoreError: it is damaged, or may not be read.
    """
    if folder.exists:
        return folder.info()
    aside = sorted(folder.path.glob("study.json.damaged-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    text = aside[-1].read_bytes().decode(errors="replace") if aside else ""
    found = {}
    for key in _READ:
        place = re.search(rf'"{key}":\s*', text)
        with suppress(ValueError):  # it is not there, or broken off
            found[key] = json.JSONDecoder().raw_decode(text, place.end() if place else len(text))[0]
    return found


def primary_changes(folder: StudyFolder, before: Mapping[str, Any], info: Mapping[str, Any]) -> Changes:
    """Return the changes of the primary test that `study.json` is to tell, the first one first.

    Args:
        folder: of the study.
        before: its `study.json` as it stands (`remembered`); empty where there is none.
        info: what `study.json` will have.

    Returns:
        Of each change: before, the primary test as it had been (None for the usual one), and finished, how many runs
        had finished by then, also if they were set aside since. A test that was changed before any had is not told: it
        was fixed beforehand.
    """
    changes = list(before.get("primary_changes") or [])
    if not before.get("spec"):
        return changes
    stood, now = (_primary(spec, info.get("labels")) for spec in (before["spec"], info["spec"]))
    if stood == now:
        return changes
    finished = _finished(folder)
    return [*changes, {"before": stood, "finished": finished}] if finished else changes


def _primary(spec: Mapping[str, Any], labels: bool | None) -> dict[str, Any] | None:
    """The primary test of a study's spec with all its keys, also of a spec that an earlier version wrote.

    Earlier versions left its metric open, or wrote "test_error" by themselves where the data have no `labels`.
    """
    given = (spec.get("analysis") or {}).get("primary")
    if given is None:
        return None
    metric = given.get("metric") or "test_error"
    usual = "test_loss" if labels is False and metric.endswith("error") else metric
    return {**PrimarySpec().model_dump(), **given, "metric": usual}


def _finished(folder: StudyFolder) -> int:
    """How many runs have ever finished: those that were set aside could be looked at too."""
    found = {name for name, status in folder.statuses().items() if status in FINISHED}
    for pattern in ("*/run.json.stale-*", "*/run.json.damaged-*"):
        for path in folder.path.glob(pattern):
            with suppress(StoreError):
                if path.parent.name not in found and read_json(path).get("status") in FINISHED:
                    found.add(path.parent.name)
    return len(found)


def joined_changes(sources: Sequence[Mapping[str, Any]], target: Mapping[str, Any]) -> Changes:
    """Return the changes that several `study.json` tell, joined position by position.

    Equal ones at one position are one edit of the study file, made on several machines: all that had finished there
    could be looked at. What the target tells already it may have from these sources, so that is not added to them.
    """
    joined: Changes = []
    for kept, *others in zip_longest(*(info.get("primary_changes") or [] for info in (target, *sources))):
        given = [change for change in others if change is not None]
        tests = [change["before"] for change in ([kept] if kept else []) + given]
        for before in (test for k, test in enumerate(tests) if test not in tests[:k]):
            finished = sum(change["finished"] for change in given if change["before"] == before)
            known = kept["finished"] if kept and kept["before"] == before else 0
            joined.append({"before": before, "finished": max(finished, known)})
    return joined


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
