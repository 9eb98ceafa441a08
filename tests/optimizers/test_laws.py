"""Laws that every registered rule keeps, chosen by its capabilities and never by its name."""

from __future__ import annotations

import copy
import io
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import insgd_lab as lab

from . import toys

every_rule = pytest.mark.parametrize("name", toys.ALL)
few = settings(max_examples=10)


@every_rule
@given(toys.seeds)
@few
def test_training_moves_parameters_and_state_and_leaves_gradients_alone(name: str, seed: int) -> None:
    model = toys.net(seed)
    optimizer = lab.create_optimizer(name, model, lr=0.05)
    toys.train(model, optimizer, toys.batches(seed, 1))
    state = copy.deepcopy(optimizer.state_dict()["state"])
    before = toys.parameters(model)
    optimizer.zero_grad()
    toys.loss(model, toys.batches(seed + 1, 1)[0]).backward()
    grads = [p.grad.clone() for p in model.parameters()]
    optimizer.step()
    toys.assert_same([p.grad for p in model.parameters()], grads)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    for number, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            old = state[number][slot]
            moved = value != old if isinstance(value, int) else value.numel() == 0 or not torch.equal(value, old)
            assert moved, f"{slot} of parameter {number} did not move"


@every_rule
def test_parameters_without_gradients_are_untouched(name: str) -> None:
    model = toys.net()
    optimizer = toys.quiet_create(name, model, **decay(name, 0.1))
    model.conv.weight.grad = torch.ones_like(model.conv.weight)
    before = toys.parameters(model)
    optimizer.step()
    toys.assert_same(before[1:], toys.parameters(model)[1:])
    assert set(optimizer.state) == {model.conv.weight}


def decay(name: str, value: float) -> dict[str, float]:
    return {"weight_decay": value} if "weight_decay" in lab.get_optimizer(name).defaults else {}


@every_rule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(st.lists(st.sampled_from([0.0, 1.0, 1e30, -1e30, 1e-30]), min_size=1, max_size=5))
@few
def test_zero_huge_and_tiny_gradients_leave_parameters_finite(
    name: str, dtype: torch.dtype, sizes: list[float]
) -> None:
    model = toys.net(dtype=dtype)
    optimizer = toys.quiet_create(name, model, lr=1e-3)
    for size in sizes:
        for p in model.parameters():
            p.grad = torch.full_like(p, size)
        optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())


@every_rule
@given(toys.seeds)
@few
def test_the_order_of_parameters_and_the_split_into_groups_do_not_matter(name: str, seed: int) -> None:
    models = [toys.net(seed) for _ in range(3)]
    shuffled = list(models[1].parameters())
    random.Random(seed).shuffle(shuffled)
    measures = lab.get_optimizer(name).capabilities.reads_inputs
    wiring = [{"model": m} if measures else {} for m in models]
    optimizers = [
        lab.create_optimizer(name, models[0], lr=0.05),
        lab.create_optimizer(name, shuffled, lr=0.05, **wiring[1]),
        lab.create_optimizer(name, [{"params": [p]} for p in models[2].parameters()], lr=0.05, **wiring[2]),
    ]
    for model, optimizer in zip(models, optimizers, strict=True):
        toys.train(model, optimizer, toys.batches(seed, 4))
    toys.assert_near(toys.parameters(models[0]), toys.parameters(models[1]), 1e-12)
    toys.assert_near(toys.parameters(models[0]), toys.parameters(models[2]), 1e-12)


@every_rule
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@given(toys.seeds)
@settings(max_examples=5)
def test_a_resumed_optimizer_goes_on_to_the_bit(name: str, dtype: torch.dtype, seed: int) -> None:
    xs = toys.batches(seed, 6, dtype=dtype)
    straight = toys.net(seed, dtype)
    toys.train(straight, lab.create_optimizer(name, straight, lr=0.05), xs)
    first = toys.net(seed, dtype)
    optimizer = lab.create_optimizer(name, first, lr=0.05)
    toys.train(first, optimizer, xs[:3])
    saved = io.BytesIO()
    torch.save((first.state_dict(), optimizer.state_dict()), saved)
    saved.seek(0)
    weights, state = torch.load(saved, weights_only=True)
    second = toys.net(seed + 1, dtype)
    second.load_state_dict(weights)
    resumed = lab.create_optimizer(name, second, lr=0.7)
    resumed.load_state_dict(state)
    dtypes = [{k: v.dtype for k, v in slots.items() if k != "step"} for slots in resumed.state_dict()["state"].values()]
    toys.train(second, resumed, xs[3:])
    toys.assert_same(toys.parameters(straight), toys.parameters(second))
    kept = [{k: v.dtype for k, v in slots.items() if k != "step"} for slots in state["state"].values()]
    assert dtypes == kept


