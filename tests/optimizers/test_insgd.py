from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import insgd_lab as lab

from . import toys
from .oracle import Algorithm1, statistic

convs = st.fixed_dictionaries({
    "groups": st.sampled_from([1, 2]),
    "kernel_size": st.sampled_from([1, 2, 3, (1, 3)]),
    "stride": st.sampled_from([1, 2]),
    "dilation": st.sampled_from([1, 2]),
    "padding": st.sampled_from([0, 1, (1, 0), (3, 2)]),
    "padding_mode": st.sampled_from(["zeros", "reflect", "circular"]),
})  # fmt: skip
measures = st.fixed_dictionaries({
    "p": st.sampled_from([1.0, 2.0, 3.5, 16.0, math.inf]),
    "granularity": st.sampled_from(["layer", "neuron", "channel"]),
    "center": st.booleans(),
    "power": st.booleans(),
})  # fmt: skip


@st.composite
def algorithms(draw: st.DrawFn) -> dict[str, Any]:
    nesterov = draw(st.booleans())
    return {
        "beta": draw(st.sampled_from([0.0, 0.5, 0.99])),
        "eps": draw(st.sampled_from([1e-8, 0.01, 2.0])),
        "damping": draw(st.sampled_from(["log", "additive"])),
        "momentum": 0.9 if nesterov else draw(st.sampled_from([0.0, 0.9])),
        "dampening": 0.0 if nesterov else draw(st.sampled_from([0.0, 0.4, 0.9])),
        "weight_decay": draw(st.sampled_from([0.0, 0.1])),
        "decay": draw(st.sampled_from(["after", "before"])),
        "nesterov": nesterov,
    }


@given(toys.seeds, measures, algorithms(), convs)
@settings(max_examples=80)
def test_insgd_follows_algorithm_1_as_written_a_second_time(
    seed: int, measure: dict[str, Any], algorithm: dict[str, Any], conv: dict[str, Any]
) -> None:
    conv["padding"] = 1 if conv["padding_mode"] == "reflect" else conv["padding"]
    generator = torch.Generator().manual_seed(seed)
    xs = [torch.randn(3, 4, 7, 6, generator=generator, dtype=torch.float64) for _ in range(3)]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = nn.Conv2d(4, 6, **conv).double()
        head = nn.Linear(layer(xs[0]).shape[-1], 2).double()
    model = nn.Sequential(layer, head)
    optimizer = lab.INSGD(model, lr=0.1, **measure, **algorithm)
    oracles = [Algorithm1(lr=0.1, **algorithm) for _ in range(4)]
    for x in xs:
        optimizer.zero_grad()
        hidden = layer(x)
        head(hidden).square().mean().backward()
        inputs = (statistic(x, layer, **measure), None, statistic(hidden.detach(), head, **measure), None)
        params = list(model.parameters())
        wanted = [
            oracle.step(p.detach().clone(), p.grad, s) for oracle, p, s in zip(oracles, params, inputs, strict=True)
        ]
        optimizer.step()
        toys.assert_near(params, wanted, 1e-9)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("granularity", ["layer", "neuron", "channel"])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize(("conv", "dims"), [(nn.Conv1d, 1), (nn.Conv3d, 3)])
def test_one_and_three_dimensional_convolutions_agree_with_the_two_dimensional_oracle(
    conv: type[nn.Module], dims: int, p: float, granularity: str, center: bool
) -> None:
    # A length-1 axis turns a 1-d layer into a 2-d one, and a 3-d one with depth 1 too.
    flat = nn.Conv2d(4, 6, (1, 3) if dims == 1 else (3, 2), groups=2).double()
    layer = conv(4, 6, 3 if dims == 1 else (1, 3, 2), groups=2).double()
    x = torch.randn(3, 4, 1 if dims == 1 else 5, 6, dtype=torch.float64)
    optimizer = lab.INSGD(layer, beta=0.0, p=p, granularity=granularity, center=center)
    layer(x.squeeze(2) if dims == 1 else x.unsqueeze(2)).sum().backward()
    optimizer.step()
    wanted = statistic(x, flat, p=p, granularity=granularity, center=center, power=True)
    torch.testing.assert_close(optimizer.state[layer.weight]["log_power"].flatten(), wanted.log().flatten())


@pytest.mark.parametrize("center", [False, True])
def test_transposed_convolutions_measure_their_input_channels(center: bool) -> None:
    layer = nn.ConvTranspose2d(4, 6, 3, groups=2).double()
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    optimizer = lab.INSGD(layer, beta=0.0, granularity="channel", center=center)
    layer(x).sum().backward()
    optimizer.step()
    wanted = statistic(x, nn.Conv2d(4, 1, 1), p=2, granularity="channel", center=center, power=True)
    torch.testing.assert_close(optimizer.state[layer.weight]["log_power"].flatten(), wanted.log().flatten())


