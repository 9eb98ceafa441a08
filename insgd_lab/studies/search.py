"""The search of a study: trials first, then the best of them on fresh seeds.

    plan = next_plan(study, StudyFolder("runs/mine"))
    {row["stage"] for row in plan.rows}             # {"trial"}; {"trial", "final"} once all trials have ended

Each arm gets the same number of trials (each cell of an arm that has axes), every one on the search's seeds. The trial
with the best mean over them, on the validation split, wins and is run on the final seeds, which had no say; only these
runs are results. Plans are worked out anew from the study and its finished runs whenever they are asked for, so a
search goes on from wherever it was interrupted.

A diverged run scores as a guess, and a trial all of whose runs diverged loses to every other. Equal scores go to the
lower validation loss, then to the earlier trial; so where all trials diverged the first one stands for its arm.
"""

from __future__ import annotations

import importlib
import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from insgd_lab import registry
from insgd_lab.config import ArmSpec, Cell, ConfigError, Interval, Problem, SearchSpec, StudySpec
from insgd_lab.config.grids import drawn
from insgd_lab.store import FINISHED, Damaged, RunFolder, StudyFolder
from insgd_lab.studies.planning import Plan, Stages, gathered, make_plan

__all__ = ["SearchPlan", "Verdict", "final_runs", "next_plan"]

Settings = Mapping[str, Any]
_POINTS_A_TRIAL = 64  # looked at to find settings that differ


@dataclass(frozen=True)
class Verdict:
    """What the trials of one cell have come to.

    Attributes:
        arm: its name.
        cell: its settings.
        trial: the number of the winner, from 0; None while trials are left to do or have failed.
        settings: the winner's.
        metric: what decided: "accuracy" or "loss".
        score: the winner's: the mean over the search's seeds of the best value on the validation split.
        trials: how many there were.
        diverged: of how many every run diverged.
    """

    arm: str
    cell: Settings
    trial: int | None
    settings: Settings = field(default_factory=dict)
    metric: str = ""
    score: float = math.nan
    trials: int = 0
    diverged: int = 0


@dataclass(frozen=True)
class SearchPlan(Plan):
    """All runs of a search that are known by now, and what its trials have come to, cell by cell."""

    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def stages(self) -> Stages:
        """The runs of trials and the final runs."""
        search = self.study.search
        assert search is not None
        final = frozenset(row["run"] for row in self.rows if row["stage"] == "final")
        waiting = {(verdict.arm, str(verdict.cell)) for verdict in self.verdicts if verdict.trial is None}
        rows = [row for row in self.rows if row["stage"] == "trial"]
        trials = len({row["run"] for row in rows})
        if search.method == "optuna":  # a method that learns leaves trials open, and may choose the same settings twice
            decided = {row["run"] for row in rows if (row["arm"], str(row["settings"])) not in waiting}
            trials = len(decided) + len(waiting) * search.trials * len(search.seeds)
        return Stages(trials, len(final) + len(waiting) * len(self.study.seeds), final)


def next_plan(study: StudySpec, folder: StudyFolder | None = None) -> Plan:
    """Work out every run that a study asks for, given what has finished in its folder.

    A study without a search has one plan. That of a search holds the trials, of a method that learns those it has come
    to, and once the trials of a cell have all finished the final runs of their winner.

    Raises:
        ConfigError: settings that are possible one by one but not together; the search's method or metric is not to
            be had.
        StoreError: a file of a run may not be read.
    """
    if study.search is None:
        return make_plan(study)
    plan = SearchPlan(study)
    with gathered(study) as refused:
        for arm in study.arm:
            for cell in study.cells(arm):
                with refused():
                    _Contest(plan, study.search, arm, cell, folder).hold()
    plan.sort([*study.search.seeds, *study.seeds])
    return plan


def final_runs(study: StudySpec) -> int:
    """How many final runs a search asks for in the end."""
    return sum(len(study.cells(arm)) for arm in study.arm) * len(study.seeds)


