"""Join the results of several machines: the runs of one study, from several folders, into a new one.

    merge([StudyFolder("a"), StudyFolder("b")], StudyFolder("whole"))

Only folders of the same study are joined: the same settings and the same runs. The sources are read and never
changed, and nothing in the target is written over, so a merge that was interrupted is simply given again. Of a
run that several folders hold, a finished one goes before an unfinished one, and an earlier source before a later.

Two finished ones must agree to the byte if they come from the same version of the lab and of its libraries on the
same kind of processor, for then the lab promises just that; if they do not, nothing is merged. From different
machines they may differ by rounding, and the earlier source's is taken.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from insgd_lab.store import FINISHED, RunFolder, StoreError, StudyFolder, replacing
from insgd_lab.studies.history import joined_changes
from insgd_lab.studies.planning import essence_of
from insgd_lab.studies.presence import in_use

__all__ = ["MergeError", "Merged", "merge"]

Info = Mapping[str, Any]
_SHOWN = 5
# What of study.json may differ between machines: where and when it was written and changed, and how it is described.
_INCIDENTAL = frozenset({"versions", "created", "asked", "title", "description", "primary_changes"})
# Equal ones promise equal bytes.
_PROMISE = ("versions", "commit", "dirty", "device", "device_name", "processes", "threads")


class MergeError(StoreError):
    """The folders do not hold the same study, or their results contradict each other."""


@dataclass
class Merged:
    """What a merge did.

    Attributes:
        copied: finished runs that are new in the target.
        there: finished runs that it had already.
        unfinished: unfinished runs copied, which go on from their checkpoints.
        missing: planned runs that nobody has finished.
        notes: what must be told beside the counts.
    """

    copied: int = 0
    there: int = 0
    unfinished: int = 0
    missing: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Copy:
    """One folder's copy of a run."""

    study: StudyFolder
    run: RunFolder
    info: Info

    @property
    def finished(self) -> bool:
        return self.info.get("status") in FINISHED


def merge(sources: Sequence[StudyFolder], target: StudyFolder) -> Merged:
    """Copy the runs of the sources into the target, which may hold some of them already.

    Raises:
        MergeError: a source is being run, is no study or another one, or two results contradict each other.
        StoreError: a file cannot be read or written.
    """
    folders = [target, *sources] if target.exists else list(sources)
    _check_folders(sources, target)
    first = sources[0].info()
    for other in folders:
        _check_same(sources[0], first, other, other.info())
    names = list(dict.fromkeys(row["run"] for row in first["plan"]))
    merged = Merged()
    copies = _copies(folders, names, merged)
    merged.notes += _disagreements(copies)
    _write_plan([source.info() for source in sources], target)
    for name in names:
        _merge_run(copies.get(name, []), target.run(name), merged)
    merged.missing = len(names) - merged.copied - merged.there
    return merged


def _write_plan(sources: Sequence[Info], target: StudyFolder) -> None:
    """Write `study.json` of a new target; of one that is there only what it did not know of earlier primary tests."""
    if not target.exists:
        changes = joined_changes(sources, {})
        target.write_info({**sources[0], **({"primary_changes": changes} if changes else {})})
    elif _is_news(sources, target.info()):
        with target.writing():  # a process that runs the study there may write it too
            there = target.info()
            target.write_info({**there, "primary_changes": joined_changes(sources, there)})


def _is_news(sources: Sequence[Info], there: Info) -> bool:
    return joined_changes(sources, there) != (there.get("primary_changes") or [])


# ------------------------------------------------------------------------------------------------ checks


def _check_folders(sources: Sequence[StudyFolder], target: StudyFolder) -> None:
    places = [source.path.resolve() for source in sources]
    if target.path.resolve() in places:
        raise MergeError(f"{target.path} is a source and the target of the merge; give a new folder with --out")
    if len(set(places)) < len(places):
        raise MergeError("a folder is given twice; give each source once")
    for source in sources:
        if source.exists and _runs_now(source):
            raise MergeError(f"{source.path} is being run by a process; wait for it, or stop it with Ctrl-C there")


def _runs_now(source: StudyFolder) -> bool:
    try:
        return in_use(source)
    except OSError:  # a copy on a disk that cannot be written to
        return False


