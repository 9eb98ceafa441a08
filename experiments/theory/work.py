"""Jobs worked off by processes of one compute thread each, or by this one."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch

__all__ = ["Tell", "in_parallel", "quietly"]

Tell = Callable[[int, int], None]
"""Told how many jobs are done, and how many there are."""


def quietly(done: int, total: int) -> None:
    """Tell nobody."""


def in_parallel(work: Callable[..., None], jobs: Sequence[tuple[Any, ...]], workers: int, tell: Tell) -> None:
    """Call `work` with each job's arguments; what one raises ends them all.

    Args:
        work: a function of a module, so that it can be sent to another process.
        jobs: its arguments.
        workers: processes; with 1 nothing leaves this one.
        tell: called before the first job and after each.
    """
    tell(0, len(jobs))
    if workers == 1 or len(jobs) < 2:
        for done, job in enumerate(jobs, 1):
            work(*job)
            tell(done, len(jobs))
        return
    fresh = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    with ProcessPoolExecutor(min(workers, len(jobs)), fresh, _prepare) as pool:
        futures = [pool.submit(work, *job) for job in jobs]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                tell(done, len(jobs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _prepare() -> None:
    """Of a worker: one thread, and Ctrl-C is for the process that asked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
