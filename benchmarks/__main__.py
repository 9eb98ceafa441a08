"""Print every ratio against its target (the Speed table of the design), one compute thread.

`python -m benchmarks studies` measures what studies of many runs cost, which are no ratios, see `benchmarks.studies`;
`python -m benchmarks report` what their reports do, see `benchmarks.reports`.
"""

from __future__ import annotations

import argparse
import ctypes
import fnmatch
import gc
import itertools
import os
import sys
import time
from pathlib import Path

import torch
from rich.console import Console

from benchmarks import loops, packs, reports, steps, studies, training
from benchmarks.pairing import compare
from benchmarks.peers import peers_version
from benchmarks.report import Measured, facts, heading, save, table


def main() -> None:
    """Measure the rows whose name matches, print them group by group, and keep them if asked."""
    others = {"studies": studies.main, "report": reports.main}
    if sys.argv[1:2] and sys.argv[1] in others:
        others[sys.argv[1]](sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("pattern", nargs="?", default="*", help="rows to measure, e.g. 'step(ViT)*' (default: all)")
    parser.add_argument("--pairs", type=int, default=30, help="interleaved pairs a row (default: 30)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: the harness on a GPU")
    parser.add_argument("--list", action="store_true", help="print the rows' names and measure nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep ratios, versions, date and machine here")
    parser.add_argument("--cpu-time", action="store_true", help="count this process's time only: for a busy machine")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kept = keep_freed_memory()
    console = Console(width=None if sys.stdout.isatty() else 140)  # a file has no width of its own
    if peers_version() is None:
        console.print("pytorch_optimizer is not installed: the rows beside it are left out (pip install --group tests)")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here; leave it out")
    on_cpu = itertools.chain(training.rows(), steps.rows()) if arguments.device == "cpu" else ()
    on_both = itertools.chain(loops.rows(arguments.device), packs.rows(arguments.device))
    everything = sorted(itertools.chain(on_both, on_cpu), key=lambda row: row.group)
    rows = [row for row in everything if fnmatch.fnmatchcase(row.name, arguments.pattern)]
    if not rows:
        parser.error(f"no row is called {arguments.pattern!r}; --list names them")
    if arguments.list:
        console.print("\n".join(row.name for row in rows), highlight=False)
        return
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    measured_on, measured = {**facts(), "freed_memory_kept": kept, "clock": clock.__name__}, list[Measured]()
    console.print(heading(measured_on, arguments.pairs), highlight=False)
    for row in rows:
        console.print(f"measuring {row.name} …", highlight=False)
        measured.append(Measured(row, compare(row, arguments.pairs, clock)))
        gc.collect()  # a network of one row must not sit in memory beside the next
        if arguments.json is not None:
            save(arguments.json, measured_on, measured)
    for group, members in itertools.groupby(measured, key=lambda each: each.row.group):
        console.print(table(group, members))


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory for the next step, for both sides; says whether it can be told to.

    By default glibc gives some of it back to the system, or not, depending on what the process did before: the same
    ``step()`` of the same optimizer then costs 0 to 10 000 page faults, which may be a third of its time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    never_trim, never_map = (-1, -1), (-4, 0)  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    return mallopt is not None and all(mallopt(*setting) == 1 for setting in (never_trim, never_map))


if __name__ == "__main__":
    main()