class _Contest:
    """The trials of one cell of an arm, and what follows from them."""

    def __init__(
        self, plan: SearchPlan, search: SearchSpec, arm: ArmSpec, cell: Cell, folder: StudyFolder | None
    ) -> None:
        self.plan, self.search, self.arm, self.cell, self.folder = plan, search, arm, cell, folder
        self.trials: list[Settings] = []
        self.runs: list[list[_Run]] = []  # of each trial, one a seed

    def hold(self) -> None:
        """Plan the trials, and if they have all finished the final runs of the winner."""
        if self.search.method == "optuna":
            whole = _ask_optuna(self.plan.study, self.arm, self._enter)
        else:
            whole = self._enter(_points(self.plan.study.space(self.arm), self.search)) is not None
        self.plan.verdicts.append(self._verdict() if whole else self._waiting())
        verdict = self.plan.verdicts[-1]
        if verdict.trial is not None:
            self.plan.add(
                self.arm, self.cell, verdict.settings, self.plan.study.seeds, stage="final", trial=verdict.trial
            )

    def _enter(self, trials: Sequence[Settings]) -> list[float] | None:
        """Plan more trials; return their scores (higher is better), or None while some have none."""
        for settings in trials:
            number = len(self.trials)
            names = self.plan.add(self.arm, self.cell, settings, self.search.seeds, stage="trial", trial=number)
            self.trials.append(settings)
            self.runs.append(_read(self.folder, names) if self.folder else [])
        entered = self.runs[len(self.runs) - len(trials) :]
        if not all(runs and all(run.status in FINISHED for run in runs) for runs in entered):
            return None
        try:
            return [self._score(runs) for runs in entered]
        except Damaged:  # to be run again, as one that is seen to be damaged at first glance
            return None

    def _score(self, runs: list[_Run]) -> float:
        """The mean over seeds, turned so that higher is better."""
        if self._metric == "accuracy":
            return _mean([self._guess if run.diverged else run.accuracy for run in runs])
        return -_mean([run.loss for run in runs])

    @property
    def _metric(self) -> str:
        finished = [run for runs in self.runs for run in runs if run.status == "done"]
        known = any(run.has_accuracy for run in finished)
        if self.search.metric == "accuracy" and finished and not known:
            message = f'the runs of {self.arm.name} have no validation accuracy; take "loss"'
            raise ConfigError(self.plan.study.name, [Problem(("search", "metric"), "accuracy", message)])
        return self.search.metric or ("accuracy" if known or not finished else "loss")

    @property
    def _guess(self) -> float:
        classes = registry.get_data(self.plan.study.task_of(self.arm).data.name).classes
        return 1 / classes if classes else 0.0

    def _waiting(self) -> Verdict:
        return Verdict(self.arm.name, self.cell.settings, None)

    def _verdict(self) -> Verdict:
        lost = [all(run.diverged for run in runs) for runs in self.runs]
        ranks = [(not lost[k], round(self._score(runs), 12)) for k, runs in enumerate(self.runs)]
        best = [k for k, rank in enumerate(ranks) if rank == max(ranks)]
        try:
            winner = best[0] if len(best) == 1 else min(best, key=self._loss)
        except Damaged:
            return self._waiting()
        score = self._score(self.runs[winner])
        metric = self._metric
        return Verdict(
            self.arm.name, self.cell.settings, winner, self.trials[winner], metric,
            score if metric == "accuracy" else -score, len(self.trials), sum(lost),
        )  # fmt: skip

    def _loss(self, trial: int) -> tuple[float, int]:
        """What decides between trials of equal score."""
        return _mean([run.loss for run in self.runs[trial]]), trial


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _read(folder: StudyFolder, names: Sequence[str]) -> list[_Run]:
    infos = folder.infos(names)
    return [_Run(folder.run(name), infos.get(name, {})) for name in names]


