import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from insgd_lab import registry
from insgd_lab.config import ConfigError, RunSpec, parse_run
from insgd_lab.store import RunFolder
from insgd_lab.training.analytic import SystemIdentification, least_squares, quadratic, rosenbrock, teacher_student
from insgd_lab.training.analytic.filtering import IdentificationFeed, misalignment
from insgd_lab.training.analytic.landscapes import curvatures
from insgd_lab.training.feeds import BatchPlan
from insgd_lab.training.loop import train
from insgd_lab.training.models import linear, mlp, point
from insgd_lab.training.session import Training

TASKS = ("quadratic", "rosenbrock", "system-identification", "teacher-student", "least-squares")
MODELS = {"quadratic": "point", "rosenbrock": "point", "teacher-student": "mlp"}
FILTER = {"name": "linear", "bias": False}
SAMPLED = {
    "quadratic": {"noise": 0.5, "steps": 5},
    "rosenbrock": {"steps": 5},
    "system-identification": {"taps": 3, "colour": 0.5, "drift": 0.01, "samples": 10},
    "teacher-student": {"examples": 10, "features": 3},
    "least-squares": {"features": 2, "steps": 5},
}


def plan(**changes: Any) -> BatchPlan:
    given = {"seed": 0, "batch_size": 2, "eval_batch_size": 300, "augment": False, "device": torch.device("cpu")}
    return BatchPlan(**{**given, **changes})


def task(name: str) -> Any:
    entry = registry.get_data(name)
    return registry.resolve_factory(entry.factory)(None, **{**entry.defaults, **SAMPLED[name]})


def run(
    data: Mapping[str, Any], optimizer: Mapping[str, Any], model: Any = None, seed: int = 0, **train: Any
) -> RunSpec:
    model = model or MODELS.get(data["name"], FILTER)
    settings = {"epochs": 1, "batch_size": 1, **train}
    return RunSpec.model_validate(
        {"task": {"data": data, "model": model}, "train": settings, "optimizer": optimizer, "seed": seed}
    )


def column(outcome: Any, split: str, metric: str) -> np.ndarray:
    metrics = outcome.metrics
    found: np.ndarray = metrics[(metrics.split == split) & (metrics.metric == metric)].value.to_numpy()
    return found


# -------------------------------------------------------------------------------------------- every task


@pytest.mark.parametrize("name", TASKS)
def test_a_run_goes_on_from_any_batch_as_if_it_had_never_stopped(name: str) -> None:
    whole = list(task(name).feed(plan()).epoch(3))
    for first in (0, 2, 4):
        rest = list(task(name).feed(plan()).epoch(3, first))
        assert len(rest) == len(whole) - first
        for batch, same in zip(rest, whole[first:], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(batch, same, strict=True))


@pytest.mark.parametrize("name", TASKS)
def test_ranks_share_the_rows_of_every_batch(name: str) -> None:
    def rows(feed: Any) -> list[torch.Tensor]:
        parts = [feed.epoch(1), feed.evaluate("val"), feed.evaluate("test")]
        return [tensor for part in parts for batch in part for tensor in batch]

    whole = rows(task(name).feed(plan(batch_size=5)))
    shares = [rows(task(name).feed(plan(batch_size=5, rank=rank, ranks=2))) for rank in (0, 1)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert all(torch.equal(part, batch[rank::2]) for rank, part in enumerate(parts))


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"rosenbrock", "least-squares"}))
def test_seeds_and_epochs_are_sampled_apart(name: str) -> None:
    def drawn(seed: int, epoch: int) -> torch.Tensor:
        inputs, targets = next(iter(task(name).feed(plan(seed=seed)).epoch(epoch)))
        return torch.cat([inputs.flatten(), targets.flatten()])

    once, again, other_seed, other_epoch = drawn(0, 1), drawn(0, 1), drawn(1, 1), drawn(0, 2)
    assert torch.equal(once, again)
    assert not torch.equal(once, other_seed)
    assert not torch.equal(once, other_epoch)


@pytest.mark.parametrize("name", TASKS)
def test_a_run_that_was_killed_ends_with_the_bytes_of_one_that_was_not(name: str, tmp_path: Any) -> None:
    spec = run({"name": name, **SAMPLED[name]}, {"name": "sgd", "lr": 1e-3}, epochs=3, batch_size=3)
    stops = iter([False] * 5 + [True])
    cut, whole = RunFolder(tmp_path / "cut" / spec.id), RunFolder(tmp_path / "whole" / spec.id)
    with pytest.raises(KeyboardInterrupt):
        train(spec, cut, stop=lambda: next(stops))
    train(spec, cut)
    train(spec, whole)
    assert cut.metrics_path.read_bytes() == whole.metrics_path.read_bytes()


