"""The metrics of many runs in one file, so that a report on 10 000 of them opens one file and not 10 000.

`metrics-all.parquet` in a study's folder is a cache: run, sha256, epoch, step, split, metric, value. Each run's
rows carry the SHA-256 of the `metrics.parquet` that they were read from, and count only while its `run.json`
gives the same one, so they cannot be stale, wherever the folder is copied. Anyone may delete the file; whoever
reads many runs writes it again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insgd_lab.store.files import Damaged, StoreError, sha256_of
from insgd_lab.store.tables import read_arrow, schema_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["COMPACTED", "Metrics", "read_metrics"]

COMPACTED = "metrics-all.parquet"
_WORTH_KEEPING = 200  # runs read one by one, a twentieth of a second, before the file is written anew


@dataclass(frozen=True)
class Metrics:
    """The metrics of many runs.

    Attributes:
        table: run (as a dictionary), epoch, step, split, metric, value; a run's rows stand together, runs in the
            order in which they were asked for.
        damaged: the runs left out, and why.
    """

    table: pa.Table
    damaged: dict[str, Damaged]


def read_metrics(folder: Path, infos: Mapping[str, Mapping[str, Any]]) -> Metrics:
    """Read the metrics of the finished runs whose `run.json` are `infos`, from the cache where it holds them.

    Raises:
        StoreError: a file may not be read.
    """
    digests = {run: _digest(info) for run, info in infos.items()}
    known = _known(folder / COMPACTED, digests)
    read, damaged = {}, {}
    for run in [run for run in digests if run not in known]:
        try:
            read[run] = _read(folder / run / "metrics.parquet", digests[run])
        except Damaged as damage:
            damaged[run] = damage
    found = {**known, **read}
    metrics = Metrics(_joined({run: found[run] for run in digests if run in found}), damaged)
    if sum(digests[run] is not None for run in read) >= _WORTH_KEEPING:
        with suppress(OSError, StoreError):  # a full or read-only disk: the next reader is as slow as this one
            _keep(folder / COMPACTED, metrics.table, digests)
    return metrics


def _read(path: Path, digest: str | None) -> pa.Table:
    """The metrics of one run, if the file is still the one that its run.json speaks of."""
    if digest is not None and path.is_file() and sha256_of(path) != digest:
        raise Damaged(path, "its SHA-256 is not the one in run.json")
    return read_arrow(path, _schema().names)


def _schema() -> pa.Schema:
    return schema_of("metrics")


def _digest(info: Mapping[str, Any]) -> str | None:
    """The SHA-256 of a run's metrics as its run.json has it; None for runs of the time before it had one."""
    digest = info.get("files", {}).get("metrics.parquet", {}).get("sha256")
    return None if digest is None else str(digest)


def _joined(tables: Mapping[str, pa.Table]) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    whole = pa.concat_tables([_schema().empty_table(), *(table.cast(_schema()) for table in tables.values())])
    codes = np.repeat(np.arange(len(tables), dtype=np.int32), [table.num_rows for table in tables.values()])
    runs = pa.DictionaryArray.from_arrays(codes, pa.array(list(tables), pa.string()))
    return whole.combine_chunks().add_column(0, "run", runs)


# ------------------------------------------------------------------------------------------------ the cache


def _known(path: Path, digests: Mapping[str, str | None]) -> dict[str, pa.Table]:
    """Each run's rows in the cache, if they are of its present metrics; nothing if it is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        return {}
    try:
        whole = pq.ParquetFile(path, page_checksum_verification=True).read().combine_chunks()
        rows = whole.select(_schema().names)
        return {
            run: rows.slice(start, stop - start)
            for run, digest, start, stop in _blocks(whole)
            if digests.get(run) == digest
        }
    except (OSError, KeyError, pa.ArrowException):
        return {}


def _blocks(table: pa.Table) -> Iterator[tuple[str, str, int, int]]:
    """Each run of the cache, its digest, and its first row and the one behind its last."""
    import numpy as np

    runs, digests = (table.column(name).unify_dictionaries().combine_chunks() for name in ("run", "sha256"))
    codes = runs.indices.to_numpy()
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    names, sums = runs.dictionary.to_pylist(), digests.dictionary.to_pylist()
    sum_codes = digests.indices.to_numpy()[starts]
    for start, stop, digest in zip(starts.tolist(), [*starts[1:].tolist(), len(codes)], sum_codes, strict=True):
        yield names[codes[start]], sums[digest], start, stop


def _keep(path: Path, table: pa.Table, digests: Mapping[str, str | None]) -> None:
    """Write the cache anew, under a name of this process's own: two readers may do so at the same time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    runs = table.column("run").combine_chunks()
    sums = pa.array([digests[run] for run in runs.dictionary.to_pylist()], pa.string())
    column = pa.DictionaryArray.from_arrays(runs.indices, sums)
    own = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        kept = table.add_column(1, "sha256", column)
        pq.write_table(kept, own, write_page_checksum=True)
        own.replace(path)
    finally:
        own.unlink(missing_ok=True)
