"""What the layers did while they were trained, from the Recorder's files.

    records = layer_records(study, choose(study))
    speeds(records)                     # how far each layer moved a step beside the same layer under SGD
    interventions(records)              # how often AdaNorm's correction acted, how often log P fell below ε
    gradient_norms(records)             # of all layers together, by step

The cell that stands for each arm is looked at, at its own best tuned setting, over the seeds that trained to the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from insgd_lab.analysis.labels import describe
from insgd_lab.analysis.runs import Arm, Study, sampled
from insgd_lab.analysis.selection import Choices, tune_at, tune_label
from insgd_lab.analysis.series import main_arms
from insgd_lab.analysis.statistics import Summary, holm, paired_t, summarize

__all__ = [
    "LayerRecords",
    "LayerTraces",
    "gradient_norms",
    "heat_maps",
    "interventions",
    "layer_records",
    "layer_traces",
    "reference_of",
    "shown_traces",
    "speeds",
]

LAYER_ARMS = 4
"""Arms whose layers one figure can hold and stay legible."""
TRACED = ("effective_step", "input_power", "step_scale", "norm_gain")
BINS = 24
"""Columns of a heat map: parts of the training, of equally many steps."""


@dataclass(frozen=True)
class LayerRecords:
    """What was recorded of one arm, seed by seed."""

    arm: Arm
    label: str
    frame: pd.DataFrame
    """Columns seed, step, parameter, quantity, value (finite); parameters in the order of the model."""
    runs: pd.DataFrame
    """The runs behind it, as `Study.finished` has them."""

    def of(self, quantity: str) -> pd.DataFrame:
        """The rows of one quantity, without its name."""
        return self.frame.loc[self.frame["quantity"] == quantity, ["seed", "step", "parameter", "value"]]

    @cached_property
    def weights(self) -> list[str]:
        """The parameters that are looked at: those with an input power, else all but biases."""
        names = list(self.of("input_power")["parameter"].unique())
        return names or [name for name in self.frame["parameter"].unique() if not str(name).endswith("bias")]

    @property
    def seeds(self) -> int:
        """How many runs stand behind it."""
        return int(self.frame["seed"].nunique())


def layer_records(study: Study, choices: Choices) -> list[LayerRecords]:
    """The records of every main arm that has some, in the order of the study."""
    found = (_records(study, choices, arm) for arm in main_arms(study))
    return [records for records in found if records is not None]


def _records(study: Study, choices: Choices, arm: Arm) -> LayerRecords | None:
    cell = study.shown_cell(arm.name)
    tune = tune_at(study, choices, cell, "best") if cell else None
    if cell is None or tune is None:
        return None
    rows = study.finished(arm.name, cell.key, tune)
    done = rows[rows["status"] == "done"]
    frames = [study.layers(run).assign(seed=seed) for run, seed in done[["run", "seed"]].itertuples(index=False)]
    frames = [frame[np.isfinite(frame["value"])] for frame in frames if len(frame)]
    if not frames:
        return None
    words = [arm.label]
    words += [describe(cell.settings)] if arm.axes and arm.grid != "one-at-a-time" else []
    words += [tune_label(study, tune)] if study.tunes[tune] else []
    return LayerRecords(arm, "; ".join(words), pd.concat(frames, ignore_index=True), done)


# ------------------------------------------------------------------------------------------------ traces


@dataclass(frozen=True)
class LayerTraces:
    """Per-layer records of one arm, averaged over seeds."""

    arm: str
    label: str
    frame: pd.DataFrame
    """Columns step, parameter, quantity, value; parameters in the order of the model."""
    seeds: int

    def has(self, quantity: str) -> bool:
        """Whether the quantity was recorded."""
        return bool((self.frame["quantity"] == quantity).any())


def layer_traces(records: Sequence[LayerRecords]) -> list[LayerTraces]:
    """Means over seeds of the traced quantities, of the parameters that some arm reads the inputs of (else weights)."""
    names = shared_weights(records)
    traces = (_traces(each, names) for each in records)
    return [trace for trace in traces if len(trace.frame)]


def shared_weights(records: Sequence[LayerRecords]) -> list[str]:
    """The parameters to look at in all arms: those with an input power in any of them, else all but biases."""
    reading = [each for each in records if len(each.of("input_power"))]
    return list(dict.fromkeys(name for each in reading or records for name in each.weights))


def _traces(records: LayerRecords, names: Sequence[str]) -> LayerTraces:
    frame = records.frame
    kept = frame[frame["quantity"].isin(TRACED) & frame["parameter"].isin(names)]
    mean = kept.groupby(["step", "parameter", "quantity"], sort=False)["value"].mean().reset_index()
    return LayerTraces(records.arm.name, records.label, mean, records.seeds)


def shown_traces(traces: Sequence[LayerTraces]) -> list[LayerTraces]:
    """At most four: the first two that read their inputs, the first two that do not, then the next of any."""
    reading = [k for k, trace in enumerate(traces) if trace.has("input_power")]
    others = [k for k in range(len(traces)) if k not in reading]
    first = [*reading[:2], *others[:2]]
    rest = [k for k in range(len(traces)) if k not in first]
    return [traces[k] for k in sorted([*first, *rest[: LAYER_ARMS - len(first)]])]


def heat_maps(trace: LayerTraces) -> Mapping[str, pd.DataFrame]:
    """Each traced quantity by parameter (rows) and last step of a part of the training (columns).

    A value is the geometric mean over the part's steps; one that is not positive takes no part in it.
    """
    return {str(name): _heat_map(rows) for name, rows in trace.frame.groupby("quantity", sort=False)}


def _heat_map(rows: pd.DataFrame) -> pd.DataFrame:
    steps = np.sort(rows["step"].unique())
    ends = [part[-1] for part in np.array_split(steps, min(BINS, len(steps)))]
    part = np.asarray(ends)[np.searchsorted(ends, rows["step"])]
    logs = np.log(rows["value"].where(rows["value"] > 0))
    table = logs.groupby([rows["parameter"], pd.Series(part, index=rows.index, name="step")], sort=False).mean()
    wide: pd.DataFrame = np.exp(table.unstack("step").sort_index(axis=1))
    return wide.loc[list(rows["parameter"].unique())]


# ------------------------------------------------------------------------------------------------ speeds


def reference_of(records: Sequence[LayerRecords]) -> LayerRecords | None:
    """The arm that others are compared with: the first of SGD; None without one."""
    return next((each for each in records if each.arm.optimizer == "sgd"), None)


def speeds(records: Sequence[LayerRecords]) -> pd.DataFrame:
    """How far each layer moves a step for its gradient, beside the same layer under SGD, paired by seed.

    A seed's ratio is that of the geometric means of the effective step over the steps that both recorded. `relative`
    is the ratio over its geometric mean over the layers, which leaves out what one learning rate for all would do:
    above 1 the rule speeds the layer up beside the others, below 1 it slows it down.

    Returns:
        Columns arm, label, reference (the label of that of SGD), parameter, n (seeds), ratio, low, high, relative,
        relative_low, relative_high: geometric means over seeds with 95 % t-intervals of their logarithms; p (t-test
        over seeds that `relative` is 1; NaN for one seed, seeds that change nothing or agree to the last digit, a
        single layer, or the second of two, whose `relative` is one over the first's: one test counts once), p_holm
        (over all rows). Empty without an arm of SGD.
    """
    reference, names = reference_of(records), shared_weights(records)
    others = [each for each in records if each is not reference] if reference else []
    rows = [row for each in others if reference for row in _speed_rows(each, reference, names)]
    frame = pd.DataFrame(rows, columns=["arm", "label", "reference", "parameter", "n", *_RATIO, *_RELATIVE, "p"])
    return frame.assign(p_holm=holm(frame["p"].to_numpy(dtype=float)))


_RATIO = ("ratio", "low", "high")
_RELATIVE = ("relative", "relative_low", "relative_high")
_DIGITS = 6
"""Of logarithms of relative speeds that are tested: what is smaller is the rounding of steps in single precision."""


def _speed_rows(records: LayerRecords, reference: LayerRecords, names: Sequence[str]) -> Iterator[dict[str, object]]:
    logs = _log_ratios(records, reference, names)
    relative = logs.sub(logs.mean(axis=1), axis=0)
    tested = {1: 0, 2: 1}.get(len(logs.columns), len(logs.columns))
    for k, name in enumerate(logs.columns):
        ratio, own = summarize(logs[name].tolist()), summarize(relative[name].tolist())
        yield {
            "arm": records.arm.name,
            "label": records.label,
            "reference": reference.arm.label,
            "parameter": name,
            "n": ratio.n,
            **dict(zip(_RATIO, _powers(ratio), strict=True)),
            **dict(zip(_RELATIVE, _powers(own), strict=True)),
            "p": _p(relative[name]) if k < tested else math.nan,
        }


def _p(logs: pd.Series) -> float:
    """Of a t-test over seeds that the mean logarithm is 0."""
    rounded = logs.round(_DIGITS).to_dict()
    return paired_t(rounded, dict.fromkeys(rounded, 0.0)).p


def _log_ratios(records: LayerRecords, reference: LayerRecords, names: Sequence[str]) -> pd.DataFrame:
    """The mean logarithm of the ratio of effective steps, by seed (rows) and parameter, where both have all layers."""
    keys = ["seed", "step", "parameter"]
    own, plain = (
        rows[rows["value"] > 0].set_index(keys)["value"]
        for rows in (records.of("effective_step"), reference.of("effective_step"))
    )
    logs = (np.log(own) - np.log(plain)).dropna()
    table: pd.DataFrame = logs.groupby(level=["seed", "parameter"]).mean().unstack("parameter")
    table = table[[name for name in names if name in table]].dropna()
    return table.loc[sampled(table.index, [records.runs, reference.runs])]


def _powers(summary: Summary) -> tuple[float, float, float]:
    mean, low, high = np.exp([summary.mean, summary.low, summary.high])
    return float(mean), float(low), float(high)


# ------------------------------------------------------------------------------------------------ interventions

QUANTITIES = ("norm_gain", "clipped")
"""Where a rule steps in: the norm correction, and the floor ε under log P."""


def interventions(records: Sequence[LayerRecords]) -> pd.DataFrame:
    """How often rules stepped in, by layer and over all layers (parameter "all").

    Returns:
        Columns arm, label, quantity, parameter, n (seeds), share, low, high (of the recorded steps; the mean over seeds
        with its 95 % t-interval, within [0, 1]) and gain: for the norm correction the geometric mean of what it
        multiplied gradients by where it acted, NaN where it never did.
    """
    rows = [row for each in records for quantity in QUANTITIES for row in _acting(each, quantity)]
    columns = ["arm", "label", "quantity", "parameter", "n", "share", "low", "high", "gain"]
    return pd.DataFrame(rows, columns=columns)


def _acting(records: LayerRecords, quantity: str) -> Iterator[dict[str, object]]:
    values = records.of(quantity)
    if values.empty:
        return
    gains = quantity == "norm_gain"  # else the share of a layer's values, where its P is not a scalar
    values = values.assign(acts=(values["value"] > 1).astype(float) if gains else values["value"])
    for name in ["all", *values["parameter"].unique()]:
        rows = values if name == "all" else values[values["parameter"] == name]
        share = summarize(rows.groupby("seed")["acts"].mean().tolist())
        raised = rows.loc[rows["value"] > 1, "value"] if gains else rows["value"].iloc[:0]
        yield {
            "arm": records.arm.name,
            "label": records.label,
            "quantity": quantity,
            "parameter": name,
            "n": share.n,
            "share": share.mean,
            "low": max(share.low, 0.0) if share.n > 1 else float("nan"),
            "high": min(share.high, 1.0) if share.n > 1 else float("nan"),
            "gain": float(np.exp(np.log(raised).mean())) if len(raised) else float("nan"),
        }


# ------------------------------------------------------------------------------------------------ norms


def gradient_norms(records: Sequence[LayerRecords]) -> pd.DataFrame:
    """The norm of the whole gradient at each recorded step, as AdaNorm Figure 3 shows it.

    Returns:
        Columns arm, label, step, n (seeds), mean, low, high: geometric means over seeds, with 95 % t-intervals of the
        logarithms, for norms spread by factors. A norm of 0 takes no part.
    """
    return pd.DataFrame(
        [row for each in records for row in _norm_rows(each)],
        columns=["arm", "label", "step", "n", "mean", "low", "high"],
    )


def _norm_rows(records: LayerRecords) -> Iterator[dict[str, object]]:
    squares = records.of("grad_norm").assign(value=lambda rows: rows["value"] ** 2)
    norms = np.sqrt(squares.groupby(["step", "seed"])["value"].sum())
    for step, logs in np.log(norms[norms > 0]).groupby(level="step"):
        summary = summarize(logs.tolist())
        mean, low, high = _powers(summary)
        yield {
            "arm": records.arm.name,
            "label": records.label,
            "step": step,
            "n": summary.n,
            "mean": mean,
            "low": low,
            "high": high,
        }
