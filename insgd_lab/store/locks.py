"""Locks between processes, as empty files: gone with the process that holds one, however it ends.

lock = acquire(path, timeout=1.0)       # None if another process has it
lock.release()
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from insgd_lab.store.files import StoreError, disk_error

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["InUse", "acquire", "is_held"]


class InUse(StoreError):
    """Another process holds a run or a study's plan."""


def acquire(path: Path, timeout: float) -> BaseFileLock | None:
    """Hold a lock file, which is made if need be, and its folder too; None if another process has it all the time.

    Args:
        path: of the file.
        timeout: how long to try, in seconds.

    Raises:
        DiskError: the file cannot be made, or its disk has no locks.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=timeout)
    except Timeout:
        return None
    except OSError as error:
        raise disk_error(path, error, "locked") from error
    return lock


def is_held(path: Path) -> bool:
    """Whether some process holds the lock.

    Raises:
        DiskError: its disk has no locks.
    """
    if not path.exists():
        return False
    lock = acquire(path, 0)
    if lock is None:
        return True
    lock.release()
    return False
