"""Trajectories in float64 beside torch.optim."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import insgd_lab as lab

from . import toys


@st.composite
def sgd_options(draw: st.DrawFn) -> dict[str, Any]:
    nesterov = draw(st.booleans())
    return {
        "lr": draw(toys.rates),
        "momentum": 0.9 if nesterov else draw(st.sampled_from([0.0, 0.5, 0.9])),
        "dampening": 0.0 if nesterov else draw(st.sampled_from([0.0, 0.1, 0.9])),
        "weight_decay": draw(st.sampled_from([0.0, 0.05])),
        "nesterov": nesterov,
        "maximize": draw(st.booleans()),
    }


adam_options = st.fixed_dictionaries({
    "lr": toys.rates,
    "betas": st.tuples(toys.decay_rates, toys.decay_rates),
    "eps": st.sampled_from([1e-8, 1e-3]),
    "weight_decay": st.sampled_from([0.0, 0.05]),
    "maximize": st.booleans(),
})  # fmt: skip


def compare(ours: str, theirs: type[torch.optim.Optimizer], seed: int, options: dict[str, Any]) -> None:
    # The gradients are given, not computed: a chaotic trajectory would blow one rounding up to any size.
    left, right = toys.net(seed), toys.net(seed)
    pairs = [lab.create_optimizer(ours, left, **options), theirs(right.parameters(), **options)]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(12):
        for p, q in zip(left.parameters(), right.parameters(), strict=True):
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            q.grad = p.grad.clone()
        for optimizer in pairs:
            optimizer.step()
    toys.assert_near(toys.parameters(left), toys.parameters(right), 1e-12)


@given(toys.seeds, sgd_options())
@settings(max_examples=40)
def test_sgd_is_torchs_sgd(seed: int, options: dict[str, Any]) -> None:
    compare("sgd", torch.optim.SGD, seed, options)


@given(toys.seeds, adam_options)
@settings(max_examples=40)
def test_adam_is_torchs_adam(seed: int, options: dict[str, Any]) -> None:
    compare("adam", torch.optim.Adam, seed, options)


@given(toys.seeds, adam_options)
@settings(max_examples=20)
def test_adamnorm_with_gamma_zero_is_adam_to_the_last_bit(seed: int, options: dict[str, Any]) -> None:
    left, right = toys.net(seed), toys.net(seed)
    toys.train(left, lab.AdamNorm(left, gamma=0.0, **options), toys.batches(seed, 8))
    toys.train(right, lab.Adam(right, **options), toys.batches(seed, 8))
    toys.assert_same(toys.parameters(left), toys.parameters(right))
