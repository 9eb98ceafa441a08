"""How far a study has got, arm by arm: what is done, the best settings so far, the time left, what failed or is stale.

    survey = Survey(StudyFolder("runs/digits"), Lab("0.1.0"))
    survey.state().arms[0].counts["done"]

A run is *stale* if another version of the lab made it, or the same version at another commit, where both commits
are known. A rule whose numbers changed makes other runs altogether (its `revision` is part of their names); what
is stale may well hold the same numbers, and is done again only on request.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from statistics import fmean
from types import MappingProxyType
from typing import Any

from insgd_lab.store import FINISHED, InUse, Missing, RunFolder, StoreError, StudyFolder
from insgd_lab.studies.failures import Failure, failures
from insgd_lab.studies.presence import in_use

__all__ = [
    "ArmState", "Best", "Lab", "StudyState", "Survey", "runs_of_other_data", "set_stale_aside", "stale_runs",
]  # fmt: skip

Info = Mapping[str, Any]
# Of a run.json, while a study is watched.
_KEPT = ("status", "error", "seconds", "packing", "results", "versions", "commit")
_WORDS = ("done", "running", "interrupted", "diverged", "failed", "not started", "damaged")


# ------------------------------------------------------------------------------------------------ versions


@dataclass(frozen=True, order=True)
class Lab:
    """A version of the lab; `commit` is empty where it is not known."""

    version: str
    commit: str = ""

    def __str__(self) -> str:
        return f"{self.version} at {self.commit[:10]}" if self.commit else self.version

    @classmethod
    def of(cls, info: Info) -> Lab | None:
        """The version that made a run, None if its `run.json` does not say."""
        version = (info.get("versions") or {}).get("insgd_lab")
        return None if version is None else cls(str(version), info.get("commit") or "")

    def differs(self, other: Lab) -> bool:
        """Whether two versions are known to differ."""
        return self.version != other.version or bool(self.commit and other.commit and self.commit != other.commit)


def stale_runs(infos: Mapping[str, Info], lab: Lab) -> dict[str, Lab]:
    """The runs that another version than `lab` made, finished or not, and which one; `infos` are their `run.json`."""
    made = {run: Lab.of(info) for run, info in infos.items()}
    return {run: by for run, by in made.items() if by is not None and by.differs(lab)}


def runs_of_other_data(infos: Mapping[str, Info], fingerprints: Mapping[str, str]) -> list[str]:
    """The finished runs that have learnt from other data than there are now.

    Args:
        infos: by run, its `run.json`.
        fingerprints: by run, that of its data now, for runs whose data may change.
    """
    made = {run: info.get("data_fingerprint") for run, info in infos.items() if info.get("status") in FINISHED}
    return [
        run for run, fingerprint in made.items() if fingerprint and fingerprints.get(run, fingerprint) != fingerprint
    ]


def set_stale_aside(
    folder: StudyFolder, runs: Iterable[str], lab: Lab, fingerprints: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """Rename all files of those of `runs` that are stale, to run.json.stale-1 and so on, so that they run again.

    A run that someone else holds is left alone. Stale are, too, `runs_of_other_data`.

    Returns:
        The names of the runs.

    Raises:
        DiskError: something cannot be renamed.
    """
    aside, infos = [], folder.infos(list(runs))
    for name in dict.fromkeys([*stale_runs(infos, lab), *runs_of_other_data(infos, fingerprints)]):
        with suppress(InUse), folder.run(name).locked():
            # Still: another process may have done it again meanwhile.
            if _is_stale(folder.run(name), lab, fingerprints):
                folder.run(name).set_aside("stale", scratch=True)
                aside.append(name)
    return aside


def _is_stale(run: RunFolder, lab: Lab, fingerprints: Mapping[str, str]) -> bool:
    infos = {run.id: run.info()} if run.exists else {}
    return bool(stale_runs(infos, lab) or runs_of_other_data(infos, fingerprints))


# ------------------------------------------------------------------------------------------------ arms


@dataclass(frozen=True)
class Best:
    """The best cell of an arm so far, by its mean over the seeds that have finished, on the validation split.

    Attributes:
        metric: "accuracy", or "loss" where the task has no accuracy.
        value: the mean after the last epoch, of trials that of their best epochs, which is what decides between them;
            a diverged run counts as the worst there is.
        settings: those of the arm's settings that vary.
        seeds: how many runs stand behind it.
    """

    metric: str
    value: float
    settings: Mapping[str, Any]
    seeds: int


@dataclass(frozen=True)
class ArmState:
    """How far an arm has got, or in a study that searches one stage of it.

    Attributes:
        name: the arm.
        stage: "trial" or "final"; empty where the study does not search.
        runs: how many runs it asks for, those of winners that are not known yet as well; one that two arms share
            counts in both.
        counts: of "done", "running", "interrupted" (begun, and nobody is at it), "diverged", "failed", "not started"
            and "damaged".
        stale: how many are stale.
        best: None before a run of it is done; of trials, also once the arm has one of its final runs.
        seconds_left: how long its unfinished runs will take all workers; None while that is not known.
    """

    name: str
    stage: str
    runs: int
    counts: Mapping[str, int]
    stale: int
    best: Best | None
    seconds_left: float | None


@dataclass(frozen=True)
class StudyState:
    """How far a study has got.

    Attributes:
        title: of the study.
        arms: in the order of the study file, trials before final runs.
        in_use: whether some process is running it now.
        ended: whether every run that it asks for is finished or has failed.
        failures: why runs have failed, the most common reason first.
        damaged: what is wrong with each damaged run.
        stale: the stale runs of each version that made some.
        lab: the present version.
        seconds_left: for all arms; None while that is not known.
    """

    title: str
    arms: tuple[ArmState, ...]
    in_use: bool
    ended: bool
    failures: Sequence[Failure]
    damaged: Mapping[str, str]
    stale: Mapping[Lab, int]
    lab: Lab
    seconds_left: float | None


class Survey:
    """Reads a study's state, again and again if need be: only a `run.json` that has changed is opened again."""

    def __init__(self, folder: StudyFolder, lab: Lab) -> None:
        self.folder, self.lab = folder, lab
        self._known: dict[str, tuple[tuple[int, ...], Info]] = {}

    def state(self) -> StudyState:
        """Look at the study as it is now.

        Raises:
            StoreError: there is no readable study.json, or none of this version's.
        """
        info = self.folder.info()
        try:
            plan = _Plan(info)
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{self.folder.info_path} is not a study as this version writes it ({type(error).__name__}: "
                f"{error}); run the study again into a new folder"
            ) from error
        return self._state(plan, dict(self._infos(plan.runs)))

    def _infos(self, runs: Iterable[str]) -> Iterator[tuple[str, Info]]:
        for name in runs:
            try:
                file = os.stat(f"{self.folder.path}/{name}/run.json")
                stamp = (file.st_ino, file.st_mtime_ns, file.st_size)
                if name not in self._known or self._known[name][0] != stamp:
                    info = self.folder.run(name).checked_info()
                    self._known[name] = (stamp, {key: info.get(key) for key in _KEPT})
            except (FileNotFoundError, NotADirectoryError, Missing):
                continue
            yield name, self._known[name][1]

    def _status(self, name: str, info: Info) -> str:
        """What run.json says; a run that nobody holds any more is not running, but was interrupted."""
        status = str(info.get("status"))
        return "interrupted" if status == "running" and not _is_held(self.folder.run(name)) else status

    def _state(self, plan: _Plan, infos: Mapping[str, Info]) -> StudyState:
        statuses = {name: self._status(name, info) for name, info in infos.items()}
        running = _in_use(self.folder)
        pace = _Pace(plan, infos, statuses) if running else None
        stale = stale_runs(infos, self.lab)
        bests = _bests(plan, infos)
        arms = tuple(
            ArmState(
                name=part.arm,
                stage=part.stage,
                runs=len(part.runs) + part.unplanned,
                counts=_counts(part, statuses),
                stale=len(stale.keys() & part.runs),
                best=best,
                seconds_left=pace.seconds_left([part]) if pace else None,
            )
            for part, best in zip(plan.parts, bests, strict=True)
        )
        ended = all(statuses.get(run) in FINISHED | {"failed"} for run in plan.runs)
        return StudyState(
            title=plan.title,
            arms=arms,
            in_use=running,
            ended=ended and not any(part.unplanned for part in plan.parts),
            failures=failures(self.folder, plan.rows, infos),
            damaged={name: str(info["error"]) for name, info in infos.items() if statuses[name] == "damaged"},
            stale=Counter(stale.values()),
            lab=self.lab,
            seconds_left=pace.seconds_left(plan.parts) if pace else None,
        )


