import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insgd_lab.analysis.ablation import expected_best, tuning_budget
from insgd_lab.analysis.runs import StudyError, load_study

from ..synthetic import arms, build_study

pairs = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 50)), min_size=1, max_size=7)


def split(rows):
    return [float(v) for v, _ in rows], [float(s) for _, s in rows]


def chosen(sample, rows):
    """The mean score of the settings in `sample` that tie for the lowest validation score."""
    lowest = min(rows[k][0] for k in sample)
    return np.mean([rows[k][1] for k in sample if rows[k][0] == lowest])


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 50)), min_size=1, max_size=6, unique_by=lambda r: r[0])
)
def test_it_is_the_mean_over_all_samples_of_k(rows):
    n = len(rows)
    without = [np.mean([chosen(s, rows) for s in itertools.combinations(range(n), k)]) for k in range(1, n + 1)]
    np.testing.assert_allclose(expected_best(*split(rows)), without, rtol=1e-9, atol=1e-9)
    few = min(n, 3)
    drawn = [np.mean([chosen(s, rows) for s in itertools.product(range(n), repeat=k)]) for k in range(1, few + 1)]
    np.testing.assert_allclose(expected_best(*split(rows), replacement=True)[:few], drawn, rtol=1e-9, atol=1e-9)


def test_dodges_formula_for_the_expected_maximum():
    """E[max of k draws] = sum of v (P(V <= v)^k - P(V < v)^k), their equation 3; of errors the minimum."""
    values = np.array([0.02, 0.03, 0.03, 0.05, 0.9])
    for k in range(1, 6):
        unique = np.unique(values)
        above = np.array([(values > v).mean() for v in unique])
        least = np.array([(values >= v).mean() for v in unique])
        expected = float((unique * (least**k - above**k)).sum())
        assert expected_best(values, values, replacement=True)[k - 1] == pytest.approx(expected)


@given(pairs, st.integers(-5, 5), st.randoms())
def test_laws(rows, shift, random):
    validation, scores = split(rows)
    found = expected_best(validation, scores)
    assert found[0] == pytest.approx(np.mean(scores))
    again = split(random.sample(rows, len(rows)))
    assert expected_best(*again).tolist() == found.tolist()
    np.testing.assert_allclose(expected_best(validation, np.add(scores, shift)), found + shift, atol=1e-9)
    lowest = expected_best(scores, scores)
    assert (np.diff(lowest) <= 1e-9).all()  # more trials never hurt where what is chosen by is what counts
    assert lowest[-1] == pytest.approx(min(scores))
    assert (expected_best(scores, scores, replacement=True) >= lowest - 1e-9).all()
    assert ((min(scores) - 1e-9 <= found) & (found <= max(scores) + 1e-9)).all()


def test_thousands_of_settings_do_not_overflow():
    values = np.linspace(0, 1, 5000)
    found = expected_best(values, values, most=10)
    np.testing.assert_allclose(found, [1 / (k + 1) for k in range(1, 11)], atol=1e-3)  # of a uniform distribution


def test_impossible_scores_are_refused():
    for validation, scores in ([[], []], [[1.0], [1.0, 2.0]], [[np.nan], [1.0]]):
        with pytest.raises(ValueError, match="none NaN"):
            expected_best(validation, scores)


def test_a_study_has_a_row_an_arm_and_budget(study):
    frame = tuning_budget(study)
    assert frame.groupby("arm")["budget"].max().to_dict() == {"insgd": 32, "insgd-norms": 36, "sgd": 8, "adam": 4}
    means = study.scores[study.scores["arm"] == "sgd"].groupby(["cell", "tune"])[["val_error", "test_error"]].mean()
    expected = 100 * expected_best(means["val_error"].to_numpy(), means["test_error"].to_numpy())
    np.testing.assert_allclose(frame.loc[frame["arm"] == "sgd", "expected"], expected)
    assert (frame["low"] <= frame["high"]).all()
    for _, rows in frame.groupby("arm"):
        assert rows["expected"].iloc[-1] < rows["expected"].iloc[0]
    inner = frame[frame["budget"] == 1]
    assert (inner["low"] <= inner["expected"]).all()
    assert (inner["expected"] <= inner["high"]).all()


def test_the_order_of_runs_changes_no_bit(study):
    shuffled = dataclasses.replace(study)
    scores = study.scores.sample(frac=1, random_state=2)
    order = {name: k for k, name in enumerate(study.scores["arm"].unique())}
    shuffled.__dict__["scores"] = scores.sort_values("arm", key=lambda arm: arm.map(order), kind="stable")
    pd.testing.assert_frame_equal(tuning_budget(shuffled), tuning_budget(study), rtol=1e-12)


def test_the_trials_of_a_search_are_settings(tmp_path):
    only = [arm for arm in arms() if arm["name"] == "adam"]
    folder = build_study(tmp_path / "s", arm_list=only, failed=0, epochs=2, steps=10, seeds=2)
    info = folder.info()
    plan = [{**row, "stage": "final" if row["tune"]["lr"] < 0.002 else "trial"} for row in info["plan"]]
    folder.write_info({**info, "plan": plan})
    assert tuning_budget(load_study(folder.path))["settings"].tolist() == [1]
    assert tuning_budget(load_study(folder.path, trials=True))["settings"].tolist() == [3] * 3
    folder.write_info(info)
    with pytest.raises(StudyError, match="has no trials"):
        load_study(folder.path, trials=True)


def test_an_infinite_loss_that_may_be_kept_makes_the_expectation_infinite():
    found = expected_best([0.1, 0.2, np.inf], [0.1, 0.2, np.inf])
    assert found.tolist() == [np.inf, pytest.approx(0.1 * 2 / 3 + 0.2 / 3), pytest.approx(0.1)]


def test_a_study_of_losses_with_diverged_runs_has_budgets(study):
    losses = dataclasses.replace(study)
    losses.__dict__["curves"] = study.curves.assign(test_error=np.nan, val_error=np.nan)
    assert np.isinf(losses.scores["test_loss"]).any()
    frame = tuning_budget(losses)
    assert frame[["expected", "low", "high"]].notna().all(axis=None)
    assert np.isinf(frame.query("budget == 1")["expected"]).any()
    assert np.isfinite(frame.groupby("arm")["expected"].last()).all()