@pytest.mark.parametrize(
    ("data", "option"),
    [
        ({"name": "rosenbrock", "dimension": 3}, "dimension"),
        ({"name": "quadratic", "condition": 0.5}, "condition"),
        ({"name": "system-identification", "colour": 1.0}, "colour"),
        ({"name": "teacher-student", "hidden": [0]}, "hidden"),
    ],
)
def test_impossible_tasks_are_refused(data: Mapping[str, Any], option: str) -> None:
    raw = {"task": {"data": data, "model": "linear"}, "train": {"epochs": 1}, "optimizer": "sgd"}
    with pytest.raises(ConfigError, match=f"task.data.{option}"):
        parse_run(raw)


def test_tasks_are_the_same_for_ever() -> None:
    """Frozen numbers: should these change, the tasks' revisions have to be raised."""
    system = [0.5047657074492609, 0.7333362660494452, -0.45522259841307405, -0.014208707680627491]
    assert SystemIdentification(taps=4).system().tolist() == pytest.approx(system, abs=1e-12)
    x, y = teacher_student().sets["test"]
    assert [x[0, 0].item(), y[0, 0].item()] == pytest.approx([0.147220, -0.867318], abs=1e-5)


# ------------------------------------------------------------------------------------------ the landscapes


def test_the_point_starts_where_it_is_told_and_is_its_own_output() -> None:
    model = point((5,), 5, start=[-1.2, 1.0])
    wanted = torch.tensor([-1.2, 1.0, -1.2, 1.0, -1.2]).expand(3, 5)
    torch.testing.assert_close(model(torch.zeros(3, 5)), wanted, rtol=0, atol=0)


def test_curvatures_run_geometrically_up_to_one() -> None:
    h = curvatures(4, 1000.0)
    np.testing.assert_allclose(h, [1e-3, 1e-2, 1e-1, 1.0], rtol=1e-15)
    assert curvatures(1, 1000.0).tolist() == [1.0]


def test_gradient_descent_contracts_each_coordinate_of_the_quadratic_by_its_curvature() -> None:
    data = {"name": "quadratic", "dimension": 5, "condition": 50.0, "steps": 20}
    outcome = train(run(data, {"name": "sgd", "lr": 0.7}, epochs=2, batch_size=3))
    h = curvatures(5, 50.0).numpy()
    start = np.array([-1.2, 1.0, -1.2, 1.0, -1.2])
    after = [start * (1 - 0.7 * h) ** steps for steps in range(41)]
    losses = [float(h @ theta**2 / 2) for theta in after]
    np.testing.assert_allclose(outcome.model.theta.detach(), after[40], rtol=1e-5)
    np.testing.assert_allclose(column(outcome, "test", "loss"), [losses[20], losses[40]], rtol=1e-5)
    np.testing.assert_allclose(
        column(outcome, "train", "loss"), [np.mean(losses[:20]), np.mean(losses[20:40])], rtol=1e-5
    )


def test_the_noise_of_the_quadratics_gradient_is_proportional_to_its_curvature() -> None:
    noise, size = 0.3, 4
    feed = quadratic(dimension=3, condition=100.0, noise=noise, steps=4000).feed(plan(batch_size=size))
    h = curvatures(3, 100.0)
    gradients = torch.stack([(h * -targets[:, 1]).mean(0) for _, targets in feed.epoch(1)])
    wanted = torch.diag(noise**2 * h / size)
    scale = wanted.diagonal().sqrt()
    torch.testing.assert_close(gradients.T.cov() / torch.outer(scale, scale), torch.eye(3).double(), rtol=0, atol=0.08)


def test_the_noisy_quadratic_settles_where_theory_says() -> None:
    """SGD's stationary loss of each coordinate is rate noise^2 h / (2 B (2 - rate h)) (Zhang et al. 2019)."""
    noise, rate, size = 0.5, 0.5, 2
    data = {"name": "quadratic", "dimension": 100, "condition": 5.0, "noise": noise, "steps": 10}
    spec = run(data, {"name": "sgd", "lr": rate}, {"name": "point", "start": [0.0]}, epochs=110, batch_size=size)
    h = curvatures(100, 5.0).numpy()
    wanted = (rate * noise**2 * h / (2 * size * (2 - rate * h))).sum()
    settled = column(train(spec), "test", "loss")[10:]
    assert settled.mean() == pytest.approx(wanted, rel=0.1)


