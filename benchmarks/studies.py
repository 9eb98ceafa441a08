"""What studies of 10 000 runs cost, against the targets: real files, copied from real tiny runs under other names.

    python -m benchmarks studies --runs 10000

These are seconds and not ratios: nobody else plans the same studies. Each is the least of some fresh processes, for
what a busy machine adds is no cost of ours. It takes some minutes, and Linux.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from insgd_lab.config import RunSpec, load_study
from insgd_lab.store import RunFolder, StudyFolder
from insgd_lab.studies.executor import execute
from insgd_lab.studies.planning import Plan, make_plan, study_info
from insgd_lab.training.loop import train
from insgd_lab.training.provenance import versions

__all__ = ["Cost", "costs", "main", "show"]

_STUDY = """
name = "scale"
seeds = {seeds}
task = {{ data = {{ name = "digits", fraction = 0.1 }}, model = {{ name = "mlp", hidden = [8] }} }}
train = {{ epochs = 8, batch_size = 16, packing = "off" }}
[[arm]]
name = "sgd"
optimizer = {{ name = "sgd", lr = 0.1 }}
axes = {{ momentum = [0.0, 0.9] }}
tune = {{ lr = [0.1, 0.3, 1.0, 3.0, 10.0] }}
[[arm]]
name = "insgd"
optimizer = {{ name = "insgd-lp", lr = 0.1 }}
axes = {{ p = [1, 2] }}
tune = {{ lr = [0.1, 0.3, 1.0, 3.0, 10.0] }}
"""
_PER_SEED = 20
_REAL = 5
_TIMES = 3
_FEW, _MANY = 20, 120

# Each prints its seconds, imports left out, and the most MiB that its process held. (Linux's own count: `ru_maxrss`
# would begin with what the process held that started it.)
_PLAN = "from insgd_lab.config import load_study; from insgd_lab.studies.planning import make_plan"
_TIMED = """
import time
{imports}
start = time.{clock}()
{code}
seconds = time.{clock}() - start
held = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(seconds, int(held.split()[1]) / 1024)
"""


@dataclass(frozen=True)
class Cost:
    """Something measured: its name, value and unit, and the most that it may be (None: only reported)."""

    name: str
    value: float
    unit: str
    target: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the target is met."""
        if self.target is None:
            return "reported"
        return "met" if self.value <= self.target else "missed"


@dataclass(frozen=True)
class _Clock:
    """Seconds on the wall, or of processors at work for this process and those that it has waited for."""

    of_processors: bool

    @property
    def name(self) -> str:
        """The same of Python's own, for a process to clock itself."""
        return "process_time" if self.of_processors else "perf_counter"

    def now(self) -> float:
        """The time."""
        return sum(os.times()[:4]) if self.of_processors else time.perf_counter()

    def run(self, command: Sequence[str]) -> float:
        """How long a command takes."""
        start = self.now()
        subprocess.run(command, check=True, capture_output=True)
        return self.now() - start

    def best(self, imports: str, code: str, times: int = _TIMES) -> tuple[float, float]:
        """The least seconds and the least MiB that fresh processes take for the code."""
        program = _TIMED.format(imports=imports, code=code, clock=self.name)
        command = [sys.executable, "-c", program]
        told = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(times)]
        seconds, memory = zip(*(map(float, each.split()) for each in told), strict=True)
        return min(seconds), min(memory)


