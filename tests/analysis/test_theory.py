"""What is said of the theory lab's runs: formulas by hand and against recursions, figures against frames."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from insgd_lab.analysis.statistics import holm
from insgd_lab.analysis.theory import (
    drawings,
    filtering,
    games,
    limits,
    nlms_curve,
    projection,
    regret,
    stability,
    theorem1,
    write_page,
)
from insgd_lab.config import load_study
from insgd_lab.experiments.theory import projection as plane
from insgd_lab.experiments.theory import regret as program
from insgd_lab.experiments.theory import stability as search
from insgd_lab.store import StoreError, StudyFolder
from insgd_lab.studies.planning import make_plan, study_info
from insgd_lab.training.loop import train

# ------------------------------------------------------------------------------------------------ formulas


def test_theorem_1_by_hand() -> None:
    # D = 2, alpha = 1, beta1 = 1/2: 4 / (2 / 2) * 3 = 12.
    # 1 * 1.5 * 8 / (0.5 * 0.5 * 0.25 * 4) * 5 = 240 with beta2 = 3/4, gamma = 1/2, G = G_inf = 2.
    # 1 * 4 * 2 * 0.5 / (2 * 0.5 * 0.25) = 16 with lambda = 1/2, D_inf = 2, d = 1.
    found = theorem1(
        3.0,
        5.0,
        alpha=1.0,
        beta1=0.5,
        beta2=0.75,
        gamma=0.5,
        decay=0.5,
        G=2.0,
        G_inf=2.0,
        D=2.0,
        D_inf=2.0,
        dimension=1,
    )
    assert found == pytest.approx(12 + 240 + 16)


@given(c=st.floats(1e-3, 1e3))
def test_the_bound_as_printed_does_not_scale_with_the_losses(c: float) -> None:
    def bound(unit: float) -> float:
        return float(theorem1(unit * 3.0, unit * 5.0, alpha=1.0, beta1=0.5, beta2=0.75, gamma=0.5, decay=0.5,
                              G=2 * unit, G_inf=2 * unit, D=2.0, D_inf=2.0, dimension=1))  # fmt: skip

    assert bound(c) == pytest.approx(c * 28 + c**2 * 240)


def test_conditions_of_the_theorem() -> None:
    assert games.conditions(0.9, 0.999, 0.9) == []
    assert "β1²/√β2 = 1.62" in games.conditions(0.9, 0.25, 0.9)[0]
    assert "λ = 1 is not between 0 and 1" in games.conditions(0.9, 0.999, 1.0)[0]


@given(
    gamma=st.sampled_from([0.0, 0.5, 0.9]),
    tau=st.sampled_from([0.0, 0.5, 0.9, None]),
    nesterov=st.booleans(),
    curvature=st.floats(0.1, 10),
    scale=st.floats(0.1, 10),
)
def test_closed_forms_are_where_the_recursion_stops_being_stable(
    gamma: float, tau: float | None, nesterov: bool, curvature: float, scale: float
) -> None:
    nesterov = nesterov and gamma > 0
    tau = 0.0 if nesterov else tau
    options = {"momentum": gamma, "dampening": tau, "nesterov": nesterov}
    limit = limits.closed_form("sgd", options, curvature, scale)
    kept = 1 - (gamma if tau is None else tau) if gamma else 1.0

    def radius(lr: float) -> float:
        # h = s L theta;  b <- gamma b + kept h;  theta <- theta - lr b, or - lr (h + gamma b)
        h = scale * curvature
        b = np.array([gamma, kept * h])
        step = gamma * b + np.array([0.0, h]) if nesterov else b
        return float(np.abs(np.linalg.eigvals(np.array([b, np.array([0.0, 1.0]) - lr * step]))).max())

    assert radius(0.999 * limit) < 1 < radius(1.001 * limit)


@given(
    mu=st.sampled_from([0.1, 0.5, 1.0, 1.9, 2.0, 2.1]),
    taps=st.integers(3, 40),
    samples=st.integers(0, 60),
    noise=st.floats(0, 1),
)
def test_the_deviation_is_that_of_its_recursion(mu: float, taps: int, samples: int, noise: float) -> None:
    d = 4 / 3
    for _ in range(samples):
        d = (1 - mu * (2 - mu) / taps) * d + mu**2 * noise / (taps - 2)
    assert filtering.deviation(samples, mu, taps, noise, 4 / 3) == pytest.approx(d, rel=1e-9)


@given(mu=st.floats(0.05, 1.95), taps=st.integers(3, 100))
def test_the_steady_state_is_the_deviations_fixed_point(mu: float, taps: int) -> None:
    settled = filtering.steady_theory(mu, taps)
    assert filtering.deviation(1, mu, taps, 1.0, settled) == pytest.approx(settled, rel=1e-9)


@pytest.mark.parametrize("mu", [0.5, 1.5, 2.1])
def test_independent_regressors_follow_the_theory(mu: float) -> None:
    stream, taps, runs = np.random.default_rng(7), 8, 4000
    away = stream.standard_normal((runs, taps)) / np.sqrt(taps)
    for _ in range(25):
        x = stream.standard_normal((runs, taps))
        error = (away * x).sum(1) - 0.3 * stream.standard_normal(runs)
        away -= mu * (error / (x**2).sum(1))[:, None] * x
    squared = (away**2).sum(1)
    expected = filtering.deviation(25, mu, taps, 0.09, 1.0)
    assert abs(squared.mean() - expected) < 4 * squared.std() / np.sqrt(runs)


# ------------------------------------------------------------------------------------------------ frames


def made(slope: float, offset: float = 0.0) -> pd.DataFrame:
    """Three seeds of SGD and its corrected form, whose average regret is a power of T."""
    rows = [
        ("p", "a problem", rule, rule, "sgd", rule != "sgd", seed, T,
         (1 + 0.1 * seed) * T**(slope + 0.001 * (seed - 1)) + offset * (rule != "sgd") * (0.9 + 0.1 * seed), 1)
        for rule in ("sgd", "sgd-corrected") for seed in range(3) for T in (10, 32, 100, 316, 1000)
    ]  # fmt: skip
    columns = ["problem", "problem_label", "rule", "rule_label", "base", "corrected", "seed", "T", "average_regret"]
    return pd.DataFrame(rows, columns=[*columns, "dimension"]).assign(bound=math.nan, unmet=None, position=0.0)


@pytest.mark.parametrize("slope", [-1.0, -0.5, 0.0])
def test_exponents_of_powers_are_found(slope: float) -> None:
    found = games.exponents(made(slope))
    assert found["mean"].tolist() == pytest.approx([slope, slope], abs=1e-12)
    assert found["n"].tolist() == [3, 3]
    slower = [text for text in games.details(made(slope)) if "the exponent of" in text]
    assert ("for 2 of 2 rules" in slower[0]) is (slope > -0.4)


def test_regret_that_is_not_positive_has_no_exponent() -> None:
    lost = made(-0.5, offset=-5.0)
    assert games.exponents(lost)["n"].tolist() == [3, 0]
    [row] = games.table(lost).cells()
    assert row[-2].endswith(" (3)")
    assert row[-1] == "–"


def test_differences_are_paired_by_seed() -> None:
    found = games.differences(made(-0.5, offset=0.25)).iloc[0]
    ends = stats.ttest_1samp([0.225, 0.25, 0.275], 0).confidence_interval(0.95)
    assert [found["difference"], found["low"], found["high"]] == pytest.approx([0.25, ends.low, ends.high])
    assert found["n"] == 3


def test_costs_and_exponents_are_judged_by_p_corrected_over_both() -> None:
    rng = np.random.default_rng(1)
    parts = [
        made(slope).assign(problem=name, problem_label=name, dimension=dimension)
        for name, slope, dimension in (("costly", -0.5, 10), ("even", -0.5, 10), ("slow", -0.1, 1))
    ]
    frame = pd.concat(parts, ignore_index=True)
    noise = frame.groupby(["problem", "rule", "seed"])["seed"].transform(lambda _: rng.normal(0, 0.01))
    raised = 1 + 0.5 * ((frame["problem"] == "costly") & frame["corrected"])
    frame["average_regret"] *= raised * np.exp(noise * (1 + np.log10(frame["T"])))
    gaps, slopes = games.tested(frame)
    np.testing.assert_array_equal([*gaps["p_holm"], *slopes["p_holm"]], holm([*gaps["p"], *slopes["p"]]))
    ends = frame[(frame["T"] == 1000) & (frame["problem"] == "costly")].pivot(
        index="seed", columns="rule", values="average_regret"
    )
    assert gaps["p"].iloc[0] == pytest.approx(stats.ttest_rel(ends["sgd-corrected"], ends["sgd"]).pvalue)
    apart = gaps[gaps["p_holm"] < 0.05]
    costs, pays = (apart["difference"] > 0).sum(), (apart["difference"] < 0).sum()
    told = games.findings(frame)[0]
    assert f"told apart from 0 in {len(apart)} of 2 pairs: it costs in {costs} and pays in {pays} (" in told
    assert "over all 8 tests of differences and exponents" in told
    assert len(apart) < 2, "one of the two was made without a difference"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small theory lab: three games, two limits, NLMS with two seeds."""
    out = tmp_path_factory.mktemp("theory")
    by_name = {problem.name: problem for problem in program.PROBLEMS}
    short = [replace(by_name[name], rounds=60) for name in ("linear", "period-3-3", "reddi-1")]
    program.work_off(StudyFolder(out / "regret"), problems=short, seeds=2)
    arms = [arm for arm in search.ARMS if arm.name in ("insgd-l2-undamped", "adagrad")]
    search.work_off(StudyFolder(out / "stability"), arms=arms)
    spec = load_study("theory/nlms")
    data = spec.task.data.model_copy(update={"options": {**spec.task.data.options, "samples": 10}})
    arm = spec.arm[0].model_copy(update={"axes": {**spec.arm[0].axes, "lr": [0.5, 1.5, 2.1]}})
    small = spec.model_copy(update={
        "seeds": [0, 1], "arm": [arm], "task": spec.task.model_copy(update={"data": data}),
        "train": spec.train.model_copy(update={"epochs": 4}),
    })  # fmt: skip
    plan, folder = make_plan(small), StudyFolder(out / "nlms")
    folder.write_info(study_info(plan, versions={}, created=""))
    for run in plan.runs.values():
        train(run, folder.run(run.id))
    return out