def test_rosenbrocks_valley_has_its_value_and_its_minimum() -> None:
    each = rosenbrock(dimension=4).objective().each
    points = torch.tensor([[-1.2, 1.0, -1.2, 1.0], [1.0, 1.0, 1.0, 1.0]])
    np.testing.assert_allclose(each(points, torch.zeros(2, 4)), [48.4, 0.0], rtol=1e-6)


def test_gradient_descent_follows_rosenbrocks_closed_form_gradient() -> None:
    data = {"name": "rosenbrock", "dimension": 2, "steps": 30}
    outcome = train(run(data, {"name": "sgd", "lr": 1e-3}, batch_size=2))
    x, y = -1.2, 1.0
    for _ in range(30):
        slope = 200 * (y - x**2)
        x, y = x - 1e-3 * (-2 * x * slope - 2 * (1 - x)), y - 1e-3 * slope
    np.testing.assert_allclose(outcome.model.theta.detach(), [x, y], rtol=1e-4)


# ------------------------------------------------------------------------------------ system identification


def test_the_signal_is_one_and_goes_on_from_epoch_to_epoch() -> None:
    """The windows of all epochs are those of one AR(1) process of unit power, newest first."""
    feed = SystemIdentification(taps=3, colour=0.8, samples=3000).feed(plan(batch_size=1000))
    inputs = torch.cat([x for epoch in (1, 2) for x, _ in feed.epoch(epoch)])
    assert torch.equal(inputs[1:, 1:], inputs[:-1, :-1])
    u = inputs[:, 0].double().numpy()
    white = (u[1:] - 0.8 * u[:-1]) / 0.6
    assert u.var() == pytest.approx(1, rel=0.15)
    assert white.var() == pytest.approx(1, rel=0.06)
    assert np.corrcoef(white[1:], white[:-1])[0, 1] == pytest.approx(0, abs=0.04)


def test_every_epoch_is_sampled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def numbers(feed: IdentificationFeed, epochs: list[int]) -> list[int]:
        sampled, sample = [], IdentificationFeed._sampled
        monkeypatch.setattr(feed, "_sampled", lambda epoch: sampled.append(epoch) or sample(feed, epoch))
        for epoch in epochs:
            list(feed.epoch(epoch))
        return sampled

    task = SystemIdentification(taps=3, drift=0.1, samples=5)
    assert numbers(task.feed(plan()), [1, 2, 3]) == [1, 2, 3]
    assert numbers(task.feed(plan()), [4, 5]) == [1, 2, 3, 4, 5]
    assert numbers(task.feed(plan()), [3, 1, 3]) == [1, 2, 3, 1, 3]


@pytest.mark.parametrize("colour", [0.0, 0.9, -0.5])
def test_answers_are_the_systems_with_noise_of_the_given_power(colour: float) -> None:
    task = SystemIdentification(taps=8, colour=colour, snr=10.0, samples=20_000)
    ((inputs, desired),) = task.feed(plan(batch_size=20_000)).epoch(1)
    clean = inputs.double() @ task.system()
    noise = desired[:, 0] - clean
    assert 10 * math.log10(clean.var() / noise.var()) == pytest.approx(10, abs=0.6)
    assert abs(np.corrcoef(noise, clean)[0, 1]) < 0.03
    ((inputs, desired),) = SystemIdentification(taps=8, snr=math.inf, samples=9).feed(plan(batch_size=9)).epoch(1)
    torch.testing.assert_close(desired[:, 0].double(), inputs.double() @ task.system(), rtol=0, atol=1e-6)


def test_the_unknown_system_is_one_for_all_seeds_and_of_unit_norm() -> None:
    systems = [SystemIdentification(taps=16).feed(plan(seed=seed)).system for seed in (0, 1)]
    assert torch.equal(*systems)
    assert float(systems[0].norm()) == pytest.approx(1)


