"""Comparisons in words and in the table: each number in them is one of `compare`'s."""

import dataclasses
import re

import pytest

from insgd_lab.analysis.comparison_series import forest_of
from insgd_lab.analysis.comparisons import compare
from insgd_lab.analysis.contents import compute, report_words
from insgd_lab.analysis.effects import inert_levels
from insgd_lab.analysis.family import family_of
from insgd_lab.analysis.labels import p_text, p_words
from insgd_lab.analysis.selection import at_edge, better_cell
from insgd_lab.analysis.verdicts import (
    changed_primary,
    comparisons_table,
    exploratory_sentences,
    furthest_sentences,
    introduction,
    primary_sentences,
)


@pytest.fixture(scope="module")
def compared(study, choices):
    return compare(study, choices)


def declared(study, **primary):
    spec = {**(study.info.get("spec") or {}), "analysis": {"primary": primary}}
    return dataclasses.replace(study, info={**study.info, "spec": spec})


def test_each_primary_comparison_has_a_sentence_with_its_numbers(study, compared):
    rows = compared[compared["role"] == "primary"]
    sentences = primary_sentences(study, compared)
    assert len(sentences) == len(rows) > 0
    for sentence, row in zip(sentences, rows.to_dict("records"), strict=True):
        told = sentence.replace("\N{MINUS SIGN}", "-")
        assert told.startswith(f"{study.arms[row['arm']].label}, against SGD")
        assert f"{row['difference']:+.2f} percentage points of final test error" in told
        assert f"(95 % interval {row['low']:+.2f} to {row['high']:+.2f}, {row['pairs']} pairs)" in told
        assert f"corrected {p_text(row['p_primary'])}" in told


def test_without_a_fixed_test_the_page_says_that_it_took_the_usual_one_and_what_it_tests(study, choices, compared):
    family = family_of(study, choices)
    text = introduction(study, family)
    assert "fixes no primary test ([analysis] would), so it is the usual one: the paired t-test by seed" in text
    firsts = (compared["role"] == "primary").sum()
    assert f"Holm's method over {firsts} comparisons" in text
    speeds, pairs = family.speeds["p"].count(), family.interactions["p"].count()
    total = len(compared) + speeds + pairs
    assert f"over all {total} statements of this page that have a p-value, the primary ones among them: " in text
    assert f": {len(compared)} comparisons, {speeds} speeds of layers, {pairs} interactions; what is picked" in text


def test_a_fixed_test_is_named_and_the_others_are_exploratory(study, choices):
    fixed = declared(study, arm="insgd", baseline="adam", test="welch")
    frame = compare(fixed, choices)
    text = introduction(fixed, family_of(fixed, choices))
    assert "The study file fixes the primary test: Welch's t-test of the final test error, INSGD, one at a" in text
    assert "It is a single test, so nothing is corrected there; all else is exploratory" in text
    [sentence] = primary_sentences(fixed, frame)
    assert re.match(r"INSGD, one at a time, against Adam", sentence)


def test_exploratory_sentences_are_of_what_stands_after_correction(study, compared):
    first, *each = exploratory_sentences(study, compared)
    others = compared[compared["role"] != "primary"]
    standing = others[others["p_holm"] < 0.05]
    assert first.startswith(f"Of {len(others)} comparisons {len(standing)} stand")
    assert len(each) == len(standing)
    assert all("higher" in sentence or "lower" in sentence for sentence in each)


def test_only_what_was_tested_counts_and_the_rest_is_said(study, compared):
    others = compared["role"] != "primary"
    lost = compared.index[others][:3]
    frame = compared.copy()
    frame.loc[lost, ["p", "p_holm", "p_equivalence_corrected"]] = float("nan")
    first, *_ = exploratory_sentences(study, frame)
    assert first.startswith(f"Of {others.sum() - 3} comparisons ")
    assert "; 3 comparisons could not be tested, for want of a mean, or of two pairs whose differences spread" in first
    [none] = exploratory_sentences(study, frame.loc[lost])
    assert none.startswith("3 comparisons could not be tested")


