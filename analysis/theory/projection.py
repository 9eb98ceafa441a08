"""NLMS's iterates in the plane: whether each step is the projection that Equation 8 says it is.

frame = iterates("runs/theory/projection")
frame[["mu", "step", "w0", "w1", "off_line", "off_normal", "distance"]]
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from insgd_lab.analysis.labels import number
from insgd_lab.analysis.tables import Column, Table, count
from insgd_lab.analysis.theory.reading import groups, read

__all__ = ["findings", "iterates", "table"]


def iterates(path: str | Path) -> pd.DataFrame:
    """Every iterate, with how far it is from what a projection would be.

    Args:
        path: of the study's folder.

    Returns:
        A row a step size and step, from 0: mu, step, w0, w1 (the weights after the step), u0, u1, d (the sample, NaN at
        step 0), off_line (|d − uᵀw| / ‖u‖, the distance from the sample's line; a projection has 0), off_normal (the
        part of the step along the line, over its length; 0 for a step at a right angle to it) and distance (from the
        solution).

    Raises:
        StoreError: there is no study.
    """

    def tell(row: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
        solution = info["spec"]["solution"]
        return {"mu": row["settings"]["lr"], "s0": solution[0], "s1": solution[1]}

    _, frame = read(path, tell)
    frame = frame.sort_values(["mu", "step"]).reset_index(drop=True)
    norm = np.hypot(frame["u0"], frame["u1"])
    frame["off_line"] = (frame["d"] - frame["u0"] * frame["w0"] - frame["u1"] * frame["w1"]).abs() / norm
    moved = frame.groupby("mu")[["w0", "w1"]].diff()
    along: pd.Series = (moved["w0"] * frame["u1"] - moved["w1"] * frame["u0"]).abs() / norm
    frame["off_normal"] = along / np.hypot(moved["w0"], moved["w1"])
    frame["distance"] = np.hypot(frame["w0"] - frame["s0"], frame["w1"] - frame["s1"])
    return frame.drop(columns=["run", "epoch", "split"])


def findings(frame: pd.DataFrame) -> list[str]:
    """For each step size, where its steps lead and how near the solution they come."""
    return [_finding(float(mu), rows) for mu, rows in groups(frame, "mu")]


def _finding(mu: float, rows: pd.DataFrame) -> str:
    first, last = rows["distance"].iloc[0], rows["distance"].iloc[-1]
    way = "ends on" if mu == 1 else "stops short of" if mu < 1 else "goes beyond"
    off = f" (to within {number(rows['off_line'].max())})" if mu == 1 else ""
    return (
        f"μ = {number(mu)}: each step {way} the line of its sample{off}, at a right angle to it (to within "
        f"{number(rows['off_normal'].max())}); the distance from the point that both lines share falls from "
        f"{number(first)} to {number(last)} in {len(rows) - 1} steps."
    )


def table(frame: pd.DataFrame) -> Table:
    """Every iterate."""
    columns = (
        Column("μ", ("mu",), number, True),
        Column("step", ("step",), count, True),
        Column("w₀", ("w0",), number, True),
        Column("w₁", ("w1",), number, True),
        Column("distance from the line", ("off_line",), number, True),
        Column("share of the step along the line", ("off_normal",), number, True),
        Column("distance from the solution", ("distance",), number, True),
    )
    return Table("projection", "The iterates of NLMS, and how far each step is from a projection.", frame, columns)