def _in_use(folder: StudyFolder) -> bool:
    try:
        return in_use(folder)
    except OSError:  # a folder that nobody can lock, nobody runs
        return False


def _is_held(run: RunFolder) -> bool:
    try:
        return run.is_held
    except OSError:
        return False


def _counts(part: _Part, statuses: Mapping[str, str]) -> dict[str, int]:
    counts = Counter(statuses.get(run, "not started") for run in part.runs)
    counts["not started"] += part.unplanned
    return {word: counts[word] for word in _WORDS}


@dataclass(frozen=True)
class _Part:
    """What study.json plans of an arm, or of one stage of it; `unplanned` runs depend on results still to come."""

    arm: str
    stage: str
    rows: Sequence[Info]
    unplanned: int = 0

    @cached_property
    def runs(self) -> set[str]:
        return {row["run"] for row in self.rows}


class _Plan:
    """The rows of study.json, by arm and stage."""

    def __init__(self, info: Info) -> None:
        self.title = str(info["title"] or info["name"])
        self.rows: list[Info] = info["plan"]
        self.runs = list(dict.fromkeys(row["run"] for row in self.rows))
        arms: dict[str, list[Info]] = {arm["name"]: [] for arm in info["arms"]}
        for row in self.rows:
            arms[row["arm"]].append(row)
        self.parts = [part for arm, rows in arms.items() for part in _parts(info, arm, rows)]


