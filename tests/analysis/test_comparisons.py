import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from insgd_lab.analysis import comparisons
from insgd_lab.analysis.comparisons import compare
from insgd_lab.analysis.effects import main_effects
from insgd_lab.analysis.primary import baseline_of, primary_of
from insgd_lab.analysis.runs import StudyError
from insgd_lab.analysis.scores import scored
from insgd_lab.analysis.selection import choose, tune_at
from insgd_lab.analysis.series import groups
from insgd_lab.analysis.setup import setup
from insgd_lab.analysis.statistics import (
    detectable_difference,
    hedges_g,
    hedges_g_paired,
    holm,
    paired_t,
    probability_of_improvement,
    tost_paired,
    welch,
    wilcoxon,
)

from .synthetic import BASE


def declaring(study, **primary):
    return dataclasses.replace(study, info={**study.info, "spec": {"analysis": {"primary": primary}}})


def changed(study, **columns):
    after = dataclasses.replace(study)
    after.__dict__["scores"] = study.scores.assign(**columns)
    return after


@pytest.fixture(scope="module")
def frame(study, choices):
    return compare(study, choices)


def errors(study, choices, arm):
    cell = study.shown_cell(arm)
    return {seed: 100 * e for seed, e in study.by_seed(arm, cell.key, tune_at(study, choices, cell, "best")).items()}


def row(frame, **words):
    for name, value in words.items():
        frame = frame[[found == value for found in frame[name]]]
    [found] = frame.to_dict("records")
    return found


# ------------------------------------------------------------------------------------------------ the primary test


def test_without_a_declared_test_every_arm_is_compared_with_sgd_by_the_paired_t(study, frame):
    primary = primary_of(study)
    assert (primary.test, primary.arm, primary.baseline, primary.declared) == ("paired-t", None, "sgd", False)
    assert frame.loc[frame["role"] == "primary", "arm"].tolist() == ["insgd", "adam"]
    assert set(frame.loc[frame["role"] == "primary", "reference_arm"]) == {"sgd"}
    assert frame["role"].tolist()[:2] == ["primary"] * 2
    assert set(frame["role"][2:]) == {"exploratory"}


def test_a_declared_test_is_the_only_primary_one(study, choices):
    frame = compare(declaring(study, test="welch", arm="insgd", baseline="adam"), choices)
    [primary] = frame[frame["role"] == "primary"].to_dict("records")
    assert (primary["arm"], primary["reference_arm"], primary["test"]) == ("insgd", "adam", "welch")
    assert primary["p"] == primary["p_welch"] == primary["p_primary"]
    assert (frame.loc[frame["arm"] == "sgd", "kind"] == "level").sum() == 2
    assert row(frame, kind="arm", arm="sgd")["role"] == "exploratory"


def test_the_first_arm_is_the_baseline_where_there_is_no_sgd(study):
    arms = {name: arm for name, arm in study.arms.items() if name != "sgd"}
    assert baseline_of(dataclasses.replace(study, arms=arms)) == "insgd"
    assert baseline_of(study, but="sgd") == "insgd"


def test_an_arm_that_is_not_there_is_refused(study):
    with pytest.raises(StudyError, match=r"analysis\.primary\.arm is 'lion'"):
        primary_of(declaring(study, arm="lion"))


def test_a_study_of_losses_is_compared_by_its_loss(study):
    curves = study.curves.assign(test_error=np.nan, val_error=np.nan)
    primary = primary_of(dataclasses.replace(study, curves=curves))
    assert (primary.metric, primary.unit) == ("test_loss", 1.0)
    assert primary_of(declaring(study, metric="best_test_error")).metric == "best_test_error"
    with pytest.raises(StudyError, match="its runs have losses and no errors; set metric"):
        primary_of(declaring(dataclasses.replace(study, curves=curves), metric="best_test_error"))


# ------------------------------------------------------------------------------------------------ the numbers


