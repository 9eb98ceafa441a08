"""What was run, on what and at which cost: the facts under a report's Setup.

for name, value in setup(study).facts:
    print(f"{name}: {value}")
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from typing import Any

import pandas as pd

from insgd_lab.analysis.labels import describe, name_label, number, option_name, value_label
from insgd_lab.analysis.measures import chosen_by, rounded
from insgd_lab.analysis.runs import Arm, Study, key_of
from insgd_lab.analysis.series import main_arms
from insgd_lab.analysis.tables import Column, Table

__all__ = ["Setup", "commands", "settings_by_arm", "setup", "training_text", "trials_by_arm"]


@dataclass(frozen=True)
class Setup:
    """Named facts, the table of arms, and the commands that make it all again."""

    facts: tuple[tuple[str, str], ...]
    arms: Table
    commands: tuple[str, ...]


def setup(study: Study) -> Setup:
    """Collect the facts from `study.json` and every `run.json`."""
    task, train = study.info.get("task", {}), study.info.get("train", {})
    seeds = study.info.get("seeds") or []
    facts = [
        ("Task", f"{_named(task.get('data'))}, model {_named(task.get('model'))}{_parameters(study)}"),
        ("Examples", _examples(study)),
        ("Training", training_text(train)),
        (
            "Seeds",
            f"{len(seeds)} ({', '.join(map(str, seeds))}), the same for every arm: differences are paired",
        ),
        ("Choice of settings", _choice(study)),
        ("Intervals", "over seeds; they do not cover the choice of the examples to test on"),
        ("Layer records", _record(study.info.get("record") or {})),
        ("Runs", _runs(study)),
        ("Time", _time(study.runs)),
        ("Machine", _machines(study.runs)),
        ("Code", _code(study.runs)),
        ("Versions", _versions(study)),
    ]
    return Setup(tuple((name, value) for name, value in facts if value), _arms_table(study), commands(study))


def commands(study: Study) -> tuple[str, ...]:
    """What to type, in a checkout of the lab, to run the study again and to report it."""
    asked = study.info.get("asked") or {}
    name = str(study.info.get("name") or study.path.name)
    packaged = resources.files("insgd_lab.experiments").joinpath(f"{name}.toml").is_file()
    file = asked.get("study") or (name if packaged else f"{name}.toml")
    settings = "".join(f" --set {shlex.quote(setting)}" for setting in asked.get("settings") or [])
    known = sorted({commit for commit in study.runs["commit"] if isinstance(commit, str)})
    return (
        *((f"git checkout {known[0]}",) if len(known) == 1 else ()),
        f"insgd-lab study run {shlex.quote(file)}{settings} --out again",
        "insgd-lab report again",
    )


def training_text(train: Mapping[str, Any]) -> str:
    """The settings of training in one line."""
    return describe({name: value for name, value in train.items() if value not in (None, [], ())})


def _named(spec: Any) -> str:
    if not isinstance(spec, Mapping):
        return option_name(spec)
    options = {**spec, **(spec.get("options") or {})}
    rest = {name: value for name, value in options.items() if name not in ("name", "options", "revision")}
    return f"{option_name(spec)} ({describe(rest)})" if rest else option_name(spec)


def _parameters(study: Study) -> str:
    counts = sorted({int(count) for count in study.runs["parameters"].dropna()})
    return f" with {' or '.join(f'{count:,}' for count in counts)} parameters" if counts else ""


def _examples(study: Study) -> str:
    """The sizes of the splits, and what one test example counts; nothing of runs that have them not on record."""
    found = {tuple(sizes.items()): sizes for sizes in study.runs["examples"] if isinstance(sizes, Mapping) and sizes}
    names = {"train": "to train on", "val": "to validate", "test": "to test"}
    return "; or ".join(
        ", ".join(f"{count:,} {names[split]}" for split, count in sizes.items() if split in names)
        + _one_example(study, sizes.get("test", 0))
        for sizes in found.values()
    )


def _one_example(study: Study, tests: int) -> str:
    if study.loss_alone or not tests:
        return ""
    return f"; one to test is {number(rounded(100 / tests, 2))} percentage points of error"


def _choice(study: Study) -> str:
    if search := study.info.get("search"):
        return _searched(study, search)
    if not study.tuned:
        return "nothing was tuned: every cell ran as given"
    names = ", ".join(dict.fromkeys(name_label(name) for arm in study.arms.values() for name in arm.tuned))
    ties = "the smaller value" if study.loss_alone else "lower validation loss, then the smaller value"
    return (
        f"the {names} of each cell is the one with the lowest mean {chosen_by(study).noun} over seeds after the "
        f"last epoch (ties: {ties}), among those at which the most seeds finished; the test split had no say in it"
    )


def _searched(study: Study, search: Mapping[str, Any]) -> str:
    seeds = ", ".join(map(str, search["seeds"]))
    return (
        f"each cell was tuned by {_trials(study, search)} ({search['method']}), run with the seeds {seeds}; the one "
        "with the best validation score (a mean of each run's best epoch) was run again with the seeds above, which "
        "had no say in it, as the test split had none; only these runs are reported"
    )


def _trials(study: Study, search: Mapping[str, Any]) -> str:
    counts = trials_by_arm(study)
    if len(set(counts.values())) < 2:
        return f"{next(iter(counts.values()), search['trials'])} trials"
    return f"a number of trials that differs by arm: {', '.join(f'{label} {n}' for label, n in counts.items())}"


def trials_by_arm(study: Study) -> dict[str, int]:
    """How many settings a search tried for a cell of each arm, by its label; a space that is smaller has fewer."""
    tried: dict[str, dict[str, set[str]]] = {}
    for row in study.info.get("plan") or []:
        if row.get("stage") == "trial":
            cell = tried.setdefault(study.arms[row["arm"]].label, {}).setdefault(key_of(row["settings"]), set())
            cell.add(key_of(row["tune"]))
    return {label: max(map(len, cells.values())) for label, cells in tried.items()}


def settings_by_arm(study: Study) -> dict[str, int]:
    """Among how many settings each arm's cells chose: the trials of a search, else its grid of tuned options."""
    if study.info.get("search"):
        return trials_by_arm(study)
    return {arm.label: len(study.tunes_of(arm.name)) for arm in main_arms(study)} if study.tuned else {}


