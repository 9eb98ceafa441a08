"""What the forest plot of a study shows: which of its comparisons, in which order, under which names.

    forest = forest_of(study, compare(study))
    forest.rows[["group", "name", "difference", "low", "high", "p_shown"]]

The differences are those of `comparisons.compare`; nothing is computed anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from insgd_lab.analysis.effects import base_level
from insgd_lab.analysis.labels import name_label, value_label
from insgd_lab.analysis.primary import Metric, primary_of
from insgd_lab.analysis.runs import Study

__all__ = ["MOST_ROWS", "Forest", "forest_of"]

MOST_ROWS = 40
"""Comparisons that one page can hold and stay legible."""


@dataclass(frozen=True)
class Forest:
    """Comparisons from top to bottom, those of one `group` together.

    `rows` are those of `compare`, with group (a title), name (of what is compared) and p_shown: among the primary
    statements for these, over all statements for the rest, as the verdicts have it. A primary test that was changed
    when results were there is exploratory here.
    """

    rows: pd.DataFrame
    metric: Metric
    margin: float | None
    left_out: int
    """Comparisons for which there was no room: of those that are not primary, the ones with the largest p."""
    fixed: int
    """Comparisons at the fixed tune, which are not drawn."""
    lacking: int
    """Comparisons without a difference, since runs are missing or a diverged one has no loss."""


def forest_of(study: Study, compared: pd.DataFrame, most: int = MOST_ROWS) -> Forest:
    """Choose and name the comparisons to draw: arms against the baseline first, then levels and cells, arm by arm.

    Args:
        study: read from disk.
        compared: what `compare` returned for it.
        most: as many rows at most; the primary ones come before others, and of those the ones with the smallest p.
    """
    primary = primary_of(study)
    own = compared[compared["at"] == "best"]
    known = own[own["difference"].notna()]
    places = known.assign(later=known["role"] != "primary").sort_values(["later", "p"], kind="stable").index[:most]
    rows = known.loc[known.index.isin(places)]
    rows = rows.assign(role=rows["role"].where(rows["role"] == "primary", "exploratory"))
    rows = rows.assign(several=rows.groupby(["kind", "arm"])["arm"].transform("size") > 1)
    rows = rows.assign(
        group=[_group(study, row) for row in rows.to_dict("records")],
        name=[_name(study, row) for row in rows.to_dict("records")],
        p_shown=rows["p_primary"].where(rows["role"] == "primary", rows["p_holm"]),
    )
    arms, others = rows[rows["kind"] == "arm"], rows[rows["kind"] != "arm"]
    return Forest(
        rows=pd.concat([arms, others], ignore_index=True),
        metric=primary.metric,
        margin=primary.margin,
        left_out=len(known) - len(rows),
        fixed=int((compared["at"] == "fixed").sum()),
        lacking=len(own) - len(known),
    )


def _group(study: Study, row: Any) -> str:
    if row["kind"] == "arm":
        return f"Arms against {study.arms[row['reference_arm']].label}"
    against = "against its base" if row["kind"] == "level" else f"against {row['reference']}"
    return f"{study.arms[row['arm']].label}, {against}"


def _name(study: Study, row: Any) -> str:
    arm = study.arms[row["arm"]]
    if row["kind"] == "level":
        base = value_label(base_level(arm, row["axis"]))
        return f"{name_label(row['axis'])}: {value_label(row['level'])} against {base}"
    if row["kind"] == "cell":
        return str(row["setting"])
    return f"{arm.label}: {row['setting']}" if row["several"] and row["setting"] != "base" else arm.label
