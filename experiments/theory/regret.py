"""Average regret: online games on the box [-1, 1]^d, played by rules with and without AdaNorm's correction.

    R(T) = sum over t = 1 … T of f_t(x_t) - min over the box of sum f_t(x),    alpha_t = alpha / sqrt(t),
    beta_{1,t} = beta_1 lambda^(t-1)

The point x_t is played before f_t is seen, and projected onto the box after each step. All of it is float64. A run is
one rule on one sequence and seed; it leaves at some rounds T

    average_regret    R(T) / T
    root_moments      sum over i of sqrt(T v_{T,i}), v the bias-corrected second moment (rules with betas)
    gradient_norms    sum over i of ||g_{1:T,i}||_2
    position          the mean coordinate of x_{T+1}

and in run.json the constants of the problem, of which Theorem 1's bound is made (`insgd_lab.analysis.theory`).
Training's loop is not used: it computes in float32, and keeps neither gradients coordinate by coordinate nor moments.
The runs of all seeds are computed side by side, as parameter tensors of one optimizer, each of which has its own
norm.

    work_off(StudyFolder("runs/theory/regret"), workers=2)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.signal import lfilter
from torch import Tensor, nn

from insgd_lab import registry
from insgd_lab.config import ScheduleSpec
from insgd_lab.experiments.theory.sequences import SEQUENCES, Game, starts
from insgd_lab.experiments.theory.work import Tell, in_parallel, quietly
from insgd_lab.store import StudyFolder, run_id, to_json_value
from insgd_lab.training import provenance
from insgd_lab.training.progress import now
from insgd_lab.training.schedules import Schedule

__all__ = ["GAMMA", "PROBLEMS", "RULES", "Match", "Problem", "Rule", "matches", "play", "work_off"]

Array = NDArray[np.float64]
GAMMA = 0.95
_REVISION = 1  # raised whenever the same spec gives other numbers
_LOOKS_A_DECADE = 8


@dataclass(frozen=True)
class Rule:
    """A rule of the registry; `family` says which of a problem's rates it takes: "plain" or "adaptive"."""

    name: str
    label: str
    optimizer: str
    family: str = "adaptive"
    options: Mapping[str, Any] | None = None
    keeps_beta1: bool = False
    """Whether beta_1 stays: at beta_1 = 0 AdaBelief's m is g, and (g - m)^2, by which it divides, is 0."""


@dataclass(frozen=True)
class Problem:
    """A sequence of losses and how it is played.

    Attributes:
        name: of the problem.
        label: in figures.
        kind: of `SEQUENCES`.
        options: of the kind.
        rounds: T.
        rates: alpha by the rules' family.
        betas: of rules that have them.
        beta1_decay: lambda; 1: beta_1 stays.
        rules: the names of those that play it.
        eps: of adaptive rules.
    """

    name: str
    label: str
    kind: str
    options: Mapping[str, Any]
    rounds: int
    rates: Mapping[str, float]
    betas: tuple[float, float] = (0.9, 0.999)
    beta1_decay: float = 0.9
    rules: tuple[str, ...] = ()
    eps: float = 1e-8


def _pair(
    name: str,
    label: str,
    form: str | None = None,
    family: str = "adaptive",
    *,
    keeps_beta1: bool = False,
    **options: Any,
) -> tuple[Rule, ...]:
    """A base and itself behind the correction: as a named form, or with `adanorm`."""
    corrected = {"gamma": GAMMA} if form else {"adanorm": GAMMA}
    base = "adam" if name == "amsgrad" else name
    return (
        Rule(name, label, base, family, options, keeps_beta1),
        Rule(f"{name}-corrected", f"{label}, corrected", form or base, family, {**options, **corrected}, keeps_beta1),
    )


RULES: Mapping[str, Rule] = {
    rule.name: rule
    for pair in (
        _pair("sgd", "SGD", family="plain"),
        _pair("adam", "Adam", "adamnorm"),
        _pair("amsgrad", "AMSGrad", "adamnorm", amsgrad=True),
        _pair("diffgrad", "diffGrad", "diffgradnorm"),
        _pair("radam", "RAdam", "radamnorm"),
        _pair("adabelief", "AdaBelief, λ = 1", "adabeliefnorm", keeps_beta1=True),
    )
    for rule in pair
}
"""Each base and its corrected form, by name; Adam's is the paper's AdamNorm."""

_CLASSIC = tuple(RULES)[:6]
_ALL = tuple(RULES)
_EVEN = {"plain": 0.3, "adaptive": 0.3}
_ONE = {"plain": 1.0, "adaptive": 1.0}