class _Run:
    """What a finished run has on the validation split."""

    def __init__(self, folder: RunFolder, info: Mapping[str, Any]) -> None:
        self.folder, self.info = folder, info

    @property
    def status(self) -> str:
        return str(self.info.get("status"))

    @property
    def diverged(self) -> bool:
        return self.status == "diverged"

    @property
    def has_accuracy(self) -> bool:
        return "best_val_accuracy" in self._results

    @property
    def accuracy(self) -> float:
        """The best; of a run without any, the worst."""
        return float(self._results.get("best_val_accuracy", 0.0))

    @property
    def loss(self) -> float:
        """The lowest; infinite where the run diverged, as it has no weights to go on with."""
        if self.diverged:
            return math.inf
        if "best_val_loss" in self._results:
            return float(self._results["best_val_loss"])
        metrics = self.folder.metrics()
        losses = metrics.loc[(metrics["split"] == "val") & (metrics["metric"] == "loss"), "value"]
        return min((value for value in losses if math.isfinite(value)), default=math.inf)

    @property
    def _results(self) -> Mapping[str, Any]:
        return self.info.get("results") or {}


# ------------------------------------------------------------------------------------------------ methods


def _points(space: Mapping[str, Any], search: SearchSpec) -> list[dict[str, Any]]:
    """The settings to try: as many as there are trials and all different, or every one of a smaller space."""
    lists = [levels for levels in space.values() if isinstance(levels, list)]
    if len(lists) == len(space) and math.prod(map(len, lists)) <= search.trials:
        return [dict(zip(space, levels, strict=True)) for levels in itertools.product(*lists)]
    shares = _sobol(len(space), search) if search.method == "quasi-random" else _uniform(len(space), search)
    return drawn(space, shares, search.trials)


def _uniform(dimensions: int, search: SearchSpec) -> Iterator[list[float]]:
    generator = random.Random(search.seed)
    for _ in range(_POINTS_A_TRIAL * search.trials):
        yield [generator.random() for _ in range(dimensions)]


def _sobol(dimensions: int, search: SearchSpec) -> Iterator[Sequence[float]]:
    """A scrambled Sobol sequence, in blocks of powers of two, which keep its balance."""
    import numpy as np
    from scipy.stats import qmc

    # A generator rather than a number, from which versions of scipy make different generators.
    sequence = qmc.Sobol(dimensions, seed=np.random.default_rng(search.seed))
    power = math.ceil(math.log2(search.trials))
    yield from sequence.random_base2(power).tolist()
    for more in range(int(math.log2(_POINTS_A_TRIAL))):
        yield from sequence.random_base2(power + more).tolist()


def _ask_optuna(study: StudySpec, arm: ArmSpec, enter: Callable[[Sequence[Settings]], list[float] | None]) -> bool:
    """Have Optuna's sampler choose trials, some at a time, each time told all scores before; whether all are in.

    The sampler is asked anew from its seed, so that it says again what it said before.
    """
    search = study.search
    assert search is not None
    optuna = _optuna(study)
    sampler = optuna.samplers.TPESampler(seed=search.seed)
    contest = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {path: _distribution(optuna, levels) for path, levels in study.space(arm).items()}
    left = search.trials
    while left:
        asked = [contest.ask(distributions) for _ in range(min(search.trials_at_once, left))]
        scores = enter([_settings(study.space(arm), trial.params) for trial in asked])
        if scores is None:
            return False
        for trial, score in zip(asked, scores, strict=True):
            contest.tell(trial, max(score, -1e300))  # it takes no infinities
        left -= len(asked)
    return True


def _optuna(study: StudySpec) -> Any:
    try:
        optuna: Any = importlib.import_module("optuna")
    except ImportError:
        message = "needs the package optuna; install it with pip install 'insgd-lab[optuna]', or take quasi-random"
        raise ConfigError(study.name, [Problem(("search", "method"), "optuna", message)]) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(optuna: Any, levels: Any) -> Any:
    if not isinstance(levels, Interval):
        return optuna.distributions.CategoricalDistribution(tuple(range(len(levels))))  # of places in the list
    kind = optuna.distributions.IntDistribution if levels.whole else optuna.distributions.FloatDistribution
    return kind(*levels.ends, log=levels.log)


def _settings(space: Mapping[str, Any], found: Mapping[str, Any]) -> Settings:
    return {
        path: levels.rounded(found[path]) if isinstance(levels, Interval) else levels[found[path]]
        for path, levels in space.items()
    }
