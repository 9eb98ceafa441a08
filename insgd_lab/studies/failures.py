"""Why runs have failed, those of one reason together.

Each `Failure` is a line for the user: "290 runs of adam, sgd: ValueError: …; one of them: runs/mine/0123…/run.json".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from insgd_lab.store import StudyFolder, reason_of

__all__ = ["Failure", "failures"]


@dataclass(frozen=True)
class Failure:
    """A reason for which runs have failed.

    Attributes:
        reason: one line.
        arms: those of the runs, sorted.
        runs: how many there are.
        path: the run.json of the first, which has the whole traceback.
    """

    reason: str
    arms: tuple[str, ...]
    runs: int
    path: Path

    def __str__(self) -> str:
        arms = ", ".join(self.arms)
        if self.runs == 1:
            return f"a run of {arms}: {self.reason}; see {self.path}"
        return f"{self.runs} runs of {arms}: {self.reason}; one of them: {self.path}"


def failures(
    folder: StudyFolder, rows: Iterable[Mapping[str, Any]], infos: Mapping[str, Mapping[str, Any]]
) -> list[Failure]:
    """Group the failed runs of a plan's rows by reason, the most common first; `infos` are their run.json."""
    groups: dict[str, dict[str, set[str]]] = {}  # by reason the runs, and of each its arms
    for row in rows:
        info = infos.get(row["run"], {})
        if info.get("status") == "failed":
            groups.setdefault(reason_of(str(info.get("error"))), {}).setdefault(row["run"], set()).add(row["arm"])
    found = [
        Failure(reason, tuple(sorted(set().union(*runs.values()))), len(runs), folder.run(next(iter(runs))).info_path)
        for reason, runs in groups.items()
    ]
    return sorted(found, key=lambda failure: -failure.runs)
