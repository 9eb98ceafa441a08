"""Games of regret: losses against autograd and brute force, rules against hand-made numbers, runs in the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from insgd_lab.analysis.runs import load_study
from insgd_lab.experiments.theory.regret import PROBLEMS, RULES, Match, looks, measured, play, work_off
from insgd_lab.experiments.theory.sequences import SEQUENCES, Game, starts
from insgd_lab.store import StudyFolder

BY_NAME = {problem.name: problem for problem in PROBLEMS}
KINDS = {"linear": {}, "quadratic": {}, "logistic": {}, "periodic": {"C": 3.0}, "chance": {"C": 9.0, "delta": 0.5}}


def game_of(kind: str, rounds: int = 12, seeds: int = 2) -> Game:
    return SEQUENCES[kind](rounds, range(seeds), **KINDS[kind])


def points(game: Game, seed: int, seeds: int = 2) -> Tensor:
    uniform = torch.rand(seeds, game.dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 2 * uniform - 1


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 1000), t=st.integers(0, 11))
@settings(max_examples=15, deadline=None)
def test_gradients_are_those_of_autograd_and_within_the_bounds(kind: str, seed: int, t: int) -> None:
    game = game_of(kind)
    at = points(game, seed).requires_grad_()
    losses, slope = game.play(t, at)
    (expected,) = torch.autograd.grad(losses.sum(), at)
    torch.testing.assert_close(slope, expected, rtol=1e-12, atol=1e-15)
    largest, coordinate = game.bounds()
    assert (slope.norm(dim=1).detach().numpy() <= largest * (1 + 1e-12)).all()
    assert (slope.abs().amax(1).detach().numpy() <= coordinate * (1 + 1e-12)).all()


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 1000), rounds=st.integers(1, 12))
@settings(max_examples=15, deadline=None)
def test_no_point_of_the_box_loses_less_than_the_best_one(kind: str, seed: int, rounds: int) -> None:
    game = game_of(kind)
    total = sum(game.play(t, points(game, seed))[0] for t in range(rounds))
    assert (game.least(rounds) <= np.asarray(total) + 1e-9).all()


def test_the_best_point_of_logistic_losses_is_that_of_projected_gradient_descent() -> None:
    game, at = game_of("logistic", 30, 1), torch.zeros(1, 10, dtype=torch.float64)
    for _ in range(400):
        losses, slopes = zip(*(game.play(t, at) for t in range(30)), strict=True)
        at = (at - 0.2 * torch.stack(slopes).sum(0)).clamp(-1, 1)
    assert game.least(30)[0] == pytest.approx(float(torch.stack(losses).sum()), rel=1e-6)


def test_sgd_on_three_losses_by_hand() -> None:
    # x_1 = 0.5; f = 3x, -x, -x; alpha = 0.3: x_2 = clip(0.5 - 0.9) = -0.4, x_3 = -0.4 + 0.3 / sqrt 2
    problem = replace(BY_NAME["period-3-3"], rounds=3, rates={"plain": 0.3})
    match, game = Match(problem, RULES["sgd"]), SEQUENCES["periodic"](3, [0], C=3.0)
    record = play(game, 3, match, torch.tensor([[0.5]], dtype=torch.float64))
    second, third = -0.4, -0.4 + 0.3 / 2**0.5
    assert record.losses[:, 0].tolist() == pytest.approx([1.5, -second, -third], abs=1e-15)
    metrics = measured(game, record, match, 0, {3: game.least(3)}).set_index("metric")["value"]
    assert metrics["average_regret"] == pytest.approx((1.5 - second - third + 1) / 3, abs=1e-15)  # the best: x = -1
    assert metrics["gradient_norms"] == pytest.approx(11**0.5)
    assert metrics["position"] == pytest.approx(third + 0.3 / 3**0.5)


def test_moments_are_those_of_adams_recursion() -> None:
    problem = replace(BY_NAME["linear"], rounds=7)
    match, game = Match(problem, RULES["adam"]), SEQUENCES["linear"](7, [3])
    record = play(game, 7, match, starts([3], 10))
    v = torch.zeros(10, dtype=torch.float64)
    for gradient in record.gradients[:, 0]:
        v = 0.999 * v + 0.001 * gradient**2
    expected = float((7 * v / (1 - 0.999**7)).sqrt().sum())
    metrics = measured(game, record, match, 0, {7: game.least(7)}).set_index("metric")["value"]
    assert metrics["root_moments"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("rule", "end"), [("adam", 1), ("amsgrad", -1), ("sgd", -1)])
def test_adam_goes_to_the_worst_point_of_reddis_first_sequence_and_amsgrad_to_the_best(rule: str, end: int) -> None:
    problem = replace(BY_NAME["reddi-1"], rounds=1500)
    record = play(SEQUENCES["periodic"](1500, [0], C=3.0), 1500, Match(problem, RULES[rule]), starts([0], 1))
    assert record.points[-1, 0].item() == pytest.approx(end, abs=0.05)


@pytest.mark.parametrize(("C", "end"), [(3.0, 1), (6.0, -1)])
def test_the_corrected_mean_gradient_has_the_sign_of_c_minus_four(C: float, end: int) -> None:  # noqa: N803
    # e settles near (C + 2) / 3, to which the two small gradients are raised: C - 2 (C + 2) / 3 = (C - 4) / 3.
    problem = replace(BY_NAME["period-3-3"], rounds=1500, options={"C": C})
    record = play(SEQUENCES["periodic"](1500, [0], C=C), 1500, Match(problem, RULES["sgd-corrected"]), starts([0], 1))
    assert record.points[-1, 0].item() == pytest.approx(end, abs=0.2)


def test_a_seed_plays_the_same_game_alone_and_beside_others() -> None:
    problem = replace(BY_NAME["logistic"], rounds=40)
    match = Match(problem, RULES["adam-corrected"])
    together = play(SEQUENCES["logistic"](40, [0, 1, 2]), 40, match, starts([0, 1, 2], 10))
    alone = play(SEQUENCES["logistic"](40, [1]), 40, match, starts([1], 10))
    assert torch.equal(together.points[:, 1], alone.points[:, 0])


def test_looks_end_with_the_last_round() -> None:
    assert looks(1000)[0] == 10
    assert looks(1000)[-1] == 1000
    assert len(looks(1000)) == 17


def test_what_has_been_played_is_not_played_again(tmp_path: Path) -> None:
    folder, problems = StudyFolder(tmp_path), [replace(BY_NAME["period-3-3"], rounds=20)]
    told: list[tuple[int, int]] = []
    work_off(folder, problems=problems, seeds=1)
    before = {run.id: run.info_path.stat().st_mtime_ns for run in folder.runs()}
    work_off(folder, problems=problems, seeds=2, tell=lambda done, total: told.append((done, total)))
    assert len(before) == 6
    assert told == [(done, 6) for done in range(7)]
    assert before.items() <= {run.id: run.info_path.stat().st_mtime_ns for run in folder.runs()}.items()
    work_off(folder, problems=problems, seeds=2, tell=lambda done, total: told.append((done, total)))
    assert told[-1] == (0, 0)
    study = load_study(tmp_path)
    assert study.complete
    assert len(study.runs) == 12
    assert "train_average_regret" in study.curves