def costs(runs: int, folder: Path, clock: _Clock) -> Iterator[Cost]:
    """Measure everything with a study of so many runs (a multiple of 20), made in an empty folder."""
    text = folder / "scale.toml"
    text.write_text(_STUDY.format(seeds=runs // _PER_SEED))
    seconds, memory = clock.best(_PLAN, f"make_plan(load_study({str(text)!r}))")
    yield Cost(f"planning {runs:,} runs", seconds, "s", 2)
    yield Cost(f"planning {runs:,} runs, memory of the process", memory, "MiB", 300)
    plan = make_plan(load_study(str(text)))
    for workers in (1, 2):
        yield _executor_overhead(plan, folder / f"workers-{workers}", clock, workers)
    study = _written(plan, folder)
    yield from _of_many(study, runs, clock)


def _of_many(study: StudyFolder, runs: int, clock: _Clock) -> Iterator[Cost]:
    path, lab = str(study.path), [sys.executable, "-m", "insgd_lab"]
    each = [clock.run([*lab, "study", "status", path]) for _ in range(_TIMES)]
    yield Cost(f"study status, {runs:,} finished runs, the whole command", min(each), "s", 2)
    reading = ("from insgd_lab.analysis.runs import load_study", f"load_study({path!r})")
    yield Cost(f"reading {runs:,} runs for a report, one by one", clock.best(*reading, times=1)[0], "s", 10)
    yield Cost(f"reading {runs:,} runs for a report, compacted", clock.best(*reading)[0], "s", 10)
    damage = ("from insgd_lab.store import StudyFolder", "study.set_damage_aside()")
    yield Cost(
        f"looking for damage in {runs:,} runs, every byte",
        clock.best(f"{damage[0]}; study = StudyFolder({path!r})", damage[1])[0], "s",
    )  # fmt: skip
    export = [*lab, "study", "export", path, "--out", str(study.path.with_suffix(".parquet"))]
    yield Cost(f"study export, {runs:,} runs, the whole command", clock.run(export), "s")
    merge = [*lab, "study", "merge", path, "--out", str(study.path.with_name("merged"))]
    yield Cost(f"study merge, {runs:,} runs, the whole command", clock.run(merge), "s")


# ------------------------------------------------------------------------------------------------ files


def _written(plan: Plan, folder: Path) -> StudyFolder:
    """A finished study: a few runs trained, and copied to all the names of the plan."""
    study = StudyFolder(folder / "scale")
    study.write_info(study_info(plan, versions=versions(), created="2025-01-01T00:00:00+00:00"))
    specs = list(plan.runs.values())
    real = [RunFolder(folder / "real" / spec.id) for spec in specs[:: len(specs) // _REAL]]
    for spec, run in zip(specs[:: len(specs) // _REAL], real, strict=True):
        train(spec, run)
    for number, spec in enumerate(specs):
        source, target = real[number % len(real)], study.run(spec.id)
        shutil.copytree(source.path, target.path)
        target.write_info({**source.info(), "id": spec.id, "spec": spec.canonical(), "seed": spec.seed})
    return study


def _executor_overhead(plan: Plan, folder: Path, clock: _Clock, workers: int) -> Cost:
    """What a run more costs the executor, less what it costs to train it here; starting workers cancels out.

    The epochs themselves, which run.json clocks, are left out on both sides: on a busy machine they vary by more.
    """
    specs = list(plan.runs.values())[:_MANY]
    at_once = 1 if clock.of_processors else workers
    few, many = (
        _executed(plan, specs[:n], StudyFolder(folder / f"executed-{workers}-{n}"), clock, workers)
        for n in (_FEW, _MANY)
    )
    alone = StudyFolder(folder / f"alone-{workers}")
    gc.freeze()  # a worker does not hold the plan's objects, which every collection here would walk through
    for spec in specs[:_FEW]:  # what the first runs of a process cost more
        train(spec, StudyFolder(folder / f"warm-{workers}").run(spec.id))
    start = clock.now()
    for spec in specs[_FEW:]:
        train(spec, alone.run(spec.id))
    beside = (clock.now() - start - _epochs(alone, clock)) / at_once
    name = f"the local executor with {workers} worker{'s' * (workers > 1)}, a run more, beyond its training"
    return Cost(name, 1e3 * (many - few - beside) / (_MANY - _FEW), "ms", 10)


def _executed(plan: Plan, specs: Sequence[RunSpec], study: StudyFolder, clock: _Clock, workers: int) -> float:
    part = Plan(plan.study, [], {spec.id: spec for spec in specs})
    start = clock.now()
    execute(part, study, workers=workers)
    return clock.now() - start - _epochs(study, clock) / workers


def _epochs(study: StudyFolder, clock: _Clock) -> float:
    """What the epochs of all runs took on the wall: where processors are clocked it says nothing."""
    if clock.of_processors:
        return 0.0
    return sum(float(info["seconds"]) for info in study.infos().values())


# ------------------------------------------------------------------------------------------------ printed


def main(options: Sequence[str]) -> None:
    """Measure, print a table, and keep it if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks studies", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="runs of the study (default: 10 000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep what was measured here")
    parser.add_argument("--cpu-time", action="store_true", help="count processors at work only: for a busy machine")
    arguments = parser.parse_args(options)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        measured = list(costs(arguments.runs, Path(folder), _Clock(arguments.cpu_time)))
    show("studies", measured)
    if arguments.json is not None:
        rows = [{**asdict(cost), "verdict": cost.verdict} for cost in measured]
        arguments.json.write_text(
            json.dumps({"runs": arguments.runs, "cpu_time": arguments.cpu_time, "rows": rows}, indent=2) + "\n"
        )


def show(title: str, measured: Sequence[Cost]) -> None:
    """Print costs as a table."""
    table = Table("what", "measured", "target", "verdict", title=title)
    for cost in measured:
        target = "" if cost.target is None else f"<= {cost.target:g} {cost.unit}"
        table.add_row(cost.name, f"{cost.value:.3g} {cost.unit}", target, cost.verdict)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
