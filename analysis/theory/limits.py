"""Largest stable step sizes on a quadratic, relative to 2 / L, beside what closed forms say where there is one.

frame = stability("runs/theory/stability")
frame[["arm", "distance", "low", "high", "predicted"]]
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from insgd_lab.analysis.labels import number
from insgd_lab.analysis.tables import Column, Table
from insgd_lab.analysis.theory.reading import groups, read, rows_of
from insgd_lab.store import StudyFolder

__all__ = ["closed_form", "findings", "stability", "table"]

LINEAR = ("sgd", "lms", "nlms", "nlms-l1", "insgd-l1", "insgd-l2", "insgd-linf", "insgd-lp", "insgd-norm")
"""Rules whose step is the gradient, or an average of gradients, times a number that is steady on these inputs."""
_SAME = 1.05  # limits from two distances are one if they are no further apart than this


def closed_form(optimizer: str, options: Mapping[str, Any], curvature: float, scale: float) -> float:
    """The largest stable learning rate where it is known, else NaN.

    With s the steady factor before the gradient (1 / f(P); 1 for plain rules), gamma momentum and tau dampening:

        2 / (s L)                                 without momentum
        2 (1 + gamma) / ((1 - tau) s L)           heavy ball
        2 (1 + gamma) / ((1 + 2 gamma) s L)       Nesterov's form, tau = 0

    Args:
        optimizer: name of the rule.
        options: of the rule.
        curvature: L, the largest eigenvalue of the Hessian.
        scale: s.
    """
    if optimizer not in LINEAR or options.get("adanorm") is not None:
        return math.nan
    gamma, tau = float(options.get("momentum", 0.0)), options.get("dampening", 0.0)
    if gamma == 0:
        return 2 / (scale * curvature)
    if options.get("nesterov"):
        return 2 * (1 + gamma) / ((1 + 2 * gamma) * scale * curvature)
    kept = 1 - (gamma if tau is None else float(tau))
    return 2 * (1 + gamma) / (kept * scale * curvature)


def stability(path: str | Path) -> pd.DataFrame:
    """A row a rule and distance.

    Columns: arm, optimizer, distance, low (the largest learning rate found stable below every unstable one), high (the
    smallest found unstable; infinite if none was), scale (the recorded 1 / f(P), 1 for rules that read no inputs),
    predicted (by `closed_form`), tried.

    Raises:
        StoreError: there is no study.
    """
    info, frame = read(path, _told)
    if frame.empty:
        return pd.DataFrame(
            columns=["arm", "optimizer", "distance", "low", "high", "scale", "predicted", "tried", "curvature"]
        )
    arms = {arm["name"]: arm for arm in info["arms"]}
    train = frame[frame["split"] == "train"].sort_values(["run", "epoch"])
    runs = train.groupby("run").agg(
        arm=("arm", "first"), distance=("distance", "first"), lr=("lr_tried", "first"), status=("status", "first"),
        last=("loss", "last"), highest=("loss", lambda losses: losses.max(skipna=False)),
    )  # fmt: skip
    start = runs["distance"].map({float(key): value for key, value in info["start"].items()})
    good = (runs["status"] == "done") & (runs["last"] < start) & (runs["highest"] < info["rise"] * start)
    rows = []
    for (arm, distance), part in groups(runs.assign(stable=good), ["arm", "distance"]):
        low, high = _bracket(part)
        spec, scale = arms[str(arm)], _scale(Path(path), part)
        options = {key: math.inf if value == "inf" else value for key, value in spec["options"].items()}
        predicted = closed_form(spec["optimizer"], options, info["curvature"], scale)
        rows.append((arm, spec["optimizer"], distance, low, high, scale, predicted, len(part), info["curvature"]))
    columns = ["arm", "optimizer", "distance", "low", "high", "scale", "predicted", "tried", "curvature"]
    return pd.DataFrame(rows, columns=columns)


def _told(row: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "arm": row["arm"],
        "distance": float(row["settings"]["task.data.distance"]),
        "lr_tried": float(row["tune"]["lr"]),
        "status": run["status"],
    }


def _bracket(tried: pd.DataFrame) -> tuple[float, float]:
    """The smallest unstable rate, and the largest stable one below it."""
    bad = tried.loc[~tried["stable"], "lr"]
    high = float(bad.min()) if len(bad) else math.inf
    below = tried.loc[tried["stable"] & (tried["lr"] < high), "lr"]
    return float(below.max()) if len(below) else 0.0, high


def _scale(path: Path, tried: pd.DataFrame) -> float:
    """The step scale that the last step of a stable run recorded; 1 where none did."""
    for run in tried[tried["stable"]].index:
        records = StudyFolder(path).run(str(run)).layers()
        scales = records[records["quantity"] == "step_scale"].sort_values("step")["value"]
        if len(scales):
            return float(scales.iloc[-1])
    return 1.0


# ------------------------------------------------------------------------------------------------ in words


def relative(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a rule, in the order of its limit, in units of 2 / L.

    Columns: arm, optimizer; near, near_high and far, far_high, the brackets from the smallest and the largest distance;
    predicted; growth (far / near).
    """
    rows = []
    for arm, part in groups(frame, "arm"):
        unit, ends = 2 / part["curvature"].iloc[0], part.sort_values("distance")
        near, far = ends.iloc[0], ends.iloc[-1]
        limits = (near["low"], near["high"], far["low"], far["high"], near["predicted"])
        growth = far["low"] / near["low"] if near["low"] else math.nan
        rows.append((arm, near["optimizer"], *(limit / unit for limit in limits), growth))
    columns = ["arm", "optimizer", "near", "near_high", "far", "far_high", "predicted", "growth"]
    return pd.DataFrame(rows, columns=columns).sort_values("near", ignore_index=True)


