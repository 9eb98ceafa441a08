"""A study whose task has losses alone: no word of errors or guessing, and a diverged run is infinitely bad."""

import dataclasses
import math
import re

import numpy as np
import pandas as pd
import pytest

from insgd_lab.analysis import figures, series
from insgd_lab.analysis.ablation import lr_sensitivity
from insgd_lab.analysis.comparisons import compare
from insgd_lab.analysis.convergence_tables import convergence_tables, rates_note
from insgd_lab.analysis.effects import main_effects
from insgd_lab.analysis.measures import MEASURES, chosen_by, reported
from insgd_lab.analysis.primary import primary_of
from insgd_lab.analysis.report import write_report
from insgd_lab.analysis.runs import load_study
from insgd_lab.analysis.selection import choose, tune_at
from insgd_lab.analysis.statements import findings
from insgd_lab.analysis.statistics import summarize
from insgd_lab.analysis.tables import effects_table, results_table
from insgd_lab.analysis.verdicts import comparisons_table, furthest_sentences, primary_sentences

from .synthetic import arms, build_study
from .test_report import Page

LOSS = MEASURES["test_loss"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The miniature with fewer axes, without accuracies: as if it had been about a quadratic."""
    insgd, norms, sgd, adam = arms()
    chosen = [{**insgd, "axes": {"beta": insgd["axes"]["beta"]}}, norms, sgd, adam]
    task = {"data": {"name": "quadratic"}, "model": {"name": "point"}}
    folder = build_study(
        tmp_path_factory.mktemp("losses") / "q", arm_list=chosen, failed=0, epochs=4, steps=10,
        fields={"task": task, "classes": None, "labels": False},
    )  # fmt: skip
    for run in folder.runs():
        metrics = run.metrics()
        run.write_metrics(metrics[metrics["metric"] != "accuracy"])
    return folder.path


@pytest.fixture(scope="module")
def losses(folder):
    return load_study(folder)


@pytest.fixture(scope="module")
def chosen(losses):
    return choose(losses)


def with_diverged(study, arm, seeds):
    """The study as if these seeds of the arm's shown cell had diverged, at whatever tune."""
    cell = study.shown_cell(arm)
    scores = study.scores.copy()
    lost = (scores["arm"] == arm) & (scores["cell"] == cell.key) & scores["seed"].isin(seeds)
    scores.loc[lost, ["test_loss", "val_loss"]] = math.inf
    scores.loc[lost, "status"] = "diverged"
    made = dataclasses.replace(study)
    made.__dict__["scores"] = scores
    return made


def chosen_losses(study, choices, arm):
    cell = study.shown_cell(arm)
    return study.by_seed(arm, cell.key, tune_at(study, choices, cell, "best"), "test_loss")


# ---------------------------------------------------------------------------------------------------- scores


def test_nothing_is_guessed(losses, study):
    assert losses.loss_alone
    assert not study.loss_alone
    diverged = losses.runs["status"] == "diverged"
    assert diverged.any()
    assert losses.runs[["val_error", "test_error", "best_test_error"]].isna().all(axis=None)
    assert np.isinf(losses.runs.loc[diverged, "test_loss"].astype(float)).all()
    assert (reported(losses).name, chosen_by(losses).name) == ("test_loss", "val_loss")
    assert (reported(study).name, chosen_by(study).name) == ("test_error", "val_error")
    assert primary_of(losses).metric == "test_loss"


def test_studies_that_do_not_say_so_are_known_by_their_curves(losses):
    info = {name: value for name, value in losses.info.items() if name != "labels"}
    assert dataclasses.replace(losses, info=info).loss_alone


def test_a_study_all_of_whose_runs_diverged_at_once_has_losses_alone(losses):
    none = dataclasses.replace(losses, curves=losses.curves.iloc[:0])
    assert none.loss_alone


def test_a_rate_at_which_runs_diverged_is_never_chosen(losses, chosen):
    means = losses.scores.groupby(["arm", "cell", "tune"])["val_loss"].mean()
    assert np.isinf(means).any()
    for place, choice in chosen.items():
        assert choice.tune == means[place].idxmin()
        assert choice.val_loss == pytest.approx(means[place].min())
        assert choice.val_loss < math.inf


# ---------------------------------------------------------------------------------------------------- tables


def test_results_have_the_median_of_all_and_the_mean_of_the_survivors(losses, chosen):
    made = with_diverged(losses, "sgd", [1])
    table = results_table(made, chosen, "best")
    rows = table.frame.set_index(["arm", "settings"])
    cell = made.shown_cell("sgd")
    row, known = rows.loc[("sgd", cell.key)], chosen_losses(losses, chosen, "sgd")
    survivors = summarize([known[0], known[2]])
    assert (row["seeds"], row["diverged"], row["final_n"]) == (3, 1, 2)
    assert row["final_median"] == max(known[0], known[2])
    assert (row["final_mean"], row["final_low"]) == pytest.approx((survivors.mean, survivors.low))
    whole = rows.loc[("adam", made.shown_cell("adam").key)]
    assert whole["final_median"] == np.median(list(chosen_losses(losses, chosen, "adam").values()))
    assert table.titles == ["arm", "setting", "learning rate", "seeds", "median", "n", "mean", "95 % interval", "sd",
                            "diverged"]  # fmt: skip
    assert table.caption.startswith("Test loss, each cell at its own best learning rate")


def test_main_effects_are_of_the_seeds_that_survived_beside_the_median_of_all(losses, chosen):
    made = with_diverged(losses, "insgd", [0, 2])
    rows = main_effects(made, chosen).query("arm == 'insgd' and axis == 'beta' and at == 'best'").set_index("level")
    base, other = rows.loc[0.9], rows.loc[0.0]
    known = chosen_losses(losses, chosen, "insgd")
    assert (base["n"], base["diverged"], base["mean"]) == (1, 2, pytest.approx(known[1]))
    assert (base["median"], base["lowest"], base["highest"]) == (math.inf, pytest.approx(known[1]), math.inf)
    cell = made.find_cell("insgd", {**made.arms["insgd"].base, "beta": 0.0})
    moved = made.by_seed("insgd", cell.key, tune_at(made, chosen, cell, "best"), "test_loss")
    assert (other["pairs"], other["difference"]) == (1, pytest.approx(moved[1] - known[1]))
    table = effects_table(made, main_effects(made, chosen))
    assert "median (own best)" in table.titles
    assert "Main effects on the final test loss" in table.caption


def test_learning_rates_are_near_the_best_up_to_a_multiple_of_its_loss(losses):
    row = lr_sensitivity(losses, within=1.0).set_index(["arm", "setting"]).loc[("sgd", losses.shown_cell("sgd").key)]
    tunes = losses.tunes_of("sgd")
    means = [np.mean(list(losses.by_seed("sgd", row.name[1], tune, "val_loss").values())) for tune in tunes]
    assert row["best_error"] == pytest.approx(min(means))
    assert row["tried_within"] == sum(mean <= 2 * min(means) for mean in means)
    assert np.isinf(means).any()


# ---------------------------------------------------------------------------------------------------- figures


def test_curves_are_medians_in_the_range_of_seeds(losses, chosen):
    panels = series.test_curves(losses, chosen)
    line = panels[0].lines[0]
    cell = losses.shown_cell("insgd")
    runs = losses.finished("insgd", cell.key, tune_at(losses, chosen, cell, "best"))["run"]
    values = np.array([losses.curves.loc[run]["test_loss"] for run in runs])
    np.testing.assert_allclose(line.mean, np.median(values, axis=0))
    np.testing.assert_allclose(line.low, values.min(axis=0))
    np.testing.assert_allclose(line.high, values.max(axis=0))
    figure = figures.draw_curves(panels, LOSS)
    assert figure.axes[0].get_ylabel() == "test loss"
    drawn = figure.axes[0].lines[0]
    np.testing.assert_allclose(drawn.get_ydata(), line.mean)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["range over seeds"]


def test_a_line_ends_where_half_of_the_runs_have_diverged():
    table = pd.DataFrame({"a": [1.0, 2.0, np.inf], "b": [3.0, 1.0, 0.5], "c": [2.0, np.inf, np.inf]}, index=[1, 2, 3])
    line = series.line_of("x", table, medians=True)
    assert line.mean.tolist() == [2.0, 2.0, np.inf]
    assert line.low.tolist() == [1.0, 1.0, 0.5]
    assert line.high.tolist() == [3.0, np.inf, np.inf]


def test_losses_that_span_decades_have_a_logarithmic_axis_and_others_an_even_one():
    def drawn(*values):
        line = series.Line("x", np.arange(3.0), np.array(values), np.array(values), np.array(values))
        return figures.draw_curves([series.Panel("", "", (line,))], LOSS).axes[0]

    wide, near = drawn(1e-7, 1e-4, 200.0), drawn(0.5, 0.6, 0.7)
    assert wide.get_yscale() == "log"
    assert wide.get_ylim()[0] < 1e-7
    assert wide.get_ylim()[1] > 200, "a loss has no most"
    assert near.get_yscale() == "linear"
    assert near.get_ylim()[0] > 0.4


def test_levels_that_diverged_are_drawn_off_the_axis(losses, chosen):
    effects = main_effects(with_diverged(losses, "insgd", [0, 1, 2]), chosen)
    ax = figures.draw_effects(losses, effects.query("arm == 'insgd'")).axes[0]
    arrows = [line for line in ax.lines if line.get_marker() == ">"]
    assert sum(len(line.get_xdata()) for line in arrows) == 1
    assert ax.figure.axes[-1].get_xlabel() == "test loss at the fixed learning rate"


# ---------------------------------------------------------------------------------------------------- sentences


def test_a_mean_is_said_of_the_survivors_after_the_median_of_all(losses, chosen):
    made = with_diverged(losses, "sgd", [1])
    said = findings(made, chosen, compare(made, chosen), [])
    [sgd] = [sentence for sentence in said if sentence.startswith("SGD (")]
    known = chosen_losses(losses, chosen, "sgd")
    middle = LOSS.text(max(known[0], known[2]))
    assert f"test loss median {middle}, as 1 of 3 runs diverged; test loss " in sgd
    assert "2 seeds) of the others" in sgd
    [lost] = [sentence for sentence in said if "diverged (" in sentence]
    assert "each counts as infinitely bad, so means are of the others" in lost


def test_a_diverged_run_leaves_ranks_alone_and_is_said_to(losses, chosen):
    made = with_diverged(losses, "adam", [1])
    frame = compare(made, chosen)
    row = frame.set_index("arm").loc["adam"]
    assert (row["verdict"], row["survivor_pairs"]) == ("untested", 2)
    assert math.isnan(row["difference"])
    [sentence] = [said for said in primary_sentences(made, frame) if said.startswith("Adam")]
    assert "no mean difference in final test loss, as a run has none" in sentence
    assert "not tested, since a diverged run has no loss; by ranks alone, where it is the worst" in sentence
    assert f"a run of it beats one of the others with chance {row['improvement']:.2f} (" in sentence
    assert "p =" not in sentence  # a p-value here would be one outside the page's family
    assert f"the 2 pairs that survived differ by {LOSS.signed(row['survivor_difference'])})" in sentence
    assert "–" in comparisons_table(made, frame).markdown()


def test_a_level_without_a_mean_is_named_before_the_furthest_of_the_others(losses, chosen):
    [cell] = [cell for cell in losses.cells_of("insgd") if cell.settings["beta"] == 0.0]
    made, scores = dataclasses.replace(losses), losses.scores.copy()
    lost = (scores["cell"] == cell.key) & (scores["seed"] == 1)
    scores.loc[lost, ["test_loss", "val_loss"]], scores.loc[lost, "status"] = math.inf, "diverged"
    made.__dict__["scores"] = scores
    [said] = [text for text in furthest_sentences(made, compare(made, chosen), []) if text.startswith("β (")]
    assert ": no mean has 0 (of 3 runs 1 diverged); of the others, the level whose loss differs most " in said


def test_a_crossed_arm_without_interactions_is_named(losses, chosen):
    assert not [text for text in findings(losses, chosen, compare(losses, chosen), []) if "no interactions" in text]
    made = with_diverged(losses, "insgd-norms", [1])
    [said] = [text for text in findings(made, chosen, compare(made, chosen), []) if "no interactions" in text]
    assert said.startswith("INSGD, p × granularity is crossed in full and has no interactions")


def test_seeds_that_change_nothing_are_one_run_and_no_sample(losses, chosen):
    alike = losses.scores.copy()
    for name in ("val_loss", "test_loss", "digest"):
        alike[name] = alike.groupby(["arm", "cell", "tune"])[name].transform("first")
    made = dataclasses.replace(losses)
    made.__dict__["scores"] = alike
    frame = compare(made, choose(made))
    assert (frame["verdict"] == "untested").all()
    assert frame.loc[(frame["diverged"] == 0) & (frame["reference_diverged"] == 0), "pairs"].eq(1).all()
    said = findings(made, chosen, compare(made, chosen), [])
    [told] = [sentence for sentence in said if "bit-identical, since nothing in them" in sentence]
    assert "these seeds are one run and no sample" in told
    assert not [s for s in findings(losses, chosen, compare(losses, chosen), []) if "no sample" in s]
    random = {name: alike[name].where(alike["arm"] != "sgd", losses.scores[name]) for name in ("test_loss", "digest")}
    half = alike.assign(**random)
    mixed = dataclasses.replace(losses)
    mixed.__dict__["scores"] = half
    assert (compare(mixed, chosen).query("reference_arm == 'sgd'")["pairs"] == 3).all(), "one side is a sample"


def test_equal_scores_of_different_runs_are_a_sample_and_equal_runs_are_none_beside_a_diverged_one(losses, chosen):
    made = dataclasses.replace(losses)
    made.__dict__["scores"] = losses.scores.assign(test_loss=0.0)  # all of them perfect, each in its own way
    assert (compare(made, chosen).query("reference_arm == 'sgd'")["pairs"] == 3).all()
    one = with_diverged(losses, "insgd", [1])
    alike = one.scores.assign(digest=one.scores.groupby(["arm", "cell", "tune"])["digest"].transform("first"))
    alike.loc[alike["status"] == "diverged", "digest"] = None
    one.__dict__["scores"] = alike
    frame = compare(one, chosen).query("arm == 'insgd' and reference_arm == 'sgd' and kind == 'arm'")
    assert frame[["pairs", "diverged"]].to_numpy().tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("value", "text", "signed"),
    [(1.23456e-5, "1.23e-5", "+1.23e-5"), (-0.0123456, "−0.0123", "−0.0123"),
     (0.0, "0", "+0"), (12345.6, "12300", "+12300"),
     (math.inf, "∞", "+∞"), (math.nan, "–", "–")],
)  # fmt: skip
def test_losses_read_with_three_digits(value, text, signed):
    assert (LOSS.text(value), LOSS.signed(value)) == (text, signed)
    assert MEASURES["test_error"].text(1.234) == "1.23"