PROBLEMS: tuple[Problem, ...] = (
    Problem("linear", "random linear losses", "linear", {"dimension": 10}, 10_000, _EVEN, rules=_ALL),
    Problem("quadratic", "random quadratic losses", "quadratic", {"dimension": 10}, 10_000, _EVEN, rules=_ALL),
    Problem("logistic", "random logistic losses", "logistic", {"dimension": 10}, 10_000, _EVEN, rules=_ALL),
    *(
        Problem(f"period-3-{C:g}", f"{C:g}x, −x, −x", "periodic", {"C": C}, 10_000, _ONE, rules=_CLASSIC)
        for C in (2.25, 2.5, 3.0, 3.5, 3.75, 5.0)
    ),
    Problem("period-3-small", "1e-6 (3x, −x, −x)", "periodic", {"C": 3.0, "scale": 1e-6}, 10_000,
            {"plain": 1e6, "adaptive": 1.0}, rules=_CLASSIC, eps=1e-16),
    Problem("reddi-1", "Reddi et al., Thm 1: 3x, −x, −x; β = (0, 0.1)", "periodic", {"C": 3.0}, 10_000,
            {"plain": 0.3, "adaptive": 0.3}, betas=(0.0, 0.1), beta1_decay=1.0, rules=_CLASSIC),
    Problem("reddi-2", "Reddi et al., Thm 2: 22x, 21 times −x; β = (0.5, 0.5)", "periodic",
            {"C": 22.0, "period": 22}, 10_000, {"plain": 0.3, "adaptive": 0.3}, betas=(0.5, 0.5), beta1_decay=1.0,
            rules=_CLASSIC),
    Problem("reddi-3", "Reddi et al., Thm 3: 101x or −x; β = (0.9, 0.9)", "chance",
            {"C": 101.0, "delta": 1.0}, 10_000, {"plain": 0.1, "adaptive": 1.0}, betas=(0.9, 0.9), beta1_decay=1.0,
            rules=_CLASSIC),
)  # fmt: skip


# ------------------------------------------------------------------------------------------------ what is run


@dataclass(frozen=True)
class Match:
    """One rule on one problem, for several seeds: so many runs."""

    problem: Problem
    rule: Rule

    def options(self) -> dict[str, Any]:
        """The optimizer's options, complete but for the registry's defaults."""
        problem, rule = self.problem, self.rule
        own = {"lr": problem.rates[rule.family], "project": {"box": [-1.0, 1.0]}, **(rule.options or {})}
        if rule.family == "adaptive":
            own |= {"betas": list(problem.betas), "eps": problem.eps}
        return own

    def schedule(self) -> ScheduleSpec:
        """Theorem 1's."""
        moves = self.rule.family == "adaptive" and not self.rule.keeps_beta1
        decay = self.problem.beta1_decay if moves else 1.0
        return ScheduleSpec(name="inverse-sqrt", beta1_decay=decay)

    def spec(self, seed: int) -> dict[str, Any]:
        """What names a run, in plain JSON types."""
        problem = self.problem
        entry = registry.get_optimizer(self.rule.optimizer)
        spec: dict[str, Any] = to_json_value({
            "program": "theory/regret",
            "revision": _REVISION,
            "problem": {"kind": problem.kind, "options": dict(problem.options), "rounds": problem.rounds},
            "optimizer": {"name": entry.name, "options": self.options(), "revision": entry.revision},
            "schedule": self.schedule().plain(),
            "seed": seed,
        })  # fmt: skip
        return spec


def matches(problems: Sequence[Problem] = PROBLEMS) -> list[Match]:
    """Every rule on every problem that it plays, the longest games first."""
    found = [Match(problem, RULES[name]) for problem in problems for name in problem.rules]
    return sorted(found, key=lambda match: -match.problem.rounds)


# ------------------------------------------------------------------------------------------------ the game


def looks(rounds: int) -> list[int]:
    """The rounds at which a game is looked at, evenly spaced in the logarithm, the last among them."""
    decades = np.log10(rounds) - 1
    spaced = np.geomspace(10, rounds, max(2, round(_LOOKS_A_DECADE * decades) + 1))
    return sorted({min(round(each), rounds) for each in spaced})


@dataclass(frozen=True)
class Record:
    """A game that has been played: float64, [rounds, seeds] and [rounds, seeds, d]."""

    losses: Tensor
    gradients: Tensor
    points: Tensor
    """After each step: points[t] is played in round t + 2."""


def play(game: Game, rounds: int, match: Match, start: Tensor) -> Record:
    """Play `rounds` rounds from the points `start`, [seeds, d]."""
    points = start.clone()
    gradient = torch.zeros_like(points)
    rows = [nn.Parameter(row) for row in points]  # views: a step moves `points`
    for row, grad in zip(rows, gradient, strict=True):
        row.grad = grad
    optimizer = registry.create_optimizer(match.rule.optimizer, rows, **match.options())
    schedule = Schedule(match.schedule(), optimizer, rounds, 1)
    record = Record(
        *(torch.empty(rounds, *shape, dtype=torch.float64) for shape in (start.shape[:1], *[start.shape] * 2))
    )
    with torch.no_grad():
        for t in range(rounds):
            record.losses[t], slope = game.play(t, points)
            record.gradients[t] = gradient.copy_(slope)
            schedule.set(t)
            optimizer.step()
            record.points[t] = points
    return record