def test_the_furthest_level_has_the_p_of_its_comparison(study, compared):
    inert = inert_levels(study)
    sentences = furthest_sentences(study, compared, inert)
    [told] = [s.replace("\N{MINUS SIGN}", "-") for s in sentences if s.startswith("granularity (INSGD, one at a time)")]
    rows = compared[(compared["arm"] == "insgd") & (compared["axis"] == "granularity") & (compared["at"] == "best")]
    row = rows.loc[rows["difference"].abs().idxmax()]
    assert "the level whose error differs most from that of granularity = layer, each at its own best learning " in told
    assert f"rate, is {row['level']}, " in told
    assert f"{row['difference']:+.2f} percentage points of final test error (95 % interval {row['low']:+.2f} to" in told
    assert f"{p_words(row['p'], row['p_holm'])}: " in told
    assert not any(s.startswith("ε") for s in sentences), "an axis that does nothing has its own sentence"
    single = furthest_sentences(study, compared.assign(p=float("nan"), pairs=1), inert)
    assert all("(1 pair, so no test)" in s for s in single)


def test_a_primary_test_that_was_changed_later_is_told(study, choices):
    assert changed_primary(study) is None
    before = {"test": "welch", "arm": "gone", "baseline": "sgd", "metric": "test_loss", "margin": 0.5}
    changes = [{"before": None, "finished": 1}, {"before": before, "finished": 7}]
    edited = dataclasses.replace(study, info={**study.info, "primary_changes": changes})
    told = changed_primary(edited)
    assert told.startswith(
        "The primary test was changed after results were there: none was fixed, so it was the usual one, the paired "
        "t-test by seed of the final test error, every other arm against SGD, when 1 run had finished; it was Welch's "
        "t-test of the final test loss, gone against SGD, with a margin of ±0.5, when 7 runs had finished."
    )
    family = family_of(edited, choices)
    assert told in introduction(edited, family)
    assert "beforehand" not in told
    assert "the primary ones" not in introduction(edited, family)


def test_a_primary_test_that_was_changed_later_is_judged_like_the_exploratory_ones(study, choices):
    changes = [{"before": None, "finished": 1}]
    edited = dataclasses.replace(study, info={**study.info, "primary_changes": changes})
    before, family = family_of(study, choices), family_of(edited, choices)
    frame, mine = family.comparisons, family.comparisons["role"] == "changed"
    assert mine.sum() == (before.comparisons["role"] == "primary").sum() > 0
    assert not (frame["role"] == "primary").any()
    assert frame["p_primary"].isna().all()
    assert ((frame["verdict"] == "unresolved") == (frame["p_holm"] >= 0.05)).all()
    for sentence, row in zip(primary_sentences(edited, frame), frame[mine].to_dict("records"), strict=True):
        assert f"corrected {p_text(row['p_holm'])}" in sentence
    [words] = [heading for heading in report_words(compute(edited)).findings if heading.startswith("Primary")]
    assert words == "Primary test, changed after results were there"
    forest = forest_of(edited, frame).rows
    assert set(forest["role"]) == {"exploratory"}
    assert forest["p_shown"].notna().all()
    shown = comparisons_table(edited, frame).frame
    assert (shown["corrected"] == shown["p_holm"]).all()


def test_diverged_runs_are_said_with_what_the_survivors_say(study, compared):
    row = {**compared.iloc[0].to_dict(), "diverged": 2, "reference_diverged": 0, "survivor_pairs": 1}
    frame = compared.iloc[:1].assign(**{**row, "survivor_difference": -0.25})
    [sentence] = primary_sentences(study, frame)
    assert "(2 of its runs and 0 of the others diverged; the 1 pair that survived differs by −0.25" in sentence


def test_a_margin_is_said_with_its_p_and_equivalences_are_counted(study, choices):
    fixed = declared(study, margin=20.0)
    frame = compare(fixed, choices)
    first, *each = exploratory_sentences(fixed, frame)
    others = frame[frame["role"] != "primary"]
    same = others[others["p_equivalence_corrected"] < 0.05]
    assert f", and {len(same)} are equivalent within ±20 percentage points:" in first
    assert len(each) == (same.index.union(others.index[others["p_holm"] < 0.05])).size
    row = frame[frame["role"] == "primary"].iloc[0]
    told = primary_sentences(fixed, frame)[0].replace("\N{MINUS SIGN}", "-")
    span = f"90 % interval {row['inner_low']:+.2f} to {row['inner_high']:+.2f}"
    corrected = p_text(row["p_equivalence_corrected"])
    assert re.search(
        rf"equivalent within ±20 percentage points \({re.escape(span)}, p .*, corrected {corrected}\)", told
    )
    assert "p within ±20 percentage points" in comparisons_table(fixed, frame).titles
    far = primary_sentences(declared(study, margin=0.01), compare(declared(study, margin=0.01), choices))[0]
    assert "not shown to be equivalent within ±0.01 percentage points" in far