def _parts(info: Info, arm: str, rows: list[Info]) -> Iterator[_Part]:
    search = info.get("search")
    if not search:
        yield _Part(arm, "", rows)
        return
    trials, final = ([row for row in rows if row["stage"] == stage] for stage in ("trial", "final"))
    cells = len({str(row["settings"]) for row in rows})
    # Only a method that learns from trials leaves some of them open.
    of_trials = cells * search["trials"] * len(search["seeds"]) if search["method"] == "optuna" else len(trials)
    yield _Part(arm, "trial", trials, of_trials - len(trials))
    yield _Part(arm, "final", final, cells * len(info["seeds"]) - len(final))


def _bests(plan: _Plan, infos: Mapping[str, Info]) -> Iterator[Best | None]:
    """The best of each part; of trials none where there is one of the final runs, which had no say in their choice."""
    found = {(part.arm, part.stage): _best(part, infos) for part in plan.parts}
    rows: dict[str, list[Info]] = {}
    for part in plan.parts:
        rows.setdefault(part.arm, []).extend(part.rows)
    for (arm, stage), best in found.items():
        if best is None or (stage == "trial" and found[arm, "final"]):
            yield None
        else:
            varied = _varied(rows[arm])
            yield replace(best, settings={name: value for name, value in best.settings.items() if name in varied})


def _best(part: _Part, infos: Mapping[str, Info]) -> Best | None:
    """The cell with the highest accuracy, or else the lowest loss, on the validation split, with all its settings."""
    cells: dict[str, list[Info]] = {}
    for row in part.rows:
        if infos.get(row["run"], {}).get("status") in FINISHED:
            cells.setdefault(str({**row["settings"], **row["tune"]}), []).append(row)
    results = [infos[row["run"]].get("results") or {} for cell in cells.values() for row in cell]
    which = "best" if part.stage == "trial" else "final"
    metric = next((m for m in ("accuracy", "loss") if any(f"{which}_val_{m}" in result for result in results)), None)
    if metric is None:
        return None
    better, worst = (max, -math.inf) if metric == "accuracy" else (min, math.inf)
    name = f"{which}_val_{metric}"
    means = {key: fmean(_score(infos[row["run"]], name, worst) for row in cell) for key, cell in cells.items()}
    key = better(means, key=lambda name: means[name])
    if means[key] == worst:
        return None
    row = cells[key][0]
    return Best(metric, means[key], {**row["settings"], **row["tune"]}, len(cells[key]))


def _score(info: Info, name: str, worst: float) -> float:
    value = (info.get("results") or {}).get(name)
    return worst if info["status"] == "diverged" or not isinstance(value, (int, float)) else float(value)


def _varied(rows: Iterable[Info]) -> set[str]:
    """The settings with more than one value."""
    seen: dict[str, set[str]] = {}
    for row in rows:
        for name, value in {**row["settings"], **row["tune"]}.items():
            seen.setdefault(name, set()).add(str(value))
    return {name for name, values in seen.items() if len(values) > 1}


class _Pace:
    """How long what is left will take, from the seconds that finished runs took and how many workers are at it."""

    def __init__(self, plan: _Plan, infos: Mapping[str, Info], statuses: Mapping[str, str]) -> None:
        self.running = {run for run, status in statuses.items() if status == "running"}
        # The seconds of a packed run are its share of the pack's: the pack is one at work, however many are in it.
        packs = sum(Fraction(1, infos[run].get("packing") or 1) for run in self.running)
        self.hands = math.ceil(packs)  # some of a pack may have ended before the others
        self.left = {run for run in plan.runs if statuses.get(run) not in FINISHED | {"failed"}}
        took = {run: float(info.get("seconds") or 0) for run, info in infos.items() if statuses[run] in FINISHED}
        self.mean = fmean(took.values()) if took else math.nan
        known: dict[str, dict[str, float]] = {}
        for part in plan.parts:
            known.setdefault(part.arm, {}).update({run: took[run] for run in part.runs if run in took})
        self.means = {arm: fmean(each.values()) if each else self.mean for arm, each in known.items()}

    def seconds_left(self, parts: Sequence[_Part]) -> float | None:
        """For the unfinished runs of these parts; a run under way counts as one half done."""
        if math.isnan(self.mean) or not self.hands:
            return None
        seconds = {run: self.means[part.arm] for part in parts for run in part.runs & self.left}
        started = sum(each / 2 if run in self.running else each for run, each in seconds.items())
        return (started + sum(part.unplanned * self.means[part.arm] for part in parts)) / self.hands