# ---------------------------------------------------------------------------------------------------- convergence


def test_a_convex_task_has_linear_and_stable_rates(losses, chosen):
    """Twelve epochs of ten steps, each of which leaves 98 % of the loss."""
    assert list(convergence_tables(losses, chosen)) == ["loss-areas", "stable-rates"]
    assert rates_note(losses) == "A linear rate needs at least 11 evaluated epochs; this study has 4."
    places = pd.MultiIndex.from_product([losses.runs.index, range(1, 13)], names=["run", "epoch"])
    steps = 10 * places.get_level_values("epoch")
    falling = pd.DataFrame({"step": steps, "train_loss": 0.98**steps, "test_loss": 0.98**steps}, places)
    made = dataclasses.replace(losses, curves=falling.reindex(columns=losses.curves.columns))
    assert rates_note(made) == ""
    tables = convergence_tables(made, chosen)
    assert list(tables) == ["loss-areas", "linear-rates", "stable-rates"]
    frame = tables["linear-rates"].frame
    assert (frame["fitted"] == 3 - frame["diverged"]).all()
    assert frame.loc[frame["fitted"] > 0, "factor"].tolist() == pytest.approx([0.98] * (frame["fitted"] > 0).sum())
    assert (frame["fitted"] > 0).sum() > 5
    stable = tables["stable-rates"].frame
    assert (stable.query("arm == 'sgd'")["stable"] == 0.3).all()
    assert (stable.query("arm == 'sgd'")["unstable"] == 1.0).all()
    assert (tables["loss-areas"].frame["n"] == 3).all()
    bent = dataclasses.replace(losses, info={**losses.info, "task": {"data": {"name": "rosenbrock"}}})
    assert list(convergence_tables(bent, chosen)) == ["loss-areas"]


def test_a_task_with_classes_has_none(study, choices):
    assert convergence_tables(study, choices) == {}


# ---------------------------------------------------------------------------------------------------- the page


def test_the_report_speaks_of_losses_alone(folder):
    html = write_report(folder).read_text(encoding="utf-8")
    page = Page(html)
    alts = [image["alt"] for image in page.find("img")]
    text = " ".join([*page.texts, *alts])
    for word in (
        "test error",
        "validation error",
        "% error",
        "guess",
        "accurac",
        "percentage point",
        "nan",
        "loss (%)",
    ):
        assert not re.search(rf"\b{re.escape(word)}", text, re.IGNORECASE), word
    assert len(alts) >= 9
    for heading in ("Test loss over training", "Convergence", "Main effects of the ablated axes"):
        assert heading in page.texts
    assert "lowest mean validation loss over seeds" in text
    assert not (folder / "report" / "linear-rates.csv").exists()
    assert "A linear rate needs at least 11 evaluated epochs" in text