def test_the_bound_is_adamnorms_alone_and_where_the_theorem_speaks(lab: Path) -> None:
    frame = regret(lab / "regret")
    has = frame["bound"].notna()
    assert set(frame.loc[has, "rule"]) == {"adam-corrected"}
    assert set(frame.loc[has, "problem"]) == {"linear", "period-3-3"}
    row = frame[has & (frame["problem"] == "period-3-3")].iloc[-1]
    T = int(row["T"])
    gradients = np.tile([3.0, -1.0, -1.0], T // 3 + 1)[:T]
    v = 0.0
    for gradient in gradients:
        v = 0.999 * v + 0.001 * gradient**2
    by_hand = theorem1(
        math.sqrt(T * v / (1 - 0.999**T)), math.sqrt((gradients**2).sum()), alpha=1.0, beta1=0.9, beta2=0.999,
        gamma=0.95, decay=0.9, G=3.0, G_inf=3.0, D=2.0, D_inf=2.0, dimension=1,
    )  # fmt: skip
    assert row["bound"] == pytest.approx(by_hand / T)


def test_limits_are_the_searchs_brackets(lab: Path) -> None:
    frame = stability(lab / "stability").set_index(["arm", "distance"])
    for arm, distance in frame.index:
        low, high = frame.loc[(arm, distance), ["low", "high"]]
        assert low < high < 1.011 * low
    undamped = frame.loc["insgd-l2-undamped"]
    h = 100 ** -np.linspace(0, 1, 10)
    assert undamped["scale"].tolist() == pytest.approx([1 / math.log(h.sum())] * 2, rel=1e-5)
    assert undamped["low"].tolist() == pytest.approx([3.8 * math.log(h.sum())] * 2, rel=0.012)
    assert undamped["predicted"].tolist() == pytest.approx([3.8 * math.log(h.sum())] * 2, rel=1e-5)
    texts = " ".join(limits.findings(stability(lab / "stability")))
    assert re.search(r"within \d\.\d % of it for all 1 rules", texts)
    assert "adagrad" in texts.partition("depends on how far the minimum is")[2]


def test_curves_are_means_over_seeds_of_the_squared_deviation(lab: Path) -> None:
    curve = nlms_curve(lab / "nlms")
    folder, squares = StudyFolder(lab / "nlms"), []
    rows = [
        row for row in folder.info()["plan"] if row["settings"] == {"task.data.regressors": "delay-line", "lr": 0.5}
    ]
    for row in rows:
        metrics = folder.run(row["run"]).metrics()
        last = metrics[(metrics["metric"] == "misalignment") & (metrics["epoch"] == 4)]
        squares.append(10 ** (last["value"].item() / 10))
    found = curve[(curve["regressors"] == "delay-line") & (curve["mu"] == 0.5) & (curve["samples"] == 40)].iloc[0]
    assert found["deviation"] == pytest.approx(np.mean(squares))
    assert found["n"] == 2
    assert found["theory"] == pytest.approx(filtering.deviation(40, 0.5, 32, 0.01, 4 / 3))


# ------------------------------------------------------------------------------------------------ figures and page


def all_drawings(lab: Path) -> Iterator[drawings.Drawing]:
    yield from drawings.of_regret(regret(lab / "regret"))
    yield from drawings.of_limits(stability(lab / "stability"))
    yield from drawings.of_nlms(nlms_curve(lab / "nlms"), filtering.misadjustment(lab / "nlms"))


def test_lines_are_the_frames_means(lab: Path) -> None:
    frame = regret(lab / "regret")
    figure = {drawing.name: drawing.figure for drawing in all_drawings(lab)}["regret-sequences"]
    ax = next(ax for ax in figure.axes if ax.get_title(loc="left").startswith("3x"))
    part = frame[(frame["problem"] == "period-3-3") & (frame["rule"] == "sgd-corrected")]
    expected = part.groupby("T")["average_regret"].mean()
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert any(np.allclose(line.get_ydata(), expected) for line in dashed)


def test_every_figure_has_words(lab: Path) -> None:
    found = list(all_drawings(lab))
    assert [drawing.name for drawing in found] == [
        "regret-sequences", "regret-random", "regret-ends", "regret-differences", "stability", "nlms"
    ]  # fmt: skip
    for drawing in found:
        assert len(drawing.alt) > 60
        assert len(drawing.caption) > 60


def test_findings_say_who_ends_on_the_wrong_side_and_where_the_bound_is_broken() -> None:
    rows = [
        ("p", "a line", rule, label, "adam", rule != "adam", seed, T, value, 1, 0.4 if rule != "adam" else math.nan,
         "" if rule != "adam" else None, place)
        for rule, label, value, place in (("adam", "Adam", 0.1, -1.0), ("adam-corrected", "AdamNorm", 0.8, 1.0))
        for seed in range(2) for T in (10, 100)
    ]  # fmt: skip
    columns = ["problem", "problem_label", "rule", "rule_label", "base", "corrected", "seed", "T", "average_regret"]
    frame = pd.DataFrame(rows, columns=[*columns, "dimension", "bound", "unmet", "position"])
    wrong, right, broken = games.findings(frame)
    assert wrong.startswith("With the correction")
    assert "in 1 of 1 pairs of sequence and rule: AdamNorm on “a line”" in wrong
    assert right.startswith("Without the correction")
    assert right.endswith("in 0 of 1 pairs of sequence and rule.")
    assert "exceeds Theorem 1's bound in 2 of 2 runs, first at T = 10; at the end it is 2 of the bound" in broken


def test_the_page_has_all_findings_and_says_what_is_missing(lab: Path) -> None:
    page = write_page(lab).read_text(encoding="utf-8")
    text = (lab / "findings.md").read_text(encoding="utf-8")
    assert page.count("<img ") == page.count('alt="') == 6
    frame = regret(lab / "regret")
    for sentence in (*games.findings(frame), *games.details(frame)):
        assert f"- {sentence}" in text
    assert "Incomplete" not in page
    for name in ("regret.csv", "stability.md", "nlms.tex", "regret-ends.svg", "stability.pdf"):
        assert (lab / name).is_file()
    assert not [path for path in lab.glob("*.svg") if "mathdefault" in path.read_text(encoding="utf-8")]


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="make them with `insgd-lab theory`"):
        write_page(tmp_path)


