"""Show how far a study has got: bars on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from insgd_lab.studies.ledger import Tally

__all__ = ["duration", "shown", "stages", "summary"]

_PLAIN_SECONDS = 5.0


def summary(tally: Tally) -> str:
    """Return the counts in words, "12 of 360 runs: 11 done, 1 diverged, 0 failed", of a search stage by stage."""
    how = f"{tally.done} done, {tally.diverged} diverged, {tally.failed} failed"
    counts = f"{stages(tally) or f'{tally.ended} of {tally.total} runs'}: {how}"
    if not tally.elsewhere:
        return counts
    return f"{counts}; {len(tally.elsewhere)} held by other processes, such as {tally.elsewhere[0]}"


def stages(tally: Tally) -> str:
    """Return how far each stage of a search is, "trials 12 of 48, final runs 0 of 15"; nothing without a search."""
    if tally.stages is None:
        return ""
    trials = f"trials {tally.ended - tally.finals} of {tally.stages.trials}"
    return f"{trials}, final runs {tally.finals} of {tally.stages.finals}"


def duration(seconds: float) -> str:
    """Return a time in words: "40 s", "12 min", "5.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def _time_left(tally: Tally) -> str:
    seconds = tally.seconds_left
    return "" if seconds is None else f"; about {duration(seconds)} left"


@contextmanager
def shown(name: str, stream: TextIO = sys.stdout) -> Iterator[Callable[[Tally], None]]:
    """Give a function to call with each new tally; bars if `stream` is a terminal, else plain lines."""
    if stream.isatty():
        with _bars(name, stream) as update:
            yield update
    else:
        yield _lines(name, stream)


def _lines(name: str, stream: TextIO) -> Callable[[Tally], None]:
    last = time.monotonic()

    def update(tally: Tally) -> None:
        nonlocal last
        if time.monotonic() - last >= _PLAIN_SECONDS:
            last = time.monotonic()
            print(f"{name}: {summary(tally)}{_time_left(tally)}", file=stream, flush=True)

    return update


@contextmanager
def _bars(name: str, stream: TextIO) -> Iterator[Callable[[Tally], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=Console(file=stream)) as progress:
        task = progress.add_task(name, total=None, state="starting workers")

        def update(tally: Tally) -> None:
            counts = [f"{tally.running} running"] if tally.running or tally.elsewhere else ["starting workers"]
            words = {"held by others": len(tally.elsewhere), "diverged": tally.diverged, "failed": tally.failed}
            counts += [f"{n} {word}" for word, n in words.items() if n]
            state = "; ".join(filter(None, [stages(tally), ", ".join(counts)])) + _time_left(tally)
            progress.update(task, total=tally.in_all, completed=tally.ended, state=state)

        yield update