def measured(game: Game, record: Record, match: Match, number: int, least: Mapping[int, Array]) -> pd.DataFrame:
    """The metrics of the run with that number among the seeds, as `metrics.parquet` has them."""
    losses, gradients = record.losses[:, number].cumsum(0), record.gradients[:, number].numpy()
    squares = np.cumsum(gradients**2, 0)
    beta2 = match.options().get("betas", (0.0, 0.0))[1]
    moments = lfilter([1 - beta2], [1, -beta2], gradients**2, axis=0)
    rows = []
    for look, (T, best) in enumerate(least.items(), 1):
        found = {
            "average_regret": (float(losses[T - 1]) - float(best[number])) / T,
            "gradient_norms": float(np.sqrt(squares[T - 1]).sum()),
            "position": float(record.points[T - 1, number].mean()),
        }
        if beta2:
            found["root_moments"] = float(np.sqrt(T * moments[T - 1] / (1 - beta2**T)).sum())
        rows += [(look, T, "train", name, value) for name, value in found.items()]
    return pd.DataFrame.from_records(rows, columns=["epoch", "step", "split", "metric", "value"])


# ------------------------------------------------------------------------------------------------ the store


def work_off(
    folder: StudyFolder,
    *,
    problems: Sequence[Problem] = PROBLEMS,
    seeds: int = 5,
    workers: int = 1,
    tell: Tell = quietly,
) -> None:
    """Play what has not been played yet, and write `study.json`.

    Args:
        folder: of the study.
        problems: what is played.
        seeds: their number; sequences without chance have as many starting points.
        workers: processes.
        tell: called with how many games are over, and how many there are.
    """
    games = matches(problems)
    folder.write_info(_study(problems, games, seeds))
    jobs = [(folder, match, seeds) for match in games if list(_missing(folder, match, seeds))]
    in_parallel(_play_match, jobs, workers, tell)


def _missing(folder: StudyFolder, match: Match, seeds: int) -> Iterator[int]:
    for seed in range(seeds):
        if not folder.run(run_id(match.spec(seed))).is_finished:
            yield seed


def _play_match(folder: StudyFolder, match: Match, seeds: int) -> None:
    """Play the seeds that are missing, side by side, and write a run for each."""
    clock, started = time.perf_counter(), now()
    missing, problem = list(_missing(folder, match, seeds)), match.problem
    game = SEQUENCES[problem.kind](problem.rounds, missing, **problem.options)
    record = play(game, problem.rounds, match, starts(missing, game.dimension))
    least = {T: game.least(T) for T in looks(problem.rounds)}
    seconds = (time.perf_counter() - clock) / len(missing)
    for number, seed in enumerate(missing):
        metrics = measured(game, record, match, number, least)
        info = _info(match, game, number, seed, len(missing))
        run = folder.run(info["id"])
        with run.locked():
            run.set_damage_aside()
            run.finish({**info, "started": started, "finished": now(), "seconds": seconds}, metrics)


def _info(match: Match, game: Game, number: int, seed: int, together: int) -> dict[str, Any]:
    """What run.json says of a run that is done."""
    commit, dirty = provenance.commit()
    spec = match.spec(seed)
    G, G_inf = (float(bound[number]) for bound in game.bounds())
    d = game.dimension
    return {
        "id": run_id(spec), "spec": spec, "seed": seed, "status": "done", "error": None,
        "versions": dict(provenance.versions()), "commit": commit, "dirty": dirty, "device": "cpu",
        "device_name": provenance.device_name("cpu"), "processes": 1, "packing": together,
        "threads": torch.get_num_threads(), "epochs_done": 1, "diverged_at": None, "parameters": d,
        "constants": {"G": G, "G_inf": G_inf, "D": 2 * d**0.5, "D_inf": 2.0, "dimension": d},
    }  # fmt: skip


def _study(problems: Sequence[Problem], games: Sequence[Match], seeds: int) -> dict[str, Any]:
    """What study.json says: an arm a rule, whose axis is the problem."""
    played = {name: [p for p in problems if name in p.rules] for name in RULES}
    plan = [
        {"arm": match.rule.name, "settings": {"problem": match.problem.name}, "varied": None, "tune": {}, "seed": seed,
         "run": run_id(match.spec(seed))}
        for match in games for seed in range(seeds)
    ]  # fmt: skip
    arms = [
        {"name": rule.name, "label": rule.label, "optimizer": rule.optimizer, "options": dict(rule.options or {}),
         "grid": "full", "axes": {"problem": [p.name for p in played[rule.name]]}, "base": {}, "tune": {}, "fixed": {}}
        for rule in RULES.values() if played[rule.name]
    ]  # fmt: skip
    return {
        "name": "theory/regret",
        "title": "Average regret with and without AdaNorm's correction",
        "description": "Online convex games on a box; see docs/theory.md.",
        "program": "theory/regret",
        "seeds": list(range(seeds)),
        "classes": None,
        "problems": {p.name: {"label": p.label, "betas": list(p.betas), "beta1_decay": p.beta1_decay,
                              "rates": dict(p.rates)} for p in problems},
        "arms": arms,
        "plan": plan,
        "versions": dict(provenance.versions()),
    }  # fmt: skip
