"""A study beside a paper's table: what is matched with what, tested against what is printed, and said of it."""

import dataclasses
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from insgd_lab.analysis.family import family_of
from insgd_lab.analysis.labels import p_text, p_words
from insgd_lab.analysis.published import load_paper
from insgd_lab.analysis.reproduction import _table, reproduce
from insgd_lab.analysis.reproduction_findings import published_sentences
from insgd_lab.analysis.result_drawings import result_drawings
from insgd_lab.analysis.runs import StudyError, load_study
from insgd_lab.analysis.selection import choose
from insgd_lab.analysis.statistics import holm, paired_difference
from insgd_lab.analysis.verdicts import introduction

from .synthetic import arms, build_study
from .test_published import TABLE_6


def table_6_arms():
    plain = {"grid": "full", "axes": {"lr": [0.01, 0.1, 0.25]}, "base": {"lr": 0.1}, "tune": {}, "fixed": {}}
    named = [("sgd", "sgd", {}), ("l1", "insgd-l1", {}), ("l2", "insgd-lp", {"p": 2})]
    return [
        {**arms()[2], **plain, "name": name, "label": name, "optimizer": optimizer, "options": {"lr": 0.1, **more}}
        for name, optimizer, more in named
    ]


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    task = {
        "data": {"name": "cifar10", "options": {"fraction": 0.2}, "revision": 1},
        "model": {"name": "custom-cnn", "options": {}, "revision": 1},
    }
    path = tmp_path_factory.mktemp("runs") / "table06-short"
    fields = {"compare": {"paper": "insgd", "table": "6"}, "task": task}
    return build_study(path, arm_list=table_6_arms(), failed=0, epochs=3, steps=20, fields=fields).path


def test_published_cells_stand_beside_ours_at_the_same_rate(short):
    study = load_study(short)
    frame = reproduce(study, choose(study)).table.frame
    assert list(frame["paper_mean"]) == [mean for _, _, mean, _ in TABLE_6]
    assert (frame["seeds"] == 3).all()
    cell = study.find_cell("l2", {"lr": 0.25})
    best = study.by_seed("l2", cell.key, "{}", "best_test_error")
    control = study.by_seed("sgd", cell.key, "{}", "best_test_error")
    row = frame.iloc[5]
    assert row["best_mean"] == pytest.approx(100 - 100 * sum(best.values()) / 3)
    assert row["lead"] == pytest.approx(-100 * paired_difference(best, control).mean)
    assert row["paper_lead"] == pytest.approx(74.68 - 65.92)


def test_leads_are_told_in_words(short):
    study = load_study(short)
    reproduction = reproduce(study, choose(study))
    sentences = [s for s in published_sentences(study, reproduction) if "the lead of" in s]
    assert len(sentences) == 6
    [sentence] = [s for s in sentences if "learning rate = 0.25: the lead of INSGD-ℓ2 over SGD" in s]
    assert "is +8.76 percentage points of test accuracy in the paper" in sentence
    assert f"and {reproduction.table.frame.iloc[5]['lead']:+.2f}" in sentence.replace("\N{MINUS SIGN}", "-")


def test_a_lead_counts_the_seeds_that_both_have(tmp_path, short):
    shutil.copytree(short, tmp_path / "s")
    study = load_study(tmp_path / "s")
    cell = study.find_cell("sgd", {"lr": 0.25})
    lost = study.finished("sgd", cell.key, "{}")["run"].iloc[0]
    (tmp_path / "s" / lost / "run.json").unlink()
    study = load_study(tmp_path / "s")
    sentences = published_sentences(study, reproduce(study, choose(study)))
    leads = [s for s in sentences if "learning rate = 0.25: the lead" in s]
    assert len(leads) == 2
    assert all(", 2 seeds; p " in sentence for sentence in leads)


def test_the_table_has_the_papers_unit_metric_and_decimals(short):
    study = load_study(short)
    table = reproduce(study, choose(study)).table
    assert "paper (%)" in table.titles
    assert "test accuracy of the best epoch on the test set" in table.caption
    assert "custom-designed CNN on the CIFAR-10 dataset" in table.caption
    assert "79.30 ± 0.38" in table.markdown()
    printed = load_paper("insgd").find_table("6").model_copy(update={"decimals": 1, "unit": "points"})
    table = _table("x", printed, table.frame, None)
    assert "paper (points)" in table.titles
    assert "79.3 ± 0.4" in table.markdown()