def test_welch_counts_runs_and_wilcoxon_says_whose_interval_it_shows(study, choices):
    fixed = declared(study, test="welch")
    assert "3 and 3 runs" in primary_sentences(fixed, compare(fixed, choices))[0]
    fixed = declared(study, test="wilcoxon")
    assert "for orientation the paired 95 % t-interval" in primary_sentences(fixed, compare(fixed, choices))[0]


def test_no_study_finds_more_than_a_hundred_points(study, compared):
    frame = compared.iloc[:1].assign(detectable=125.2)
    assert primary_sentences(study, frame)[0].endswith(
        "not even 100 points of true difference would be found 4 times in 5."
    )
    assert ">100" in comparisons_table(study, frame).cells()[0]


def test_the_table_has_a_row_for_each_comparison(study, compared):
    table = comparisons_table(study, compared)
    assert len(table.cells()) == len(compared)
    assert "cannot get below p = 0.25" in table.caption  # three pairs: two of eight signs
    assert table.titles[5:9] == ["95 % interval", "verdict", "p", "corrected"]
    verdicts = [row[table.titles.index("verdict")] for row in table.cells()]
    assert verdicts == compared["verdict"].tolist()


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.5, "0.50"),
        (0.125, "0.13"),
        (0.083, "0.083"),
        (0.0625, "0.063"),
        (0.02, "0.020"),
        (0.0997, "0.10"),
        (0.0045, "0.0045"),
        (0.0004, "<0.001"),
        (1.0, "1.00"),
        (float("nan"), "–"),
    ],
)
def test_p_values_have_two_digits(p, text):
    assert p_text(p) == text


def test_caveats_stand_in_the_sentence_of_the_arm(study, choices, compared):
    """INSGD's best cell by validation is at a dampening that is not compared; its rate does not end its grid."""
    base = study.shown_cell("insgd")
    best = better_cell(study, choices, base)
    assert best.settings != base.settings
    [told] = [one for one in primary_sentences(study, compared, choices) if one.startswith("INSGD, one")]
    assert f"its best cell by validation is {study.cell_label(best)}, which is not the one compared" in told
    assert better_cell(study, choices, best) is None
    assert at_edge(study, "insgd", '{"lr":1.0}') == ("lr", "highest")
    assert at_edge(study, "insgd", choices["insgd", base.key].tune) is None
    rate = study.tunes[choices["insgd", base.key].tune]["lr"]
    narrow = dataclasses.replace(study.arms["insgd"], tune={"lr": [0.03, rate]})
    edged = dataclasses.replace(study, arms={**study.arms, "insgd": narrow})
    [told] = [one for one in primary_sentences(edged, compared, choices) if one.startswith("INSGD, one")]
    assert "; its learning rate is the highest tried, so a better one may lie beyond" in told


def test_a_range_that_a_search_drew_from_has_ends(study):
    key = next(iter(study.tunes_of("insgd")))
    rate = study.tunes[key]["lr"]

    def end(low, high, kind="log_range"):
        arm = dataclasses.replace(study.arms["insgd"], search={"lr": {kind: [low * rate, high * rate]}})
        return at_edge(dataclasses.replace(study, arms={"insgd": arm}), "insgd", key)

    assert end(0.01, 100) is None
    assert end(0.01, 1.01) == ("lr", "highest")
    assert end(0.95, 100) == ("lr", "lowest")
    assert end(0.99, 100, "range") == ("lr", "lowest")
    assert end(0.5, 1.5, "range") is None


def test_a_single_test_is_not_said_to_be_corrected(study, choices):
    fixed = declared(study, arm="adam")
    frame = compare(fixed, choices)
    [told] = primary_sentences(fixed, frame, choices)
    assert "corrected" not in told
    only = frame[frame["role"] == "primary"]
    lone = only.assign(p_holm=only["p"], smallest_p=1.0)
    assert "Holm" not in comparisons_table(fixed, lone).caption
    assert "Wilcoxon test of so few" not in comparisons_table(fixed, lone).caption
    assert "but the one primary p not at all" in comparisons_table(fixed, frame).caption
