"""Single files: JSON written whole or not at all, what a disk may do to them, and damaged ones set aside.

Nothing here deletes a file that cannot be read: `set_aside` renames it, so that `run.json` becomes
`run.json.damaged-1`, and what it held is made again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from insgd_lab.store.values import to_json_value

__all__ = [
    "Damaged",
    "DiskError",
    "Missing",
    "StoreError",
    "disk_error",
    "fingerprint",
    "read_json",
    "replacing",
    "set_aside",
    "sha256_of",
    "unreadable",
    "write_json",
]


class StoreError(Exception):
    """A file of a study is missing, damaged or not what it should be: which, and the remedy."""


class Damaged(StoreError):
    """A file is there (or should be) and what it holds is not what was written.

    Attributes:
        path: the file.
        why: what is wrong with it, in a few words.
    """

    def __init__(self, path: Path, why: object) -> None:
        self.path, self.why = Path(path), str(why)
        remedy = "run the study again: the file is set aside and only this run is repeated"
        if self.path.name == "study.json":
            remedy = "run the study again: the file is set aside and written anew; finished runs are kept"
        super().__init__(f"{path} cannot be read ({self.why}); {remedy}")

    def __reduce__(self) -> tuple[type[Damaged], tuple[Path, str]]:
        return Damaged, (self.path, self.why)


class Missing(StoreError):
    """A file is not there."""


class DiskError(StoreError):
    """The disk refuses: it is full, read-only or not ours. The next run would meet the same, so stop there."""


_WRITE_REMEDIES = {
    errno.ENOSPC: "free some space on that disk; the same command then goes on",
    errno.EDQUOT: "free some of your quota on that disk; the same command then goes on",
    errno.EROFS: "it lies on a disk that cannot be written to: name another folder",
    errno.EACCES: "give yourself the permission to write there, or name another folder",
    errno.EPERM: "give yourself the permission to write there, or name another folder",
    errno.ENOLCK: "its disk has no locks between processes: name a folder on another one",
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, rename it to `path`.

    The temporary name is fixed, so that what a killed process left behind is overwritten by the next attempt.

    Raises:
        DiskError: it cannot be written; `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except BaseException as error:
        _drop(temporary)
        refusal = _refusal(error, path, temporary)
        if refusal is not None:
            raise refusal from error
        raise


def _drop(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:
        return  # where it could not be written it may not be deleted either; the next attempt overwrites it


def _refusal(error: BaseException, path: Path, temporary: Path) -> DiskError | None:
    """What to say if the disk is why `path` was not written; None if something else is."""
    if isinstance(error, RuntimeError):  # torch.save puts its own error over the system's
        error = error.__context__ or error
    if not isinstance(error, OSError) or not error.errno:
        return None
    ours = (None, *map(str, (path, temporary, path.parent)))
    return disk_error(path, error) if error.filename in ours else None


def disk_error(path: Path, error: OSError, verb: str = "written") -> DiskError:
    """What to say of a disk that refuses, with the remedy."""
    remedy = _WRITE_REMEDIES.get(error.errno or 0, "check the path and its disk")
    # The system's own words: pyarrow puts others in their place.
    return DiskError(f"{path} cannot be {verb} ({os.strerror(error.errno or 0)}); {remedy}")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as indented JSON, atomically."""
    with replacing(Path(path)) as temporary:
        text = json.dumps(to_json_value(value), indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; infinities stay the string "inf" (see `from_json_value`).

    Raises:
        Missing: there is no such file.
        Damaged: it is not JSON, or not an object.
        StoreError: it may not be read.
    """
    try:
        value = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise Missing(f"{path} does not exist; is this the folder of a study or run?") from None
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise Damaged(path, error) from error
    if not isinstance(value, dict):
        raise Damaged(path, f"expected a JSON object, found {type(value).__name__}")
    return value


def unreadable(path: Path, error: OSError) -> StoreError:
    """What to say of a file that may be whole and cannot be got at."""
    return StoreError(f"{path} cannot be read ({error.strerror}); check its permissions and its disk")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: Path) -> dict[str, Any]:
    """The size and the SHA-256 of a file, as run.json keeps them."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def set_aside(path: Path, why: str = "damaged") -> Path:
    """Rename a file or folder, so that it is out of the way and nothing is lost: `run.json.damaged-1`.

    Returns:
        Its new path.

    Raises:
        DiskError: it cannot be renamed.
    """
    aside = _numbered(path, why)
    try:
        path.rename(aside)
    except OSError as error:
        raise disk_error(path, error, f"renamed to {aside.name}") from error
    return aside


def _numbered(path: Path, why: str) -> Path:
    """The first name that is free: NAME.WHY-1, NAME.WHY-2 and so on."""
    number = 1
    while (aside := path.with_name(f"{path.name}.{why}-{number}")).exists():
        number += 1
    return aside