def test_every_number_is_that_of_its_routine(study, choices):
    frame = compare(declaring(study, margin=1.0), choices)
    found = row(frame, kind="arm", arm="insgd")
    ours, theirs = errors(study, choices, "insgd"), errors(study, choices, "sgd")
    test, size = paired_t(ours, theirs), hedges_g_paired(ours, theirs)
    chance = probability_of_improvement([-e for e in ours.values()], [-e for e in theirs.values()])
    sd = float(np.std([ours[s] - theirs[s] for s in ours], ddof=1))
    expected = {
        "mean": np.mean(list(ours.values())), "reference_mean": np.mean(list(theirs.values())),
        "difference": test.difference, "low": test.low, "high": test.high, "p": test.p, "p_paired": test.p,
        "p_welch": welch(list(ours.values()), list(theirs.values())).p, "p_wilcoxon": wilcoxon(ours, theirs).p,
        "g": size.g, "g_low": size.low, "g_high": size.high, "smallest_p": 0.25, "improvement": chance.value,
        "improvement_low": chance.low, "improvement_high": chance.high, "pairs": 3, "n": 3, "n_reference": 3,
        "detectable": detectable_difference(3, sd), "p_equivalence": tost_paired(ours, theirs, 1.0).p,
        "survivor_difference": test.difference, "diverged": 0,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_with_welch_every_number_is_that_of_independent_samples(study, choices):
    frame = compare(declaring(study, margin=1.0, test="welch"), choices)
    found = row(frame, kind="arm", arm="insgd")
    ours, theirs = (list(errors(study, choices, arm).values()) for arm in ("insgd", "sgd"))
    test = stats.ttest_ind(ours, theirs, equal_var=False)
    wide, inner = test.confidence_interval(0.95), test.confidence_interval(0.90)
    error, degrees = (np.mean(ours) - np.mean(theirs)) / test.statistic, test.df
    apart = [stats.t.sf((1.0 + sign * found["difference"]) / error, degrees) for sign in (1, -1)]
    size, pooled = hedges_g(ours, theirs), math.sqrt((np.var(ours, ddof=1) + np.var(theirs, ddof=1)) / 2)
    expected = {
        "p": test.pvalue, "low": wide.low, "high": wide.high, "inner_low": inner.low, "inner_high": inner.high,
        "p_equivalence": max(apart), "g": size.g, "g_low": size.low, "g_high": size.high, "g_unpaired": size.g,
        "detectable": detectable_difference(3, pooled, paired=False), "survivor_low": wide.low, "pairs": 3,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_equivalence_is_judged_by_the_corrected_p(study, choices):
    frame = compare(declaring(study, margin=1.0), choices)
    first = frame["role"] == "primary"
    raw, corrected = frame["p_equivalence"], frame["p_equivalence_corrected"]
    np.testing.assert_array_equal(corrected[first], holm(raw[first].to_numpy()))
    together = holm([*frame["p"], *raw])  # that two are the same is a statement as that they differ is one
    np.testing.assert_array_equal(frame["p_holm"], together[: len(frame)])
    np.testing.assert_array_equal(corrected[~first], together[len(frame) :][~first])
    within = frame["verdict"].str.contains("equivalent|margin")
    np.testing.assert_array_equal(within, corrected < 0.05)
    assert ((raw < 0.05) & ~within).any()
    wide = compare(declaring(study, margin=50.0), choices)
    assert wide["verdict"].str.contains("equivalent").any()


def test_levels_are_the_main_effects(study, choices, frame):
    effects = main_effects(study, choices)
    levels = frame[frame["kind"] == "level"]
    expected = effects[~effects["base"]]
    assert len(levels) == len(expected)
    keys = ["arm", "axis", "level", "at"]
    joined = levels.astype({"level": str}).merge(expected.astype({"level": str}), on=keys)
    for one, other in (("difference_x", "difference_y"), ("low_x", "difference_low")):
        np.testing.assert_array_equal(joined[one], joined[other])  # to the last bit: both tables print one number


def test_holm_counts_every_statement_and_the_primary_ones_also_alone(frame):
    np.testing.assert_array_equal(frame["p_holm"], holm(frame["p"].to_numpy()))
    primary = frame[frame["role"] == "primary"]
    np.testing.assert_array_equal(primary["p_primary"], holm(primary["p"].to_numpy()))
    assert (primary["p_primary"] <= primary["p_holm"]).all()
    assert frame.loc[frame["role"] != "primary", "p_primary"].isna().all()


def test_verdicts_follow_the_corrected_p(frame):
    judged = frame["p_primary"].fillna(frame["p_holm"])
    assert (frame.loc[judged >= 0.05, "verdict"] == "unresolved").all()
    found = frame[judged < 0.05]
    assert (found["verdict"] == np.where(found["difference"] < 0, "lower", "higher")).all()
    assert (found["verdict"] == "higher").any()


def test_what_changes_nothing_is_unresolved_with_p_of_one(frame):
    inert = frame[frame["axis"] == "eps"]
    assert len(inert) == 4
    assert (inert["p"] == 1).all()
    assert (inert["difference"] == 0).all()


@pytest.mark.parametrize(("margin", "verdict"), [(1e-6, "unresolved"), (100.0, "equivalent")])
def test_a_margin_lets_no_difference_be_said(study, choices, margin, verdict):
    frame = compare(declaring(study, margin=margin), choices)
    unchanged = row(frame, axis="eps", level=0.001, at="best")
    assert unchanged["verdict"] == "unresolved"  # whatever the margin: without a spread there is nothing to go by
    assert math.isnan(unchanged["p_equivalence"])
    assert row(frame, kind="arm", arm="adam")["verdict"] == verdict


@pytest.mark.parametrize("test", ["welch", "paired-t"])
@pytest.mark.parametrize(
    ("worse", "inside", "outside"),
    [(0.0, "equivalent", "unresolved"), (0.4, "higher by less than the margin", "higher"),
     (-0.4, "lower by less than the margin", "lower")],
)  # fmt: skip
def test_the_verdict_turns_where_scipys_interval_ends(study, choices, test, worse, inside, outside):
    """Of one primary comparison nothing is corrected: it is within the margin from the end of its 90 % interval on."""
    moved = {"test_error": study.scores["test_error"] + worse * (study.scores["arm"] == "insgd")}
    ours, theirs = (errors(changed(study, **moved), choices, name) for name in ("insgd", "sgd"))
    values = [[scores[seed] for seed in sorted(ours)] for scores in (ours, theirs)]
    found = stats.ttest_ind(*values, equal_var=False) if test == "welch" else stats.ttest_rel(*values)
    ends = found.confidence_interval(0.90)
    bound = max(abs(ends.low), abs(ends.high))
    for factor, verdict in ((1 + 1e-6, inside), (1 - 1e-6, outside)):
        asked = declaring(study, margin=bound * factor, test=test, arm="insgd", baseline="sgd")
        one = row(compare(changed(asked, **moved), choices), role="primary")
        assert one["verdict"] == verdict
        assert one["p_equivalence_corrected"] == pytest.approx(0.05, rel=1e-3)


def test_a_found_difference_within_the_margin_is_said_to_be(study, choices):
    worse = study.scores["test_error"] + 0.4 * (study.scores["arm"] == "insgd")
    frame = compare(changed(declaring(study, margin=1000.0), test_error=worse), choices)
    moved = frame[frame["p_equivalence"].notna()]
    assert set(moved["verdict"]) <= {"equivalent", "lower by less than the margin", "higher by less than the margin"}
    assert "higher by less than the margin" in set(frame["verdict"])


# ------------------------------------------------------------------------------------------------ diverged runs


def test_diverged_runs_score_chance_rank_worst_and_survivors_stand_beside(study, choices):
    found = row(compare(study, choices), arm="insgd-norms", axis="p", level="inf", at="fixed")
    assert found["diverged"] == 9
    assert found["mean"] == pytest.approx(90)
    assert found["improvement"] == 0
    assert found["survivor_pairs"] == 0
    assert math.isnan(found["survivor_difference"])


def test_what_stands_as_guessing_is_not_equivalent_and_has_no_interval(study, choices):
    """All of two arms diverged, and of one alone: guesses beside guesses differ by nothing, whatever the arms are."""
    tests = ("low", "high", "g", "detectable", "p_equivalence", "inner_low", "inner_high")
    for names in (["insgd", "sgd"], ["insgd"]):
        lost = study.scores["arm"].isin(names)
        columns = {"status": study.scores["status"].mask(lost, "diverged"), "test_error": 0.9}
        columns["test_error"] = study.scores["test_error"].mask(lost, 0.9)
        frame = compare(changed(declaring(study, margin=100.0), **columns), choices)
        found = row(frame, kind="arm", arm="insgd")
        assert (found["diverged"], found["survivor_pairs"]) == (3, 0)
        assert np.isnan([found[name] for name in tests]).all()
        assert "equivalent" not in found["verdict"]
    assert row(frame, kind="arm", arm="adam")["verdict"] == "equivalent"


def test_one_diverged_seed_of_an_arm_is_counted_left_out_and_ranked(study, choices):
    cell = study.shown_cell("insgd")
    scores = study.scores.copy()
    tune = tune_at(study, choices, cell, "best")
    one = (scores["arm"] == "insgd") & (scores["cell"] == cell.key) & (scores["tune"] == tune) & (scores["seed"] == 1)
    scores.loc[one, ["status", "test_error", "test_loss"]] = ["diverged", 0.9, np.inf]

    def after(**primary):
        declared = declaring(study, **primary)
        declared.__dict__["scores"] = scores
        return compare(declared, choices)

    found = row(after(), kind="arm", arm="insgd")
    ours, theirs = errors(study, choices, "insgd"), errors(study, choices, "sgd")
    alive = paired_t({s: e for s, e in ours.items() if s != 1}, theirs)
    assert found["diverged"] == 1
    assert found["difference"] == pytest.approx(paired_t({**ours, 1: 90.0}, theirs).difference)
    assert (found["survivor_pairs"], found["survivor_difference"]) == (2, pytest.approx(alive.difference))
    assert found["p_wilcoxon"] == wilcoxon({**ours, 1: math.inf}, theirs).p
    lossy = row(after(metric="test_loss"), kind="arm", arm="insgd")
    assert math.isnan(lossy["p"])  # a diverged run has no loss to take a mean of
    assert lossy["verdict"] == "untested"
    ranked = row(after(metric="test_loss", test="wilcoxon"), kind="arm", arm="insgd")
    assert ranked["p"] >= ranked["smallest_p"] == 0.25


# ------------------------------------------------------------------------------------------------ laws


def test_shifting_all_errors_shifts_means_and_keeps_differences(study, choices, frame):
    after = compare(changed(study, test_error=study.scores["test_error"] + 0.01), choices)
    np.testing.assert_allclose(after["mean"], frame["mean"] + 1)
    np.testing.assert_allclose(after["difference"], frame["difference"], atol=1e-9)
    np.testing.assert_allclose(after["p"], frame["p"], rtol=1e-6)


def test_the_order_of_runs_changes_no_bit(study, choices, frame):
    shuffled = dataclasses.replace(study)
    shuffled.__dict__["scores"] = study.scores.sample(frac=1, random_state=0).reset_index(drop=True)
    pd.testing.assert_frame_equal(compare(shuffled, choices), frame, check_exact=True)


def test_swapping_arm_and_baseline_flips_the_sign(study, choices):
    one = row(compare(declaring(study, arm="insgd", baseline="adam"), choices), role="primary")
    other = row(compare(declaring(study, arm="adam", baseline="insgd"), choices), role="primary")
    assert one["difference"] == pytest.approx(-other["difference"])
    assert one["p"] == pytest.approx(other["p"])
    assert one["improvement"] == pytest.approx(1 - other["improvement"])


def test_equal_settings_are_compared_with_each_other(study, choices):
    """Where the baseline has a cell of the same settings, as at three learning rates of one table, that is the twin."""
    settings = {"dampening": 0.9}
    twin = dataclasses.replace(study.find_cell("sgd", settings), arm="adam")
    plan = study.plan.copy()
    plan.loc[plan["arm"] == "adam", "cell"] = twin.key
    cells = {key: cell for key, cell in study.cells.items() if key[0] != "adam"} | {("adam", twin.key): twin}
    moved = dataclasses.replace(study, plan=plan, cells=cells)
    frame = compare(moved, choose(moved))
    found = row(frame, kind="arm", arm="adam")
    assert found["reference"] == "dampening = 0.9"
    assert found["reference_mean"] == pytest.approx(scored(moved, choices, [study.find_cell("sgd", settings)]).mean)


def test_cells_of_other_grids_are_compared_with_the_first(study, choices):
    arms = {**study.arms, "insgd": dataclasses.replace(study.arms["insgd"], grid="zip")}
    frame = compare(dataclasses.replace(study, arms=arms), choices)
    cells = frame[(frame["arm"] == "insgd") & (frame["kind"] == "cell")]
    assert len(cells) == len(study.cells_of("insgd")) - 1
    assert not ((frame["arm"] == "insgd") & (frame["kind"] == "level")).any()


def test_an_arm_without_a_base_cell_is_compared_with_the_baseline_only_if_named(study, choices):
    base = study.base_cell("insgd")
    plan = study.plan[~((study.plan["arm"] == "insgd") & (study.plan["cell"] == base.key))]
    cells = {key: cell for key, cell in study.cells.items() if cell != base}
    arms = {**study.arms, "insgd": dataclasses.replace(study.arms["insgd"], grid="random")}
    drawn = dataclasses.replace(study, plan=plan, cells=cells, arms=arms)
    frame = compare(drawn, choices)
    assert not ((frame["arm"] == "insgd") & (frame["kind"] == "arm")).any()
    assert set(frame.loc[frame["role"] == "primary", "arm"]) == {"insgd-norms", "adam"}
    assert ((frame["arm"] == "insgd") & (frame["kind"] == "cell")).any()
    named = compare(declaring(drawn, arm="insgd"), choices)
    first = drawn.cell_label(drawn.shown_cell("insgd"))
    assert named.loc[named["role"] == "primary", ["arm", "setting"]].to_numpy().tolist() == [["insgd", first]]
    words = {row[0]: row for row in setup(drawn).arms.cells()}
    assert "no base cell; beside others stands the first, " in words["INSGD, one at a time"][4]
    titles = [group.title for group in groups(drawn)]
    assert titles[0] == "Arms at their base, or first cell where they have none"


def test_scores_of_several_cells_are_averaged_by_seed(study, choices):
    cells = study.cells_of("insgd-norms")[:3]
    side = scored(study, choices, cells)
    single = [scored(study, choices, [cell]).scores for cell in cells]
    assert side.scores == pytest.approx({seed: np.mean([scores[seed] for scores in single]) for seed in range(3)})
    assert scored(study, choices, []).scores == {}
    assert math.isnan(scored(study, choices, []).mean)
    assert dict(study.base_cell("insgd").settings) == BASE


def test_a_study_without_finished_runs_has_rows_and_no_numbers(study):
    empty = dataclasses.replace(study)
    empty.__dict__["scores"] = study.scores.iloc[:0]
    frame = compare(empty)
    assert (frame["verdict"] == "untested").all()
    assert len(frame) > 0


def test_the_direction_is_that_of_what_was_tested() -> None:
    # Eleven small wins and one diverged run: ranks say lower, the mean says higher.
    mine = {seed: 10.0 - 0.1 * (1 + seed) for seed in range(11)} | {11: 90.0}
    theirs = dict.fromkeys(range(12), 10.0)
    ranks = {**mine, 11: math.inf}
    rows = [
        {"test": test, "difference": 80 / 12 - 0.55, **comparisons._rank_tests(ranks, theirs, 0.95)}
        for test in ("paired-t", "wilcoxon")
    ]
    assert rows[0]["p_wilcoxon"] < 0.05
    signs = comparisons._directions(pd.DataFrame(rows))
    assert signs[0] > 0 > signs[1]
