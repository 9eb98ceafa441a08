"""What a report says first: who is better, and what next, never more than the verdicts."""

import dataclasses

import pytest

from insgd_lab.analysis.comparisons import compare
from insgd_lab.analysis.contents import compute, report_words
from insgd_lab.analysis.statistics import seeds_needed
from insgd_lab.analysis.summary import in_short


def declared(study, **primary):
    spec = {**(study.info.get("spec") or {}), "analysis": {"primary": primary}}
    return dataclasses.replace(study, info={**study.info, "spec": spec})


def short(study, choices, **columns):
    frame = compare(study, choices)
    return in_short(study, choices, frame.assign(**columns))


@pytest.fixture(scope="module")
def single(study):
    return declared(study, arm="adam", baseline="sgd")


NUMBERS = {"difference": -0.67, "low": -1.14, "high": -0.19, "detectable": 2.41}


def test_a_verdict_is_told_with_by_how_much(single, choices):
    assert short(single, choices, **NUMBERS, verdict="lower") == [
        "Adam is better than SGD by 0.67 (0.19 to 1.14) points (final test error)."
    ]
    turned = {"difference": 0.67, "low": 0.19, "high": 1.14}
    [told] = short(single, choices, **turned, verdict="higher")
    assert told == "Adam is worse than SGD by 0.67 (0.19 to 1.14) points (final test error)."


def test_what_is_undecided_says_what_the_interval_leaves_open_and_what_these_seeds_find(single, choices):
    open_to = {**NUMBERS, "low": -0.5, "high": 1.3}
    told, power = short(single, choices, **open_to, verdict="unresolved")
    assert told == "Undecided: Adam may be up to 0.50 points better or 1.30 worse than SGD (final test error)."
    assert power == (
        "With 3 seeds and this spread, a true difference of 2.41 points would be found 4 times in 5, before correction."
    )
    told, _ = short(single, choices, **NUMBERS, verdict="unresolved")
    assert "would be 0.19 to 1.14 points better by its interval alone, which does not stand after correction" in told


def test_a_margin_is_told_with_whether_it_was_met_and_the_seeds_that_it_takes(study, choices):
    fixed = declared(study, arm="adam", baseline="sgd", margin=0.1)
    frame = compare(fixed, choices)
    row = frame[frame["role"] == "primary"].iloc[0]
    sd = (row["high"] - row["low"]) / 2 / 4.302652729911275 * 3**0.5  # t of 2 degrees
    assert row["seeds_for_margin"] == seeds_needed(0.1, sd)
    told, power = in_short(fixed, choices, frame.assign(verdict="unresolved"))
    assert told.endswith("; nor are the two shown to be equivalent within ±0.1 points.")
    seeds = f"{row['seeds_for_margin']:.0f}"
    assert power.startswith(f"With this spread about {seeds} seeds would find 0.1 points (the stated margin)")
    [same] = short(fixed, choices, verdict="equivalent")
    assert same == "Adam is equivalent to SGD within ±0.1 points (final test error)."


def test_several_arms_are_told_by_what_was_found_of_them(study, choices):
    [first, *_] = short(study, choices, **NUMBERS, verdict="unresolved")
    assert first.startswith("Undecided: none of ")
    assert " arms is told apart from SGD (final test error): INSGD, one at a time would be" in first
    frame = compare(study, choices)
    rows = (frame["role"] == "primary").sum()
    mixed = frame[frame["role"] == "primary"].assign(**NUMBERS, verdict=["lower", *["untested"] * (rows - 1)])
    [first, *_] = in_short(study, choices, mixed)
    said = f"Of {rows} arms against SGD (final test error), better: INSGD, one at a time by 0.67 (0.19 to 1.14) points"
    assert first.startswith(said)
    assert "; not tested: " in first


def test_ranks_give_no_size(study, choices):
    ranked = declared(study, arm="adam", baseline="sgd", test="wilcoxon")
    assert short(ranked, choices, **NUMBERS, verdict="higher") == [
        "Adam is worse than SGD by ranks (final test error)."
    ]
    assert short(ranked, choices, **NUMBERS, verdict="unresolved") == [
        "Undecided: Adam is not known to be better or worse than SGD (final test error)."
    ]


def test_rates_at_the_end_of_what_was_tried_and_a_late_choice_are_told(study, choices):
    cell = study.shown_cell("adam")
    rate = study.tunes[choices["adam", cell.key].tune]["lr"]
    arm = dataclasses.replace(study.arms["adam"], tune={"lr": [rate, 10.0]})
    edged = declared(dataclasses.replace(study, arms={**study.arms, "adam": arm}), arm="adam", baseline="sgd")
    edged = dataclasses.replace(edged, info={**edged.info, "primary_changes": [{"before": None, "finished": 3}]})
    first, widen = short(edged, choices, **NUMBERS, verdict="lower")
    assert first.startswith("By a test that was chosen when results were there: Adam is better")
    assert widen.endswith("may lie beyond (Adam: its learning rate is the lowest tried).")


def test_the_page_begins_with_it(study):
    words = report_words(compute(study))
    assert words.summary
    assert words.summary[0].endswith(".")