def test_what_differs_in_scale_is_said(short):
    study = load_study(short)
    text = "\n".join(reproduce(study, choose(study)).differences)
    assert "3 here, 200 in the paper" in text
    assert "20 % of the training split" in text
    assert "3 seeds here" in text
    assert "best epoch on the test set" in text
    study.info["task"]["data"] = {"name": "cifar10", "options": {"shots": 20, "imbalance": "step"}}
    text = "\n".join(reproduce(study, choose(study)).differences)
    assert "100 % of the training split here with shots = 20, imbalance = step, from which" in text


def test_a_table_without_a_scale_of_its_own_is_compared_as_far_as_it_goes(short):
    study = load_study(short)
    study.info["compare"] = {"paper": "adanorm", "table": "1"}
    reproduction = reproduce(study, choose(study))
    text = "\n".join(reproduction.differences)
    assert "3 here, 100 in the paper" in text
    assert "the paper's text names no validation split." in text
    assert "in the paper, test accuracy;" in text
    assert "Task:" not in text
    assert published_sentences(study, reproduction) == []


# ---------------------------------------------------------------------------------------------- tested against it


def declaring(study, **primary):
    return dataclasses.replace(study, info={**study.info, "spec": {"analysis": {"primary": primary}}})


def test_our_mean_is_tested_against_the_printed_one_in_percentage_points(short):
    """Welch's test from summaries is scipy's, the one-sided ones from its standard error; 74.68 ± 0.85 is of 7 runs."""
    study = load_study(short)
    row = reproduce(declaring(study, margin=30.0), choose(study)).table.frame.iloc[5]
    assert (row["paper_mean"], row["paper_sd"], row["paper_n"]) == (74.68, 0.85, 7)
    ours = 100 - 100 * np.array(
        list(study.by_seed("l2", study.find_cell("l2", {"lr": 0.25}).key, "{}", "best_test_error").values())
    )
    test = stats.ttest_ind_from_stats(ours.mean(), ours.std(ddof=1), 3, 74.68, 0.85, 7, equal_var=False)
    terms = ours.var(ddof=1) / 3, 0.85**2 / 7
    error, degrees = math.sqrt(sum(terms)), sum(terms) ** 2 / (terms[0] ** 2 / 2 + terms[1] ** 2 / 6)
    difference = ours.mean() - 74.68
    half = stats.t.ppf(0.975, degrees) * error
    assert row["difference"] == pytest.approx(difference)
    assert row["p_difference"] == pytest.approx(test.pvalue)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((difference - half, difference + half))
    assert row["p_equivalence"] == pytest.approx(stats.t.sf((30 - abs(difference)) / error, degrees))


def test_all_p_values_beside_the_paper_are_one_family_and_that_of_the_page(short):
    study = load_study(short)
    frame = reproduce(declaring(study, margin=30.0), choose(study)).table.frame
    names = ("p_difference", "p_equivalence", "p_lead")
    together = holm(np.concatenate([frame[name] for name in names]))
    np.testing.assert_array_equal(np.concatenate([frame[f"{name}_holm"] for name in names]), together)
    page = family_of(declaring(study, margin=30.0), choose(study))
    kinds = page.statements[page.statements["part"] == "published"].groupby("kind").size()
    assert (frame["guessed"] > 0).sum() == 1  # of these runs one diverged before it was tested
    assert kinds.to_dict() == {"p_difference": 8, "p_equivalence": 8, "p_lead": 6}
    wider = page.reproduction.table.frame
    assert all((wider[f"{name}_holm"].dropna() >= frame[f"{name}_holm"].dropna()).all() for name in names)
    assert page.reproduction.table.cells()[5][10] == p_text(wider["p_difference_holm"].iloc[5])
    text = introduction(study, page)
    assert "8 differences from published means, 8 equivalences to published means, 6 leads as in" in text


