"""The rules beside their equations written a second time (oracle_adaptive), step by step in float64.

Tolerance 1e-12: both sides round differently a few dozen times a step, see trajectories.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import insgd_lab as lab

from .oracle_adaptive import LARS, LSALR, CorrectedSGD, InsgdReference, Moments, NormCorrected, Oracle, plane_power
from .trajectories import (
    Course,
    Trail,
    apart,
    assert_agree,
    course,
    courses,
    decays,
    follow,
    moment_rates,
    rates,
    seeds,
)

shared = {
    "betas": moment_rates,
    "eps": st.sampled_from([1e-8, 1e-3]),
    "weight_decay": decays,
    "decoupled": st.booleans(),
    "maximize": st.booleans(),
}
corrections = {"gamma": st.sampled_from([0.0, 0.5, 0.8]), "scope": st.sampled_from(["tensor", "global"])}
replaced = {**corrections, "correct": st.sampled_from(["first", "second", "both"])}
own: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "adam": {"amsgrad": st.booleans()},
    "diffgrad": {},
    "radam": {"threshold": st.sampled_from([4.0, 5.0])},
    "adabelief": {},
    "adamnorm": {"amsgrad": st.booleans(), **replaced},
    "diffgradnorm": replaced,
    "radamnorm": {"threshold": st.sampled_from([4.0, 5.0]), **replaced},
    "adabeliefnorm": {"belief": st.sampled_from(["corrected", "raw"]), **corrections},
}


def follow_oracle(oracle: Oracle, lr: float, path: Course) -> list[list[Any]]:
    thetas: list[Any] = [p.numpy().copy() for p in path.start]
    trail = []
    for factor, gradients in zip(path.schedule or [1.0] * len(path.gradients), path.gradients, strict=True):
        thetas = oracle.step(thetas, [None if g is None else g.numpy() for g in gradients], lr * factor)
        trail.append(thetas)
    return trail


def walk(name: str, lr: float, path: Course, options: dict[str, Any]) -> Trail:
    return follow(lambda params: lab.create_optimizer(name, params, lr=lr, **options), path)


@pytest.mark.parametrize("name", own)
@given(lr=rates, path=courses(), data=st.data())
@settings(max_examples=25)
def test_adaptive_rules_follow_their_equations(name: str, lr: float, path: Course, data: st.DataObject) -> None:
    options = data.draw(st.fixed_dictionaries({**shared, **own[name]}))
    oracle = Moments(kind=name.removesuffix("norm"), **options)
    assert_agree(walk(name, lr, path, options), follow_oracle(oracle, lr, path))


@pytest.mark.parametrize("name", own)
def test_the_oracle_knows_every_option(name: str) -> None:
    wired = {"lr", "adanorm", "project"}
    assert set(lab.get_optimizer(name).defaults) - wired == {*shared, *own[name]}


@pytest.mark.parametrize("name", own)
def test_defaults_are_those_of_the_equations(name: str) -> None:
    defaults = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "decoupled": False, "maximize": False}
    choices = {
        "amsgrad": False, "threshold": 5.0, "gamma": 0.95, "scope": "tensor", "correct": "first",
        "belief": "corrected",
    }  # fmt: skip
    spec = lab.get_optimizer(name).defaults
    assert {option: spec[option] for option in {*shared, *own[name]}} == {
        **defaults,
        **{option: choices[option] for option in own[name]},
    }


@given(rates, courses(), st.sampled_from([0.0, 0.5, 0.8]), moment_rates, decays, st.sampled_from([1e-8, 1e-3]))
@settings(max_examples=20)
def test_adamnorm_reference_adds_eps_to_the_stored_moment_at_every_step(
    lr: float, path: Course, gamma: float, betas: tuple[float, float], weight_decay: float, eps: float
) -> None:
    options = {"betas": betas, "eps": eps, "gamma": gamma, "weight_decay": weight_decay}
    oracle = Moments(kind="adam", accumulate=True, **options)
    assert_agree(walk("adamnorm-reference", lr, path, options), follow_oracle(oracle, lr, path))


@given(rates, courses(), moment_rates, decays)
@settings(max_examples=20)
def test_radamnorm_reference_is_radam_with_decoupled_decay(
    lr: float, path: Course, betas: tuple[float, float], weight_decay: float
) -> None:
    options = {"betas": betas, "weight_decay": weight_decay}
    oracle = Moments(kind="radam", decoupled=True, **options)
    assert_agree(walk("radamnorm-reference", lr, path, options), follow_oracle(oracle, lr, path))


@given(
    st.floats(1e-3, 0.5), courses(), st.sampled_from([0.001, 0.1, 1.0]), st.sampled_from([0.0, 0.9]), decays,
    st.sampled_from([0.0, 1e-8, 0.5]), st.sampled_from(["1d", "none"]), st.booleans(),
)  # fmt: skip
@settings(max_examples=40)
def test_lars_follows_its_equation(
    lr: float, path: Course, trust: float, momentum: float, weight_decay: float, eps: float, exclude: str,
    maximize: bool,
) -> None:  # fmt: skip
    options = {
        "trust_coefficient": trust, "momentum": momentum, "weight_decay": weight_decay, "eps": eps,
        "exclude": exclude, "maximize": maximize,
    }  # fmt: skip
    assert_agree(walk("lars", lr, path, options), follow_oracle(LARS(**options), lr, path))


@pytest.mark.parametrize("exclude", ["1d", "none"])
@pytest.mark.parametrize("which", ["parameter", "gradient"])
def test_lars_takes_ratio_one_where_a_norm_is_zero(which: str, exclude: str) -> None:
    path = course(3)
    if which == "parameter":
        path = Course([torch.zeros_like(p) for p in path.start], path.gradients)
    else:
        path.gradients[0] = [torch.zeros_like(p) for p in path.start]
    options = {"weight_decay": 0.1, "exclude": exclude}
    assert_agree(walk("lars", 0.1, path, options), follow_oracle(LARS(**options), 0.1, path))


def test_lars_is_equation_17_with_the_rate_as_trust_coefficient() -> None:
    path = course(5)
    options = {"trust_coefficient": 0.02, "momentum": 0.0, "eps": 1e-3, "exclude": "none"}
    thetas, trail = path.start, []
    for gradients in path.gradients:
        thetas = [
            w - 0.02 * w.norm() / (g.norm() + 1e-3) * g
            for w, g in zip(thetas, gradients, strict=True) if g is not None
        ]  # fmt: skip
        trail.append(thetas)
    assert_agree(walk("lars", 1.0, path, options), trail)


@given(rates, courses(), decays, st.booleans())
@settings(max_examples=25)
def test_lsalr_follows_its_equation(lr: float, path: Course, weight_decay: float, maximize: bool) -> None:
    options = {"weight_decay": weight_decay, "maximize": maximize}
    assert_agree(walk("lsalr", lr, path, options), follow_oracle(LSALR(**options), lr, path))


# --------------------------------------------------------------------------------- the generic correction


@given(rates, courses(), st.sampled_from([0.0, 0.5, 0.8]), st.sampled_from([0.0, 0.9]), decays, st.booleans())
@settings(max_examples=25)
def test_sgd_behind_the_correction_follows_its_equation(
    lr: float, path: Course, gamma: float, momentum: float, weight_decay: float, maximize: bool
) -> None:
    options = {"momentum": momentum, "dampening": 0.3, "weight_decay": weight_decay, "maximize": maximize}
    oracle = CorrectedSGD(gamma=gamma, **options)
    assert_agree(walk("sgd", lr, path, {**options, "adanorm": gamma}), follow_oracle(oracle, lr, path))


@pytest.mark.parametrize("base", ["adam", "diffgrad", "radam", "adabelief"])
@pytest.mark.parametrize("decoupled", [False, True])
def test_the_correction_in_front_of_a_base_is_its_named_form(base: str, decoupled: bool) -> None:
    options = {"weight_decay": 0.05, "decoupled": decoupled}
    for seed in range(5):
        path = course(seed, gaps=0.1, zeros=0.1)
        front = walk(base, 0.1, path, {**options, "adanorm": 0.5})
        assert_agree(front, walk(f"{base}norm", 0.1, path, {**options, "gamma": 0.5}))


def test_the_correction_in_front_of_lars_cancels_where_eps_is_zero() -> None:
    path = course(8)
    options = {"eps": 0.0, "exclude": "none", "momentum": 0.5}
    assert_agree(walk("lars", 0.1, path, {**options, "adanorm": 0.9}), walk("lars", 0.1, path, options))


def test_a_global_norm_is_that_of_all_groups_and_types() -> None:
    path = course(11)
    options = {"gamma": 0.9, "scope": "global"}

    def two_groups(params: list[Tensor]) -> torch.optim.Optimizer:
        for p in params[:2]:
            p.data = p.data.float()
        return lab.create_optimizer("adamnorm", [{"params": params[::2]}, {"params": params[1::2]}], lr=0.1, **options)

    rounded = [[g.float() for g in step[:2] if g is not None] + step[2:] for step in path.gradients]
    ours = follow(two_groups, Course(path.start, rounded))
    oracle = follow_oracle(Moments(**options), 0.1, path)
    alone = walk("adamnorm", 0.1, path, {"gamma": 0.9, "scope": "tensor"})
    # The float32 gradients are parts of the norm, rounded to 6e-8.
    assert_agree([step[2:] for step in ours], [step[2:] for step in oracle], 1e-6)
    assert apart([step[2:] for step in ours], [step[2:] for step in alone]) > 1e-3


@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_the_courses_are_such_that_norms_are_corrected(scope: str) -> None:
    """The comparisons above would say little if no gradient were ever shorter than its running norm."""
    path = course(0)
    counted = Counting(gamma=0.5, scope=scope)
    follow_oracle(counted, 0.1, path)
    assert 10 <= counted.raised < 40


class Counting(NormCorrected):
    raised = 0

    def move(self, i: int, theta: Any, g: Any, s: Any, lr: float) -> Any:
        self.raised += bool(np.abs(s).sum() > np.abs(g).sum())
        return theta


# ------------------------------------------------------------------------------------------- projection


@pytest.mark.parametrize("name", ["sgd", "adamnorm", "lars"])
def test_projection_is_onto_the_nearest_point_of_each_tensor_after_every_step(name: str) -> None:
    path = course(2)
    boxed = walk(name, 0.1, path, {"project": {"box": [-0.5, 0.25]}})
    assert all(float(p.min()) >= -0.5 and float(p.max()) <= 0.25 for step in boxed for p in step)
    balled = walk(name, 0.1, path, {"project": {"ball": 0.75}})
    assert all(float(p.norm()) <= 0.75 * (1 + 1e-15) for step in balled for p in step)
    first = walk(name, 0.1, path, {})[0]
    assert_agree(boxed[:1], [[p.clamp(-0.5, 0.25) for p in first]])
    assert_agree(balled[:1], [[p * min(1.0, 0.75 / float(p.norm())) for p in first]])


@given(rates, courses())
@settings(max_examples=15)
def test_projected_sgd_is_the_projected_recursion(lr: float, path: Course) -> None:
    thetas, trail = path.start, []
    for factor, gradients in zip(path.schedule, path.gradients, strict=True):
        thetas = [
            p if g is None else (p - lr * factor * g).clamp(-1, 1)
            for p, g in zip(thetas, gradients, strict=True)
        ]  # fmt: skip
        trail.append(thetas)
    assert_agree(walk("sgd", lr, path, {"project": {"box": [-1, 1]}}), trail)


# ------------------------------------------------------------------------------- INSGD's published code

LAYERS: list[tuple[Callable[[], nn.Module], tuple[int, ...], str]] = [
    (lambda: nn.Conv2d(3, 5, 3, padding=1), (2, 3, 4, 5), "plain"),
    (lambda: nn.Conv2d(1, 4, 2, stride=2), (3, 1, 6, 4), "plain"),
    (lambda: nn.Conv2d(6, 2, 1), (2, 6, 1, 1), "plain"),
    (lambda: nn.Conv2d(4, 4, 3, groups=4), (2, 4, 5, 4), "depthwise"),
    (lambda: nn.ConvTranspose2d(3, 2, 3), (2, 3, 4, 5), "transposed"),
    (lambda: nn.Linear(7, 3), (4, 7), "linear"),
    (lambda: nn.Linear(6, 3), (2, 3, 4, 6), "linear"),
    (lambda: nn.Linear(1, 3), (4, 1), "linear"),
]
momenta = st.sampled_from([(0.0, 0.0), (0.9, 0.0), (0.9, 0.4), (0.5, 0.9)])


def planes(generator: torch.Generator, shape: tuple[int, ...], kind: str) -> Tensor:
    """Inputs of which about a quarter of the planes (a Linear layer's vectors) are constant, and a quarter faint."""
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    each = x.sum(-1 if kind == "linear" else (-2, -1), keepdim=True).shape
    chance = torch.rand(each, generator=generator, dtype=torch.float64)
    # The mean of a constant 0.75 is exact, and faint planes lie about a faint mean: else what rounding leaves of them,
    # divided by 0.01, would show in log n where that is near 0.
    return torch.where(chance < 0.25, 0.75, torch.where(chance < 0.5, 1e-3, 1.0) * (0.7 + x))


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(("create", "shape", "kind"), LAYERS)
@given(
    seed=seeds, lr=st.floats(1e-3, 0.5), momentum=momenta, weight_decay=decays, sign=st.sampled_from([-1.0, 1.0])
)  # fmt: skip
@settings(max_examples=12)
def test_insgd_reference_is_the_published_step(
    create: Callable[[], nn.Module], shape: tuple[int, ...], kind: str, order: int, seed: int, lr: float,
    momentum: tuple[float, float], weight_decay: float, sign: float,
) -> None:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    layer = create().double()
    params = list(layer.parameters())
    thetas = [p.detach().numpy().copy() for p in params]
    options = {"momentum": momentum[0], "dampening": momentum[1], "weight_decay": weight_decay}
    oracles = [InsgdReference(order, **options) for _ in params]
    optimizer = lab.create_optimizer(f"insgd-reference-l{order}", layer, lr=lr, maximize=sign < 0, **options)
    ours, theirs = [], []
    for _ in range(5):
        x = planes(generator, shape, kind)
        optimizer.zero_grad()
        layer(x).sum().backward()
        for i, n in enumerate([plane_power(x.numpy(), kind, order), None]):
            g = torch.randn(params[i].shape, generator=generator, dtype=torch.float64)
            params[i].grad = g.clone()
            thetas[i] = oracles[i].step(thetas[i], sign * g.numpy(), n, lr)
        optimizer.step()
        ours.append([p.detach().clone() for p in params])
        theirs.append(list(thetas))
    assert_agree(ours, theirs)
