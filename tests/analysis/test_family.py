"""Holm over all that a page tests, whatever part of it states it."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insgd_lab.analysis.family import KINDS, corrected_together, family_of
from insgd_lab.analysis.layer_findings import layer_findings, speeds_table
from insgd_lab.analysis.layers import layer_records, speeds
from insgd_lab.analysis.statistics import holm
from insgd_lab.analysis.verdicts import comparisons_table

columns = st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), max_size=8)


@pytest.fixture(scope="module")
def family(study, choices):
    return family_of(study, choices)


def declaring(study, **primary):
    return dataclasses.replace(study, info={**study.info, "spec": {"analysis": {"primary": primary}}})


def test_every_p_of_the_page_is_in_it_once_and_corrected_over_all(family):
    frame = family.statements
    assert set(frame["part"]) == {"comparisons", "speeds", "interactions"}
    assert len(frame) == sum(part["p"].count() for part in (family.comparisons, family.speeds, family.interactions))
    np.testing.assert_array_equal(frame["p_holm"], holm(frame["p"].to_numpy()))
    for part, rows in frame.groupby("part"):
        np.testing.assert_array_equal(family.frames[part].loc[rows["row"], "p_holm"], rows["p_holm"])


def test_verdicts_follow_the_family_and_the_primary_ones_their_own(family, study, choices):
    frame = family.comparisons
    first = frame["role"] == "primary"
    np.testing.assert_array_equal(frame.loc[first, "p_primary"], holm(frame.loc[first, "p"].to_numpy()))
    judged = frame["p_primary"].fillna(frame["p_holm"])
    np.testing.assert_array_equal(frame["verdict"] == "unresolved", judged >= 0.05)
    corrected = comparisons_table(study, frame).frame["corrected"]
    np.testing.assert_array_equal(corrected, judged)


def test_equivalences_are_statements_too(study, choices, family):
    wide = family_of(declaring(study, margin=1.0), choices)
    kinds = wide.statements.groupby(["part", "kind"]).size()
    # Of 26 comparisons the four of ε change nothing, and in three no run of one side survived.
    assert (kinds["comparisons", "p"], kinds["comparisons", "p_equivalence"]) == (26, 26 - 4 - 3)
    assert (wide.comparisons["p_holm"] >= family.comparisons["p_holm"]).all()
    rest = wide.comparisons["role"] != "primary"
    columns = ("p_equivalence_corrected", "p_equivalence_holm")
    np.testing.assert_array_equal(*(wide.comparisons.loc[rest, name] for name in columns))


def test_layers_are_told_and_printed_with_what_the_whole_page_leaves_of_p(study, choices):
    """A layer that is told apart among layers is not if the page tests more."""
    rng = np.random.default_rng(0)
    records = [
        dataclasses.replace(one, frame=one.frame.assign(value=one.frame["value"] * np.exp(noise)))
        for one in layer_records(study, choices)
        for noise in [one.frame.groupby(["seed", "parameter"])["value"].transform(lambda _: rng.normal(0, 0.01))]
    ]
    alone, page = speeds(records), family_of(study, choices, records).speeds
    np.testing.assert_array_equal(page["p"], alone["p"])
    assert ((alone["p_holm"] < 0.05) & (page["p_holm"] >= 0.05)).any()
    assert speeds_table(page).frame["p_holm"].equals(page["p_holm"])
    apart = (page[page["arm"] == "insgd"]["p_holm"] < 0.05).sum()
    assert f"{apart} of 4 layers are told apart from the others" in layer_findings(records, page)[0]


def test_the_order_of_runs_changes_no_bit(study, choices, family):
    shuffled = dataclasses.replace(study)
    shuffled.__dict__["scores"] = study.scores.sample(frac=1, random_state=2).reset_index(drop=True)
    pd.testing.assert_frame_equal(family_of(shuffled, choices).statements, family.statements, check_exact=True)


@given(st.lists(columns, min_size=len(KINDS), max_size=len(KINDS)), st.integers(1, len(KINDS)))
def test_a_further_kind_of_statement_lowers_no_corrected_p(values, shown):
    parts = {part: pd.DataFrame() for part in ("comparisons", "speeds", "interactions", "published")}
    for kind, numbers in zip(KINDS, values, strict=True):
        parts[kind.part] = parts[kind.part].join(pd.Series(numbers, name=kind.p, dtype=float), how="outer")
    few = {kind.part: parts[kind.part].copy() for kind in KINDS}
    for kind in KINDS[shown:]:
        few[kind.part][kind.p] = np.nan
    before, after = corrected_together(few), corrected_together(parts)
    for kind in KINDS[:shown]:
        less, more = (frames[kind.part][f"{kind.p}_holm"].to_numpy() for frames in (before, after))
        known = ~np.isnan(less)
        assert (more[known] >= less[known]).all()
