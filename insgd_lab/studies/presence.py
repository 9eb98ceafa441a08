"""Who is at work on a study: each process that works it off holds a lock of its own number in the study's folder.

    with at_work(folder) as number:         # 0 for the first, 1 for one that joins it
        ...
    in_use(folder)                          # whether anybody is

The locks go when their process does, however it ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from insgd_lab.store import StudyFolder

__all__ = ["at_work", "in_use", "writing_plan"]

_LOCK_SECONDS = 1.0  # longer than `in_use` ever holds a lock


@contextmanager
def at_work(folder: StudyFolder) -> Iterator[int]:
    """Take part in working off a study.

    Yields:
        This process's number among those at it: the least from 0 that is free.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    for number in itertools.count():
        lock = FileLock(folder.path / (f".lock-{number}" if number else ".lock"))
        with suppress(Timeout):
            lock.acquire(timeout=0 if number else _LOCK_SECONDS)
            break
    try:
        yield number
    finally:
        lock.release()


def in_use(folder: StudyFolder) -> bool:
    """Whether some process is working the study off right now."""
    return any(map(_is_held, folder.path.glob(".lock*")))


@contextmanager
def writing_plan(folder: StudyFolder) -> Iterator[None]:
    """Hold `study.json`, for the moment that comparing and writing it takes."""
    folder.path.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.path / ".plan-lock"):
        yield


def _is_held(path: Path) -> bool:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
