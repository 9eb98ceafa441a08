"""A study's metrics for other tools: one tidy Parquet file, or event files for TensorBoard.

    export_parquet(StudyFolder("runs/digits"), Path("digits.parquet"))
    pandas.read_parquet("digits.parquet").query("split == 'val' and metric == 'accuracy'")

Only finished runs have metrics; a run that two arms share stands there once for each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insgd_lab.store import FINISHED, StoreError, StudyFolder, canonical_json, from_json_value, write_arrow

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ExportError", "Exported", "export_parquet", "export_tensorboard"]

_FIXED = ("run", "arm", "optimizer", "seed", "stage", "status", "epoch", "step", "split", "metric", "value")


class ExportError(StoreError):
    """It cannot be exported like this."""


@dataclass(frozen=True)
class Exported:
    """What was exported: how many runs, how many rows (or points), and which damaged runs were left out."""

    runs: int
    rows: int
    damaged: Mapping[str, str]


@dataclass(frozen=True)
class _Results:
    """The plan's rows, the metrics of all their runs, and where each run's begin and end."""

    rows: Sequence[Mapping[str, Any]]
    table: pa.Table
    spans: Mapping[str, tuple[int, int]]
    statuses: Mapping[str, str]
    damaged: Mapping[str, str]


def export_parquet(folder: StudyFolder, path: Path) -> Exported:
    """Write all metrics of a study as one table.

    Its columns: run, arm, optimizer, each setting of any arm by its name (null where an arm does not have it;
    `option.NAME` where the name is one of these), seed, status, epoch, step, split, metric, value; and in a search
    the stage, "trial" or "final".

    Raises:
        ExportError: the name does not end in .parquet.
        StoreError: there is no study, or a file cannot be read or written.
    """
    import numpy as np
    import pyarrow as pa

    if path.suffix != ".parquet":
        raise ExportError(f"{path}: a study is exported as Parquet; give a name that ends in .parquet")
    info = folder.info()
    results = _results(folder, info)
    spans = [results.spans.get(row["run"], (0, 0)) for row in results.rows]
    planned = np.repeat(np.arange(len(spans)), [stop - start for start, stop in spans])
    measured = np.concatenate([np.zeros(0, np.int64), *(np.arange(start, stop) for start, stop in spans)])
    table = results.table.drop_columns("run").take(pa.array(measured))
    for name, column in reversed(_columns(info, results).items()):
        values = column.take(pa.array(planned))
        table = table.add_column(0, name, values.dictionary_encode() if pa.types.is_string(values.type) else values)
    write_arrow(path, table)
    return Exported(len(results.spans), table.num_rows, results.damaged)


def _results(folder: StudyFolder, info: Mapping[str, Any]) -> _Results:
    import numpy as np

    infos = folder.infos([row["run"] for row in info["plan"]])
    read = folder.metrics({run: each for run, each in infos.items() if each.get("status") in FINISHED})
    runs = read.table.column("run").combine_chunks()
    codes, names = runs.indices.to_numpy(), runs.dictionary.to_pylist()
    starts = np.searchsorted(codes, np.arange(len(names) + 1)).tolist()
    damaged = {run: str(each["error"]) for run, each in infos.items() if each.get("status") == "damaged"}
    return _Results(
        rows=info["plan"],
        table=read.table,
        spans={name: (starts[k], starts[k + 1]) for k, name in enumerate(names)},
        statuses={run: str(each.get("status")) for run, each in infos.items()},
        damaged={**damaged, **{run: str(damage) for run, damage in read.damaged.items()}},
    )


# ------------------------------------------------------------------------------------------------ settings


def _columns(info: Mapping[str, Any], results: _Results) -> dict[str, pa.Array]:
    """What the plan says of each of its rows, by the names of the columns."""
    import pyarrow as pa

    arms, rows = {arm["name"]: arm for arm in info["arms"]}, results.rows
    settings = [_settings(arms[row["arm"]], row) for row in rows]
    names = dict.fromkeys(name for each in settings for name in each)
    words = {
        "run": [row["run"] for row in rows],
        "arm": [row["arm"] for row in rows],
        "optimizer": [arms[row["arm"]]["optimizer"] for row in rows],
    }
    stages = {"stage": pa.array([row.get("stage") for row in rows], pa.string())} if "search" in info else {}
    return {
        **{name: pa.array(values, pa.string()) for name, values in words.items()},
        **{_column_name(name): _setting_column([each.get(name) for each in settings]) for name in names},
        "seed": pa.array([row["seed"] for row in rows], pa.int64()),
        **stages,
        "status": pa.array([results.statuses.get(row["run"]) for row in rows], pa.string()),
    }


def _settings(arm: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a row that its study names: the arm's options, and what the row has in their place."""
    return {**(arm.get("options") or {}), **row["settings"], **row["tune"]}


def _column_name(name: str) -> str:
    return f"option.{name}" if name in _FIXED else name


def _setting_column(values: Sequence[Any]) -> pa.Array:
    """Numbers as float64, yes and no as booleans, anything else as text."""
    import pyarrow as pa

    plain = [from_json_value(value) for value in values]
    kinds = {type(value) for value in plain if value is not None}
    if kinds <= {int, float}:
        return pa.array([None if value is None else float(value) for value in plain], pa.float64())
    if kinds == {bool}:
        return pa.array(plain, pa.bool_())
    words = [value if value is None or isinstance(value, str) else _text(value) for value in plain]
    return pa.array(words, pa.string())


def _text(value: Any) -> str:
    return canonical_json({"": value})[len('{"":') : -1]


# ------------------------------------------------------------------------------------------------ TensorBoard


def export_tensorboard(folder: StudyFolder, logs: Path) -> Exported:
    """Write an event file for each run, in LOGS/ARM/SETTINGS, with a curve over steps for each split and metric.

    Raises:
        ExportError: TensorBoard is not installed, or the folder is not empty: a second export would double it.
        StoreError: there is no study, or a file cannot be read.
    """
    if logs.exists() and (not logs.is_dir() or any(logs.iterdir())):
        raise ExportError(f"{logs} is there already and not empty; name a new folder for TensorBoard")
    info = folder.info()
    new_writer = _writer_class()
    results = _results(folder, info)
    points = 0
    for path, row in _places([row for row in results.rows if row["run"] in results.spans]):
        start, stop = results.spans[row["run"]]
        rows = results.table.slice(start, stop - start).to_pylist()
        with new_writer(str(logs / path)) as writer:
            for each in rows:
                writer.add_scalar(f"{each['split']}/{each['metric']}", each["value"], each["step"])
        points += len(rows)
    return Exported(len(results.spans), points, results.damaged)


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ExportError(
            f"TensorBoard is not installed ({error}); pip install 'insgd-lab[tensorboard]', or take --out FILE.parquet"
        ) from None
    return SummaryWriter


def _places(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where each row's events go, such as sgd/lr=0.1,seed=0: TensorBoard shows and filters by these names."""
    taken: set[str] = set()
    for row in rows:
        settings = {**row["settings"], **row["tune"], "seed": row["seed"]}
        words = ",".join(f"{name}={_plain(value)}" for name, value in settings.items())
        place = f"{_file_name(row['arm'])}/{_file_name(words)}"
        if place in taken:
            place = f"{place},{row['run']}"
        taken.add(place)
        yield place, row


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else _text(value)


def _file_name(words: str) -> str:
    return re.sub(r"[^\w=.,+-]", "_", words)