@pytest.mark.parametrize(
    ("primary", "said"),
    [
        ({}, "it takes a margin stated beforehand ([analysis] primary.margin), and the study file states none."),
        ({"metric": "test_loss", "margin": 0.1}, "the study file states one of a loss, which is none of accuracies."),
    ],
)
def test_without_a_margin_of_accuracies_nothing_is_called_the_same(short, primary, said):
    study = declaring(load_study(short), **primary)
    reproduction = reproduce(study, choose(study))
    assert reproduction.margin is None
    assert reproduction.table.frame["p_equivalence"].isna().all()
    sentences = published_sentences(study, reproduction)
    assert sentences[0].startswith("The two are not the same experiment")
    [why] = [s for s in sentences if said in s]
    assert why.startswith("That a mean here is equivalent to the published one is not said of any")
    assert not any("within ±" in s for s in sentences)


def test_means_are_told_with_their_tests_and_verdicts(short):
    study = declaring(load_study(short), margin=30.0)
    reproduction = reproduce(study, choose(study))
    row = reproduction.table.frame.iloc[5]
    [told] = [s for s in published_sentences(study, reproduction) if "learning rate = 0.25: INSGD-ℓ2 has" in s]
    told = told.replace("\N{MINUS SIGN}", "-")
    assert f"has {row['best_mean']:.2f} % test accuracy here (best epochs) and 74.68 % in the paper" in told
    assert f", {row['difference']:+.2f} percentage points (Welch's 95 % interval " in told
    assert ", 3 seeds and 7 runs); " + p_words(row["p_difference"], row["p_difference_holm"]) in told
    # 92 % in the short miniature and 74.68 % in the paper: 17 points apart, beyond doubt and within 30.
    assert ": higher here, equivalent within ±30 percentage points (p " in told


def diverged(study, cell, how):
    """The study as if all runs of a cell had diverged: before any test, or after their best epochs."""
    runs = study.finished(cell.arm, cell.key, "{}")["run"]
    lost = study.scores["run"].isin(runs)
    curves, scores = study.curves, study.scores.assign(status=study.scores["status"].mask(lost, "diverged"))
    if how == "before":
        scores.loc[lost, "best_test_error"] = 0.9
        curves = curves.assign(test_error=curves["test_error"].mask(curves.index.get_level_values("run").isin(runs)))
    after = dataclasses.replace(study, curves=curves)
    after.__dict__["scores"] = scores
    return after


@pytest.mark.parametrize(
    ("how", "said"),
    [("after", "(3 of these runs diverged, after their best epochs)"),
     ("before", "(3 of these runs diverged before any epoch was tested, and count as guessing)")],
)  # fmt: skip
def test_runs_that_diverged_are_told_and_guesses_are_not_tested(short, how, said):
    study = declaring(load_study(short), margin=30.0)
    study = diverged(study, study.find_cell("l2", {"lr": 0.25}), how)
    reproduction = reproduce(study, choose(study))
    row = reproduction.table.frame.iloc[5]
    assert row[["p_difference", "p_equivalence", "difference_low"]].isna().all() == (how == "before")
    [told] = [s for s in published_sentences(study, reproduction) if "learning rate = 0.25: INSGD-ℓ2 has" in s]
    assert told.endswith(f"{said}.")
    assert ("not tested, as runs stand here as guessing" in told) == (how == "before")


def test_runs_that_are_one_run_again_are_tested_against_nothing(short):
    study = load_study(short)
    study.__dict__["scores"] = study.scores.assign(digest=study.scores["arm"])
    frame = reproduce(study, choose(study)).table.frame
    assert frame[["p_difference", "p_lead"]].isna().all(axis=None)
    assert (frame["lead_pairs"].dropna() == 1).all()


def test_a_study_with_losses_alone_cannot_stand_beside_accuracies(short):
    study = load_study(short)
    study.__dict__["scores"] = study.scores.assign(test_error=np.nan, best_test_error=np.nan)
    with pytest.raises(StudyError, match="has losses alone: expected runs with accuracies"):
        reproduce(study, choose(study))


