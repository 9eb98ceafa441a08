"""What the report of a study costs, against the targets: 100 and 1,000 runs of 200 epochs each, with layer records.

    python -m benchmarks report

The files are those that tests make from closed forms. Seconds are on the wall, of the whole process, the least of some;
the targets are for two cores that nothing else uses. Processor seconds are those of the helper too. It takes Linux.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.studies import Cost, show
from tests.analysis import synthetic

__all__ = ["costs", "main"]

# runs: seeds, learning rates, seconds that a report may take
_STUDIES: dict[int, tuple[int, tuple[float, ...], float]] = {
    100: (2, (0.1, 0.3), 8),
    1000: (10, synthetic.RATES, 30),
}
_MOMENTA = [0.0, 0.5, 0.8, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995]
_REPORT = """
import resource, sys
from insgd_lab.analysis.report import write_report
write_report(sys.argv[1], force=True)
held = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(max(held, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024)
"""


def costs(folder: Path, times: int) -> Iterator[Cost]:
    """Make studies in an empty folder and measure their reports."""
    for runs, (seeds, rates, target) in _STUDIES.items():
        path = folder / str(runs)
        synthetic.build_study(path, seeds=seeds, epochs=200, steps=2000, failed=0, arm_list=_arms(rates))
        measured = [_measure(path) for _ in range(times)]
        wall, processors, memory = (min(values) for values in zip(*measured, strict=True))
        yield Cost(f"a report over {runs:,} runs", wall, "s", target)
        yield Cost(f"a report over {runs:,} runs, processors at work", processors, "s")
        yield Cost(f"a report over {runs:,} runs, the larger of its processes", memory, "MiB", 1024)


def _arms(rates: Sequence[float]) -> list[dict[str, Any]]:
    """The arms of the tests, with momenta for SGD that make 25 settings at each rate and seed."""
    arms = {arm["name"]: arm for arm in synthetic.arms(rates)}
    sgd = arms["sgd"]
    arms["sgd"] = {**sgd, "axes": {**sgd["axes"], "momentum": _MOMENTA}, "base": {**sgd["base"], "momentum": 0.9}}
    return list(arms.values())


def _measure(path: Path) -> tuple[float, float, float]:
    """Seconds on the wall and of processors, and the most MiB that a process held."""
    start, before = time.perf_counter(), os.times()
    command = [sys.executable, "-c", _REPORT, str(path)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    wall, after = time.perf_counter() - start, os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, spent, float(told)


def main(options: Sequence[str]) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks report", description=__doc__)
    parser.add_argument("--times", type=int, default=3, help="reports of each study, the least counts (default: 3)")
    arguments = parser.parse_args(options)
    with tempfile.TemporaryDirectory() as folder:
        show("reports", list(costs(Path(folder), arguments.times)))
