"""Learning rates against torch's own schedulers, or in closed form where torch has none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from insgd_lab.config import ScheduleSpec
from insgd_lab.registry import create_optimizer
from insgd_lab.training.schedules import Schedule

STEPS, EPOCHS, RATES = 7, 12, (0.3, 0.07)


def optimizer(**options: Any) -> torch.optim.Optimizer:
    """Two groups with a rate each."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate} for rate in RATES]
    return torch.optim.SGD(groups, **options)


def rates(schedule: Any, *, steps: int = STEPS, epochs: int = EPOCHS) -> list[list[float]]:
    """The rates of both groups at every step of the run."""
    watched = optimizer()
    made = Schedule(ScheduleSpec.model_validate(schedule), watched, steps, epochs)
    return [_set(made, watched, step) for step in range(steps * epochs)]


def _set(schedule: Schedule, watched: torch.optim.Optimizer, step: int) -> list[float]:
    schedule.set(step)
    return [group["lr"] for group in watched.param_groups]


def torchs(make: Any, *, per: str, steps: int = STEPS, epochs: int = EPOCHS) -> list[list[float]]:
    """The same of a scheduler of torch, which is stepped after every epoch or step."""
    watched = optimizer()
    scheduler = make(watched)

    def walk() -> Iterator[list[float]]:
        for _ in range(epochs):
            for _ in range(steps):
                yield [group["lr"] for group in watched.param_groups]
                watched.step()
                if per == "step":
                    scheduler.step()
            if per == "epoch":
                scheduler.step()

    return list(walk())


def close(found: list[list[float]], expected: list[list[float]]) -> None:
    torch.testing.assert_close(
        torch.tensor(found, dtype=torch.float64), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-15
    )


@given(
    milestones=st.sets(st.integers(1, EPOCHS - 1), min_size=1).map(sorted),
    gamma=st.sampled_from([0.1, 0.2, 0.3, 1 / 3]),
)
@budget(max_examples=20)
def test_multi_step_is_torchs_to_the_bit(milestones: list[int], gamma: float) -> None:
    expected = torchs(lambda o: lr_scheduler.MultiStepLR(o, milestones, gamma), per="epoch")
    assert rates({"name": "multi-step", "milestones": milestones, "gamma": gamma}) == expected


@pytest.mark.parametrize(("size", "gamma"), [(1, 0.9), (3, 0.1), (5, 1 / 3), (11, 0.2)])
def test_step_is_torchs_to_the_bit(size: int, gamma: float) -> None:
    expected = torchs(lambda o: lr_scheduler.StepLR(o, size, gamma), per="epoch")
    assert rates({"name": "step", "step_size": size, "gamma": gamma}) == expected


def test_cosine_is_torchs() -> None:
    close(rates("cosine"), torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS * EPOCHS), per="step"))


@pytest.mark.parametrize(("period", "factor"), [(3, 1), (2, 2), (1, 3), (20, 1)])
def test_cosine_restarts_are_torchs(period: int, factor: int) -> None:
    expected = torchs(lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, period * STEPS, factor), per="step")
    close(rates({"name": "cosine-restarts", "period": period, "period_factor": factor}), expected)


@pytest.mark.parametrize(("name", "more"), [("cosine", {}), ("cosine-restarts", {"period": 4})])
def test_the_floor_is_a_share_of_each_groups_rate(name: str, more: dict[str, int]) -> None:
    down = rates({"name": name, **more})
    expected = [[0.2 * base + 0.8 * rate for base, rate in zip(RATES, step, strict=True)] for step in down]
    close(rates({"name": name, "floor": 0.2, **more}), expected)


def test_cosine_is_at_the_floor_after_the_last_step_and_stays_there() -> None:
    watched = optimizer()
    schedule = Schedule(ScheduleSpec(name="cosine", floor=0.25, warmup=1.5), watched, STEPS, EPOCHS)
    for step in (STEPS * EPOCHS, STEPS * EPOCHS + 5):
        assert _set(schedule, watched, step) == [0.25 * rate for rate in RATES]


def test_inverse_sqrt_divides_by_the_root_of_the_steps_number() -> None:
    factors = [1 / math.sqrt(t) for t in range(1, STEPS * EPOCHS + 1)]
    assert rates("inverse-sqrt") == [[rate * factor for rate in RATES] for factor in factors]


def test_warm_up_is_torchs_linear_one() -> None:
    n = 3 * STEPS
    linear = torchs(lambda o: lr_scheduler.LinearLR(o, 1 / n, 1.0, n - 1), per="step")
    close(rates({"warmup": 3}), linear)
    assert rates({"warmup": 3})[n - 1 :] == [list(RATES)] * (STEPS * EPOCHS - n + 1)


