"""What the layer records say: sentences, and tables of the numbers behind them.

records = layer_records(study, choose(study))
for sentence in layer_findings(records, speeds(records)):
    print(sentence)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from insgd_lab.analysis.labels import MISSING, p_text, p_words
from insgd_lab.analysis.layers import LayerRecords, interventions
from insgd_lab.analysis.mean_tests import ALPHA
from insgd_lab.analysis.tables import Column, Table, count

__all__ = ["interventions_table", "layer_findings", "speeds_table"]

_ACTS = {
    "norm_gain": "the norm correction raised a parameter's gradient",
    "clipped": "log P stood below its floor ε",
}


def layer_findings(records: Sequence[LayerRecords], moved: pd.DataFrame) -> list[str]:
    """Which layers a rule speeds up or slows down beside SGD, and how often rules stepped in.

    Args:
        records: of `layers.layer_records`.
        moved: what `layers.speeds` returned for them.
    """
    beside = (_speed_sentence(rows) for _, rows in moved.groupby("label", sort=False))
    acting = interventions(records)
    often = (_intervention_sentence(rows) for _, rows in acting.groupby(["label", "quantity"], sort=False))
    return [sentence for part in (beside, often) for sentence in part if sentence]


def _speed_sentence(rows: pd.DataFrame) -> str | None:
    """The layers furthest from the others that are told apart from them; None where there is nothing to test."""
    layers, rows = len(rows), rows[rows["p"].notna()]
    if rows.empty:
        return None
    if layers == 2:
        return _two_layers(rows.iloc[0])
    beside = f"{rows['label'].iloc[0]}, beside {rows['reference'].iloc[0]} and relative to its own mean over layers"
    apart = rows[rows["p_holm"] < ALPHA]
    if apart.empty:
        return f"{beside}: none of {len(rows)} layers is told apart from the others at {ALPHA:g} after correction."
    fast, slow = (apart.iloc[int(k)] for k in (apart["relative"].argmax(), apart["relative"].argmin()))
    parts = [f"sped up most is {_layer(fast)}"] if fast["relative"] > 1 else []
    parts += [f"slowed down most is {_layer(slow)}"] if slow["relative"] < 1 else []
    told = f"{len(apart)} of {len(rows)} layers {'is' if len(apart) == 1 else 'are'} told apart from the others"
    return f"{beside}: {told} after correction; {'; '.join(parts)}."


def _two_layers(row: pd.Series) -> str:
    """Of two layers one is as much faster than their mean as the other is slower: one test, told once."""
    beside = f"{row['label']}, beside {row['reference']} and relative to its own mean over layers"
    apart = "told apart" if row["p_holm"] < ALPHA else "not told apart"
    moved = "sped up" if row["relative"] > 1 else "slowed down"
    return (
        f"{beside}: its two layers, which are one test, are {apart} after correction; {moved} is {_layer(row)}, and "
        "the other one the reverse."
    )


def _layer(row: pd.Series) -> str:
    span = f"{_times(row['relative_low'])} to {_times(row['relative_high'])}"
    tested = p_words(row["p"], row["p_holm"])
    return f"{row['parameter']}, {_times(row['relative'])} times the step (95 % interval {span}; {tested})"


def _intervention_sentence(rows: pd.DataFrame) -> str:
    everything, layers = rows.iloc[0], rows.iloc[1:]
    text = f"{everything['label']}: {_ACTS[everything['quantity']]} in {_share(everything)} of the recorded steps"
    if everything["share"] > 0:
        most = layers.iloc[int(layers["share"].argmax())]
        text += f", most often at {most['parameter']} ({100 * most['share']:.0f} %)"
    if not math.isnan(everything["gain"]):
        text += f"; where it did, by {_times(everything['gain'])} times (geometric mean)"
    return text + "."


def _share(row: pd.Series) -> str:
    if row["share"] == 0:
        return "none"
    share = f"{100 * row['share']:.0f} %"
    if math.isnan(row["low"]):
        return share
    return f"{share} (95 % interval {100 * row['low']:.0f} to {100 * row['high']:.0f}, {row['n']} seeds)"


# ------------------------------------------------------------------------------------------------ tables


_TESTED = " p: a t-test over seeds that the last ratio is 1, corrected by Holm's method over all that this page tests."
_ONCE = " Of two layers the last ratio of one is 1 over the other's, and one test is both's: it stands with the first."


def speeds_table(frame: pd.DataFrame) -> Table:
    """How far each layer moves a step for its gradient, beside the same layer under SGD.

    Args:
        frame: what `layers.speeds` returned.
    """
    relative = (
        Column("the same / its mean over layers", ("relative", "relative_low", "relative_high"), _ratio, True),
        Column("p", ("p",), p_text, True),
        Column("corrected", ("p_holm",), p_text, True),
    )
    layers = frame["parameter"].nunique()
    columns = (
        Column("arm", ("label",)),
        Column("parameter", ("parameter",)),
        Column("seeds", ("n",), count, True),
        Column("effective step / that of SGD", ("ratio", "low", "high"), _ratio, True),
        *(relative if layers > 1 else ()),
    )
    beside = f" ({frame['reference'].iloc[0]})" if len(frame) else ""
    caption = (
        f"Effective steps beside those of SGD{beside}: geometric means over steps and seeds, with 95 % t-intervals."
        f"{_TESTED if layers > 1 else ''}{_ONCE if layers == 2 else ''}"
    )
    return Table("layer-speeds", caption, frame, columns)


def interventions_table(records: Sequence[LayerRecords]) -> Table:
    """How often rules stepped in, by layer."""
    columns = (
        Column("arm", ("label",)),
        Column("what", ("quantity",), lambda quantity: _ACTS[quantity]),
        Column("parameter", ("parameter",)),
        Column("seeds", ("n",), count, True),
        Column("share of steps (%)", ("share", "low", "high"), _percents, True),
        Column("gain where it acted", ("gain",), _times, True),
    )
    caption = "How often a rule stepped in, of the recorded steps: means over seeds with 95 % t-intervals."
    return Table("interventions", caption, interventions(records), columns)


def _ratio(mean: float, low: float, high: float) -> str:
    return _spanned(_times(mean), _times(low), _times(high))


def _percents(mean: float, low: float, high: float) -> str:
    return _spanned(*(MISSING if math.isnan(value) else f"{100 * value:.0f}" for value in (mean, low, high)))


def _times(value: float) -> str:
    """A factor, to three digits."""
    return MISSING if math.isnan(value) else f"{value:.3g}"


def _spanned(mean: str, low: str, high: str) -> str:
    return mean if MISSING in (low, high) else f"{mean} ({low} to {high})"
