"""The figures of a report that set results side by side, with what is said about them.

    for drawing in result_drawings(study, choices, family_of(study, choices)):
        drawing.name, drawing.figure, drawing.alt, drawing.caption

Differences, the published beside ours, training, times to a target, and what options matter. The others, and `Drawing`,
are in `drawings`. A figure that has nothing to show is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from insgd_lab.analysis import (
    comparison_figures,
    comparison_series,
    option_figures,
    option_series,
    training_figures,
    training_series,
)
from insgd_lab.analysis.drawings import Drawing
from insgd_lab.analysis.family import Family
from insgd_lab.analysis.labels import metric_label, number, percent
from insgd_lab.analysis.measures import MEASURES, Measure, rounded
from insgd_lab.analysis.primary import primary_of
from insgd_lab.analysis.reproduction import Reproduction
from insgd_lab.analysis.runs import Study
from insgd_lab.analysis.selection import Choices, tuned_name
from insgd_lab.analysis.series import LINES, Panel

__all__ = ["result_drawings"]

PANELS = 4
"""Rows of six arms each that one figure holds."""
_T = TypeVar("_T")


def result_drawings(study: Study, choices: Choices, family: Family) -> Iterator[Drawing]:
    """Draw what the study's runs allow.

    Args:
        study: read from disk.
        choices: what `selection.choose` chose.
        family: what the page tests.
    """
    yield from _drawn_differences(study, family.comparisons)
    yield from _drawn_published(family.reproduction)
    yield from _drawn_training(study, choices)
    yield from _drawn_targets(study, choices)
    yield from _drawn_options(study, choices, family.interactions)
    yield from _drawn_budgets(study)


def _drawing(name: str, figure: Figure, alt: str, *caption: str) -> Drawing:
    return Drawing(name, figure, " ".join(alt.split()), " ".join(" ".join(caption).split()))


def _own_best(study: Study) -> str:
    return f" and own best {tuned_name(study)} (after the colon)" if study.tuned else ""


# ------------------------------------------------------------------------------------------------ comparisons


def _among(forest: comparison_series.Forest) -> str:
    """Over which statements the p-values of the figure are corrected."""
    firsts = int((forest.rows["role"] == "primary").sum())
    if not firsts:
        return " over all that this page tests"
    own = "of the primary comparisons among these" if firsts > 1 else "the primary one not at all"
    return f": {own}, of the others over all that this page tests"


def _drawn_differences(study: Study, compared: pd.DataFrame) -> Iterator[Drawing]:
    forest = comparison_series.forest_of(study, compared)
    if forest.rows.empty:
        return
    how, n = _TAKEN[primary_of(study).test]
    caption = f"""Differences in {metric_label(forest.metric)}{how}{_each_at_best(study)}; left of zero is lower, that
        is better. n are the {n}, p is corrected after Holm{_among(forest)}."""
    pages, limit = comparison_figures.forest_pages(forest), comparison_figures.forest_limit(forest)
    for number_of, page in enumerate(pages, 1):
        of = f"Page {number_of} of {len(pages)}." if pages[1:] else ""
        told = (caption, _forest_note(forest), of) if number_of == 1 else ("Differences, continued.", of)
        name = "differences" if number_of == 1 else f"differences-{number_of}"
        yield _drawing(name, comparison_figures.draw_forest(page, limit), _forest_alt(page), *told)


_TAKEN = {
    "paired-t": (" by seed, with their 95 % t-intervals", "pairs"),
    "welch": (" of means, with Welch's 95 % intervals", "runs of the smaller side"),
    "wilcoxon": (" by seed, with their 95 % t-intervals for orientation beside Wilcoxon's p", "pairs"),
}
"""By the kind of the primary test: what intervals are of, and what n counts."""


def _each_at_best(study: Study) -> str:
    return f", each side at its own best {tuned_name(study)}" if study.tuned else ""


def _forest_alt(forest: comparison_series.Forest) -> str:
    show = MEASURES[forest.metric].signed
    told = []
    for group, rows in forest.rows.groupby("group", sort=False):
        columns = (rows[name] for name in ("name", "difference", "low", "high"))
        each = (
            f"{name} {show(mean)} ({show(low)} to {show(high)})" for name, mean, low, high in zip(*columns, strict=True)
        )
        told.append(f"{group}: {'; '.join(each)}.")
    return f"Forest plot of differences in {metric_label(forest.metric)} with 95 % intervals. {' '.join(told)}"


def _forest_note(forest: comparison_series.Forest) -> str:
    """What marks mean that are there, and what is not drawn."""
    rows, notes = forest.rows, []
    if ((rows["diverged"] > 0) | (rows["reference_diverged"] > 0)).any():
        notes.append("†: some run diverged, which counts with the error of guessing.")
    limit = comparison_figures.forest_limit(forest)
    if (rows[["low", "high", "difference"]].abs() > limit).any(axis=None):
        notes.append("An arrow stands where something lies off the axis.")
    if forest.left_out:
        notes.append(f"Left out for want of room: the exploratory comparisons with the largest p ({forest.left_out}).")
    if forest.fixed:
        notes.append(f"Left out: those at the fixed setting ({forest.fixed}).")
    if forest.lacking:
        notes.append(f"Without a difference, since runs are missing or a loss is infinite: {forest.lacking}.")
    return " ".join(notes)


def _drawn_published(reproduction: Reproduction | None) -> Iterator[Drawing]:
    if reproduction is None or not (reproduction.table.frame["seeds"] > 0).any():
        return
    frame = reproduction.table.frame
    each = (
        f"{row['printed']}{', ' * bool(row['condition'])}{row['condition']} {percent(row['paper_mean'])} in the paper, "
        f"{percent(row['best_mean'])} here"
        for row in frame.to_dict("records")
    )
    yield _drawing(
        "published",
        comparison_figures.draw_published(frame),
        f"Test accuracy (%) of {reproduction.title}, beside this study's best epoch: {'; '.join(each)}.",
        """Test accuracy as printed and as measured here. Left: means, bars one standard deviation to each side, the
        paper's where it prints one. Right: the lead over its baseline under the same condition, the paper's without an
        interval, ours of the best epochs, paired by seed, with its 95 % t-interval. Bars may run off the axis.""",
    )


# ------------------------------------------------------------------------------------------------ training


def _drawn_training(study: Study, choices: Choices) -> Iterator[Drawing]:
    known = training_series.training_panels(study, choices)
    if not known:
        return
    rows, note = _first(known, [line for row in known for line in row[0].lines])
    lines = [line.label for row in rows for line in row[0].lines]
    ends = " ".join(_ends(panel) for row in rows for panel in row)
    *most, last = (panel.title for panel in rows[0])
    words = f"{', '.join(most)}{' and ' if most else ''}{last}".capitalize()
    yield _drawing(
        "training",
        training_figures.draw_training(rows),
        f"{words} against epoch, side by side, of {'; '.join(lines)}. Last values: {ends}",
        f"{words} after each epoch, arms at their base{_own_best(study)}: {_MIDDLES[study.loss_alone]}",
        note,
    )


_MIDDLES = {
    False: """means over seeds, bands 95 % t-intervals of the mean, which may run off the axis. From its divergence on a
        diverged run counts with the error of guessing; it has no loss, so the line of its arm ends there.""",
    True: """medians over seeds, bands from the lowest to the highest, which may run off the axis. From its divergence
        on a diverged run counts as infinitely bad.""",
}


def _first(panels: Sequence[_T], arms: Sequence[object]) -> tuple[Sequence[_T], str]:
    """As many panels as a page holds, and what to say of arms that have none."""
    note = f"Drawn are the first {PANELS * LINES} of {len(arms)} arms." if len(panels) > PANELS else ""
    return panels[:PANELS], note


def _ends(panel: Panel) -> str:
    last = (f"{line.label} {number(float(line.mean[-1]))}" for line in panel.lines if len(line.mean))
    return f"{panel.title}: {'; '.join(last)}."


def _drawn_targets(study: Study, choices: Choices) -> Iterator[Drawing]:
    target = training_series.default_target(study, choices)
    if target is None:
        return
    found = training_series.arrivals(study, choices, *target)
    arms, note = found.arms[: PANELS * LINES], _first(range(-(-len(found.arms) // LINES)), found.arms)[1]
    found = dataclasses.replace(found, arms=arms)
    unit = " %" if found.metric.endswith("error") else ""
    words = f"{metric_label(found.metric).removesuffix(' (%)')} of {number(found.target)}{unit}"
    baseline = study.arms[str(primary_of(study).baseline)].label
    each = (
        f"{arm.label} {arm.curve.events} of {arm.curve.runs} runs, median epoch {number(arm.curve.median)}"
        for arm in found.arms
    )
    yield _drawing(
        "targets",
        training_figures.draw_arrivals(found),
        f"Share of runs that have reached a {words} by epoch: {'; '.join(each)}.",
        f"""Share of runs that have reached a {words} by each epoch (Kaplan and Meier), arms at their
        base{_own_best(study)}, with pointwise 95 % bands where they are known. The target is what the median run of
        {baseline} ends at, so it comes from these runs and serves to describe, not to test. Runs that never got there
        are censored at their full budget, diverged ones too; the median is ∞ where fewer than half did. Where lines
        coincide, the wider ones show from under the others.""",
        note,
    )


# ------------------------------------------------------------------------------------------------ options


def _drawn_options(study: Study, choices: Choices, interactions: pd.DataFrame) -> Iterator[Drawing]:
    shares = option_series.shares_of(study, choices)
    if shares:
        yield _drawing(
            "variance",
            option_figures.draw_shares(shares),
            f"Shares of variance in percent. {' '.join(map(_shares_alt, shares))}",
            """How the variance of the scores of each arm crossed in full splits among its options and their
            interactions (×); exact, for on a full grid they are orthogonal. Noise alone gives every option some share:
            the dark bars, and the numbers in brackets, are without it (ω²; 0 where it would be negative). Grey: what
            seeds alone account for, with their interactions.""",
            _LOST[study.loss_alone],
        )
    drawn = option_series.importances_of(study)
    if drawn:
        yield _drawing(
            "importance",
            option_figures.draw_importances(drawn),
            f"Importance of options in random grids, in {drawn[0].unit}. {' '.join(map(_importance_alt, drawn))}",
            """Importance of the options of random grids: how much the mean absolute error of a random forest grows, on
            settings that it has not seen, when the option's values are shuffled; means and 95 % t-intervals over five
            forests, which share settings, so that the intervals are too narrow. R² says what the forests are worth:
            near 0 they know nothing, and their importances mean nothing. Options that only matter together share their
            importance, and correlated ones hide each other's.""",
            " ".join(_lost_settings(part) for part in drawn if part.lost),
        )
    maps = option_series.interaction_maps(study, interactions)
    if maps:
        metric = primary_of(study).metric
        told = " ".join(_map_alt(MEASURES[metric], one) for one in maps)
        yield _drawing(
            "interactions",
            option_figures.draw_interactions(maps, MEASURES[metric]),
            f"Interactions of two options in {metric_label(metric)}. {told}",
            f"""Interactions in {metric_label(metric)}{_each_at_best(study)}: what changing both options does beyond the
            sum of what each does alone, against the levels in brackets; 0 means that they add up. In brackets 95 %
            t-intervals, paired by seed; bold where p < 0.05 after Holm over all that this page
            tests.""",
        )


