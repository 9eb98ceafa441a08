"""The folder of one run: what it says of itself, its tables, its scratch, and what of it is damaged."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insgd_lab.store import files
from insgd_lab.store.files import Damaged, Missing, read_json, write_json
from insgd_lab.store.locks import InUse, acquire
from insgd_lab.store.tables import read_arrow, read_table, schema_of, write_arrow, write_table

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from filelock import BaseFileLock

__all__ = ["FINISHED", "RunFolder"]


FINISHED = frozenset({"done", "diverged"})
"""The statuses of a run that is never run again; "running", "failed" and "damaged" runs are."""

_STATUSES = FINISHED | {"running", "failed"}
_LOCK_SECONDS = 1.0  # a process that is about to die may still hold a run
_PART_NAME = re.compile(r"part-(\d{5,})\.parquet")


class RunFolder:
    """The folder of one run. Nothing is created until something is written.

    A running run flushes `layers/part-NNNNN.parquet` and keeps `checkpoint.pt`; `finish` turns them into one
    `layers.parquet` and writes the final `run.json` last, because only that makes a run count as finished.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @property
    def id(self) -> str:
        """The run's name, see `run_id`."""
        return self.path.name

    @property
    def exists(self) -> bool:
        """Whether the run has ever been started (it has a `run.json`)."""
        return self.info_path.is_file()

    @property
    def is_finished(self) -> bool:
        """Whether `run.json` says that the run has a result, and needs no more training."""
        try:
            return self.info().get("status") in FINISHED
        except (Missing, Damaged):
            return False

    @property
    def info_path(self) -> Path:
        """`run.json`."""
        return self.path / "run.json"

    @property
    def metrics_path(self) -> Path:
        """`metrics.parquet`."""
        return self.path / "metrics.parquet"

    @property
    def layers_path(self) -> Path:
        """`layers.parquet`, there once the run has finished."""
        return self.path / "layers.parquet"

    @property
    def checkpoint_path(self) -> Path:
        """`checkpoint.pt`, there while the run is unfinished; write it with `replacing`."""
        return self.path / "checkpoint.pt"

    @property
    def weights_path(self) -> Path:
        """`weights.pt`, the trained weights, where the run was told to keep them; write it with `replacing`."""
        return self.path / "weights.pt"

    def info(self) -> dict[str, Any]:
        """Read `run.json`."""
        return read_json(self.info_path)

    def checked_info(self) -> dict[str, Any]:
        """Read `run.json`, and look at the sizes of a finished run's other files.

        Where something is damaged the status is "damaged", `damaged` names the file and the error says more.

        Raises:
            Missing: the run has not been started.
            StoreError: `run.json` may not be read.
        """
        try:
            info = self._own_info()
            for name, expected in self._results(info).items():
                self._check(name, expected)
        except Damaged as damage:
            return {"status": "damaged", "error": str(damage), "damaged": damage.path.name}
        return info

    def _own_info(self) -> dict[str, Any]:
        """`run.json`, if it is a run's: anything else in its place is damage."""
        info = self.info()
        if info.get("status") not in _STATUSES:
            raise Damaged(self.info_path, f"its status is {info.get('status')!r}")
        return info

    def write_info(self, info: Mapping[str, Any]) -> None:
        """Write `run.json`."""
        write_json(self.info_path, info)

    def metrics(self) -> pd.DataFrame:
        """Read `metrics.parquet`."""
        return read_table(self.metrics_path)

    def write_metrics(self, frame: pd.DataFrame) -> None:
        """Write `metrics.parquet`."""
        write_table(self.metrics_path, frame, "metrics")

    def layers(self) -> pd.DataFrame:
        """Read the layer records: the merged file, else the parts so far, else an empty frame."""
        frame: pd.DataFrame = self._layers_table().to_pandas()
        return frame

    def parts(self) -> list[Path]:
        """The flushed parts of the layer records, in order."""
        return [path for _, path in sorted(self._numbered_parts())]

    def write_layers_part(self, number: int, frame: pd.DataFrame) -> None:
        """Write part `number` (from 0) of the layer records."""
        write_table(self.path / "layers" / f"part-{number:05d}.parquet", frame, "layers")

    def drop_parts_from(self, number: int) -> None:
        """Delete part `number` and all later ones: what a checkpoint does not cover is recorded again."""
        for k, path in self._numbered_parts():
            if k >= number:
                path.unlink()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process, so that no other one trains it; the folder is made if need be.

        Raises:
            InUse: another process holds it.
            DiskError: the folder or its lock cannot be written.
        """
        lock = acquire(self._lock_path, _LOCK_SECONDS)
        if lock is None:
            raise InUse(f"{self.path} is being trained by another process; wait for it, or name another folder")
        try:
            yield
        finally:
            self._let_go(lock)

    def _let_go(self, lock: BaseFileLock) -> None:
        """Release the run, and delete the lock of one that is finished.

        Once a lock has been deleted two processes may hold it, one of them a file that is no longer there: so it is
        done only where no one trains any more.
        """
        if self.is_finished:
            self._lock_path.unlink(missing_ok=True)
        lock.release()

    @property
    def is_held(self) -> bool:
        """Whether some process holds the run."""
        if not self._lock_path.exists():
            return False
        lock = acquire(self._lock_path, 0)
        if lock is not None:
            self._let_go(lock)
        return lock is None

    def merge_layers(self) -> None:
        """Write all parts as one `layers.parquet`; its bytes do not depend on where the parts were cut.

        The parts stay until the run is finished, because a run killed right now resumes from them.
        """
        if self.parts():
            write_arrow(self.layers_path, self._parts_table())

    def finish(self, info: Mapping[str, Any], metrics: pd.DataFrame) -> None:
        """End a run: metrics, merged layers, then `run.json` with its final status, then the scratch goes.

        `run.json` also gets the `files` of the run with their sizes and SHA-256, by which damage is known later.
        """
        self.write_metrics(metrics)
        self.merge_layers()
        results = (self.metrics_path, self.layers_path, self.weights_path)
        prints = {path.name: files.fingerprint(path) for path in results if path.is_file()}
        self.write_info({**info, "files": prints})
        self.remove_scratch()

    # -------------------------------------------------------------------------------------------- damage

    def damage(self) -> list[Damaged]:
        """Every damaged file of the run, found by reading them all; of weights only the size is looked at.

        Checkpoints are not looked at: that takes torch (see `training.checkpoint.load`).

        Raises:
            StoreError: a file may not be read.
        """
        found: list[Damaged] = []
        info: Mapping[str, Any] = {}
        with _noted(found):
            info = self._own_info() if self.exists else {}
            for name, expected in self._results(info).items():
                with _noted(found):
                    self._check(name, expected)
                    self._check_content(name, expected)
        # A finished run has no use for parts: a worker killed at its very end may have left some.
        for part in [] if info.get("status") in FINISHED and not found else self.parts():
            with _noted(found):
                read_arrow(part)
        return found

    def set_damage_aside(self) -> list[Damaged]:
        """Rename what is damaged and the rest of the result with it; whoever calls holds the run, and does it again.

        An unfinished run goes on from its checkpoint, unless the layer records before it are damaged.

        Returns:
            What was found.

        Raises:
            DiskError: something cannot be renamed.
        """
        found = self.damage()
        if found:
            self.set_aside("damaged", scratch=any(damage.path in self.parts() for damage in found))
        return found

    def set_aside(self, why: str, scratch: bool = False) -> None:
        """Rename the run's results, and its checkpoint and parts if asked, so that it starts afresh.

        `run.json` is the last to go: a process killed on the way leaves a finished run with files missing, which
        is damage, and not a run that never was.
        """
        results = (self.metrics_path, self.layers_path, self.weights_path)
        underway = (self.checkpoint_path, self.path / "layers") if scratch else ()
        for path in (*results, *underway, self.info_path):
            if path.exists():
                files.set_aside(path, why)

    def _results(self, info: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The files that a finished run must have, with what run.json says of them; none of an unfinished one."""
        if info.get("status") not in FINISHED:
            return {}
        if info.get("files"):
            return dict(info["files"])
        return {"metrics.parquet": {}, **({"layers.parquet": {}} if self.layers_path.is_file() else {})}

    def _check(self, name: str, expected: Mapping[str, Any]) -> None:
        try:
            size = os.stat(f"{self.path}/{name}").st_size  # in words, for 10 000 of them: paths cost more than the disk
        except FileNotFoundError:
            raise Damaged(self.path / name, "it is missing") from None
        if size != expected.get("bytes", size):
            raise Damaged(self.path / name, f"it has {size} bytes, and had {expected['bytes']}")

    def _check_content(self, name: str, expected: Mapping[str, Any]) -> None:
        path = self.path / name
        if path == self.weights_path:
            return
        if "sha256" not in expected:
            read_arrow(path)
        elif files.sha256_of(path) != expected["sha256"]:
            raise Damaged(path, "its SHA-256 is not the one in run.json")

    # -------------------------------------------------------------------------------------------- scratch

    @property
    def has_scratch(self) -> bool:
        """Whether there is a checkpoint, part or lock."""
        return any(path.exists() for path in (*self._scratch, self._lock_path))

    def remove_scratch(self) -> None:
        """Delete the checkpoint and the parts: of a finished run, or to make one start afresh."""
        *files, folder = self._scratch
        for path in files:
            path.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    @property
    def _scratch(self) -> tuple[Path, Path, Path]:
        checkpoint = self.checkpoint_path
        return checkpoint, checkpoint.with_name(f".{checkpoint.name}.new"), self.path / "layers"

    @property
    def _lock_path(self) -> Path:
        return self.path / ".lock"

    def _numbered_parts(self) -> list[tuple[int, Path]]:
        found = ((_PART_NAME.fullmatch(path.name), path) for path in self.path.glob("layers/part-*.parquet"))
        return [(int(match[1]), path) for match, path in found if match]

    def _layers_table(self) -> pa.Table:
        if self.layers_path.is_file():
            return read_arrow(self.layers_path)
        return self._parts_table()

    def _parts_table(self) -> pa.Table:
        import pyarrow as pa

        schema = schema_of("layers")
        plain = pa.schema([pa.field(f.name, _plain(f.type)) for f in schema])
        tables = [read_arrow(path).cast(plain) for path in self.parts()]
        table = pa.concat_tables(tables) if tables else plain.empty_table()
        # In one chunk each, or the pages of the written file would tell where the parts were cut.
        whole = [column.combine_chunks() for column in table.columns]
        columns = [
            column.dictionary_encode() if pa.types.is_dictionary(kind) else column
            for column, kind in zip(whole, schema.types, strict=True)
        ]
        return pa.Table.from_arrays(columns, schema=schema)


def _plain(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


@contextmanager
def _noted(found: list[Damaged]) -> Iterator[None]:
    try:
        yield
    except Damaged as damage:
        found.append(damage)