@every_rule
@given(toys.seeds, st.lists(st.integers(1, 5), min_size=2, max_size=4))
@few
def test_micro_batches_equal_one_batch(name: str, seed: int, sizes: list[int]) -> None:
    total = sum(sizes)
    x = toys.batches(seed, 1, total)[0]
    whole, parts = toys.net(seed), toys.net(seed)
    optimizers = [lab.create_optimizer(name, m, lr=0.05) for m in (whole, parts)]
    for _ in range(2):
        for optimizer in optimizers:
            optimizer.zero_grad()
        toys.loss(whole, x).backward()
        for chunk in x.split(sizes):
            (toys.loss(parts, chunk) * len(chunk) / total).backward()
        for optimizer in optimizers:
            optimizer.step()
    toys.assert_near(toys.parameters(whole), toys.parameters(parts), 1e-9)


@every_rule
@given(toys.seeds)
@few
def test_evaluating_in_between_changes_nothing(name: str, seed: int) -> None:
    plain, watched = toys.net(seed), toys.net(seed)
    optimizers = [lab.create_optimizer(name, m, lr=0.05) for m in (plain, watched)]
    for x in toys.batches(seed, 3):
        for model, optimizer in zip((plain, watched), optimizers, strict=True):
            optimizer.zero_grad()
            toys.loss(model, x).backward()
        watched.eval()
        watched(100 * x)
        watched.train()
        with torch.no_grad():
            watched(100 * x)
        for optimizer in optimizers:
            optimizer.step()
    toys.assert_same(toys.parameters(plain), toys.parameters(watched))


@every_rule
@given(toys.seeds)
@few
def test_maximize_is_descent_on_the_negated_gradient(name: str, seed: int) -> None:
    up, down = toys.net(seed), toys.net(seed)
    climb = lab.create_optimizer(name, up, lr=0.05, maximize=True)
    descend = lab.create_optimizer(name, down, lr=0.05)
    for x in toys.batches(seed, 3):
        for model, optimizer, sign in ((up, climb, 1), (down, descend, -1)):
            optimizer.zero_grad()
            (sign * toys.loss(model, x)).backward()
            optimizer.step()
    toys.assert_same(toys.parameters(up), toys.parameters(down))


@pytest.mark.parametrize("name", toys.GAINS)
@given(toys.seeds)
@few
def test_the_product_of_published_gains_is_the_measured_step(name: str, seed: int) -> None:
    spec = lab.get_optimizer(name)
    still = {option: 0.0 for option in ("momentum", "weight_decay") if option in spec.defaults}
    model = toys.net(seed)
    optimizer = lab.create_optimizer(name, model, lr=0.05, **still)
    with lab.Recorder(model, optimizer, every=1) as recorder:
        toys.train(model, optimizer, toys.batches(seed, 3))
    table = recorder.frame().pivot_table(index=["step", "parameter"], columns="quantity", values="value", observed=True)
    declared = 0.05 * table.get("step_scale", 1.0) * table.get("norm_gain", 1.0)
    assert (table["effective_step"] / declared).to_numpy() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("name", [n for n in toys.ALL if lab.get_optimizer(n).capabilities.base])
@given(toys.seeds)
@few
def test_neutral_settings_give_the_base_to_the_bit(name: str, seed: int) -> None:
    capabilities = lab.get_optimizer(name).capabilities
    left, right = toys.net(seed), toys.net(seed)
    toys.train(left, lab.create_optimizer(name, left, **capabilities.neutral), toys.batches(seed, 5))
    toys.train(right, lab.create_optimizer(capabilities.base, right), toys.batches(seed, 5))
    toys.assert_same(toys.parameters(left), toys.parameters(right))


@pytest.mark.parametrize("name", toys.MEASURING)
@pytest.mark.parametrize("granularity", ["layer", "neuron", "channel"])
@given(toys.seeds)
@few
def test_permuting_neurons_together_with_their_inputs_changes_nothing(name: str, granularity: str, seed: int) -> None:
    plain, permuted = toys.net(seed), toys.net(seed)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))

    def permute(model: toys.Net, p: torch.Tensor) -> None:
        with torch.no_grad():
            model.conv.weight.copy_(model.conv.weight[p])
            model.conv.bias.copy_(model.conv.bias[p])
            model.head.weight.copy_(model.head.weight.view(5, 4, 9)[:, p].reshape(5, 36))

    permute(permuted, order)
    for model in (plain, permuted):
        optimizer = lab.create_optimizer(name, model, lr=0.05, granularity=granularity)
        toys.train(model, optimizer, toys.batches(seed, 3))
    permute(plain, order)
    toys.assert_near(toys.parameters(plain), toys.parameters(permuted), 1e-10)