# ------------------------------------------------------------------------------------------------ projections


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = StudyFolder(tmp_path_factory.mktemp("projection"))
    plane.work_off(folder)
    before = {run.id: run.info_path.stat().st_mtime_ns for run in folder.runs()}
    plane.work_off(folder)
    assert {run.id: run.info_path.stat().st_mtime_ns for run in folder.runs()} == before
    return projection.iterates(folder.path)


def test_with_step_size_1_each_iterate_is_the_projection_of_the_last(paths: pd.DataFrame) -> None:
    rows = paths[paths["mu"] == 1.0].to_dict("records")
    for before, after in itertools.pairwise(rows):
        w, u = np.array([before["w0"], before["w1"]]), np.array([after["u0"], after["u1"]])
        projected = w + (after["d"] - u @ w) / (u @ u) * u
        np.testing.assert_allclose([after["w0"], after["w1"]], projected, atol=1e-14)
        assert after["off_line"] < 1e-14
        assert after["distance"] < before["distance"]


@pytest.mark.parametrize("mu", plane.RATES)
def test_every_step_stands_at_a_right_angle_and_goes_its_share_of_the_way(paths: pd.DataFrame, mu: float) -> None:
    rows = paths[paths["mu"] == mu].reset_index(drop=True)
    assert (rows["off_normal"].dropna() < 1e-12).all()
    norm = np.hypot(rows["u0"], rows["u1"])
    was = (rows["d"] - rows["u0"] * rows["w0"].shift() - rows["u1"] * rows["w1"].shift()).abs() / norm
    np.testing.assert_allclose(rows["off_line"][1:], abs(1 - mu) * was[1:], atol=1e-14)


def test_the_figure_of_projections_draws_the_iterates_and_lines_through_the_solution(paths: pd.DataFrame) -> None:
    (drawing,) = drawings.of_projection(paths)
    for ax, (_, rows) in zip(drawing.figure.axes, paths.groupby("mu"), strict=True):
        *lines, path, _, _ = ax.lines
        np.testing.assert_allclose(path.get_xydata(), rows[["w0", "w1"]])
        for line in lines:
            (x0, y0), (x1, y1) = line.get_xydata()
            assert np.interp(plane.SOLUTION[0], [x0, x1], [y0, y1]) == pytest.approx(plane.SOLUTION[1])
    assert [finding.split(":")[0] for finding in projection.findings(paths)] == ["μ = 0.5", "μ = 1", "μ = 1.5"]
