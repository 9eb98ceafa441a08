"""A study read back from disk: its plan, every run's score, and what could not be read.

    study = load_study(Path("runs/digits"))
    study.scores.groupby(["arm", "cell", "tune"])["test_error"].mean()

The words: an *arm* is an optimizer with axes to vary; a *cell* is one combination of its axes' values; a
*tune* is one combination of values of the tuned options (mostly the learning rate) that every cell is crossed
with. Cells and tunes are known by their canonical JSON, so that they can be keys. Of a study with a search the
winners' runs are read; the trials, which have only served to choose settings, are if asked for.

A diverged run is a result: it scores the error of guessing, and an infinite loss, whatever it had reached. Of a task
that has losses alone it has no error.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from insgd_lab.analysis.labels import describe
from insgd_lab.store import FINISHED, StoreError, StudyFolder, canonical_json, read_arrow

__all__ = ["Arm", "Cell", "Problem", "Study", "StudyError", "key_of", "load_study", "sampled"]

SCORES = ("val_error", "val_loss", "test_error", "test_loss", "best_test_error")
_LAYERS = pa.schema(
    [("step", pa.int64()), ("parameter", pa.string()), ("quantity", pa.string()), ("value", pa.float64())]
)


class StudyError(StoreError):
    """The folder holds no study that can be reported."""


@dataclass(frozen=True)
class Problem:
    """A file that could not be read; what it holds is left out of every mean."""

    path: str
    message: str


@dataclass(frozen=True)
class Arm:
    """One arm of the study, as `study.json` has it."""

    name: str
    label: str
    optimizer: str
    options: Mapping[str, Any]
    grid: str
    axes: Mapping[str, list[Any]]
    base: Mapping[str, Any]
    tune: Mapping[str, list[Any]]
    fixed: Mapping[str, Any]
    classes: int | None = None
    """How many classes its data have, where the arm has data of its own."""
    search: Mapping[str, Any] = field(default_factory=dict)
    """What a search tried, by option: values, or a table of a range."""

    def levels(self, axis: str) -> list[Any]:
        """The values of `axis` that ran, in the order of the study file."""
        return self.axes[axis]

    @property
    def tuned(self) -> tuple[str, ...]:
        """The options that have a choice of values to be judged at."""
        return tuple(name for name, values in self.tune.items() if len(values) > 1)


@dataclass(frozen=True)
class Cell:
    """One combination of an arm's axes; `varied` is the axis moved off the base, if just one was."""

    arm: str
    settings: Mapping[str, Any]
    varied: str | None

    @property
    def key(self) -> str:
        """The cell's name in frames."""
        return key_of(self.settings)


def sampled(seeds: Iterable[int], parts: Sequence[pd.DataFrame]) -> list[int]:
    """The seeds that are a sample of what is tested: all of them, or the first alone where none of them matters.

    Without anything random, as on a noiseless quadratic, runs of several seeds are one run, bit for bit, and a test
    over them would find whatever difference there is beyond doubt. Runs that diverged tell nothing of that beside
    others that did not, and have no digest where they diverged before anything was measured.

    Args:
        seeds: that all parts have.
        parts: runs of each cell that takes part, of one side of a comparison or of both, as `Study.finished` has them.
    """
    alike = sorted(seeds)
    rows = [part.set_index("seed")[["status", "digest"]].loc[alike] for part in parts]
    done = pd.Series([all(part.at[seed, "status"] == "done" for part in rows) for seed in alike], alike, dtype=bool)
    known = list(done.index[done]) if done.any() else alike
    digests = pd.concat([part.loc[known, "digest"] for part in rows], axis=1).fillna("") if rows else pd.DataFrame()
    return known[:1] if len(known) > 1 and len(digests.drop_duplicates()) == 1 else alike


