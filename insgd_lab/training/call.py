"""One Python call that trains one run, described as a TOML file or the command line would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from insgd_lab.config import RunSpec, parse_run, read_toml
from insgd_lab.store import FINISHED, StudyFolder
from insgd_lab.training import loop

__all__ = ["train"]


def train(
    run: RunSpec | Mapping[str, Any] | str | Path,
    out: str | Path | None = None,
    *,
    data_dir: str | Path | None = None,
    device: str = "cpu",
    on_epoch: loop.OnEpoch | None = None,
    loaders: int = 0,
    plugins: Sequence[str] = (),
) -> loop.Outcome:
    """Train one run to its end, going on from its last checkpoint if it was interrupted.

    >>> outcome = train({
    ...     "task": {"data": "digits", "model": "mlp"}, "train": {"epochs": 8}, "optimizer": {"name": "sgd", "lr": 0.1},
    ... })
    >>> outcome.results["test_accuracy_at_best_val"], outcome.metrics, outcome.model

    A run that is finished in `out` already is not trained again: its results are read from there, without model and
    optimizer.

    Args:
        run: tables as in a run's TOML file (docs/training.md), the path of such a file, or a spec.
        out: the run is kept in a folder of its own below this one; None keeps nothing and records no layers.
        data_dir: the folder of the data sets; None: $INSGD_LAB_DATA, else the user's cache.
        device: "cpu", "cuda" or "cuda:1".
        on_epoch: called after each epoch with its number, metrics and speed.
        loaders: processes that decode the image files of data that are streamed.
        plugins: modules that register what the run names.

    Raises:
        ConfigError: the run has mistakes; all are listed.
        DataError: data files are missing or wrong.
        StoreError: another process is training the run.
    """
    if not isinstance(run, RunSpec):
        raw, source = (run, "run") if isinstance(run, Mapping) else (read_toml(run), str(run))
        run = parse_run(raw, source, plugins)
    folder = None if out is None else StudyFolder(out).run(run.id)
    if folder is not None and folder.exists and (info := folder.info())["status"] in FINISHED:
        return loop.Outcome(info["status"], folder.metrics(), info["results"])
    return loop.train(
        run, folder, data_dir=None if data_dir is None else Path(data_dir), device=device, on_epoch=on_epoch,
        loaders=loaders,
    )  # fmt: skip