def _check_same(one: StudyFolder, info: Info, other: StudyFolder, its_info: Info) -> None:
    """Refuse folders of different studies, saying what differs."""
    parts = [{key: value for key, value in each.items() if key not in _INCIDENTAL} for each in (info, its_info)]
    if not all("labels" in part for part in parts):  # earlier versions did not write it; it follows from the spec
        parts = [{key: value for key, value in part.items() if key != "labels"} for part in parts]
    specs = [dict(part.pop("spec", {})) for part in parts]
    for each in (*parts, *specs):  # how many runs share a device is no part of what they are
        each["train"] = {key: value for key, value in (each.get("train") or {}).items() if key != "packing"}
    differences = list(_differences("", *map(essence_of, specs))) or list(_differences("", *parts))
    if not differences:
        return
    shown = "; ".join(differences[:_SHOWN])
    more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
    raise MergeError(
        f"{one.path} and {other.path} hold different studies: {shown}{more} (the first is {one.path}'s); "
        "only folders of the same study file, planned by labs of the same version, can be merged"
    )


def _differences(path: str, one: Any, other: Any) -> Iterator[str]:
    """Where two plain values differ, such as "train.epochs is 4 and 8"."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            yield from _differences(f"{path}.{key}".lstrip("."), one.get(key), other.get(key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from _differences(f"{path}[{number}]", *pair)
    elif one != other:
        yield f"{path} is {_short(one)} and {_short(other)}"


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# ------------------------------------------------------------------------------------------------ runs


def _copies(folders: Sequence[StudyFolder], names: Sequence[str], merged: Merged) -> dict[str, list[_Copy]]:
    """Every sound copy of every run, in the order of the folders; damaged ones are noted and left out."""
    copies: dict[str, list[_Copy]] = {}
    for folder in folders:
        infos = folder.infos(names)
        for name, info in infos.items():
            run = folder.run(name)
            damage = run.damage()
            if damage:
                merged.notes.append(f"left out: {damage[0].path}, which cannot be read ({damage[0].why})")
            else:
                copies.setdefault(name, []).append(_Copy(folder, run, info))
        ignored = sum(run.id not in infos for run in folder.runs())
        if ignored:
            merged.notes.append(f"left out: {ignored} runs in {folder.path} that are not in the plan")
    return copies


def _disagreements(copies: Mapping[str, Sequence[_Copy]]) -> list[str]:
    """Check finished copies against each other; returns a note on those that differ by rounding."""
    broken, rounded = [], 0
    for several in copies.values():
        finished = [copy for copy in several if copy.finished]
        for first, other in itertools.product(finished[:1], finished[1:]):
            if _same_metrics(first, other):
                continue
            if all(first.info.get(key) == other.info.get(key) for key in _PROMISE):
                broken.append(f"{first.run.metrics_path} and {other.run.metrics_path}")
            else:
                rounded += 1
    if broken:
        raise MergeError(
            f"{len(broken)} runs have different metrics though the same versions made them on the same kind of "
            f"machine, so one of each pair is wrong: {'; '.join(broken[:_SHOWN])}; remove the folder of the wrong run "
            "and merge again"
        )
    return [f"{rounded} runs differ between machines or versions; the first folder's are taken"] if rounded else []


def _same_metrics(one: _Copy, other: _Copy) -> bool:
    return one.run.metrics_path.read_bytes() == other.run.metrics_path.read_bytes()


def _merge_run(copies: Sequence[_Copy], target: RunFolder, merged: Merged) -> None:
    """Copy the best of a run's copies into the target, unless it holds one that is as good."""
    if not copies:
        return
    best = next((copy for copy in copies if copy.finished), max(copies, key=_progress))
    if best.run.path == target.path:
        merged.there += best.finished
        return
    with target.locked():
        if target.exists:  # unfinished, or it would be the best
            target.set_aside("merged", scratch=True)
        _copy(best, target)
    merged.copied += best.finished
    merged.unfinished += not best.finished


def _progress(copy: _Copy) -> tuple[bool, int]:
    """How far an unfinished run has got; of equal ones `max` takes the first."""
    return copy.run.checkpoint_path.is_file(), int(copy.info.get("epochs_done") or 0)


def _copy(source: _Copy, target: RunFolder) -> None:
    """Copy a run's files; `run.json` is the last, because only that makes it count."""
    run = source.run
    scratch = [] if source.finished else [*run.parts(), run.checkpoint_path]
    for path in (run.metrics_path, run.layers_path, run.weights_path, *scratch, run.info_path):
        if path.is_file():
            with replacing(target.path / path.relative_to(run.path)) as temporary:
                shutil.copyfile(path, temporary)
