from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import insgd_lab as lab
from insgd_lab.chain import ChainOptimizer
from insgd_lab.rules.basic import LearningRate
from insgd_lab.rules.layerwise import NormCorrection

exponents = st.lists(st.floats(-18, 18), min_size=1, max_size=6)


@given(exponents, st.sampled_from([0.0, 0.5, 0.95]), st.sampled_from([torch.float32, torch.float64]))
def test_corrected_gradients_are_parallel_and_at_least_as_long_as_the_running_norm(
    sizes: list[float], gamma: float, dtype: torch.dtype
) -> None:
    direction = torch.tensor([0.6, -0.8], dtype=dtype)
    theta = torch.zeros(2, dtype=dtype)
    optimizer = ChainOptimizer([theta], [NormCorrection(gamma), LearningRate(1.0)])
    rounding = 8 * torch.finfo(dtype).eps  # of a norm of two numbers, on either side
    running, norms = 0.0, []
    for step, size in enumerate(sizes, 1):
        theta.zero_()
        theta.grad = direction * 10.0**size
        norms.append(theta.grad.double().norm().item())
        running = gamma * running + (1 - gamma) * norms[-1]
        optimizer.step()
        assert optimizer.state[theta]["exp_avg_norm"].item() == pytest.approx(running, rel=rounding)
        wanted = max(running, norms[-1])
        torch.testing.assert_close(-theta, (direction.double() * wanted).to(dtype), rtol=1e-5, atol=0)
        weight = 1 - gamma**step
        assert weight * min(norms) * (1 - 1e-9) <= running <= weight * max(norms) * (1 + 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tiny_gradient_after_a_huge_one_is_raised_without_overflow(dtype: torch.dtype) -> None:
    theta = torch.zeros(2, dtype=dtype)
    optimizer = ChainOptimizer([theta], [NormCorrection(0.95), LearningRate(1.0)])
    for size in (1e30, 1e-30):
        theta.zero_()
        theta.grad = torch.tensor([size, 0.0], dtype=dtype)
        optimizer.step()
    torch.testing.assert_close(-theta, torch.tensor([0.95 * 0.05 * 1e30, 0.0], dtype=dtype), rtol=1e-5, atol=0)


def test_a_zero_gradient_stays_zero() -> None:
    theta = torch.ones(2)
    optimizer = ChainOptimizer([theta], [NormCorrection(0.95), LearningRate(1.0)])
    for grad in (torch.ones(2), torch.zeros(2)):
        before = theta.clone()
        theta.grad = grad
        optimizer.step()
    assert torch.equal(theta, before)


def test_adamnorms_first_steps_follow_the_closed_form() -> None:
    theta = torch.tensor([1.0, -2.0], dtype=torch.float64)
    optimizer = lab.AdamNorm([theta], lr=0.1, betas=(0.9, 0.99), eps=1e-3, gamma=0.5)
    g1, g2 = torch.tensor([[3.0, 4.0], [0.3, -0.4]], dtype=torch.float64)
    start = theta.clone()
    theta.grad = g1
    optimizer.step()
    first = start - 0.1 * g1 / (g1.abs() + 1e-3)
    torch.testing.assert_close(theta, first, rtol=1e-14, atol=0)
    theta.grad = g2
    optimizer.step()
    e = 0.5 * (0.5 * 5) + 0.5 * 0.5
    s = g2 * e / 0.5
    m = (0.9 * 0.1 * g1 + 0.1 * s) / (1 - 0.81)
    v = (0.99 * 0.01 * g1**2 + 0.01 * g2**2) / (1 - 0.99**2)
    torch.testing.assert_close(theta, first - 0.1 * m / (v.sqrt() + 1e-3), rtol=1e-13, atol=0)


def test_a_global_norm_is_shared_by_its_own_groups_alone() -> None:
    local, first, second = (torch.zeros(1, dtype=torch.float64) for _ in range(3))
    optimizer = lab.AdamNorm([local], gamma=0.5)
    for step in range(3):
        if step == 1:
            optimizer.add_param_group({"params": [first], "scope": "global"})
            optimizer.add_param_group({"params": [second], "scope": "global"})
        for theta, size in ((local, 2.0), (first, 3.0), (second, 4.0)):
            theta.grad = torch.full_like(theta, size)
        optimizer.step()
    kept = [optimizer.state[theta]["exp_avg_norm"] for theta in (local, first, second)]
    assert kept[1] is kept[2]
    assert [value.item() for value in kept] == pytest.approx([2 * (1 - 0.5**3), 5 * (1 - 0.5**2), 5 * (1 - 0.5**2)])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_norm_that_is_no_number_leaves_the_running_norm_alone(bad: float) -> None:
    theta = torch.zeros(2)
    optimizer = ChainOptimizer([theta], [NormCorrection(0.5), LearningRate(1.0)])
    for size in (4.0, bad, 1.0):
        theta.zero_()
        theta.grad = torch.tensor([size, 0.0])
        optimizer.step()
    assert optimizer.state[theta]["exp_avg_norm"].item() == 0.5 * 2.0 + 0.5 * 1.0
    assert theta.tolist() == [-1.5, 0.0]