def _record(record: Mapping[str, Any]) -> str:
    every = record.get("every", 0)
    return f"every {every} optimizer steps, from the first" if every else "none"


def _runs(study: Study) -> str:
    counts = study.counts()
    words = {"missing": "not started"}
    return f"{len(study.runs)} planned: " + ", ".join(f"{n} {words.get(s, s)}" for s, n in sorted(counts.items()))


def _time(runs: pd.DataFrame) -> str:
    seconds = pd.to_numeric(runs["seconds"], errors="coerce").dropna()
    if seconds.empty:
        return ""
    text = f"{seconds.sum():,.0f} s of training in all runs together, {seconds.mean():.2g} s a run"
    starts, ends = (_stamps(runs[name]) for name in ("started", "finished"))
    if starts and ends:
        span = (max(ends) - min(starts)).total_seconds()
        text += f"; {span:,.0f} s from the first start to the last end, pauses included"
    return text


def _stamps(column: pd.Series) -> list[datetime]:
    found = []
    for value in column.dropna():
        try:
            found.append(datetime.fromisoformat(str(value)))
        except ValueError:
            continue
    return found


def _machines(runs: pd.DataFrame) -> str:
    names = {"device_name": "", "device": "device ", "threads": "threads "}
    rows = runs[list(names)].dropna(how="all")
    texts = (
        ", ".join(names[str(name)] + value_label(value) for name, value in row.items() if not pd.isna(value))
        for _, row in rows.iterrows()
    )
    return _counted(texts)


def _code(runs: pd.DataFrame) -> str:
    ran = runs[runs["started"].notna()]
    return _counted(_commit(*pair) for pair in zip(ran["commit"], ran["dirty"], strict=True))


def _commit(commit: object, dirty: object) -> str:
    if not isinstance(commit, str):
        return "not a checkout, so the commit is unknown"
    return f"commit {commit}{' with uncommitted changes' if dirty is True else ''}"


def _counted(texts: Iterable[str]) -> str:
    """Each different text; if there are several, with the number of runs that it holds for."""
    counts = Counter(texts)
    if len(counts) < 2:
        return "".join(counts)
    return "; ".join(f"{text} ({count} {'run' if count == 1 else 'runs'})" for text, count in counts.items())


def _versions(study: Study) -> str:
    sets = [versions for versions in study.runs["versions"] if isinstance(versions, Mapping) and versions]
    seen: dict[str, dict[str, None]] = {}
    for versions in sets or [study.info.get("versions") or {}]:
        for name, version in versions.items():
            seen.setdefault(name, {})[str(version)] = None
    return ", ".join(f"{name} {' and '.join(found)}" for name, found in seen.items())


# ------------------------------------------------------------------------------------------------ arms


def _arms_table(study: Study) -> Table:
    frame = pd.DataFrame([_arm_row(study, arm) for arm in study.arms.values()])
    columns = (
        Column("arm", ("label",)),
        Column("optimizer", ("optimizer",)),
        Column("options", ("options",)),
        Column("grid", ("grid",)),
        Column("axes (base)", ("axes",)),
        Column("tuned over", ("tune",)),
        Column("fixed", ("fixed",)),
        Column("cells", ("cells",), str, True),
    )
    return Table("arms", "The arms of the study.", frame, columns)


def _arm_row(study: Study, arm: Arm) -> dict[str, Any]:
    axes = [f"{name_label(a)}: {_values(values)}{_base(arm, a)}" for a, values in arm.axes.items()]
    tried = arm.search or arm.tune
    return {
        "label": arm.label,
        "optimizer": arm.optimizer,
        "options": describe({name: value for name, value in arm.options.items() if name not in arm.tune}) or "defaults",
        "grid": arm.grid if arm.axes else "–",
        "axes": "; ".join(axes) + _first(study, arm) or "–",
        "tune": "; ".join(f"{name_label(name)}: {_tried(values)}" for name, values in tried.items()) or "–",
        "fixed": describe(arm.fixed) or "–",
        "cells": len(study.cells_of(arm.name)),
    }


def _tried(values: Any) -> str:
    """The levels of a tuned option, or the ends of the range that a search drew from."""
    if not isinstance(values, Mapping):
        return _values(values)
    [(kind, (low, high))] = values.items()
    return f"{value_label(low)} to {value_label(high)}{' by its logarithm' if kind == 'log_range' else ''}"


def _values(values: list[Any]) -> str:
    return ", ".join(map(value_label, values))


def _first(study: Study, arm: Arm) -> str:
    """Which cell stands for an arm beside others where its base was not planned; nothing where it was."""
    shown = study.shown_cell(arm.name)
    if shown is None or study.base_cell(arm.name) is not None:
        return ""
    return f" [no base cell; beside others stands the first, {study.cell_label(shown)}]"


def _base(arm: Arm, axis: str) -> str:
    return f" ({value_label(arm.base[axis])})" if axis in arm.base else ""