def findings(frame: pd.DataFrame) -> list[str]:
    """What was measured beside 2 / L and the closed forms."""
    if frame.empty:
        return []
    limits = relative(frame)
    known = limits[limits["predicted"].notna()]
    off = (known["near"] + known["near_high"]) / 2 / known["predicted"] - 1
    found = []
    if len(known):
        worst = known["arm"].iloc[int(off.abs().argmax())]
        parts = [f"{row.arm} {number(row.near)} ({number(row.predicted)})" for row in rows_of(known)]
        found.append(
            "Where a closed form is known (2(1 + γ)/((1 − τ) s L), and with Nesterov's momentum "
            f"2(1 + γ)/((1 + 2γ) s L), s = 1/f(P) as recorded), the measured limit lies "
            f"within {100 * off.abs().max():.1f} % of it for all {len(known)} rules (furthest: {worst}). In units of "
            f"2/L, measured (predicted): {', '.join(parts)}."
        )
    others = limits[limits["predicted"].isna()]
    steady = others[(others["growth"] < _SAME) & (others["growth"] > 1 / _SAME)]
    if len(steady):
        parts = [f"{row.arm} {number(row.near)}" for row in rows_of(steady)]
        found.append(
            "Without a closed form here, but with the same limit from both distances, in units of 2/L: "
            f"{', '.join(parts)}."
        )
    moving = others.drop(steady.index)
    if len(moving):
        parts = [f"{row.arm} {number(row.near)} and {number(row.far)}" for row in rows_of(moving)]
        near, far = sorted(frame["distance"].unique())[:: len(frame["distance"].unique()) - 1 or 1]
        found.append(
            f"The limit depends on how far the minimum is, so it is no property of the curvature alone; from distance "
            f"{number(near)} and from {number(far)}, in units of 2/L: {', '.join(parts)}."
        )
    return found


def table(frame: pd.DataFrame) -> Table:
    """The limits of all rules."""
    columns = (
        Column("rule", ("arm",)),
        Column("stable to", ("near",), number, numeric=True),
        Column("not at", ("near_high",), number, numeric=True),
        Column("closed form", ("predicted",), number, numeric=True),
        Column("ten times as far", ("far",), number, numeric=True),
        Column("ratio", ("growth",), number, numeric=True),
    )
    caption = "Largest stable learning rate in units of 2 / L, from a distance of 1 and of 10 from the minimum."
    return Table("stability", caption, relative(frame), columns)
