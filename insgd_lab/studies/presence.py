"""Who is at work on a study: each process that works it off holds a lock of its own number in the study's folder.

    with at_work(folder) as number:         # 0 for the first, 1 for one that joins it
        with folder.writing():
            ours = all(theirs == digest for theirs in join(folder, number, digest))
    in_use(folder)                          # whether anybody is

Beside its lock each leaves a digest of the study as it knows it, so that nobody joins the work on another one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from insgd_lab.store import StudyFolder, acquire, is_held

__all__ = ["at_work", "in_use", "join"]

_LOCK_SECONDS = 1.0  # longer than `in_use` ever holds a lock


@contextmanager
def at_work(folder: StudyFolder) -> Iterator[int]:
    """Take part in working off a study.

    Yields:
        This process's number among those at it: the least from 0 that is free.

    Raises:
        DiskError: the folder's disk cannot be written to, or has no locks.
    """
    tried = ((k, acquire(_lock(folder, k), timeout=0 if k else _LOCK_SECONDS)) for k in itertools.count())
    number, lock = next((k, lock) for k, lock in tried if lock is not None)
    try:
        _digest(folder, number).unlink(missing_ok=True)  # of another that had this number
        yield number
    finally:
        _digest(folder, number).unlink(missing_ok=True)
        lock.release()


def join(folder: StudyFolder, number: int, digest: str) -> list[str]:
    """Say which study this process works on; the caller holds `folder.writing()`.

    Returns:
        The digests of the others at work that have joined.
    """
    _digest(folder, number).write_text(digest, encoding="utf-8")
    numbers = [int(path.name.removeprefix(".work-")) for path in folder.path.glob(".work-*")]
    others = [other for other in numbers if other != number and is_held(_lock(folder, other))]
    return [_digest(folder, other).read_text(encoding="utf-8") for other in others]


def in_use(folder: StudyFolder) -> bool:
    """Whether some process is working the study off right now."""
    return any(map(is_held, folder.path.glob(".lock*")))


def _lock(folder: StudyFolder, number: int) -> Path:
    return folder.path / (f".lock-{number}" if number else ".lock")


def _digest(folder: StudyFolder, number: int) -> Path:
    return folder.path / f".work-{number}"
