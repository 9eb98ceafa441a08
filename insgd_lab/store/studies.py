"""The folder of a study: what it planned, and its runs, one by one or all together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from insgd_lab.store.compaction import Metrics, read_metrics
from insgd_lab.store.files import Damaged, Missing, StoreError, read_json, set_aside, write_json
from insgd_lab.store.locks import InUse, acquire
from insgd_lab.store.runs import RunFolder

__all__ = ["StudyFolder"]

_WRITING_SECONDS = 60.0
_RUN_NAME = re.compile(r"[0-9a-f]{16}")


class StudyFolder:
    """The folder of a study: `study.json` and one folder per run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"StudyFolder({str(self.path)!r})"

    @property
    def exists(self) -> bool:
        """Whether there is a `study.json`."""
        return self.info_path.is_file()

    @property
    def info_path(self) -> Path:
        """`study.json`."""
        return self.path / "study.json"

    @property
    def report_path(self) -> Path:
        """The folder of the report."""
        return self.path / "report"

    def info(self) -> dict[str, Any]:
        """Read `study.json`: the study, its arms and its plan.

        Raises:
            StoreError: there is none, or it is damaged.
        """
        if not self.exists:
            raise StoreError(f"{self.path} is not a study: it has no study.json; write one with `study run`")
        return read_json(self.info_path)

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Write `study.json`."""
        write_json(self.info_path, info)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold `study.json` for the moment that reading, comparing and writing it takes.

        Raises:
            InUse: another process has held it for long.
            DiskError: the folder's disk cannot be written to, or has no locks.
        """
        path = self.path / ".plan-lock"
        lock = acquire(path, _WRITING_SECONDS)
        if lock is None:
            raise InUse(
                f"{path} has been held by another process for {_WRITING_SECONDS:.0f} s; if one that runs this study is "
                "stopped, let it go on or end it, and try again"
            )
        try:
            yield
        finally:
            lock.release()

    def run(self, name: str) -> RunFolder:
        """The folder of the run called `name`, whether it exists or not."""
        return RunFolder(self.path / name)

    def runs(self) -> Iterator[RunFolder]:
        """The runs that have been started, sorted by name, planned or not."""
        for path in sorted(self.path.glob("*/run.json")):
            if _RUN_NAME.fullmatch(path.parent.name):
                yield RunFolder(path.parent)

    def infos(self, names: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        """What `run.json` says of each started run, or of those in `names` that have been started.

        A run with a damaged file has the status "damaged", and an error that says which and what to do.

        Raises:
            StoreError: a `run.json` may not be read.
        """
        infos = {}
        for run in self.runs() if names is None else map(self.run, dict.fromkeys(names)):
            with suppress(Missing):
                infos[run.id] = run.checked_info()
        return infos

    def statuses(self, names: Sequence[str] | None = None) -> dict[str, str]:
        """The status of each started run, or of those in `names` that have been started; "damaged" is one too."""
        return {name: str(info.get("status")) for name, info in self.infos(names).items()}

    def metrics(self, infos: Mapping[str, Mapping[str, Any]]) -> Metrics:
        """Read the metrics of many finished runs; `infos` are their `run.json`, by name."""
        return read_metrics(self.path, infos)

    def set_damage_aside(self) -> list[Damaged]:
        """Rename what is damaged of the study and of its runs, so that it is written or run again.

        Every file of a finished run is read, which takes 0.1 ms a run and what the disk needs. A run that someone
        else holds is left alone.

        Returns:
            What was found, `study.json` first.

        Raises:
            DiskError: something cannot be renamed.
            StoreError: a file may not be read.
        """
        found = self._set_info_aside()
        for run in self.runs():
            if _may_be_damaged(run):
                found += _set_aside_held(run)
        return found

    def _set_info_aside(self) -> list[Damaged]:
        if self._info_damage() is None:
            return []
        with self.writing():  # or two processes would rename it, the second one what the first has written anew
            damage = self._info_damage()
            if damage is not None:
                set_aside(self.info_path)
        return [] if damage is None else [damage]

    def _info_damage(self) -> Damaged | None:
        try:
            if self.exists:
                read_json(self.info_path)
        except Damaged as damage:
            return damage
        return None


def _may_be_damaged(run: RunFolder) -> bool:
    """Whether a look at the run, which nobody holds meanwhile, finds damage; its files may go while it ends."""
    try:
        return bool(run.damage())
    except Missing:
        return True


def _set_aside_held(run: RunFolder) -> list[Damaged]:
    try:
        with run.locked():
            return run.set_damage_aside()
    except InUse:
        return []
