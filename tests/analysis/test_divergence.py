import dataclasses
import math

import numpy as np
import pytest

from insgd_lab.analysis.divergence import divergence_rates, largest_stable_rate, swept_rates
from insgd_lab.analysis.statistics import binomial_interval

from .synthetic import RATES, best_rate


def test_rates_are_counts_with_exact_intervals(study):
    frame = divergence_rates(study)
    assert frame["runs"].sum() == len(study.scores)
    assert frame["diverged"].sum() == (study.scores["status"] == "diverged").sum()
    for _, row in frame.iterrows():
        assert (row["low"], row["high"]) == binomial_interval(row["diverged"], row["runs"])
        assert row["low"] <= row["share"] <= row["high"]
    assert 0 < frame["share"].mean() < 1


def test_wider_levels_have_wider_intervals(study):
    one, other = divergence_rates(study, 0.8), divergence_rates(study, 0.99)
    assert (other["high"] - other["low"] > one["high"] - one["low"]).all()
    with pytest.raises(ValueError, match="level"):
        divergence_rates(study, 95)


def test_the_limit_lies_between_the_largest_that_held_and_the_lowest_that_did_not(study):
    """The synthetic runs diverge 0.9 decades above their best rate."""
    frame = largest_stable_rate(study).set_index(["arm", "setting"])
    for (arm, setting), row in frame.iterrows():
        limit = 10**0.9 * best_rate(study.arms[arm].optimizer, study.cells[arm, setting].settings)
        tried = np.array(RATES) / (30 if arm == "adam" else 1)
        assert row["stable"] == pytest.approx(max(rate for rate in tried if rate < limit))
        above = [rate for rate in tried if rate > limit]
        assert row["unstable"] == pytest.approx(min(above)) if above else math.isnan(row["unstable"])


def test_one_diverged_run_at_a_low_rate_ends_what_is_stable(study):
    scores = study.scores.copy()
    swept = swept_rates(study)
    run = swept.loc[(swept["arm"] == "sgd") & (swept["rate"] == 0.1), "run"].iloc[0]
    setting = swept.loc[swept["run"] == run, "setting"].iloc[0]
    scores.loc[scores["run"] == run, "status"] = "diverged"
    after = dataclasses.replace(study)
    after.__dict__["scores"] = scores
    row = largest_stable_rate(after).set_index(["arm", "setting"]).loc[("sgd", setting)]
    assert (row["stable"], row["unstable"]) == (0.03, 0.1)


def test_rates_that_are_an_axis_are_swept_too_and_others_left_out(study):
    cells = {key: dataclasses.replace(c, settings={**c.settings, "lr": 0.5}) for key, c in study.cells.items()}
    fixed = dataclasses.replace(study, tunes={key: {} for key in study.tunes}, cells=cells)
    assert set(swept_rates(fixed)["rate"]) == {0.5}
    assert len(swept_rates(dataclasses.replace(study, tunes={key: {} for key in study.tunes}))) == 0
    assert largest_stable_rate(dataclasses.replace(study, tunes={key: {} for key in study.tunes})).empty