def test_attention_inputs_are_centred_like_those_of_linear_layers() -> None:
    attention = nn.MultiheadAttention(4, 2).double()
    x = torch.randn(3, 2, 4, dtype=torch.float64)
    optimizer = lab.INSGD(attention, beta=0.0, center=True)
    attention(x, x, x)[0].sum().backward()
    optimizer.step()
    wanted = statistic(x, nn.Linear(4, 1), p=2, granularity="layer", center=True, power=True)
    blocks = optimizer.state[attention.in_proj_weight]["log_power"]
    torch.testing.assert_close(blocks, wanted.log().expand(12, 1))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("insgd-l1", {"p": 1}),
        ("insgd-l2", {"p": 2}),
        ("insgd-linf", {"p": math.inf}),
        ("insgd-lp", {}),
        ("insgd-norm", {"p": 2, "damping": "additive", "power": False, "beta": 0.0}),
    ],
)
def test_presets_are_insgd_with_the_options_of_their_source(name: str, options: dict[str, Any]) -> None:
    left, right = toys.net(), toys.net()
    toys.train(left, lab.create_optimizer(name, left), toys.batches(0, 3))
    toys.train(right, lab.INSGD(right, **options), toys.batches(0, 3))
    toys.assert_same(toys.parameters(left), toys.parameters(right))


def test_default_dampening_is_the_momentum_as_algorithm_1_prints_it() -> None:
    left, right = toys.net(), toys.net()
    toys.train(left, lab.INSGD(left, momentum=0.7), toys.batches(0, 4))
    toys.train(right, lab.INSGD(right, momentum=0.7, dampening=0.7), toys.batches(0, 4))
    toys.assert_same(toys.parameters(left), toys.parameters(right))


def test_a_power_of_e_makes_insgd_plain_sgd() -> None:
    layer, twin = nn.Linear(1, 3, bias=False).double(), nn.Linear(1, 3, bias=False).double()
    twin.load_state_dict(layer.state_dict())
    x = torch.full((4, 1), math.e, dtype=torch.float64)
    toys.train(layer, lab.INSGD(layer, lr=0.1, p=1, momentum=0, weight_decay=0.01), [x] * 5)
    toys.train(twin, lab.SGD(twin, lr=0.1, weight_decay=0.01), [x] * 5)
    toys.assert_near(toys.parameters(layer), toys.parameters(twin), 1e-14)


@pytest.mark.parametrize("p", [1.0, 2.0, 7.0, 16.0, math.inf])
@pytest.mark.parametrize("size", [1e25, 1e15, 1e-15, 1e-25])
def test_high_orders_and_large_and_small_inputs_neither_overflow_nor_vanish(p: float, size: float) -> None:
    layer = nn.Linear(4, 2, bias=False)
    optimizer = lab.INSGD(layer, lr=0.1, p=p, momentum=0)
    x = torch.full((2, 4), size)
    layer(x).sum().backward()
    optimizer.step()
    count = 0 if p == math.inf else math.log(4)
    log_power = (1 if p == math.inf else p) * math.log(size) + count
    assert optimizer.state[layer.weight]["log_power"].item() == pytest.approx(log_power, rel=1e-6)


def test_zero_inputs_clip_and_stay_finite() -> None:
    layer = nn.Linear(4, 2)
    optimizer = lab.INSGD(layer, lr=0.1)
    for x in (torch.zeros(2, 4), torch.ones(2, 4), torch.zeros(2, 4)):
        optimizer.zero_grad()
        layer(x).sum().backward()
        optimizer.step()
    assert all(p.isfinite().all() for p in layer.parameters())
    assert optimizer.state[layer.weight]["log_power"].item() == pytest.approx(math.log(0.9 * 0.1 * 4))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_statistic_that_is_not_finite_leaves_the_power_unchanged(bad: float) -> None:
    layer = nn.Linear(3, 1)
    optimizer = lab.INSGD(layer, lr=0.0)
    for value in (2.0, bad, 2.0):
        optimizer.zero_grad()
        layer(torch.full((2, 3), value)).sum().backward()
        optimizer.step()
        assert optimizer.state[layer.weight]["log_power"].exp().item() == pytest.approx(12.0)


@pytest.mark.parametrize("granularity", ["layer", "neuron", "channel"])
@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (nn.Linear(1, 2), torch.tensor([[3.0], [5.0]])),
        (nn.Conv2d(2, 2, 1), torch.arange(4.0).view(2, 2, 1, 1)),
        (nn.Conv2d(2, 2, 1), torch.full((2, 2, 3, 3), 7.0)),
    ],
)
def test_centred_inputs_without_spread_have_no_power(layer: nn.Module, x: torch.Tensor, granularity: str) -> None:
    layer = copy.deepcopy(layer)
    optimizer = lab.INSGD(layer, lr=0.1, center=True, granularity=granularity)
    layer(x).sum().backward()
    optimizer.step()
    assert optimizer.state[layer.weight]["log_power"].exp().eq(0).all()
    assert layer.weight.isfinite().all()