@pytest.fixture(scope="module")
def corrected(tmp_path_factory) -> Path:
    """AdaNorm's Table 1 on one of its data sets and networks, which the study names for all arms."""
    plain = {"grid": "one-at-a-time", "axes": {}, "base": {}, "tune": {}, "fixed": {}, "options": {"lr": 0.001}}
    names = ("sgd", "adam", "adamnorm", "diffgradnorm")
    arm_list = [{**arms()[2], **plain, "name": name, "label": name, "optimizer": name} for name in names]
    task = {"data": {"name": "cifar10", "options": {}}, "model": {"name": "resnet18", "options": {}}}
    fields = {"compare": {"paper": "adanorm", "table": "1"}, "task": task}
    path = tmp_path_factory.mktemp("runs") / "table1"
    return build_study(path, arm_list=arm_list, failed=0, epochs=2, steps=20, fields=fields).path


def test_each_optimizer_leads_over_its_own_baseline(corrected):
    study = load_study(corrected)
    reproduction = reproduce(study, choose(study))
    frame = reproduction.table.frame
    ours = frame[frame["seeds"] > 0]
    assert list(ours["optimizer"]) == ["adam", "adamnorm", "diffgradnorm"], "of one data set and network only"
    assert dict(zip(frame["printed"], frame["baseline"], strict=True))["RadamNorm"] == "Radam"
    row = ours.iloc[1]
    cells = {
        name: study.by_seed(name, study.base_cell(name).key, "{}", "best_test_error") for name in ("adam", "adamnorm")
    }
    lead = paired_difference(cells["adamnorm"], cells["adam"])
    assert (row["baseline"], row["paper_lead"]) == ("Adam", pytest.approx(93.78 - 93.54))
    assert row["lead"] == pytest.approx(-100 * lead.mean)
    assert row["p_lead"] == pytest.approx(stats.ttest_rel(*(list(cells[n].values()) for n in cells)).pvalue)
    assert np.isnan(ours["lead"].iloc[2]), "its baseline was not run here"
    [told] = [s for s in published_sentences(study, reproduction) if "the lead of" in s]
    assert "the lead of AdamNorm over Adam is +0.24 percentage points" in told


def test_an_option_of_the_model_is_a_condition_and_an_arm_may_have_a_model_of_its_own(corrected):
    study = load_study(corrected)
    study.info["compare"] = {"paper": "insgd", "table": "8"}
    study.info["task"]["model"] = {"name": "vit", "options": {"layer_norm": False}}
    study.arms["sgd"].options["lr"] = 0.01
    study.arms["adam"].options.update({"lr": 0.0005, "task.model": {"name": "vit", "layer_norm": True}})
    frame = reproduce(study, choose(study)).table.frame
    ours = frame.loc[frame["seeds"] > 0, ["optimizer", "paper_mean"]]
    assert ours.to_numpy().tolist() == [["adam", 85.38], ["sgd", 79.90]]


def test_a_table_without_standard_deviations_tests_no_mean_and_says_why(corrected):
    study = declaring(load_study(corrected), margin=0.5)
    reproduction = reproduce(study, choose(study))
    assert reproduction.table.frame[["p_difference", "p_equivalence"]].isna().all(axis=None)
    means = [s for s in published_sentences(study, reproduction) if " has " in s]
    assert len(means) == 3
    assert all(s.endswith("(3 seeds; not tested, as the paper prints no standard deviation).") for s in means)


def test_the_figure_beside_the_table_tells_both(short):
    study = load_study(short)
    choices = choose(study)
    family = family_of(study, choices)
    [drawing] = [d for d in result_drawings(study, choices, family) if d.name == "published"]
    frame = family.reproduction.table.frame
    drawn = {line.get_label(): line.get_xdata() for line in drawing.figure.axes[0].lines}
    assert list(drawn["paper"]) == list(frame["paper_mean"])
    assert list(drawn["here, best epoch"]) == list(frame["best_mean"])
    assert f"74.68 in the paper, {frame.iloc[5]['best_mean']:.2f} here" in drawing.alt


def test_a_study_that_compares_with_nothing_has_no_such_table(study, choices):
    assert reproduce(study, choices) is None
