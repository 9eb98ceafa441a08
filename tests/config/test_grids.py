"""Ranges, cells and draws: what an arm's axes ask for, by closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insgd_lab.config import ConfigError, Interval, StudySpec, parse_study

STUDY = {"name": "mine", "seeds": 1, "task": {"data": "digits", "model": "vit"}, "train": {"epochs": 4}}


def study(**arm: Any) -> StudySpec:
    return parse_study({**STUDY, "arm": [{"name": "a", "optimizer": "insgd-lp", **arm}]})


def cells(**arm: Any) -> list[dict[str, Any]]:
    spec = study(**arm)
    return [dict(cell.settings) for cell in spec.cells(spec.arm[0])]


def levels(axis: Any, path: str = "lr") -> list[Any]:
    found: list[Any] = study(axes={path: axis}).arm[0].axes[path]
    return found


def test_a_range_is_evenly_spaced_with_both_ends() -> None:
    assert levels({"range": [0, 1], "steps": 5}) == [0, 0.25, 0.5, 0.75, 1]
    assert levels({"range": [0, 0.9], "steps": 4}) == [0, 0.3, 0.6, 0.9]
    assert levels({"log_range": [1e-3, 1.0], "steps": 4}) == [0.001, 0.01, 0.1, 1.0]


def test_a_range_of_whole_numbers_fits_an_option_that_asks_for_them() -> None:
    found = levels({"log_range": [16, 128], "steps": 4}, "train.batch_size")
    assert found == [16, 32, 64, 128]
    assert all(isinstance(level, int) for level in found)
    with pytest.raises(ConfigError, match=r"axes\.train\.batch_size = 2\.5: expected an integer"):
        levels({"range": [2, 3], "steps": 3}, "train.batch_size")


@given(low=st.floats(1e-6, 1), factor=st.floats(1.001, 1e6), share=st.floats(0, 1, exclude_max=True), log=st.booleans())
def test_what_is_drawn_from_a_range_lies_in_it_and_in_the_middle_halfway(
    low: float, factor: float, share: float, log: bool
) -> None:
    interval = Interval(low=low, high=low * factor, log=log)
    assert low <= interval.at(share) <= interval.high
    middle = math.sqrt(low * interval.high) if log else (low + interval.high) / 2
    assert interval.at(0.5) == pytest.approx(middle, rel=1e-5)


def test_whole_numbers_are_drawn_equally_often() -> None:
    interval = Interval(low=1, high=4, whole=True)
    assert [interval.at(k / 8) for k in range(8)] == [1, 1, 2, 2, 3, 3, 4, 4]


AXES = {"p": [1, 2, math.inf], "beta": [0, 0.5, 0.9]}


def test_random_draws_different_cells_and_always_the_same() -> None:
    arm = {"grid": "random", "samples": 6, "axes": AXES}
    found = cells(**arm)
    assert len({tuple(cell.values()) for cell in found}) == 6
    assert all(cell["p"] in AXES["p"] and cell["beta"] in AXES["beta"] for cell in found)
    assert cells(**arm) == found
    assert cells(**arm, sample_seed=1) != found
    # Computed once: a study must ask for the same runs on every machine and in every version.
    assert found[:3] == PINNED


PINNED: list[dict[str, Any]] = [{"p": math.inf, "beta": 0.9}, {"p": 2.0, "beta": 0.0}, {"p": 2.0, "beta": 0.5}]


def test_random_finds_every_cell_if_asked_for_all_and_refuses_more() -> None:
    every = cells(grid="random", samples=9, axes=AXES)
    assert {tuple(cell.values()) for cell in every} == {tuple(cell.values()) for cell in cells(axes=AXES)}
    with pytest.raises(ConfigError, match=r"arm\.a\.samples = 10: the axes have only 9 different cells to draw"):
        cells(grid="random", samples=10, axes=AXES)


def test_random_draws_evenly_from_lists_and_from_ranges() -> None:
    found = cells(
        grid="random",
        samples=2000,
        axes={
            "p": [1, 2],
            "lr": {"log_range": [1e-4, 1]},
            "eps": {"range": [0.1, 0.5]},
            "train.batch_size": {"range": [1, 4]},
        },
    )
    shares = {
        "p": [cell["p"] == 1 for cell in found],
        "lr": [cell["lr"] < 1e-2 for cell in found],
        "eps": [cell["eps"] < 0.3 for cell in found],
        "batch": [cell["train.batch_size"] <= 2 for cell in found],
    }
    for name, below in shares.items():
        assert sum(below) / 2000 == pytest.approx(0.5, abs=0.05), name  # four and a half standard deviations
    assert {cell["train.batch_size"] for cell in found} == {1, 2, 3, 4}


def test_excluded_cells_are_left_out_and_included_ones_added() -> None:
    found = cells(axes=AXES, exclude=[{"p": math.inf, "beta": 0}, {"beta": 0.9}], include=[{"p": 3, "beta": 0.7}])
    pairs = [(cell["p"], cell["beta"]) for cell in found]
    assert pairs == [(1, 0), (1, 0.5), (2, 0), (2, 0.5), (math.inf, 0.5), (3, 0.7)]


def test_an_included_cell_has_the_base_where_it_says_nothing() -> None:
    arm = {"optimizer": {"name": "insgd-lp", "beta": 0.5}, "grid": "one-at-a-time", "axes": AXES}
    spec = study(**arm, include=[{"p": 3}, {"p": 3, "beta": 0}])
    *_, one, both = spec.cells(spec.arm[0])
    assert (one.settings, one.varied) == ({"p": 3.0, "beta": 0.5}, "p")
    assert (both.settings, both.varied) == ({"p": 3.0, "beta": 0.0}, None)


def test_a_random_grid_draws_another_cell_for_an_excluded_one() -> None:
    found = cells(grid="random", samples=6, axes=AXES, exclude=[{"p": 1}])
    assert len(found) == 6
    assert all(cell["p"] != 1 for cell in found)
    with pytest.raises(ConfigError, match=r"arm\.a\.exclude\.0 = \{'p': 3\.0\}: matches no cell"):
        cells(grid="random", samples=6, axes=AXES, exclude=[{"p": 3}])


def test_true_is_not_one() -> None:
    with pytest.raises(ConfigError, match=r"exclude\.0\.task\.model\.layer_norm = 1: expected true or false"):
        cells(axes={"task.model.layer_norm": [True, False]}, exclude=[{"task.model.layer_norm": 1}])


def test_a_grid_beyond_reason_is_refused_at_once() -> None:
    many = {"range": [0.0, 0.9], "steps": 2000}
    with pytest.raises(ConfigError, match=r"arm\.a\.axes = .*: ask for 8,000,000,000 cells"):
        cells(axes={"beta": many, "momentum": many, "lr": many})


def test_a_study_reads_back_from_its_own_dump() -> None:
    spec = study(grid="random", samples=3, axes={"lr": {"log_range": [0.1, 1]}, "p": [1, 2]}, train={"batch_size": 8})
    assert parse_study(spec.model_dump()) == spec