def test_biases_take_the_plain_sgd_step() -> None:
    model = toys.net()
    before = toys.parameters(model)
    optimizer = lab.INSGD(model, lr=0.1, momentum=0)
    toys.train(model, optimizer, toys.batches(0, 1))
    bias = model.head.bias
    torch.testing.assert_close(bias.detach(), before[3] - 0.1 * bias.grad, rtol=0, atol=1e-16)


@given(toys.seeds, st.floats(1.0, 1e4), st.sampled_from(["layer", "neuron", "channel"]))
@settings(max_examples=25)
def test_scaling_the_input_history_up_never_raises_the_step_scale(seed: int, c: float, granularity: str) -> None:
    scales = []
    for factor in (1.0, c):
        model = toys.net(seed)
        optimizer = lab.INSGD(model, lr=0.0, granularity=granularity)
        with lab.Recorder(model, optimizer, every=1) as recorder:
            toys.train(model, optimizer, [factor * x for x in toys.batches(seed, 3)])
        frame = recorder.frame()
        rows = frame[(frame.quantity == "step_scale") & (frame.parameter == "conv.weight")]
        scales.append(rows.value.to_numpy())
    assert (scales[1] <= scales[0] * (1 + 1e-6)).all()


@given(toys.seeds)
@settings(max_examples=20)
def test_the_step_is_at_most_lr_times_gradient_over_eps(seed: int) -> None:
    model = toys.net(seed)
    optimizer = lab.INSGD(model, lr=0.1, momentum=0, p=math.inf, eps=0.5)
    before = toys.parameters(model)
    toys.train(model, optimizer, [0.1 * x for x in toys.batches(seed, 1)])
    for old, new in zip(before, model.parameters(), strict=True):
        assert (new - old).norm() <= 0.1 * new.grad.norm() / 0.5 * (1 + 1e-12)


# ---------------------------------------------------------------------------------------------- NLMS


def nlms_step(w: torch.Tensor, x: torch.Tensor, d: torch.Tensor, **options: Any) -> torch.Tensor:
    neuron = nn.Linear(len(w), 1, bias=False).double()
    neuron.weight.data = w[None].clone()
    optimizer = lab.NLMS(neuron, **options)
    (0.5 * (d - neuron(x[None])).square().mean()).backward()
    optimizer.step()
    return neuron.weight.detach()[0]


vectors = st.lists(st.floats(-10, 10).filter(lambda v: v == 0 or abs(v) > 1e-3), min_size=3, max_size=3).map(
    lambda v: torch.tensor(v, dtype=torch.float64)
)
inputs = vectors.filter(lambda v: v.norm() > 1e-2)


@given(vectors, inputs, st.floats(-10, 10))
def test_one_nlms_step_lands_on_the_hyperplane(w: torch.Tensor, x: torch.Tensor, d: float) -> None:
    after = nlms_step(w, x, torch.tensor(d, dtype=torch.float64), lr=1.0, eps=0.0)
    assert (after @ x).item() == pytest.approx(d, abs=1e-9 * (1 + float(w.norm() * x.norm())))


@given(vectors, vectors, inputs, st.floats(0.01, 1.99))
def test_nlms_never_moves_away_from_the_true_weights(
    w: torch.Tensor, truth: torch.Tensor, x: torch.Tensor, lr: float
) -> None:
    after = nlms_step(w, x, truth @ x, lr=lr, eps=0.0)
    assert (after - truth).norm() <= (w - truth).norm() * (1 + 1e-9) + 1e-12


@given(vectors, inputs, st.floats(-5, 5), st.floats(0.1, 100))
def test_scaling_inputs_and_targets_together_leaves_nlms_unchanged(
    w: torch.Tensor, x: torch.Tensor, d: float, c: float
) -> None:
    target = torch.tensor(d, dtype=torch.float64)
    plain = nlms_step(w, x, target, lr=0.7, eps=0.0)
    torch.testing.assert_close(nlms_step(w, c * x, c * target, lr=0.7, eps=0.0), plain, rtol=1e-9, atol=1e-9)


def test_a_zero_input_gives_nlms_a_zero_step() -> None:
    w = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    after = nlms_step(w, torch.zeros(3, dtype=torch.float64), torch.tensor(5.0, dtype=torch.float64))
    assert torch.equal(after, w)


def test_insgd_without_a_model_says_how_to_give_one() -> None:
    with pytest.raises(TypeError, match="model="):
        lab.INSGD(toys.net().parameters())


def test_a_weight_that_no_layer_call_fed_takes_scale_one_and_is_named_once() -> None:
    layer = nn.Linear(3, 2).double()
    optimizer = lab.INSGD(layer, lr=0.1, momentum=0)
    for expected in (1, 0):
        before = layer.weight.detach().clone()
        optimizer.zero_grad()
        torch.nn.functional.linear(torch.ones(1, 3, dtype=torch.float64), layer.weight).sum().backward()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            optimizer.step()
        assert sum("weight has a gradient" in str(w.message) for w in caught) == expected
        torch.testing.assert_close(layer.weight.detach(), before - 0.1 * layer.weight.grad)