def test_a_drifting_system_is_a_random_walk_that_is_evaluated_where_it_is() -> None:
    task = SystemIdentification(taps=50, drift=0.02, samples=200, snr=math.inf)
    feed, systems = task.feed(plan(batch_size=1)), [task.system()]
    for epoch in (1, 2):
        for inputs, desired in feed.epoch(epoch):
            systems.append(feed.system)
            torch.testing.assert_close(desired[0].double(), inputs.double() @ feed.system, rtol=0, atol=1e-5)
    moves = torch.stack(systems).diff(dim=0)
    assert float(moves.std()) == pytest.approx(0.02, rel=0.03)
    assert abs(np.corrcoef(moves[1:].flatten(), moves[:-1].flatten())[0, 1]) < 0.03
    inputs, desired = next(iter(feed.evaluate("test")))
    torch.testing.assert_close(desired[:, 0].double(), inputs.double() @ systems[-1], rtol=0, atol=1e-5)
    later = task.feed(plan(batch_size=1))
    assert [torch.equal(later.system, systems[-1]) for _ in later.epoch(2)][-1]


def test_nlms_adapts_sample_by_sample_as_its_formula() -> None:
    data = {"name": "system-identification", "taps": 8, "colour": 0.7, "samples": 30}
    training = Training(run(data, {"name": "nlms", "lr": 0.8, "eps": 1e-3}, epochs=3, seed=5))
    weights = training.model.head.weight.detach().double().numpy()[0]
    seen: list[np.ndarray] = []

    def look() -> None:
        seen.append(training.model.head.weight.detach().numpy()[0].copy())

    for _ in training.epochs(look):
        look()
    feed, wanted = training.data.feed(plan(seed=5, batch_size=1)), []
    for epoch in (1, 2, 3):
        for inputs, desired in feed.epoch(epoch):
            x = inputs[0].double().numpy()
            weights = weights + 0.8 * (float(desired) - weights @ x) * x / (1e-3 + x @ x)
            wanted.append(weights)
    np.testing.assert_allclose(seen, wanted, rtol=0, atol=2e-6)


def test_sgd_on_single_samples_is_lms() -> None:
    data = {"name": "system-identification", "taps": 4, "samples": 50}
    runs = [train(run(data, {"name": name, "lr": 0.02})) for name in ("sgd", "lms")]
    assert torch.equal(*(outcome.model.head.weight for outcome in runs))


@pytest.mark.parametrize("drift", [0.0, 1e-3])
def test_nlms_settles_at_the_misalignment_of_theory(drift: float) -> None:
    """White input: S <- (1 - m (2 - m) / N) S + N drift^2 + m^2 noise^2 / (N - 2) for S the mean of ||w_o - w||^2."""
    taps, rate = 16, 0.5
    data = {"name": "system-identification", "taps": taps, "drift": drift, "samples": 40}
    outcome = train(run(data, {"name": "nlms", "lr": rate}, epochs=80))
    settled = column(outcome, "test", "loss")[20:]  # half of S, for unit power
    shrink = rate * (2 - rate) / taps
    noise = 10 ** (-30 / 10)
    wanted = (rate**2 * noise / (taps - 2) + (1 - shrink) * taps * drift**2) / shrink
    assert 2 * settled.mean() == pytest.approx(wanted, rel=0.15)
    if not drift:
        in_decibels = column(outcome, "test", "misalignment")[20:]
        assert 10 * np.log10(np.mean(10 ** (in_decibels / 10))) == pytest.approx(10 * math.log10(wanted), abs=0.7)
        assert in_decibels.max() < -30  # the level of the noise


def test_misalignment_is_that_of_the_impulse_response() -> None:
    task = SystemIdentification(taps=3)
    feed = task.feed(plan())
    model = linear((3,), 1)
    with torch.no_grad():
        model.head.weight.copy_(1.1 * feed.system)
    assert feed.inspect(model)["misalignment"] == pytest.approx(-20, abs=1e-4)
    assert misalignment(feed.system, feed.system) == -math.inf


# --------------------------------------------------------------------------------------- teacher and student


@pytest.mark.parametrize("condition", [1.0, 50.0])
def test_inputs_have_the_spectrum_that_is_asked_for(condition: float) -> None:
    x, _ = teacher_student(features=6, condition=condition, examples=50_000).sets["train"]
    eigenvalues = torch.linalg.eigvalsh(x.T.double().cov())
    assert float(eigenvalues[-1] / eigenvalues[0]) == pytest.approx(condition, rel=0.06)
    assert float(eigenvalues.mean()) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("hidden", [[], [10], [8, 8]])
