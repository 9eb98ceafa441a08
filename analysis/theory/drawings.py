"""The figures of the theory lab, with what is said about them; a figure that has nothing to show is left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from insgd_lab.analysis.canvas import MARKERS, WIDTH, plain_log, set_title, style, subplots
from insgd_lab.analysis.drawings import Drawing
from insgd_lab.analysis.labels import number
from insgd_lab.analysis.theory import filtering, games, limits
from insgd_lab.analysis.theory.reading import groups, rows_of

__all__ = ["of_limits", "of_nlms", "of_projection", "of_regret"]

BASES = ("sgd", "adam", "amsgrad")
SEQUENCES = ("period-3-3", "period-3-small", "period-3-5", "reddi-1", "reddi-2", "reddi-3")
RANDOM = ("linear", "quadratic", "logistic")
NEAR = 30.0
"""A bound that is more than so many times the largest regret is told in words, for it would flatten the lines."""


def _colour(k: int) -> tuple[float, float, float]:
    red, green, blue = sns.color_palette("colorblind")[k % 10]
    return red, green, blue


# ------------------------------------------------------------------------------------------------ regret


def of_regret(frame: pd.DataFrame) -> Iterator[Drawing]:
    """Average regret on sequences and random losses, where runs on a line end, and the differences."""
    for name, problems, what in (
        ("regret-sequences", SEQUENCES, "sequences on a line"),
        ("regret-random", RANDOM, "random convex losses in 10 dimensions"),
    ):
        shown = [problem for problem in problems if (frame["problem"] == problem).any()]
        if shown:
            alt = f"R(T)/T against T on logarithmic axes for {what}: {'; '.join(_labels(frame, shown))}. " + _ends(
                frame, shown
            )
            caption = (
                "Average regret R(T)/T against the number of rounds, mean over seeds; solid without, dashed with "
                "AdaNorm's correction. The dotted black line is Theorem 1's bound for AdamNorm as printed, with the "
                "constants of the problem; where it lies far above, its distance is told. Thin grey: the slope of "
                "T^(−1/2)."
            )
            yield Drawing(name, draw_regret(frame, shown), alt, caption)
    periodic = frame[frame["problem"].str.fullmatch(r"period-3-[\d.]+")]
    if len(periodic):
        caption = (
            "Where runs on Cx, −x, −x end: mean coordinate after the last round against C, bars from the lowest to the "
            "highest seed. The best point is −1 for every C above 2."
        )
        texts = [f"{r.rule} {r.mean:+.2f} on {r.problem}" for r in rows_of(games.ends(periodic))]
        yield Drawing("regret-ends", draw_ends(periodic), "Final points against C: " + ", ".join(texts) + ".", caption)
    gaps = games.differences(frame[frame["problem"].isin(RANDOM)])
    if len(gaps):
        texts = [f"{row.label} on {row.problem_label} {_share(row.difference, row.plain)}" for row in rows_of(gaps)]
        caption = (
            "Average regret at the end on random convex losses: corrected less uncorrected, in percent of the "
            "uncorrected mean, paired by seed; bars are 95 % t-intervals. To the right of 0 the correction costs."
        )
        yield Drawing("regret-differences", draw_differences(gaps), "Differences: " + ", ".join(texts) + ".", caption)


def _labels(frame: pd.DataFrame, problems: Sequence[str]) -> list[str]:
    return [str(frame.loc[frame["problem"] == problem, "problem_label"].iloc[0]) for problem in problems]


def _ends(frame: pd.DataFrame, problems: Sequence[str]) -> str:
    """The last values, for those who cannot see the lines."""
    last = games.last(frame[frame["problem"].isin(problems) & frame["base"].isin(BASES)])
    means = last.groupby(["problem_label", "rule_label"], sort=False)["average_regret"].mean()
    pairs = zip(means.index.to_list(), means.to_list(), strict=True)
    return f"At the end: {', '.join(f'{rule} {number(value)} on {problem}' for (problem, rule), value in pairs)}."


def _share(difference: float, plain: float) -> str:
    return f"{100 * difference / plain:+.1f} %"


def draw_regret(frame: pd.DataFrame, problems: Sequence[str]) -> Figure:
    """A panel a problem: SGD, Adam and AMSGrad, with and without the correction, and the bound."""
    with style():
        figure, axes = subplots(len(problems), 2, 2.3)
        for ax, problem, label in zip(axes, problems, _labels(frame, problems), strict=True):
            part = frame[(frame["problem"] == problem) & frame["base"].isin(BASES)]
            _draw_game(ax, part)
            set_title(ax, label, 56)
        for ax in axes:
            ax.set(xlabel="rounds T", ylabel="R(T) / T")
        handles = [
            Line2D([], [], marker=MARKERS[k], label=name, **_look(k, corrected))
            for k, base in enumerate(BASES)
            for corrected, name in _names(frame, base)
        ]
        if any(line.get_linestyle() == ":" for ax in axes for line in ax.lines):
            handles.append(Line2D([], [], color="black", ls=":", label="Theorem 1 (AdamNorm)"))
        handles.append(Line2D([], [], color="grey", lw=0.8, label="slope −1/2"))
        figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=2.6)
    return figure


def _names(frame: pd.DataFrame, base: str) -> list[tuple[bool, str]]:
    rules = frame[frame["base"] == base].drop_duplicates("rule").sort_values("corrected")
    return list(zip(rules["corrected"].tolist(), rules["rule_label"].tolist(), strict=True))


def _look(k: int, corrected: bool) -> dict[str, Any]:
    """A colour a base; corrected ones are dashed and open."""
    return {"color": _colour(k), "ls": "--" if corrected else "-", "mfc": "white" if corrected else None}


def _draw_game(ax: Axes, part: pd.DataFrame) -> None:
    means = part.groupby(["base", "corrected", "T"])["average_regret"].mean()
    there = set(zip(part["base"], part["corrected"], strict=True))
    for k, base in enumerate(BASES):
        for corrected in (False, True):
            if (base, corrected) in there:
                line = means[base, corrected]
                # Adam and AMSGrad often lie on each other: the later line is thinner, its marks are elsewhere.
                marks: dict[str, Any] = {"marker": MARKERS[k], "markevery": (2 * k, 6), "lw": 2.6 - 0.7 * k}
                ax.plot(line.index, line.where(line > 0), **_look(k, corrected), **marks)
    ax.set(xscale="log", yscale="log")
    top, T = float(means.max()), means.index.get_level_values("T")
    guide = np.array([T.min(), T.max()], dtype=float)
    ax.plot(guide, top * np.sqrt(guide[0] / guide), color="grey", lw=0.8, zorder=1)
    _draw_bound(ax, part, top)
    plain_log(ax.yaxis, room=1.5)
    plain_log(ax.xaxis, room=1.0)


def _draw_bound(ax: Axes, part: pd.DataFrame, top: float) -> None:
    bound = part.groupby("T")["bound"].mean().dropna()
    if bound.empty:
        return
    if bound.iloc[-1] < NEAR * top:
        ax.set_ylim(ax.get_ylim()[0], NEAR * top)
        ax.plot(bound.index, bound, color="black", ls=":", zorder=4)
        return
    end = games.last(part[part["rule"] == games.PAPERS_RULE])
    times = (end["bound"] / end["average_regret"]).mean()
    ax.text(
        0.03,
        0.04,
        f"Theorem 1 at the end: {number(float(f'{times:.2g}'))} × AdamNorm",
        transform=ax.transAxes,
        fontsize=7.5,
    )


def draw_ends(frame: pd.DataFrame) -> Figure:
    """The mean coordinate at the end against C, a line a rule."""
    found = games.ends(frame)
    found["C"] = found["problem"].str.removeprefix("period-3-").astype(float)
    labels = dict(zip(frame["rule"], frame["rule_label"], strict=True))
    with style():
        figure = Figure(figsize=(WIDTH * 0.75, 2.9), layout="constrained")
        ax = figure.subplots()
        for rule, part in groups(found, "rule"):
            base, corrected = str(rule).removesuffix(games.SUFFIX), str(rule).endswith(games.SUFFIX)
            k, line = BASES.index(base), part.sort_values("C")
            shift = (k - 1) * 0.02  # rules that end at the same point would hide each other
            bars = np.maximum([line["mean"] - line["min"], line["max"] - line["mean"]], 0)  # a mean may round beyond
            ax.errorbar(line["C"] + shift, line["mean"], yerr=bars,
                        color=_colour(k), marker=MARKERS[k], ls="--" if corrected else "-",
                        mfc="white" if corrected else None, label=labels[str(rule)])  # fmt: skip
        ax.axvline(4, color="grey", lw=0.8)
        ax.set(xlabel="C", ylabel="x at the end", ylim=(-1.15, 1.15))
        figure.legend(loc="outside right upper", handlelength=2.6)
    return figure


def draw_differences(gaps: pd.DataFrame) -> Figure:
    """A panel a problem, a row a base."""
    problems = list(gaps["problem"].unique())
    with style():
        figure = Figure(figsize=(WIDTH, 2.4), layout="constrained")
        axes = figure.subplots(1, len(problems), squeeze=False, sharey=True)[0]
        for k, (ax, problem) in enumerate(zip(axes, problems, strict=True)):
            rows = gaps[gaps["problem"] == problem]
            centre, low, high = (100 * rows[name] / rows["plain"] for name in ("difference", "low", "high"))
            ax.axvline(0, color="grey", lw=0.8)
            ax.errorbar(
                centre, np.arange(len(rows)), xerr=[centre - low, high - centre], fmt="o", capsize=2.5, color=_colour(k)
            )
            ax.set_yticks(np.arange(len(rows)), rows["label"])
            set_title(ax, str(rows["problem_label"].iloc[0]))
            ax.set_xlabel("difference (%)")
        axes[0].invert_yaxis()
    return figure


# ------------------------------------------------------------------------------------------------ stability


def of_limits(frame: pd.DataFrame) -> Iterator[Drawing]:
    """The limits of all rules."""
    if frame.empty:
        return
    rows = limits.relative(frame)
    texts = [f"{r.arm} {number(r.near)} and {number(r.far)}" for r in rows_of(rows)]
    caption = (
        "Largest stable learning rate of every rule on a quadratic with largest curvature L, in units of SGD's 2/L, "
        "from a minimum at distance 1 (filled) and 10 (open); a tick stands where a closed form predicts the limit. "
        "Where the two points differ, the limit is no property of the curvature alone."
    )
    alt = f"Limits in units of 2/L from distance 1 and from 10: {', '.join(texts)}."
    yield Drawing("stability", draw_limits(rows), alt, caption)


def draw_limits(rows: pd.DataFrame) -> Figure:
    """A dot plot in two columns, rules in the order of their limits."""
    half = -(-len(rows) // 2)
    columns = [part for part in (rows.iloc[:half], rows.iloc[half:]) if len(part)]
    with style():
        figure = Figure(figsize=(WIDTH, 0.2 * half + 1.1), layout="constrained")
        axes = figure.subplots(1, len(columns), squeeze=False)[0]
        for ax, part in zip(axes, columns, strict=True):
            places = np.arange(len(part))
            ax.axvline(1, color="grey", lw=0.8)
            ax.plot(part["predicted"], places, "|", color="black", ms=11, mew=1.6, label="closed form", zorder=2)
            ax.plot(part["far"], places, "o", color=_colour(1), mfc="white", ms=6, label="from distance 10", zorder=3)
            ax.plot(part["near"], places, "o", color=_colour(0), ms=3.5, label="from distance 1", zorder=4)
            ax.set_yticks(places, part["arm"])
            ax.set(xscale="log", ylim=(len(part) - 0.5, -0.5), xlabel="largest stable learning rate / (2 / L)")
            plain_log(ax.xaxis, room=1.0)
            ax.tick_params(axis="y", labelsize=7)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


# ------------------------------------------------------------------------------------------------ NLMS


def of_nlms(curve: pd.DataFrame, steady: pd.DataFrame) -> Iterator[Drawing]:
    """Learning curves and steady states."""
    if curve.empty:
        return
    texts = [
        f"{row.regressors}, μ = {number(row.mu)}: {number(row.mean)} ({number(row.theory)})" for row in rows_of(steady)
    ]
    alt = f"Learning curves, and misadjustment measured (theory): {'; '.join(texts)}."
    caption = (
        "NLMS. Above: mean-square deviation of the weights over seeds (dots) and its theory (lines), regressors "
        "independent and of a delay line. Below: misadjustment in the last quarter of the runs with 95 % "
        "t-intervals, the theory for this length (line) and for long filters (dotted)."
    )
    yield Drawing("nlms", draw_nlms(curve, steady), alt, caption)


def draw_nlms(curve: pd.DataFrame, steady: pd.DataFrame) -> Figure:
    """Learning curves, a panel a kind of regressors, and the misadjustments."""
    kinds, rates = list(curve["regressors"].unique()), sorted(curve["mu"].unique())
    shades = sns.color_palette("viridis", len(rates))
    with style():
        figure, axes = subplots(len(kinds) + 1, 2, 2.6)
        for ax, kind in zip(axes, kinds, strict=False):
            for k, mu in enumerate(rates):
                line = curve[(curve["regressors"] == kind) & (curve["mu"] == mu)].sort_values("samples")
                ax.plot(line["samples"], line["theory"], color=shades[k], lw=1.2)
                thin = line.iloc[:: max(1, len(line) // 20)]
                ax.plot(
                    thin["samples"],
                    thin["deviation"],
                    MARKERS[k % len(MARKERS)],
                    color=shades[k],
                    ms=3,
                    label=number(mu),
                )
            ax.set(yscale="log", xlabel="samples", ylabel="E‖w − w_o‖²")
            plain_log(ax.yaxis)
            set_title(ax, f"{kind} regressors")
            low = curve.loc[curve["mu"] < 2, ["deviation", "theory"]].min().min()
            ax.set_ylim(low / 2, 100)
        _draw_steady(axes[-1], steady)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, title="step size μ", loc="outside right upper")
    return figure


def _draw_steady(ax: Axes, steady: pd.DataFrame) -> None:
    settled = steady[steady["mu"] < 2]
    if settled.empty:
        return
    mu = np.linspace(0.05, 1.93, 100)
    taps = int(settled["taps"].iloc[0])
    ax.plot(mu, [filtering.steady_theory(each, taps) for each in mu], color="black", lw=1.0, label="theory")
    ax.plot(mu, mu / (2 - mu), color="black", lw=1.0, ls=":", label="long filter")
    for k, (kind, rows) in enumerate(groups(settled, "regressors")):
        bars = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
        at, colour = rows["mu"] + 0.02 * (k - 0.5), _colour(k)
        look: dict[str, Any] = {"fmt": MARKERS[k], "color": colour, "capsize": 2.5, "label": str(kind)}
        ax.errorbar(at, rows["mean"], yerr=np.nan_to_num(bars), **look)
    ax.set(yscale="log", xlabel="step size μ", ylabel="misadjustment")
    plain_log(ax.yaxis)
    set_title(ax, "steady state")
    ax.legend(loc="upper left")


# ------------------------------------------------------------------------------------------------ projections


def of_projection(frame: pd.DataFrame) -> Iterator[Drawing]:
    """The iterates in the plane of the weights."""
    if frame.empty:
        return
    sizes = ", ".join(number(mu) for mu in frame["mu"].unique())
    last = frame.groupby("mu", as_index=False)["distance"].last()
    pairs = zip(last["mu"], last["distance"], strict=True)
    ends = "; ".join(f"μ = {number(mu)} ends {number(far)} from it" for mu, far in pairs)
    alt = f"Paths of NLMS with step sizes {sizes} between two lines in the plane, towards their common point: {ends}."
    caption = (
        "The weights after each step, from the hollow marker on; the lines are the two equations d = uᵀw, taken in "
        "turn, and the cross is the point that they share. With μ = 1 each step is the orthogonal projection onto the "
        "line of its sample (INSGD, Equation 8 and Figure 1); smaller ones stop short of it, larger ones go beyond."
    )
    yield Drawing("projection", draw_projection(frame), alt, caption)


def draw_projection(frame: pd.DataFrame) -> Figure:
    """A panel a step size: the two lines, and the path between them."""
    sizes = list(frame["mu"].unique())
    spans = {name: (frame[name].min() - 0.3, frame[name].max() + 0.3) for name in ("w0", "w1")}
    with style():
        figure, axes = subplots(len(sizes), 3, 2.9)
        for ax, (mu, rows) in zip(axes, groups(frame, "mu"), strict=True):
            _draw_lines(ax, rows, spans["w0"])
            ax.plot(rows["w0"], rows["w1"], "-o", color=_colour(0), ms=3, lw=1.0)
            ax.plot(rows["w0"].iloc[:1], rows["w1"].iloc[:1], "o", mfc="white", mec=_colour(0), ms=6)
            ax.plot(rows["s0"].iloc[:1], rows["s1"].iloc[:1], "x", color="black", ms=7, mew=1.6)
            ax.set(xlim=spans["w0"], ylim=spans["w1"], aspect="equal", xlabel="w₀", ylabel="w₁")
            set_title(ax, f"μ = {number(float(mu))}")
    return figure


def _draw_lines(ax: Axes, rows: pd.DataFrame, span: tuple[float, float]) -> None:
    """The line d = u₀w₀ + u₁w₁ of each equation."""
    across = np.array(span)
    for k, (_, one) in enumerate(groups(rows.dropna(subset=["d"]), ["u0", "u1", "d"])):
        u0, u1, d = (float(one[name].iloc[0]) for name in ("u0", "u1", "d"))
        ax.plot(across, (d - u0 * across) / u1, color=_colour(k + 1), lw=1.4, ls="-" if k == 0 else "--")