@given(warmup=st.floats(0, EPOCHS, allow_subnormal=False), steps=st.integers(1, 9))
@budget(max_examples=30)
def test_warm_up_ends_at_the_full_rate_after_its_steps(warmup: float, steps: int) -> None:
    n = max(round(warmup * steps), warmup > 0)
    found = [step[0] / RATES[0] for step in rates({"warmup": warmup}, steps=steps)]
    assert found == pytest.approx([min(1, (k + 1) / max(n, 1)) for k in range(len(found))])


@pytest.mark.parametrize("warmup", [0.001, 1e-9, 1 / STEPS])
def test_a_warm_up_has_a_step_however_short_it_is(warmup: float) -> None:
    factors = [1.0, *(1 / math.sqrt(t) for t in range(1, STEPS * EPOCHS))]
    assert rates({"name": "inverse-sqrt", "warmup": warmup}) == [[rate * f for rate in RATES] for f in factors]


@pytest.mark.parametrize("name", ["cosine", "cosine-restarts", "inverse-sqrt"])
def test_smooth_schedules_start_when_the_warm_up_ends(name: str) -> None:
    schedule = {"name": name, **({"period": 2} if name == "cosine-restarts" else {})}
    close(rates({**schedule, "warmup": 2})[2 * STEPS :], rates(schedule, epochs=EPOCHS - 2))


@pytest.mark.parametrize(
    "schedule", [{"name": "multi-step", "milestones": [1, 5], "gamma": 0.5}, {"name": "step", "step_size": 3}]
)
def test_milestones_count_the_epochs_of_the_run_warm_up_or_not(schedule: dict[str, Any]) -> None:
    assert rates({**schedule, "warmup": 2})[2 * STEPS :] == rates(schedule)[2 * STEPS :]


@pytest.mark.parametrize(
    "schedule",
    [
        {"name": "multi-step", "milestones": [2, 5]},
        {"name": "cosine", "warmup": 2.5},
        {"name": "cosine-restarts", "period": 2, "period_factor": 2},
        "inverse-sqrt",
    ],
)
def test_a_rate_depends_on_the_step_alone(schedule: Any) -> None:
    expected = rates(schedule)
    watched = optimizer()
    made = Schedule(ScheduleSpec.model_validate(schedule), watched, STEPS, EPOCHS)
    for step in (50, 3, 3, 83, 0):
        assert _set(made, watched, step) == expected[step]


def test_the_first_beta_decays_from_step_to_step_once_the_warm_up_is_over() -> None:
    adam = create_optimizer("adam", torch.nn.Linear(2, 2), lr=0.1, betas=(0.9, 0.99))
    spec = ScheduleSpec(name="inverse-sqrt", beta1_decay=0.95, warmup=1.0)
    schedule = Schedule(spec, adam, STEPS, EPOCHS)
    for step in range(3 * STEPS):
        schedule.set(step)
        decay = 0.95 ** max(step - STEPS, 0)
        assert adam.param_groups[0]["betas"] == (0.9 * decay, 0.99)


def test_betas_stay_unless_they_are_to_decay() -> None:
    adam = create_optimizer("adam", torch.nn.Linear(2, 2), lr=0.1)
    betas = adam.param_groups[0]["betas"]
    Schedule(ScheduleSpec(name="inverse-sqrt"), adam, STEPS, EPOCHS).set(40)
    assert adam.param_groups[0]["betas"] is betas


def test_tensors_are_written_in_place() -> None:
    params = [torch.nn.Parameter(torch.ones(2)) for _ in RATES]
    groups = [{"params": [p], "lr": torch.tensor(rate)} for p, rate in zip(params, RATES, strict=True)]
    adam = torch.optim.Adam(groups)
    beta1 = torch.tensor(0.9)
    for group in adam.param_groups:
        group["betas"] = (beta1, 0.999)
    before = [group["lr"] for group in adam.param_groups]
    Schedule(ScheduleSpec(name="inverse-sqrt", beta1_decay=0.5), adam, STEPS, EPOCHS).set(3)
    for group, kept, rate in zip(adam.param_groups, before, RATES, strict=True):
        assert group["lr"] is kept
        assert float(kept) == pytest.approx(rate / 2)
        assert group["betas"][0] is beta1
    assert float(beta1) == pytest.approx(0.9 / 8)


def test_a_constant_schedule_leaves_an_optimizer_with_a_mind_of_its_own_alone() -> None:
    watched = optimizer()
    schedule = Schedule(ScheduleSpec(), watched, STEPS, EPOCHS)
    watched.param_groups[0]["lr"] = 5.0
    assert _set(schedule, watched, 9) == [5.0, RATES[1]]


def test_bases_are_those_before_a_state_was_loaded() -> None:
    old, new = optimizer(), optimizer()
    spec = ScheduleSpec(name="inverse-sqrt")
    _set(Schedule(spec, old, STEPS, EPOCHS), old, 80)
    schedule = Schedule(spec, new, STEPS, EPOCHS)
    new.load_state_dict(old.state_dict())
    assert _set(schedule, new, 81) == rates("inverse-sqrt")[81]
