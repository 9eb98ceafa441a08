"""Ratios as a table to read and as JSON to keep."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from benchmarks.pairing import Ratio, Row
from benchmarks.peers import peers_version
from insgd_lab.training.provenance import commit, device_name, versions

__all__ = ["Measured", "facts", "heading", "save", "table"]


@dataclass(frozen=True)
class Measured:
    """A row and what came out."""

    row: Row
    ratio: Ratio

    def record(self) -> dict[str, Any]:
        """The row as plain values."""
        return {
            "group": self.row.group, "name": self.row.name, **self.each(),
            "ratio": self.ratio.median, "low": self.ratio.low, "high": self.ratio.high, "pairs": self.ratio.pairs,
            "repeats": self.row.repeats, "target": self.row.target, "verdict": self.ratio.verdict(self.row.target),
        }  # fmt: skip

    def each(self) -> dict[str, float]:
        """What A and B have taken: memory in MiB; or time in milliseconds, and images per second where counted."""
        sides = dict(zip("ab", self.ratio.each, strict=True))
        if self.row.memory:
            return {f"{side}_mib": size / 2**20 for side, size in sides.items()}
        images = self.row.images
        speeds = {f"{side}_images_per_second": images / seconds for side, seconds in sides.items()} if images else {}
        return {**{f"{side}_ms": 1e3 * seconds for side, seconds in sides.items()}, **speeds}


def facts() -> dict[str, Any]:
    """Where and with what the ratios were measured."""
    revision, changed = commit()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {**versions(), "pytorch_optimizer": peers_version()},
        "commit": revision, "changed_files": changed,
        "machine": {
            "processor": device_name("cpu"), "cores": os.cpu_count(), "system": platform.platform(),
            "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        },
        "threads": torch.get_num_threads(), "dtype": "float32",
    }  # fmt: skip


def heading(measured_on: dict[str, Any], pairs: int) -> str:
    """One line over the tables."""
    known = ", ".join(f"{name} {version}" for name, version in measured_on["versions"].items() if version)
    machine = measured_on["machine"]
    memory = "kept" if measured_on["freed_memory_kept"] else "perhaps returned to the system"
    return (
        f"{known}; {machine['processor']}, {machine['vector_instructions']}; float32, "
        f"{measured_on['threads']} thread(s), {measured_on['clock']}, freed memory {memory}; "
        f"median of {pairs} interleaved pairs with its 95 % interval"
    )


_UNITS = {"ms": "ms", "mib": "MiB", "images_per_second": "images/s"}


def table(group: str, measured: Iterable[Measured]) -> Table:
    """The rows of one group."""
    rows = list(measured)
    quantities = list(dict.fromkeys(name for row in rows for name in row.each()))
    titles = [f"{side.upper()} ({_UNITS[unit]})" for side, _, unit in (name.partition("_") for name in quantities)]
    printed = Table("A / B", *titles, "ratio", "95 % interval", "target", "verdict", title=group)
    for row in rows:
        record = row.record()
        target = "" if record["target"] is None else f"<= {record['target']:.3g}"
        values = [f"{record[name]:.4g}" if name in record else "" for name in quantities]
        printed.add_row(
            record["name"].partition(": ")[2], *values,
            f"{record['ratio']:.3f}", f"{record['low']:.3f} to {record['high']:.3f}", target, record["verdict"],
        )  # fmt: skip
    return printed


def save(path: Path, measured_on: dict[str, Any], measured: Iterable[Measured]) -> None:
    """Write facts and rows as JSON."""
    content = {**measured_on, "rows": [each.record() for each in measured]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