def test_answers_have_unit_deviation_and_only_the_training_set_has_noise(hidden: list[int]) -> None:
    quiet, noisy = (teacher_student(hidden=hidden, noise=noise, examples=5000).sets for noise in (0.0, 0.5))
    assert float(quiet["train"][1].std()) == pytest.approx(1, rel=0.05)
    assert float((noisy["train"][1] - quiet["train"][1]).std()) == pytest.approx(0.5, rel=0.05)
    for split in ("val", "test"):
        assert all(torch.equal(a, b) for a, b in zip(quiet[split], noisy[split], strict=True))
        assert len(quiet[split][0]) == 1000


def test_sets_of_different_size_begin_alike() -> None:
    small, large = (teacher_student(examples=examples, noise=0.1).sets["train"] for examples in (10, 20))
    assert all(torch.equal(a, b[:10]) for a, b in zip(small, large, strict=True))


def test_a_linear_student_learns_a_linear_teacher() -> None:
    data = {"name": "teacher-student", "hidden": [], "features": 5}
    outcome = train(run(data, {"name": "sgd", "lr": 0.1}, "linear", epochs=10, batch_size=20))
    assert column(outcome, "test", "loss")[-1] < 1e-10


def test_a_perceptron_learns_more_of_a_perceptron_than_a_line_does() -> None:
    data = {"name": "teacher-student", "features": 5}
    losses = {
        str(model): column(
            train(run(data, {"name": "adam", "lr": 0.01}, model, epochs=20, batch_size=20)), "test", "loss"
        )
        for model in ("linear", {"name": "mlp", "hidden": [32]})
    }
    line, perceptron = (values[-1] for values in losses.values())
    assert perceptron < 0.2 * line


def test_the_loss_is_half_the_squared_error_summed_over_outputs_and_its_tally_the_mean_over_examples() -> None:
    objective = teacher_student(examples=2).objective()
    outputs, targets = torch.randn(7, 3), torch.randn(7, 3)
    halves = [float(((o - t) ** 2).sum() / 2) for o, t in zip(outputs, targets, strict=True)]
    assert float(objective.loss(outputs, targets)) == pytest.approx(np.mean(halves))
    for known in (False, True):
        tally = objective.tally("cpu")
        for rows in (slice(0, 5), slice(5, 7), slice(7, 7)):
            loss = objective.loss(outputs[rows], targets[rows]) if known and rows.start < 7 else None
            tally.add(outputs[rows], targets[rows], loss)
        assert tally.metrics() == {"loss": pytest.approx(np.mean(halves))}


def test_students_take_the_shape_of_the_task() -> None:
    task = teacher_student(features=7, examples=3)
    x, y = next(iter(task.feed(plan()).epoch(1)))
    student: nn.Module = mlp(task.input_shape, task.classes, hidden=(4,))
    assert student(x).shape == y.shape == (2, 1)


# ------------------------------------------------------------------------------------------------ least squares


@pytest.mark.parametrize("examples", [10, 64])
def test_least_squares_have_the_curvatures_the_power_and_the_answer_that_are_said(examples: int) -> None:
    x, y = (part.double() for part in least_squares(condition=50.0, curvature=3.0, distance=2.0).batch(examples))
    h = 3.0 * curvatures(10, 50.0)
    torch.testing.assert_close(torch.linalg.eigvalsh(x.T @ x / examples), h, rtol=1e-5, atol=1e-6)
    assert float(x.square().sum(1).mean()) == pytest.approx(float(h.sum()), rel=1e-5)
    answer = torch.linalg.lstsq(x, y).solution
    assert float(answer.norm()) == pytest.approx(2.0, rel=1e-4)


def test_least_squares_in_a_batch_smaller_than_its_features_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"train.batch_size = 9.*10 features; choose at least as many"):
        least_squares().feed(plan(batch_size=9))


def test_independent_regressors_share_nothing_and_have_the_signals_covariance() -> None:
    task = SystemIdentification(taps=3, colour=0.6, samples=20_000, regressors="independent")
    (x, _), *_ = task.feed(plan(batch_size=20_000)).epoch(1)
    expected = torch.tensor([[0.6 ** abs(i - j) for j in range(3)] for i in range(3)])
    torch.testing.assert_close(x.T @ x / len(x), expected, atol=0.03, rtol=0)
    assert float((x[1:, 1] - x[:-1, 0]).abs().min()) > 0  # in a delay line they would be one value
    torch.testing.assert_close(x[1:].T @ x[:-1] / len(x), torch.zeros(3, 3), atol=0.03, rtol=0)
