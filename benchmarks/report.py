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
        """The row as plain values; times in milliseconds."""
        milliseconds = [1e3 * seconds for seconds in self.ratio.seconds]
        return {
            "group": self.row.group, "name": self.row.name, "a_ms": milliseconds[0], "b_ms": milliseconds[1],
            "ratio": self.ratio.median, "low": self.ratio.low, "high": self.ratio.high, "pairs": self.ratio.pairs,
            "repeats": self.row.repeats, "target": self.row.target, "verdict": self.ratio.verdict(self.row.target),
        }  # fmt: skip


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


def table(group: str, measured: Iterable[Measured]) -> Table:
    """The rows of one group."""
    printed = Table("A / B", "A (ms)", "B (ms)", "ratio", "95 % interval", "target", "verdict", title=group)
    for each in measured:
        record = each.record()
        target = "" if record["target"] is None else f"<= {record['target']}"
        printed.add_row(
            record["name"].partition(": ")[2], f"{record['a_ms']:.3g}", f"{record['b_ms']:.3g}",
            f"{record['ratio']:.3f}", f"{record['low']:.3f} to {record['high']:.3f}", target, record["verdict"],
        )  # fmt: skip
    return printed


def save(path: Path, measured_on: dict[str, Any], measured: Iterable[Measured]) -> None:
    """Write facts and rows as JSON."""
    content = {**measured_on, "rows": [each.record() for each in measured]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
