"""Average regret of corrected rules beside their bases, and beside Theorem 1 of the AdaNorm paper.

frame = regret("runs/theory/regret")
for sentence in findings(frame): print(sentence)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from insgd_lab.analysis.labels import number
from insgd_lab.analysis.mean_tests import ALPHA
from insgd_lab.analysis.statistics import holm_together, paired_t, summarize
from insgd_lab.analysis.tables import Column, Table
from insgd_lab.analysis.theory.reading import groups, read, rows_of

__all__ = [
    "conditions",
    "details",
    "differences",
    "ends",
    "exponents",
    "findings",
    "regret",
    "table",
    "tested",
    "theorem1",
]

SUFFIX = "-corrected"
PAPERS_RULE = "adam-corrected"
"""AdamNorm, which alone Theorem 1 is about."""
CLAIMED, MARGIN = -0.5, 0.1
"""The exponent of Corollary 1; at finite T those of rules that have it come out up to a few hundredths higher."""


def theorem1(
    root_moments: Any, gradient_norms: Any, *, alpha: float, beta1: float, beta2: float, gamma: float, decay: float,
    G: float, G_inf: float, D: float, D_inf: float, dimension: int,  # noqa: N803 (the theorem's letters)
) -> Any:  # fmt: skip
    """The bound on R(T) as AdaNorm's Theorem 1 prints it.

        D^2 / (2 alpha (1 - beta1)) sum_i sqrt(T v_{T,i})
        + alpha (1 + beta1) G_inf^3 / ((1 - beta1) sqrt(1 - beta2) (1 - gamma)^2 G^2) sum_i ||g_{1:T,i}||_2
        + sum_i D_inf^2 G_inf sqrt(1 - beta2) / (2 alpha (1 - beta1) (1 - lambda)^2)

    Args:
        root_moments: the first sum.
        gradient_norms: the second one.
        alpha: the rate at t = 1.
        beta1: at t = 1.
        beta2: of the second moment.
        gamma: of the running norm.
        decay: lambda.
        G: at least every ||g_t||_2.
        G_inf: at least every ||g_t||_inf.
        D: at least every distance ||x_m - x_n||_2.
        D_inf: likewise in the largest coordinate.
        dimension: d.
    """
    first = D**2 / (2 * alpha * (1 - beta1)) * root_moments
    second = alpha * (1 + beta1) * G_inf**3 / ((1 - beta1) * math.sqrt(1 - beta2) * (1 - gamma) ** 2 * G**2)
    third = dimension * D_inf**2 * G_inf * math.sqrt(1 - beta2) / (2 * alpha * (1 - beta1) * (1 - decay) ** 2)
    return first + second * gradient_norms + third


def conditions(beta1: float, beta2: float, decay: float) -> list[str]:
    """What Theorem 1 asks of the decay rates and does not get, in words; nothing if it gets all."""
    unmet = []
    if not beta1**2 / math.sqrt(beta2) < 1:
        unmet.append(f"β1²/√β2 = {number(beta1**2 / math.sqrt(beta2))} is not below 1")
    if not 0 < decay < 1:
        unmet.append(f"λ = {number(decay)} is not between 0 and 1")
    return unmet


def regret(path: str | Path) -> pd.DataFrame:
    """A row a run and look.

    Columns: problem, problem_label, rule, rule_label, base, corrected, seed, T, average_regret, bound (on the
    average; NaN for all rules but AdamNorm, and where the theorem's conditions are not met), unmet (which), position,
    dimension.

    Raises:
        StoreError: there is no study.
    """
    from insgd_lab.store import StudyFolder

    info = StudyFolder(path).info()
    labels = {arm["name"]: arm["label"] for arm in info["arms"]}

    def tell(row: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
        problem, rule, options = row["settings"]["problem"], row["arm"], run["spec"]["optimizer"]["options"]
        told = {
            "problem": problem, "problem_label": info["problems"][problem]["label"], "rule": rule,
            "rule_label": labels[rule], "base": rule.removesuffix(SUFFIX), "corrected": rule.endswith(SUFFIX),
            "seed": row["seed"],
            "dimension": run["constants"]["dimension"], "unmet": None, "terms": None,
        }  # fmt: skip
        if rule == PAPERS_RULE:
            decay = _decay(run["spec"]["schedule"])
            beta1, beta2 = options["betas"]
            told["unmet"] = "; ".join(conditions(beta1, beta2, decay))
            told["terms"] = {"alpha": options["lr"], "beta1": beta1, "beta2": beta2, "gamma": options["gamma"],
                             "decay": decay, **run["constants"]}  # fmt: skip
        return told

    _, frame = read(path, tell)
    frame = frame.rename(columns={"step": "T"})
    frame["bound"] = [
        theorem1(row.root_moments, row.gradient_norms, **row.terms) / row.T if row.terms and not row.unmet else math.nan
        for row in rows_of(frame)
    ]
    order = {name: place for place, name in enumerate([*info["problems"], *labels])}
    places = frame.assign(problem=frame["problem"].map(order), rule=frame["rule"].map(order))
    rows = places.sort_values(["problem", "rule", "seed", "T"]).index
    return frame.loc[rows].drop(columns=["terms", "split", "epoch"]).reset_index(drop=True)


def _decay(schedule: Any) -> float:
    """Lambda of a schedule as run.json has it: a name, or a table with what differs from its defaults."""
    return float(schedule.get("beta1_decay", 1.0)) if isinstance(schedule, Mapping) else 1.0


# ------------------------------------------------------------------------------------------------ summaries


def last(frame: pd.DataFrame) -> pd.DataFrame:
    """The last look of each run."""
    return frame.loc[frame.groupby(["problem", "rule", "seed"], sort=False)["T"].idxmax()]


def _by_seed(rows: pd.DataFrame, value: str) -> dict[int, float]:
    return dict(zip(rows["seed"].tolist(), rows[value].tolist(), strict=True))


def differences(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a problem and base: average regret at the end of base and corrected, and their difference, paired by seed.

    Columns: problem, problem_label, base, label, n, plain, corrected, difference, low, high (a 95 % t-interval), p (of
    the paired t-test).
    """
    rows = []
    for (problem, base), part in groups(last(frame), ["problem", "base"]):
        plain, corrected = (_by_seed(part[part["corrected"] == flag], "average_regret") for flag in (False, True))
        if not plain or not corrected:
            continue
        test = paired_t(corrected, plain)
        rows.append((problem, part["problem_label"].iloc[0], base, part.loc[~part["corrected"], "rule_label"].iloc[0],
                     test.sizes[0], summarize(list(plain.values())).mean, summarize(list(corrected.values())).mean,
                     test.difference, test.low, test.high, test.p))  # fmt: skip
    columns = ["problem", "problem_label", "base", "label", "n", "plain", "corrected", "difference", "low", "high", "p"]
    return pd.DataFrame(rows, columns=columns)


def exponents(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a problem and rule: the slope of log R(T)/T on log T over the last decade of T.

    Columns: problem, rule, n (seeds whose regret is above 0 there throughout), mean, low, high (a 95 % t-interval), p
    (of a t-test that the mean is what Corollary 1 has, with its margin).
    """
    rows = []
    for (problem, rule), part in groups(frame, ["problem", "rule"]):
        tail = part[part["T"] >= part["T"].max() / 10.01]
        slopes = [
            float(np.polyfit(np.log(run["T"]), np.log(run["average_regret"]), 1)[0])
            for _, run in groups(tail, "seed")
            if (run["average_regret"] > 0).all()
        ]
        found = summarize(slopes)
        limit = dict.fromkeys(range(len(slopes)), CLAIMED + MARGIN)
        p = paired_t(dict(enumerate(slopes)), limit).p
        rows.append((problem, rule, found.n, found.mean, found.low, found.high, p))
    return pd.DataFrame(rows, columns=["problem", "rule", "n", "mean", "low", "high", "p"])


def tested(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What findings judge: the differences on random losses and all exponents, with p_holm over both together."""
    random = frame.loc[frame["dimension"] > 1, "problem"]
    gaps, slopes = differences(frame), exponents(frame)
    gaps = gaps[gaps["problem"].isin(random)]
    of_gaps, of_slopes = holm_together(*(part["p"].to_numpy(dtype=float) for part in (gaps, slopes)))
    return gaps.assign(p_holm=of_gaps), slopes.assign(p_holm=of_slopes)


def ends(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a one-dimensional problem and rule: where the runs end, their mean and range over seeds; the best is -1."""
    lines = last(frame[frame["dimension"] == 1])
    grouped = lines.groupby(["problem", "rule"], sort=False)["position"]
    return grouped.agg(["mean", "min", "max", "size"]).reset_index()


# ------------------------------------------------------------------------------------------------ in words


def findings(frame: pd.DataFrame) -> list[str]:
    """What holds over all problems."""
    return [*_costs(*tested(frame)), *_wrong(frame, ends(frame)), *_bounds(frame)]


def details(frame: pd.DataFrame) -> list[str]:
    """Problem by problem, in the order of the plan: regrets, exponents, and where the runs end."""
    found: list[str] = []
    summaries = differences(frame), tested(frame)[1], ends(frame)
    for problem in frame["problem"].unique():
        part, *tables = (table[table["problem"] == problem] for table in (frame, *summaries))
        for sentences, table in zip((_pairs, _slopes, _places), tables, strict=True):
            found += sentences(part, table)
    return found


def _costs(gaps: pd.DataFrame, slopes: pd.DataFrame) -> Iterator[str]:
    """On losses in several dimensions: how often the correction costs, and how often it pays."""
    apart = gaps[gaps["p_holm"] < ALPHA]
    if len(gaps):
        costs, pays = (apart["difference"] > 0).sum(), (apart["difference"] < 0).sum()
        number_of = gaps["p"].count() + slopes["p"].count()
        yield (
            f"On {gaps['problem'].nunique()} kinds of random losses and {gaps['base'].nunique()} bases, the "
            f"correction's effect on the average regret at the end is told apart from 0 in {len(apart)} of {len(gaps)} "
            f"pairs: it costs in {costs} and pays in {pays} (paired t-tests by seed, p < {ALPHA:g} after Holm's "
            f"correction over all {number_of} tests of differences and exponents)."
        )


def _wrong(frame: pd.DataFrame, places: pd.DataFrame) -> Iterator[str]:
    """On the line, where the best point is -1: which runs end on the other half."""
    labels = dict(zip(frame["problem"], frame["problem_label"], strict=True))
    names = dict(zip(frame["rule"], frame["rule_label"], strict=True))
    for flag, which in ((True, "With"), (False, "Without")):
        rows = places[places["rule"].str.endswith(SUFFIX) == flag]
        wrong = rows[rows["min"] > 0]
        if rows.empty:
            continue
        alike: dict[tuple[str, ...], list[str]] = {}
        for rule, part in groups(wrong, "rule"):
            alike.setdefault(tuple(labels[problem] for problem in part["problem"]), []).append(names[rule])
        texts = [f"{'; '.join(rules)} on “{'”, “'.join(on)}”" for on, rules in alike.items()]
        yield (
            f"{which} the correction, all runs end at x > 0, on the wrong side of sequences that are least at "
            f"−1, in {len(wrong)} of {len(rows)} pairs of sequence and rule{': ' if texts else ''}"
            f"{'. '.join(texts)}."
        )


def _head(part: pd.DataFrame) -> str:
    T, seeds = int(part["T"].max()), part["seed"].nunique()
    return f"{_capital(part['problem_label'].iloc[0])} (T = {T:,}, {seeds} {'seed' if seeds == 1 else 'seeds'})"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _pairs(part: pd.DataFrame, gaps: pd.DataFrame) -> Iterator[str]:
    """Each corrected rule beside its base."""
    texts = [
        f"{row.label} {number(row.plain)} without and {number(row.corrected)} with the correction, difference "
        f"{_signed(row.difference)} (95 % interval {_signed(row.low)} to {_signed(row.high)})"
        for row in rows_of(gaps)
    ]
    if texts:
        yield f"{_head(part)}: average regret R(T)/T of {'; '.join(texts)}."


def _slopes(part: pd.DataFrame, slopes: pd.DataFrame) -> Iterator[str]:
    """The rules whose average regret does not fall as Corollary 1 has it."""
    labels = dict(zip(part["rule"], part["rule_label"], strict=True))
    known = slopes[slopes["n"] > 1]
    texts = [
        f"{labels[row.rule]} ({_signed(row.mean)}, {_signed(row.low)} to {_signed(row.high)})"
        for row in rows_of(known[(known["p_holm"] < ALPHA) & (known["mean"] > CLAIMED + MARGIN)])
    ]
    if len(known):
        which = f": {'; '.join(texts)}" if texts else ""
        yield (
            f"{_head(part)}: the exponent of R(T)/T, fitted to the last decade of T, is told apart from "
            f"{_signed(CLAIMED + MARGIN)}, and above it, for {len(texts)} of {len(known)} rules{which}."
        )


def _places(part: pd.DataFrame, places: pd.DataFrame) -> Iterator[str]:
    """Where the runs on a line end."""
    labels = dict(zip(part["rule"], part["rule_label"], strict=True))
    texts = [
        f"{labels[row.rule]} at {_place(row.mean)} ({_place(row.min)} to {_place(row.max)})" for row in rows_of(places)
    ]
    if texts:
        yield f"{_head(part)}: the best point is −1; runs end, on average, with {', '.join(texts)}."


def _place(x: float) -> str:
    return f"{x:+.2f}".replace("-", "−")


def _bounds(frame: pd.DataFrame) -> Iterator[str]:
    """Theorem 1 beside what AdamNorm did, on all problems."""
    shares, silent = [], []
    for _, rows in groups(frame[frame["rule"] == PAPERS_RULE], "problem"):
        end, label = last(rows), rows["problem_label"].iloc[0]
        if rows["unmet"].iloc[0]:
            silent.append(f"“{label}” ({rows['unmet'].iloc[0]})")
            continue
        share = float((end["average_regret"] / end["bound"]).mean())
        over = rows[rows["average_regret"] > rows["bound"]]
        if over.empty:
            shares.append(share)
            continue
        yield (
            f"{_head(rows)}: AdamNorm's regret exceeds Theorem 1's bound in {over['seed'].nunique()} of "
            f"{rows['seed'].nunique()} runs, first at T = {int(over['T'].min()):,}; at the end it is {number(share)} "
            "of the bound as printed."
        )
    if shares:
        yield (
            f"On {len(shares)} {'problem' if len(shares) == 1 else 'problems'} AdamNorm stays below Theorem 1's bound "
            f"at every look; at the end its regret is between {number(min(shares))} and {number(max(shares))} of the "
            "bound as printed."
        )
    if silent:
        yield f"Theorem 1 does not speak of {', '.join(silent)}, so there is no bound."


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else ("+" if value >= 0 else "\N{MINUS SIGN}") + number(abs(float(f"{value:.3g}")))


def _with_n(value: float, n: float) -> str:
    return f"{_signed(value)} ({n:.0f})" if n > 0 else _signed(math.nan)


def table(frame: pd.DataFrame) -> Table:
    """Every pair of rules on every problem."""
    gaps = differences(frame)
    slopes = exponents(frame).set_index(["problem", "rule"])
    for side, suffix in (("plain", ""), ("corrected", SUFFIX)):
        for column, name in ((f"{side}_exponent", "mean"), (f"{side}_exponent_n", "n")):
            gaps[column] = [slopes[name].get((row.problem, row.base + suffix), math.nan) for row in rows_of(gaps)]
    columns = (
        Column("losses", ("problem_label",)),
        Column("rule", ("label",)),
        Column("seeds", ("n",), numeric=True),
        Column("R(T)/T", ("plain",), number, numeric=True),
        Column("corrected", ("corrected",), number, numeric=True),
        Column("difference", ("difference",), _signed, numeric=True),
        Column("95 % interval", ("low", "high"), lambda a, b: f"{_signed(a)} to {_signed(b)}", numeric=True),
        Column("exponent (seeds)", ("plain_exponent", "plain_exponent_n"), _with_n, numeric=True),
        Column("corrected (seeds)", ("corrected_exponent", "corrected_exponent_n"), _with_n, numeric=True),
    )
    caption = (
        "Average regret at the end, with and without AdaNorm's correction, paired by seed; the exponent is the "
        "slope of log R(T)/T on log T over the last decade, mean over the seeds whose regret stays above 0 there."
    )
    return Table("regret", caption, gaps, columns)
