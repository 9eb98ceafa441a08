"""The runs of a folder as one frame, with what their run.json and their place in the plan say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from insgd_lab.store import FINISHED, StudyFolder, from_json_value

__all__ = ["groups", "read", "rows_of"]

Info = Mapping[str, Any]


def read(path: str | Path, tell: Callable[[Info, Info], dict[str, Any]]) -> tuple[Info, pd.DataFrame]:
    """Read a study's plan and the metrics of its finished runs.

    Args:
        path: of the study's folder.
        tell: of a row of the plan and its run.json, the columns that each of the run's metrics gets.

    Returns:
        `study.json`, and a row a run, step and split: the columns told, then run, epoch, step, split and a column for
        each metric. Runs that are damaged or not finished are left out.

    Raises:
        StoreError: there is no study.
    """
    folder = StudyFolder(path)
    study = from_json_value(folder.info())
    rows = {row["run"]: row for row in study["plan"]}
    infos = {run: info for run, info in folder.infos(list(rows)).items() if info["status"] in FINISHED}
    metrics = folder.metrics(infos).table.to_pandas()
    keys = ["run", "epoch", "step", "split"]
    metrics["run"] = metrics["run"].astype(str)
    wide = metrics.pivot(index=keys, columns="metric", values="value").reset_index().rename_axis(columns=None)
    told = {run: tell(rows[run], from_json_value(info)) for run, info in infos.items()}
    about = pd.DataFrame.from_dict(told, orient="index").rename_axis("run").reset_index()
    return study, about.merge(wide, on="run", how="inner") if len(about) else wide


def rows_of(frame: pd.DataFrame) -> list[Any]:
    """The rows, each with the columns as attributes."""
    return list(frame.itertuples())


def groups(frame: pd.DataFrame, keys: str | list[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """The rows that have the same keys, in the order in which they appear."""
    yield from frame.groupby(keys, sort=False)
