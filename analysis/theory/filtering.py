"""Learning curves and steady state of NLMS beside the mean-square theory for white Gaussian regressors.

    frame = nlms_curve("runs/theory/nlms")
    frame[["regressors", "mu", "samples", "deviation", "low", "high", "theory"]]

With N taps, inputs of unit power and noise of variance s^2, D = E||w - w_o||^2 follows

    D_t = (1 - mu (2 - mu) / N) D_{t-1} + mu^2 s^2 / (N - 2)

exactly if every regressor is independent of those before (E[1 / ||x||^2] = 1 / (N - 2)), and so converges for 0 < mu
< 2, to a misadjustment D / s^2 = mu / (2 - mu) N / (N - 2), which for long filters is the textbooks' mu / (2 - mu)
(Haykin, Adaptive Filter Theory; Sayed, Adaptive Filters). Regressors of a delay line share all values but one with
the sample before: there it is an approximation. A linear layer's initial weights are uniform with variance 1 / (3 N),
so D_0 = 4 / 3 for an unknown system of unit norm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from insgd_lab.analysis.labels import number, p_text
from insgd_lab.analysis.mean_tests import ALPHA
from insgd_lab.analysis.statistics import holm, paired_t, summarize
from insgd_lab.analysis.tables import Column, Table
from insgd_lab.analysis.theory.reading import groups, read, rows_of

__all__ = ["deviation", "findings", "misadjustment", "nlms_curve", "steady_theory", "table"]

TAPS, SNR = 32, 30.0  # the task's defaults
STEADY = 0.25
"""Share of a run, its end, over which the steady state is averaged."""


def deviation(samples: Any, mu: float, taps: int, noise: float, start: float) -> Any:
    """D after so many samples, from D_0 = `start`, with noise of variance `noise`."""
    factor, gain = 1 - mu * (2 - mu) / taps, mu**2 * noise / (taps - 2)
    if factor == 1:
        return start + gain * samples
    settled = gain / (1 - factor)
    return settled + (start - settled) * factor**samples


def steady_theory(mu: float, taps: int) -> float:
    """The misadjustment mu / (2 - mu) N / (N - 2); infinite from mu = 2 on."""
    return mu / (2 - mu) * taps / (taps - 2) if mu < 2 else math.inf


def _told(row: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    data = run["spec"]["task"]["data"]["options"]
    return {
        "mu": float(row["settings"]["lr"]),
        "regressors": row["settings"]["task.data.regressors"],
        "seed": row["seed"],
        "taps": data.get("taps", TAPS),
        "noise": 10 ** (-data.get("snr", SNR) / 10),
    }


def _runs(path: str | Path) -> pd.DataFrame:
    """A row a run and look, with its squared deviation."""
    _, frame = read(path, _told)
    frame = frame[frame["split"] == "test"].copy()
    frame["squared"] = 10 ** (frame["misalignment"] / 10)  # the unknown system has unit norm
    return frame.rename(columns={"step": "samples"})


def nlms_curve(path: str | Path) -> pd.DataFrame:
    """A row a kind of regressors, step size and look.

    Columns: regressors, mu, samples, n (seeds), deviation, low, high (the mean and its 95 % t-interval), theory.

    Raises:
        StoreError: there is no study.
    """
    rows = []
    for (regressors, mu, samples), part in groups(_runs(path), ["regressors", "mu", "samples"]):
        found = summarize(part["squared"].tolist())
        theory = deviation(samples, mu, part["taps"].iloc[0], part["noise"].iloc[0], 4 / 3)
        rows.append((regressors, mu, samples, found.n, found.mean, found.low, found.high, float(theory)))
    columns = ["regressors", "mu", "samples", "n", "deviation", "low", "high", "theory"]
    return pd.DataFrame(rows, columns=columns)


def misadjustment(path: str | Path) -> pd.DataFrame:
    """A row a kind of regressors and step size: the last quarter of each run, over the noise's variance.

    Columns: regressors, mu, taps, n (seeds), mean, low, high (a 95 % t-interval), p (of a t-test that the mean is the
    theory's, where that is finite), theory (N / (N - 2) mu / (2 - mu)), long (mu / (2 - mu)), p_holm (over all rows).

    Raises:
        StoreError: there is no study.
    """
    rows = []
    for (regressors, mu), part in groups(_runs(path), ["regressors", "mu"]):
        tail = part[part["samples"] > (1 - STEADY) * part["samples"].max()]
        each = tail.groupby("seed")["squared"].mean() / part["noise"].iloc[0]
        taps = int(part["taps"].iloc[0])
        found, theory = summarize(each.tolist()), steady_theory(mu, taps)
        long = mu / (2 - mu) if mu < 2 else math.inf
        p = paired_t(each.to_dict(), dict.fromkeys(each.index, theory)).p if math.isfinite(theory) else math.nan
        rows.append((regressors, mu, taps, found.n, found.mean, found.low, found.high, p, theory, long))
    columns = ["regressors", "mu", "taps", "n", "mean", "low", "high", "p", "theory", "long"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(p_holm=holm(frame["p"].to_numpy(dtype=float)))


# ------------------------------------------------------------------------------------------------ in words


def findings(steady: pd.DataFrame, curve: pd.DataFrame) -> list[str]:
    """The steady states beside theory, and what happens at 2 and above."""
    found = []
    for regressors, part in groups(steady, "regressors"):
        settled = part[part["mu"] < 2]
        apart = settled[settled["p_holm"] < ALPHA]
        texts = [
            f"μ = {number(row.mu)}: {number(row.mean)} ({number(row.low)} to {number(row.high)}), theory "
            f"{number(row.theory)}"
            for row in rows_of(settled)
        ]
        if texts:
            found.append(
                f"NLMS, {regressors} regressors, {int(part['n'].max())} seeds: the misadjustment is told apart from "
                f"the theory's μ/(2 − μ) N/(N − 2) at {len(apart)} of {len(settled)} step sizes below 2 (t-tests, "
                f"p < {ALPHA:g} after Holm's correction over all {steady['p'].count()}). {'; '.join(texts)}."
            )
        found += [
            f"NLMS, {regressors} regressors, μ = {number(row.mu)}: the mean-square deviation ends at "
            f"{number(_end(curve, regressors, row.mu, 'deviation'))} (theory "
            f"{number(_end(curve, regressors, row.mu, 'theory'))}, from 4/3)."
            for row in rows_of(part[part["mu"] >= 2])
        ]
    return found


def _end(curve: pd.DataFrame, regressors: Any, mu: Any, column: str) -> float:
    part = curve[(curve["regressors"] == regressors) & (curve["mu"] == mu)]
    return float(part.loc[part["samples"].idxmax(), column])


def table(steady: pd.DataFrame) -> Table:
    """The steady states."""
    columns = (
        Column("regressors", ("regressors",)),
        Column("μ", ("mu",), number, numeric=True),
        Column("seeds", ("n",), numeric=True),
        Column("misadjustment", ("mean",), number, numeric=True),
        Column("95 % interval", ("low", "high"), lambda a, b: f"{number(a)} to {number(b)}", numeric=True),
        Column("theory", ("theory",), number, numeric=True),
        Column("p", ("p",), p_text, numeric=True),
        Column("corrected", ("p_holm",), p_text, numeric=True),
        Column("long filter", ("long",), number, numeric=True),
    )
    caption = (
        "Misadjustment of NLMS: excess squared error over the noise's power in the last quarter of each run, mean over "
        "seeds; theory is μ/(2 − μ) N/(N − 2), for a long filter μ/(2 − μ); p that the mean is the theory's, "
        "corrected by Holm's method over all rows."
    )
    return Table("nlms", caption, steady, columns)
