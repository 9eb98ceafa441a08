"""Runs and studies on disk: folders of JSON and Parquet that any tool can read.

A study is a folder; a run is a folder in it, named by the hash of what was asked for:

    runs/digits/study.json                        what the study is and every run that it plans
    runs/digits/0123456789abcdef/run.json         one run: its spec, status, versions, times
    runs/digits/0123456789abcdef/metrics.parquet  epoch, step, split, metric, value
    runs/digits/0123456789abcdef/layers.parquet   step, parameter, quantity, value

What reads many runs at once keeps a copy of their metrics in runs/digits/metrics-all.parquet; it may be deleted at
any time (see `compaction`). A damaged file is named and, when the study is run again, renamed to NAME.damaged-1.

Every file is written beside its place and then renamed into it, so a reader never sees half a file, and a
process killed at any instant leaves the last whole version. One process at a time writes into a run's folder,
the one that holds its lock (`RunFolder.locked`).

    study = StudyFolder("runs/digits")
    for run in study.runs():
        print(run.id, run.info()["status"], run.metrics().tail())
"""

from __future__ import annotations

from insgd_lab.store.compaction import Metrics
from insgd_lab.store.files import (
    Damaged,
    DiskError,
    Missing,
    StoreError,
    disk_error,
    fingerprint,
    read_json,
    replacing,
    set_aside,
    sha256_of,
    write_json,
)
from insgd_lab.store.locks import InUse, acquire, is_held
from insgd_lab.store.reasons import reason_of
from insgd_lab.store.runs import FINISHED, RunFolder
from insgd_lab.store.studies import StudyFolder
from insgd_lab.store.tables import read_arrow, read_table, write_arrow, write_table
from insgd_lab.store.values import canonical_json, from_json_value, run_id, to_json_value

__all__ = [
    "FINISHED",
    "Damaged",
    "DiskError",
    "InUse",
    "Metrics",
    "Missing",
    "RunFolder",
    "StoreError",
    "StudyFolder",
    "acquire",
    "canonical_json",
    "disk_error",
    "fingerprint",
    "from_json_value",
    "is_held",
    "read_arrow",
    "read_json",
    "read_table",
    "reason_of",
    "replacing",
    "run_id",
    "set_aside",
    "sha256_of",
    "to_json_value",
    "write_arrow",
    "write_json",
    "write_table",
]
