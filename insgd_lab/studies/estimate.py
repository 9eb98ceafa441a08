"""How long a study takes: runs that take equally long a step, and what they come to. No torch.

for family in families(plan):
    family.seconds(pilot(family.example).seconds)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from insgd_lab.config import RunSpec
from insgd_lab.store import canonical_json
from insgd_lab.studies.planning import Plan
from insgd_lab.studies.search import SearchPlan, final_runs

__all__ = ["Family", "families", "in_words", "study_seconds"]

_UNTIMED = ("epochs", "eval_every", "schedule")  # of a step, that is


@dataclass
class Family:
    """Runs of one optimizer with the same task and training, but for how long and what the learning rate does.

    Attributes:
        example: one of them.
        runs: how many there are, by epochs and how often they are evaluated.
    """

    example: RunSpec
    runs: dict[tuple[int, int], float] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many runs there are."""
        return round(sum(self.runs.values()))

    def seconds(self, of_run: Callable[[int, int], float]) -> float:
        """What all runs take, one after the other, given what one of so many epochs takes, evaluated so often."""
        return sum(count * of_run(*length) for length, count in self.runs.items())


def families(plan: Plan) -> list[Family]:
    """Return the families of a plan; of a search with the runs that are still to be planned."""
    found: dict[str, Family] = {}
    keys: dict[tuple[int, int, str], str] = {}
    for run, count in _counted(plan):
        # Runs share these objects, so that few of many have to be written out.
        alike = (id(run.task), id(run.train), run.optimizer.name)
        if alike not in keys:
            keys[alike] = _key(run)
        family = found.setdefault(keys[alike], Family(run))
        length = (run.train.epochs, run.train.eval_every)
        family.runs[length] = family.runs.get(length, 0) + count
    return list(found.values())


def _key(run: RunSpec) -> str:
    train = {key: value for key, value in run.train.canonical().items() if key not in _UNTIMED}
    return canonical_json({"task": run.task.canonical(), "train": train, "optimizer": run.optimizer.name})


def _counted(plan: Plan) -> Iterator[tuple[RunSpec, float]]:
    """Every run, and how many it stands for."""
    if not isinstance(plan, SearchPlan):
        yield from ((run, 1) for run in plan.runs.values())
        return
    search = plan.study.search
    assert search is not None
    trials = [row for row in plan.rows if row["stage"] == "trial"]
    cells = len(plan.verdicts)
    # Optuna's trials are planned some at a time; the first ones stand for those to come.
    known = len(trials) / cells
    missing = search.trials * len(search.seeds) / known if search.method == "optuna" else 1.0
    finals = final_runs(plan.study) / len(trials)
    for row in trials:
        yield plan.runs[row["run"]], missing + finals


def study_seconds(parts: Sequence[tuple[Family, Callable[[int, int], float]]], workers: int) -> float:
    """What a study takes on so many workers: an equal share of the work, but not less than the longest run."""
    total = sum(family.seconds(of_run) for family, of_run in parts)
    longest = max(of_run(*length) for family, of_run in parts for length in family.runs)
    return max(total / workers, longest)


def in_words(seconds: float) -> str:
    """A time in words, such as "12 min"."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