def key_of(settings: Mapping[str, Any]) -> str:
    """Canonical JSON of settings; 1 and 1.0 are one value."""
    return canonical_json({name: _plain(value) for name, value in settings.items()})


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@dataclass(frozen=True)
class Study:
    """Everything that the report needs, without torch: frames of plan, runs, curves and scores."""

    path: Path
    info: Mapping[str, Any]
    arms: Mapping[str, Arm]
    cells: Mapping[tuple[str, str], Cell]
    plan: pd.DataFrame
    """One row a planned run and arm: arm, cell, tune (keys), seed, run."""
    runs: pd.DataFrame
    """One row a planned run, by id: status, error, where it diverged, seconds, versions, scores, digest, guess.

    The last is the error of guessing among the classes of its data, NaN where they have none.
    """
    curves: pd.DataFrame
    """One row a run and epoch: val_error, test_error, val_loss, …, and the step that the epoch ended at."""
    problems: list[Problem]
    tunes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """The plan's rows whose run is done or diverged, with status, digest, guess and scores (errors: fractions)."""
        columns = ["status", "digest", "guess", *SCORES]
        joined = self.plan.join(self.runs[columns], on="run")
        return joined[joined["status"].isin(FINISHED)].reset_index(drop=True)

    @cached_property
    def _groups(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        groups = self.scores.groupby(["arm", "cell", "tune"], sort=False)
        return {(str(arm), str(cell), str(tune)): rows for (arm, cell, tune), rows in groups}

    def finished(self, arm: str, cell: str, tune: str) -> pd.DataFrame:
        """The scored runs of one cell at one tune, a row a seed; empty if there are none."""
        return self._groups.get((arm, cell, tune), self.scores.iloc[:0])

    def by_seed(self, arm: str, cell: str, tune: str, score: str = "test_error") -> dict[int, float]:
        """One score of each seed."""
        rows = self.finished(arm, cell, tune)
        return dict(zip(rows["seed"].tolist(), rows[score].tolist(), strict=True))

    def cells_of(self, arm: str) -> list[Cell]:
        """The arm's cells in the order of the plan."""
        return [cell for (name, _), cell in self.cells.items() if name == arm]

    def find_cell(self, arm: str, settings: Mapping[str, Any]) -> Cell | None:
        """The cell with exactly these settings, if it was planned."""
        return self.cells.get((arm, key_of(settings)))

    def base_cell(self, arm: str) -> Cell | None:
        """The cell at the arm's own defaults, if it was planned."""
        return self.find_cell(arm, self.arms[arm].base)

    def shown_cell(self, arm: str) -> Cell | None:
        """The cell that stands for the arm beside others: its base, or its first where the base was not planned."""
        return self.base_cell(arm) or next(iter(self.cells_of(arm)), None)

    def tunes_of(self, arm: str) -> list[str]:
        """The keys of the arm's tunes in the order of the plan."""
        return list(dict.fromkeys(self.plan.loc[self.plan["arm"] == arm, "tune"]))

    def fixed_tune(self, arm: str) -> str | None:
        """The tune at the fixed values, if it was planned."""
        key = key_of(self.arms[arm].fixed)
        return key if key in self.tunes_of(arm) else None

    def counts(self) -> dict[str, int]:
        """How many planned runs have each status; "missing" ones have not been started."""
        return {str(name): int(count) for name, count in self.runs["status"].value_counts().items()}

    @cached_property
    def _wide(self) -> dict[str, pd.DataFrame]:
        return {}

    def by_epoch(self, runs: Sequence[str], column: str) -> pd.DataFrame:
        """A column of `curves`: rows the epochs at which the study has it, columns `runs`.

        From its divergence on a diverged run has the error of guessing, or an infinite loss.
        """
        if column not in self._wide:
            self._wide[column] = self.curves[column].dropna().unstack("run").sort_index()
        table = self._wide[column].reindex(columns=list(runs))
        guesses = self.runs["guess"].to_dict()
        for run in runs:
            if self.runs.loc[run, "status"] == "diverged":
                last = table[run].last_valid_index()
                later = table.index > (last if last is not None else 0)
                table.loc[later, run] = guesses[run] if column.endswith("error") else np.inf
        return table

    @cached_property
    def loss_alone(self) -> bool:
        """Whether its runs have losses and no accuracies: then nothing is guessed, and no error is told of."""
        if self.info.get("labels") is False:
            return True
        known = self.curves.notna().any()
        return bool(known[["val_loss", "test_loss"]].any() and not known[["val_error", "test_error"]].any())

    @property
    def tuned(self) -> bool:
        """Whether any arm has a choice of settings to be judged at, so that "own best" means something."""
        return any(arm.tuned for arm in self.arms.values())

    @property
    def complete(self) -> bool:
        """Whether every planned run is done or diverged."""
        return bool(self.runs["status"].isin(FINISHED).all())

    def cell_label(self, cell: Cell) -> str:
        """The cell in words: what was moved off the base, or all settings where the grid has no base."""
        arm, found = self.arms[cell.arm], self._found(cell)
        if not cell.settings:
            return describe({k: v for k, v in arm.options.items() if k not in arm.tune} | found) or "defaults"
        if arm.grid != "one-at-a-time":
            return describe({**cell.settings, **found})
        moved = {k: v for k, v in cell.settings.items() if _plain(v) != _plain(arm.base.get(k))}
        return describe({**moved, **found}) or "base"

    def _found(self, cell: Cell) -> dict[str, Any]:
        """What a search has found for the cell; nothing where the study has none."""
        if not self.info.get("search"):
            return {}
        tunes = self.plan.loc[(self.plan["arm"] == cell.arm) & (self.plan["cell"] == cell.key), "tune"]
        return dict(self.tunes[tunes.iloc[0]])

    def layers(self, run: str) -> pd.DataFrame:
        """A run's layer records: step, parameter, quantity, value.

        Empty where nothing was recorded, or where the file is damaged, which is then among the `problems`.
        """
        path = StudyFolder(self.path).run(run).layers_path
        table = _LAYERS.empty_table()
        try:
            table = read_arrow(path, _LAYERS.names).cast(_LAYERS) if path.is_file() else table
        except StoreError as error:
            problem = Problem(f"{run}/layers.parquet", str(error))
            self.problems.extend([] if problem in self.problems else [problem])
        frame: pd.DataFrame = table.to_pandas()
        return frame


def guess_error(info: Mapping[str, Any]) -> float:
    """The error rate of guessing among the classes of the study's data; 1 where their number is unknown."""
    classes = info.get("classes")
    return 1 - 1 / classes if classes else 1.0


# ------------------------------------------------------------------------------------------------ reading


def load_study(path: str | Path, *, trials: bool = False) -> Study:
    """Read a study's plan and all its runs; damaged runs become `problems`.

    Args:
        path: the folder of the study.
        trials: read the trials of its search instead of its results.

    Raises:
        StudyError: there is no readable study.json, or it has no results yet, or no trials.
    """
    folder = StudyFolder(path)
    if not folder.exists:
        raise StudyError(
            f"{folder.path} holds no study: expected a folder with a study.json, as `insgd-lab study run` "
            "writes; give the folder of a study, such as runs/digits"
        )
    info: Mapping[str, Any] = folder.info()
    try:
        arms = _told_apart({arm["name"]: _arm(arm) for arm in info["arms"]})
        plan, cells, tunes = _plan([row for row in info["plan"] if (row.get("stage") == "trial") == trials])
    except (KeyError, TypeError, AttributeError) as error:
        raise StudyError(
            f"{folder.info_path} is not a study as this version writes it ({type(error).__name__}: {error}); "
            "run the study again into a new folder"
        ) from error
    if trials and plan.empty:
        raise StudyError(f"{folder.path} has no trials: only a study with a [search] tries settings; read its results")
    if info["plan"] and plan.empty:
        raise StudyError(
            f"{folder.path} has trials of a search, and no winner of one yet; run the study on: its results are the "
            "winners' runs on fresh seeds"
        )
    ids = list(dict.fromkeys(plan["run"]))
    infos = folder.infos(ids)
    runs = _runs(infos, ids)
    problems = [
        Problem(f"{run}/{info['damaged']}", info["error"]) for run, info in infos.items() if info["status"] == "damaged"
    ]
    read = folder.metrics({run: info for run, info in infos.items() if info.get("status") in FINISHED})
    problems += [Problem(f"{run}/{damage.path.name}", str(damage)) for run, damage in read.damaged.items()]
    runs.loc[list(read.damaged), "status"] = "unreadable"
    metrics = _frame(read.table)
    info = _with_classes(info, runs)
    curves = _curves(metrics)
    guesses = _guesses(info, arms, plan, runs).mask(_without_accuracy(info, plan, curves))
    runs = runs.join(_scores(runs, curves, guesses)).join(_digests(metrics)).join(guesses.rename("guess"))
    return Study(folder.path, info, arms, cells, plan, runs, curves, problems, tunes)


def _arm(raw: Mapping[str, Any]) -> Arm:
    base = raw.get("base") or {}
    axes = {axis: _with(base.get(axis), values) for axis, values in (raw.get("axes") or {}).items()}
    return Arm(
        name=raw["name"],
        label=raw.get("label") or raw["name"],
        optimizer=raw["optimizer"],
        options={**(raw.get("options") or {}), **(raw.get("overrides") or {})},
        classes=raw.get("classes"),
        search=raw.get("search") or {},
        grid=raw.get("grid") or "one-at-a-time",
        axes=axes if raw.get("grid", "one-at-a-time") == "one-at-a-time" else dict(raw.get("axes") or {}),
        base=base,
        tune=raw.get("tune") or {},
        fixed=raw.get("fixed") or {},
    )


def _told_apart(arms: Mapping[str, Arm]) -> dict[str, Arm]:
    """The arms with labels of their own: by one label two arms would be one in every figure and table."""
    counts = Counter(arm.label for arm in arms.values())
    return {
        name: replace(arm, label=f"{arm.label} ({name})") if counts[arm.label] > 1 else arm
        for name, arm in arms.items()
    }


def _with_classes(info: Mapping[str, Any], runs: pd.DataFrame) -> Mapping[str, Any]:
    """The study with the number of classes that its runs have met, where only the data's files tell it."""
    met = runs["classes"].dropna()
    return info if info.get("classes") or met.empty else {**info, "classes": int(met.iloc[0])}


def _guesses(info: Mapping[str, Any], arms: Mapping[str, Arm], plan: pd.DataFrame, runs: pd.DataFrame) -> pd.Series:
    """The error of guessing of each run: among the classes that it met, else by its arm's data."""
    by_arm = {name: guess_error({"classes": arm.classes or info.get("classes")}) for name, arm in arms.items()}
    planned = plan.drop_duplicates("run").set_index("run")["arm"].map(by_arm)
    met = runs["classes"].dropna().map(lambda count: guess_error({"classes": count}))
    return planned.where(~planned.index.isin(met.index), met)


def _without_accuracy(info: Mapping[str, Any], plan: pd.DataFrame, curves: pd.DataFrame) -> pd.Series:
    """By run, whether its task has losses alone: where no run of its arm has an accuracy, and some has a loss."""
    arms = plan.drop_duplicates("run").set_index("run")["arm"]
    if info.get("labels") is False:
        return arms.notna()
    known = curves.notna().groupby(curves.index.get_level_values("run").map(arms.to_dict())).any()
    lone = known[["val_loss", "test_loss"]].any(axis=1) & ~known[["val_error", "test_error"]].any(axis=1)
    return arms.isin(lone.index[lone])


def _with(base: Any, values: list[Any]) -> list[Any]:
    """The levels of an axis with the base among them; it goes first if the study file does not list it."""
    listed = any(_plain(value) == _plain(base) for value in values)
    return list(values) if base is None or listed else [base, *values]


def _plan(rows: list[Mapping[str, Any]]) -> tuple[pd.DataFrame, dict[tuple[str, str], Cell], dict[str, Any]]:
    cells: dict[tuple[str, str], Cell] = {}
    tunes: dict[str, Any] = {}
    records = []
    for row in rows:
        cell = Cell(row["arm"], row["settings"], row["varied"])
        key, tune = cell.key, key_of(row["tune"])
        cells.setdefault((cell.arm, key), cell)
        tunes.setdefault(tune, row["tune"])
        records.append((cell.arm, key, tune, int(row["seed"]), row["run"]))
    return pd.DataFrame(records, columns=["arm", "cell", "tune", "seed", "run"]), cells, tunes


_INFO = ("status", "error", "seed", "commit", "dirty", "device", "device_name", "threads", "started", "finished",
         "seconds", "epochs", "images_per_second", "epochs_done", "parameters", "classes", "examples")  # fmt: skip


def _runs(infos: Mapping[str, Mapping[str, Any]], ids: list[str]) -> pd.DataFrame:
    records = [_run_record(infos.get(run, {"status": "missing"})) for run in ids]
    columns = [*_INFO, "versions", "diverged_epoch", "diverged_step", "optimizer", "revision"]
    return pd.DataFrame(records, columns=columns, index=pd.Index(ids, name="run"), dtype=object)


def _run_record(info: Mapping[str, Any]) -> dict[str, Any]:
    if info["status"] in ("missing", "damaged"):
        return {"status": "missing" if info["status"] == "missing" else "unreadable"}
    at = info.get("diverged_at") or {}
    where = {"diverged_epoch": at.get("epoch"), "diverged_step": at.get("step")}
    optimizer = info.get("spec", {}).get("optimizer", {})
    rule = {"optimizer": optimizer.get("name"), "revision": optimizer.get("revision")}
    return {name: info.get(name) for name in _INFO} | where | rule | {"versions": info.get("versions") or {}}


def _frame(table: pa.Table) -> pd.DataFrame:
    """The metrics, runs as a category."""
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _curves(metrics: pd.DataFrame) -> pd.DataFrame:
    """Metrics with a column for each split and metric; accuracies become errors."""
    names = metrics["split"].astype(str) + "_" + metrics["metric"].astype(str)
    long = pd.DataFrame({"run": metrics["run"].astype(str), "epoch": metrics["epoch"], "name": names})
    long["value"] = metrics["value"].to_numpy()
    wide = long.drop_duplicates(["run", "epoch", "name"], keep="last").pivot(
        index=["run", "epoch"], columns="name", values="value"
    )
    wide["step"] = _steps(metrics)
    for split in ("train", "val", "test"):
        accuracy = f"{split}_accuracy"
        wide[f"{split}_error"] = 1 - wide[accuracy] if accuracy in wide else np.nan
        if f"{split}_loss" not in wide:
            wide[f"{split}_loss"] = np.nan
    return wide


def _steps(metrics: pd.DataFrame) -> pd.Series:
    """The step that each run's epoch ended at."""
    codes, epochs = metrics["run"].cat.codes.to_numpy(), metrics["epoch"].to_numpy()
    last = np.append((np.diff(codes) != 0) | (np.diff(epochs) != 0), True)[: len(metrics)]
    ends = metrics.loc[last, ["run", "epoch", "step"]].astype({"run": str})
    return ends.drop_duplicates(["run", "epoch"], keep="last").set_index(["run", "epoch"])["step"]


def _scores(runs: pd.DataFrame, curves: pd.DataFrame, guesses: pd.Series) -> pd.DataFrame:
    """Last and best values of each run; guessing (whose error is given by run) and infinite loss for diverged ones.

    The error of guessing is NaN where the task has no classes, and so are the errors then. The best test error of a
    diverged run is the best it had reached, at worst that of guessing.
    """
    last = curves[["val_error", "val_loss", "test_error", "test_loss"]].groupby(level="run").last()
    last["best_test_error"] = curves["test_error"].groupby(level="run").min()
    last = last.reindex(runs.index).astype(float)
    diverged = (runs["status"] == "diverged").to_numpy()
    guess = guesses.reindex(runs.index)[diverged].astype(float)
    for score in ("val_error", "test_error"):
        last.loc[diverged, score] = guess
    last.loc[diverged, ["val_loss", "test_loss"]] = np.inf
    last.loc[diverged, "best_test_error"] = last.loc[diverged, "best_test_error"].fillna(guess).clip(upper=guess)
    return last


def _digests(metrics: pd.DataFrame) -> pd.Series:
    """A hash of each run's metrics, bit for bit; equal hashes mean runs that computed the same."""
    parts = metrics[["epoch", "split", "metric", "value"]]
    return pd.Series(dict(_digest_each(metrics["run"], parts)), name="digest", dtype=object)


def _digest_each(runs: pd.Series, parts: pd.DataFrame) -> Iterator[tuple[str, str]]:
    names = (parts["split"] + "/" + parts["metric"]).to_numpy(dtype=object)
    codes = pd.factorize(names)[0].astype(np.int64) if len(names) else np.zeros(0, np.int64)
    bits = parts["value"].to_numpy().view(np.int64)
    rows = np.stack([parts["epoch"].to_numpy().astype(np.int64), codes, bits], axis=1)
    if runs.empty:
        return
    cuts = np.flatnonzero(np.diff(runs.cat.codes.to_numpy())) + 1
    for name, block in zip(runs.iloc[np.r_[0, cuts]], np.split(rows, cuts), strict=True):
        yield str(name), hashlib.blake2b(block.tobytes(), digest_size=8).hexdigest()
