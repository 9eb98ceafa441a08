"""Runs and studies on disk: folders of JSON and Parquet that any tool can read.

A study is a folder; a run is a folder in it, named by the hash of what was asked for:

    runs/digits/study.json                        what the study is and every run that it plans
    runs/digits/0123456789abcdef/run.json         one run: its spec, status, versions, times
    runs/digits/0123456789abcdef/metrics.parquet  epoch, step, split, metric, value
    runs/digits/0123456789abcdef/layers.parquet   step, parameter, quantity, value

Every file is written beside its place and then renamed into it, so a reader never sees half a file, and a
process killed at any instant leaves the last whole version. One process at a time writes into a run's folder,
the one that holds its lock (`RunFolder.locked`).

    study = StudyFolder("runs/digits")
    for run in study.runs():
        print(run.id, run.info()["status"], run.metrics().tail())
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = [
    "FINISHED",
    "RunFolder",
    "StoreError",
    "StudyFolder",
    "canonical_json",
    "from_json_value",
    "read_json",
    "read_table",
    "replacing",
    "run_id",
    "to_json_value",
    "write_json",
    "write_table",
]

Kind = Literal["metrics", "layers"]

FINISHED = frozenset({"done", "diverged"})
"""The statuses of a run that is never run again; "running" and "failed" runs are."""

_RUN_NAME = re.compile(r"[0-9a-f]{16}")
_LOCK_SECONDS = 1.0  # a process that is about to die may still hold a run
_PART_NAME = re.compile(r"part-(\d{5,})\.parquet")


class StoreError(Exception):
    """A file of a study is missing, damaged or not what it should be: which, and the remedy."""


# ------------------------------------------------------------------------------------------------ JSON


def to_json_value(value: Any) -> Any:
    """Return `value` in plain JSON types; infinities and NaN become the strings "inf", "-inf" and "nan"."""
    if isinstance(value, Mapping):
        return {str(key): to_json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json_value(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return to_json_value(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def from_json_value(value: Any) -> Any:
    """Undo `to_json_value`: the strings "inf", "-inf" and "nan" become floats again."""
    if isinstance(value, dict):
        return {key: from_json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_json_value(item) for item in value]
    if isinstance(value, str) and value in ("inf", "-inf", "nan"):
        return float(value)
    return value


def canonical_json(spec: Mapping[str, Any]) -> str:
    """Return the one text of `spec` that is hashed: sorted keys, no spaces, infinities as strings."""
    return json.dumps(to_json_value(spec), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def run_id(spec: Mapping[str, Any]) -> str:
    """Return the name of the run that `spec` describes: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(canonical_json(spec).encode()).hexdigest()[:16]


# ------------------------------------------------------------------------------------------------ files


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, rename it to `path`.

    The temporary name is fixed, so that what a killed process left behind is overwritten by the next attempt.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as indented JSON, atomically."""
    with replacing(Path(path)) as temporary:
        text = json.dumps(to_json_value(value), indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; infinities stay the string "inf" (see `from_json_value`).

    Raises:
        StoreError: the file is missing, is not JSON, or is not an object.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist; is this the folder of a study or run?") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(value, dict):
        raise _unreadable(path, f"expected a JSON object, found {type(value).__name__}")
    return value


def _unreadable(path: Path, why: object) -> StoreError:
    remedy = f"delete the folder {Path(path).parent} and run its study again"
    if Path(path).name == "study.json":
        remedy = "delete it and run the study again; finished runs are kept"
    return StoreError(f"{path} cannot be read ({why}); {remedy}")


def _schema(kind: Kind) -> pa.Schema:
    import pyarrow as pa

    if kind == "metrics":
        counts = [("epoch", pa.int32()), ("step", pa.int64())]
        return pa.schema([*counts, ("split", pa.string()), ("metric", pa.string()), ("value", pa.float64())])
    word = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([("step", pa.int64()), ("parameter", word), ("quantity", word), ("value", pa.float32())])


def write_table(path: Path, frame: pd.DataFrame, kind: Kind) -> None:
    """Write `frame` as Parquet with the columns and types of `kind`, atomically.

    Equal rows give equal bytes, whatever index or categories the frame carries.

    Raises:
        StoreError: the frame's columns are not those of `kind`.
    """
    import pyarrow as pa

    schema = _schema(kind)
    if list(frame.columns) != schema.names:
        raise StoreError(f"{path}: expected the columns {schema.names}, got {list(frame.columns)}")
    arrays = [_column(frame[field.name], field.type) for field in schema]
    _write_arrow(Path(path), pa.Table.from_arrays(arrays, schema=schema))


def _column(column: pd.Series, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):  # words are numbered in order of appearance, so unused categories vanish
        return pa.array(column.astype(object), type=pa.string()).dictionary_encode()
    if pa.types.is_string(kind):
        return pa.array(column.astype(object), type=kind)
    return pa.array(column.to_numpy(), type=kind, from_pandas=False)


def _write_arrow(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def _read_arrow(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, partitioning=None)
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist; the run may not have got that far") from None
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def read_table(path: Path) -> pd.DataFrame:
    """Read a Parquet file that `write_table` wrote; `parameter` and `quantity` come back as categories.

    Raises:
        StoreError: the file is missing or damaged.
    """
    frame: pd.DataFrame = _read_arrow(Path(path)).to_pandas()
    return frame


# ------------------------------------------------------------------------------------------------ runs


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
            StoreError: another process holds it.
        """
        from filelock import FileLock, Timeout

        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._lock_path)
        try:
            lock.acquire(timeout=_LOCK_SECONDS)
        except Timeout:
            message = f"{self.path} is being trained by another process; wait for it, or name another folder"
            raise StoreError(message) from None
        try:
            yield
        finally:
            self._lock_path.unlink(missing_ok=True)  # while it is held, so it is no one else's
            lock.release()

    def merge_layers(self) -> None:
        """Write all parts as one `layers.parquet`; its bytes do not depend on where the parts were cut.

        The parts stay until the run is finished, because a run killed right now resumes from them.
        """
        if self.parts():
            _write_arrow(self.layers_path, self._parts_table())

    def finish(self, info: Mapping[str, Any], metrics: pd.DataFrame) -> None:
        """End a run: metrics, merged layers, then `run.json` with its final status, then the scratch goes."""
        self.write_metrics(metrics)
        self.merge_layers()
        self.write_info(info)
        self.remove_scratch()

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
            return _read_arrow(self.layers_path)
        return self._parts_table()

    def _parts_table(self) -> pa.Table:
        import pyarrow as pa

        schema = _schema("layers")
        plain = pa.schema([pa.field(f.name, _plain(f.type)) for f in schema])
        tables = [_read_arrow(path).cast(plain) for path in self.parts()]
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


# ------------------------------------------------------------------------------------------------ studies


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

    def run(self, name: str) -> RunFolder:
        """The folder of the run called `name`, whether it exists or not."""
        return RunFolder(self.path / name)

    def runs(self) -> Iterator[RunFolder]:
        """The runs that have been started, sorted by name, planned or not."""
        for path in sorted(self.path.glob("*/run.json")):
            if _RUN_NAME.fullmatch(path.parent.name):
                yield RunFolder(path.parent)

    def statuses(self, names: Sequence[str] | None = None) -> dict[str, str]:
        """The status of each started run, or of those in `names` that have been started."""
        runs = self.runs() if names is None else (r for r in map(self.run, dict.fromkeys(names)) if r.exists)
        return {run.id: str(run.info().get("status")) for run in runs}