_LOST = {
    False: "Diverged runs count with the error of guessing, and where there are some at every setting they make most "
    "of the variance.",
    True: "Arms are left out where a run diverged, for its loss is infinite.",
}


def _importance_alt(part: option_series.Importances) -> str:
    columns = (part.frame[name] for name in ("option", "importance", "low", "high"))
    each = (
        f"{option} {number(rounded(mean))} ({number(rounded(low))} to {number(rounded(high))})"
        for option, mean, low, high in zip(*columns, strict=True)
    )
    return f"{part.arm} (R² {part.r_squared:.2f}, {part.settings} settings): {', '.join(each)}."


def _lost_settings(part: option_series.Importances) -> str:
    return f"Of {part.arm} settings at which a run diverged are left out ({part.lost})."


def _shares_alt(part: option_series.Shares) -> str:
    columns = (part.frame[name] for name in ("effect", "share", "corrected"))
    each = (f"{effect} {share:.1f} (without noise {rest:.1f})" for effect, share, rest in zip(*columns, strict=True))
    return f"{part.arm}{f' at {part.at}' if part.at else ''}: {', '.join(each)}."


def _map_alt(measure: Measure, one: option_series.InteractionMap) -> str:
    table = one.tables["interaction"]
    each = (f"{a} and {b} {measure.signed(table.loc[a, b])}" for a in table.index for b in table.columns)
    return f"{one.title}, {one.first} and {one.second}: {', '.join(each)}."


def _drawn_budgets(study: Study) -> Iterator[Drawing]:
    frame = option_series.budgets_of(study)
    known = option_series.budget_panels(study, frame)
    if not known:
        return
    panels, note = _first(known, [line for panel in known for line in panel.lines])
    measure = primary_of(study).measure
    metric = measure.label
    each = (
        f"{line.label} {_expected(measure, float(line.mean[0]))} after one setting, "
        f"{measure.text(float(line.mean[-1]))} after {line.x[-1]:.0f}"
        for panel in panels
        for line in panel.lines
    )
    yield _drawing(
        "budgets",
        option_figures.draw_budgets(panels, metric),
        f"Expected {metric} by the number of settings tried: {'; '.join(each)}.",
        f"""Expected {metric} after trying so many of an arm's settings, drawn without repetition, and keeping the best
        on the validation split. A setting is a cell at a tune, so arms with more axes have more of them. Bands: 95 %
        bootstrap over settings, too narrow where they are few or a chosen grid.""",
        option_series.budget_note(study, frame),
        note,
    )


def _expected(measure: Measure, value: float) -> str:
    return "infinite" if np.isinf(value) else measure.text(value)
