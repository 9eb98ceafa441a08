"""Trajectories beside other people's code: pytorch-optimizer's AdaNorm family and LARS, padasip's adaptive filters.

They serve as oracles in development alone. Where their semantics differ from ours, a test says so by name, and holds
both sides to it, so that a change of either is noticed; where options or a stated transformation of ours can remove
the difference, they are compared step by step.
"""

from __future__ import annotations

import inspect
import math
import warnings
from typing import Any

import numpy as np
import pytest
import pytorch_optimizer as peer
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import insgd_lab as lab

from .trajectories import (
    STEPS,
    Change,
    Course,
    Trail,
    apart,
    assert_agree,
    course,
    courses,
    decays,
    follow,
    rates,
    seeds,
    unchanged,
)

with warnings.catch_warnings():
    # Its docstrings hold escapes that Python warns of when it compiles them, which here would be an error.
    warnings.simplefilter("ignore")
    import padasip

# Ours, the peer's class, and whether AdaNorm's correction is an option of it.
FAMILY: dict[str, tuple[type[torch.optim.Optimizer], str | None]] = {
    "adamnorm": (peer.AdaNorm, "r"),
    "diffgrad": (peer.DiffGrad, None),
    "diffgradnorm": (peer.DiffGrad, "adanorm_r"),
    "radam": (peer.RAdam, None),
    "radamnorm": (peer.RAdam, "adanorm_r"),
    "adabelief": (peer.AdaBelief, None),
    "adabeliefnorm": (peer.AdaBelief, "adanorm_r"),
}
# Difference 1, eps: these divide by (sqrt(v + 1e-15) + eps) / sqrt(1 - beta2^t), where math has the root of v / (1 -
# beta2^t), then eps.
EPS_BEFORE_CORRECTION = ("adamnorm", "diffgrad", "diffgradnorm")
gammas = st.sampled_from([0.0, 0.5, 0.8])
# With beta2 = 0.999 the peer's 1e-15 under the root would be seen at the 11th digit.
moment_rates = st.tuples(st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.9, 0.99]))


def walk(name: str, path: Course, lr: float, change: Change = unchanged, **options: Any) -> Trail:
    return follow(lambda params: lab.create_optimizer(name, params, lr=lr, **options), path, change)


def walk_peer(
    kind: type[torch.optim.Optimizer], path: Course, lr: float, change: Change = unchanged, **options: Any
) -> Trail:
    return follow(lambda params: kind(params, lr=lr, **options), path, change)


def spelled(name: str, *, decoupled: bool, gamma: float = 0.95, **options: Any) -> dict[str, Any]:
    """The peer's options for ours, with its differences in defaults and spelling configured away."""
    spelling = FAMILY[name][1]
    correction = {} if spelling is None else {spelling: gamma}
    correction |= {"adanorm": True} if spelling == "adanorm_r" else {}
    # Difference 2: below the threshold the peer's RAdam makes no step unless told to make SGD's.
    fallback = {"degenerated_to_sgd": True} if name.startswith("radam") else {}
    return {**options, "weight_decouple": decoupled, **correction, **fallback}


def with_the_peers_eps(eps: float) -> Change:
    """Ours with the eps that the peer's amounts to at each step (difference 1)."""

    def change(optimizer: torch.optim.Optimizer, t: int) -> None:
        for group in optimizer.param_groups:
            group["eps"] = eps / math.sqrt(1 - group["betas"][1] ** t)

    return change


def with_the_decay_in_the_gradient(weight_decay: float, maximize: bool) -> Change:
    """Coupled decay by hand, before the peer changes the gradient's sign."""

    def change(optimizer: torch.optim.Optimizer, t: int) -> None:
        for p in optimizer.param_groups[0]["params"]:
            p.grad.add_(p.detach(), alpha=-weight_decay if maximize else weight_decay)

    return change


def rounding_under_the_root(ours: Trail, path: Course, beta2: float) -> float:
    """How far apart the peer's 1e-15 under the root may bring parameters, by the least v and the way walked."""
    least = min(float(g.abs().min()) for step in path.gradients for g in step if g is not None and g.any())
    walked = sum(
        max(float((a - b).abs().max()) for a, b in zip(left, right, strict=True))
        for left, right in zip(ours, [path.start, *ours], strict=False)
    )
    return 1e-15 / (2 * (1 - beta2) * beta2**STEPS * (0.9 * least) ** 2) * walked


@pytest.mark.parametrize("foreach", [None, False])
@pytest.mark.parametrize("name", FAMILY)
@given(
    lr=rates, path=courses(gaps=False, zeros=False), betas=moment_rates, eps=st.sampled_from([1e-8, 1e-3]),
    weight_decay=decays, decoupled=st.booleans(), maximize=st.booleans(), gamma=gammas,
)  # fmt: skip
@settings(max_examples=15)
def test_the_adanorm_family_is_the_peers(
    name: str, foreach: bool | None, lr: float, path: Course, betas: tuple[float, float], eps: float,
    weight_decay: float, decoupled: bool, maximize: bool, gamma: float,
) -> None:  # fmt: skip
    options = {"betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
    own: dict[str, Any] = {} if FAMILY[name][1] is None else {"gamma": gamma}
    own |= {"belief": "raw"} if name == "adabeliefnorm" else {}  # difference 4
    early = name in EPS_BEFORE_CORRECTION
    ours = walk(name, path, lr, with_the_peers_eps(eps) if early else unchanged, decoupled=decoupled, **own, **options)
    by_hand = name.startswith("radam") and not decoupled  # difference 3
    theirs = walk_peer(
        FAMILY[name][0], path, lr, with_the_decay_in_the_gradient(weight_decay, maximize) if by_hand else unchanged,
        **spelled(name, decoupled=decoupled, gamma=gamma, **options), foreach=foreach,
    )  # fmt: skip
    assert_agree(ours, theirs, 1e-12 + early * rounding_under_the_root(ours, path, betas[1]))


@given(lr=rates, path=courses(gaps=False), betas=moment_rates, gamma=gammas)
@settings(max_examples=15)
def test_amsgrad_is_the_peers_bound(lr: float, path: Course, betas: tuple[float, float], gamma: float) -> None:
    ours = walk("adamnorm", path, lr, with_the_peers_eps(1e-3), betas=betas, gamma=gamma, amsgrad=True)
    theirs = walk_peer(peer.AdaNorm, path, lr, betas=betas, r=gamma, ams_bound=True, eps=1e-3)
    assert_agree(ours, theirs, 1e-12 + rounding_under_the_root(ours, path, betas[1]))


@pytest.mark.parametrize("name", FAMILY)
def test_zero_gradients_are_taken_as_the_peers_take_them(name: str) -> None:
    for seed in range(5):
        path = course(seed, zeros=0.3)
        own = {"belief": "raw"} if name == "adabeliefnorm" else {}
        early = name in EPS_BEFORE_CORRECTION
        ours = walk(name, path, 0.1, with_the_peers_eps(1e-8) if early else unchanged, betas=(0.9, 0.99), **own)
        theirs = walk_peer(
            FAMILY[name][0], path, 0.1, **spelled(name, decoupled=False, betas=(0.9, 0.99), eps=1e-8)
        )  # fmt: skip
        assert_agree(ours, theirs, 1e-12 + early * rounding_under_the_root(ours, path, 0.99))


def test_thresholds_of_rectification_mean_the_same() -> None:
    path = course(7)
    for threshold in (4, 5, 8):
        ours = walk("radam", path, 0.1, betas=(0.9, 0.99), threshold=float(threshold))
        theirs = walk_peer(peer.RAdam, path, 0.1, betas=(0.9, 0.99), n_sma_threshold=threshold, degenerated_to_sgd=True)
        assert_agree(ours, theirs)


# ------------------------------------------------------------------------ differences that are known by name


def first_step(optimizer: torch.optim.Optimizer, gradient: float) -> float:
    """How far the only parameter moves down."""
    (theta,) = optimizer.param_groups[0]["params"]
    before = theta.item()
    theta.grad = torch.full_like(theta, gradient)
    optimizer.step()
    return before - float(theta.item())


def theta(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.zeros(1, dtype=dtype, requires_grad=True)]


@pytest.mark.parametrize("name", EPS_BEFORE_CORRECTION)
def test_difference_1_the_peer_corrects_eps_for_bias_too(name: str) -> None:
    options = {"betas": (0.9, 0.99), "eps": 0.01}
    friction = 1 / (1 + math.exp(-2.0)) if name.startswith("diffgrad") else 1.0
    ours = first_step(lab.create_optimizer(name, theta(), lr=0.1, **options), 2.0)
    theirs = first_step(FAMILY[name][0](theta(), lr=0.1, **spelled(name, decoupled=False, **options)), 2.0)
    assert ours == pytest.approx(0.1 * friction * 2.0 / (2.0 + 0.01), rel=1e-13)
    assert theirs == pytest.approx(0.1 * friction * 2.0 / (2.0 + 0.01 / math.sqrt(1 - 0.99)), rel=1e-13)


@pytest.mark.parametrize("name", ["radam", "radamnorm"])
def test_difference_2_below_its_threshold_the_peers_radam_stands_still_by_default(name: str) -> None:
    options = spelled(name, decoupled=False)
    del options["degenerated_to_sgd"]
    assert first_step(peer.RAdam(theta(), lr=0.1, **options), 2.0) == 0.0
    assert first_step(lab.create_optimizer(name, theta(), lr=0.1), 2.0) == pytest.approx(0.2, rel=1e-15)


def test_difference_3_the_peers_radam_ignores_coupled_decay() -> None:
    path = course(3)
    options = {"weight_decouple": False, "degenerated_to_sgd": True}
    without = walk_peer(peer.RAdam, path, 0.1, **options)
    assert apart(walk_peer(peer.RAdam, path, 0.1, weight_decay=0.5, **options), without) == 0.0
    assert apart(walk("radam", path, 0.1, weight_decay=0.5), without) > 1e-3


def test_difference_4_the_peers_belief_is_in_the_gradient_as_it_came() -> None:
    """The paper's Algorithm 2, and its published code, square s - m; the peer squares g - m."""
    path = course(5)
    theirs = walk_peer(peer.AdaBelief, path, 0.1, **spelled("adabeliefnorm", decoupled=False, gamma=0.5, eps=1e-8))
    assert_agree(walk("adabeliefnorm", path, 0.1, gamma=0.5, belief="raw"), theirs)
    assert apart(walk("adabeliefnorm", path, 0.1, gamma=0.5), theirs) > 1e-3


@pytest.mark.parametrize("name", ["adamnorm", "diffgradnorm", "radamnorm", "adabeliefnorm"])
def test_difference_5_the_peer_counts_a_groups_steps_and_not_a_parameters(name: str) -> None:
    """A parameter whose first gradient comes at the third step is taken by ours as at its first."""
    gradients: list[list[Tensor | None]] = [[None], [None], [torch.full((1,), 2.0, dtype=torch.float64)]]
    start = [torch.zeros(1, dtype=torch.float64)]
    late, early = Course(start, gradients), Course(start, gradients[2:])
    assert apart(walk(name, late, 0.1, betas=(0.9, 0.99))[2:], walk(name, early, 0.1, betas=(0.9, 0.99))) == 0.0
    options = spelled(name, decoupled=False, betas=(0.9, 0.99))
    kind = FAMILY[name][0]
    lone, alone = walk_peer(kind, late, 0.1, **options)[2], walk_peer(kind, early, 0.1, **options)[0]
    correction = (1 - 0.9) / (1 - 0.9**3) * (1.0 if name == "radamnorm" else math.sqrt((1 - 0.99**3) / (1 - 0.99)))
    assert (lone[0] / alone[0]).item() == pytest.approx(correction, rel=1e-6)  # up to eps


@pytest.mark.parametrize("options", [{"maximize": True}, {"weight_decay": 0.1, "weight_decouple": False}])
def test_difference_6_the_peer_writes_into_the_users_gradient(options: dict[str, Any]) -> None:
    (mine,), (its,) = [torch.ones(1, requires_grad=True)], [torch.ones(1, requires_grad=True)]
    mine.grad, its.grad = torch.ones(1), torch.ones(1)
    own = {name: value for name, value in options.items() if name != "weight_decouple"}
    lab.create_optimizer("adamnorm", [mine], **own).step()
    peer.AdaNorm([its], **options).step()
    assert mine.grad.item() == 1.0
    assert its.grad.item() in (-1.0, pytest.approx(1.1))


def test_difference_7_the_peers_moments_are_as_coarse_as_the_parameters() -> None:
    optimizers = [
        lab.create_optimizer("adamnorm", theta(torch.bfloat16)),
        peer.AdaNorm(theta(torch.bfloat16)),
    ]
    for optimizer in optimizers:
        first_step(optimizer, 1.0)
    mine, its = [next(iter(optimizer.state.values())) for optimizer in optimizers]
    assert {mine["exp_avg"].dtype, mine["exp_avg_sq"].dtype} == {torch.float32}
    assert mine["exp_avg_norm"].dtype == torch.float64
    assert {its["exp_avg"].dtype, its["exp_avg_var"].dtype, its["exp_grad_norm"].dtype} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("name", "kind", "other"),
    [
        ("adamnorm", peer.AdaNorm, {"betas": (0.9, 0.99), "weight_decouple": True}),
        ("diffgradnorm", peer.DiffGrad, {"weight_decouple": True}),
        ("radamnorm", peer.RAdam, {"weight_decouple": True, "degenerated_to_sgd": False}),
        ("adabeliefnorm", peer.AdaBelief, {"weight_decouple": True, "eps": 1e-16}),
        ("lars", peer.LARS, {"lr": 1e-3}),
    ],
)
def test_difference_8_defaults(name: str, kind: type[torch.optim.Optimizer], other: dict[str, Any]) -> None:
    spelling = {
        "r": "gamma", "weight_decouple": "decoupled", "ams_bound": "amsgrad", "n_sma_threshold": "threshold",
    }  # fmt: skip
    ours = {"degenerated_to_sgd": True, **lab.get_optimizer(name).defaults}
    theirs = {option: p.default for option, p in inspect.signature(kind).parameters.items()}
    shared = {option for option in theirs if spelling.get(option, option) in ours}
    assert {
        option: theirs[option] for option in shared if theirs[option] != ours[spelling.get(option, option)]
    } == other


# -------------------------------------------------------------------------------------------------- LARS


@pytest.mark.parametrize("foreach", [None, False])
@given(
    lr=st.floats(1e-3, 0.5), seed=seeds, trust=st.sampled_from([0.001, 0.1]), weight_decay=decays,
    momentum=st.sampled_from([0.0, 0.9]), maximize=st.booleans(), zeros=st.sampled_from([0.0, 0.2]),
)  # fmt: skip
@settings(max_examples=25)
def test_lars_is_the_peers_at_a_constant_rate(
    foreach: bool | None, lr: float, seed: int, trust: float, weight_decay: float, momentum: float, maximize: bool,
    zeros: float,
) -> None:  # fmt: skip
    # Difference 9: the peer has no eps. Difference 11: zero gradients with decay.
    path = course(seed, zeros=0.0 if weight_decay else zeros)
    options = {
        "trust_coefficient": trust, "weight_decay": weight_decay, "momentum": momentum, "maximize": maximize,
    }  # fmt: skip
    ours = walk("lars", path, lr, eps=0.0, **options)
    assert_agree(ours, walk_peer(peer.LARS, path, lr, foreach=foreach, **options))


@given(lr=rates, path=courses(gaps=False, zeros=False), weight_decay=decays)
@settings(max_examples=15)
def test_lars_without_momentum_is_the_peers_under_any_schedule(lr: float, path: Course, weight_decay: float) -> None:
    options = {"momentum": 0.0, "weight_decay": weight_decay}
    assert_agree(walk("lars", path, lr, eps=0.0, **options), walk_peer(peer.LARS, path, lr, **options))


def test_difference_10_a_changed_rate_leaves_our_momentum_alone_and_scales_the_peers() -> None:
    """Ours puts lr before the momentum, as the paper does: b <- m b + lr u; the peer after it, as torch's SGD does."""
    path = course(2, [1.0, 0.1], steps=2)
    ours = walk("lars", path, 0.5, eps=0.0, momentum=0.9)
    theirs = walk_peer(peer.LARS, path, 0.5, momentum=0.9)
    assert_agree(ours[:1], theirs[:1])
    for i, start in enumerate(path.start):
        first = (start - ours[0][i]) / 0.5
        torch.testing.assert_close(theirs[1][i] - ours[1][i], 0.9 * (0.5 - 0.05) * first, rtol=1e-9, atol=1e-14)


def test_difference_11_at_a_zero_gradient_ours_decays_at_the_global_rate_and_the_peer_at_trust_over_decay() -> None:
    start = [torch.full((2, 2), 3.0, dtype=torch.float64)]
    path = Course(start, [[torch.zeros(2, 2, dtype=torch.float64)]])
    options = {"momentum": 0.0, "weight_decay": 0.2, "trust_coefficient": 0.01}
    (mine,), (its,) = walk("lars", path, 0.5, eps=0.0, **options)[0], walk_peer(peer.LARS, path, 0.5, **options)[0]
    torch.testing.assert_close(mine, start[0] * (1 - 0.5 * 0.2), rtol=1e-15, atol=0)
    torch.testing.assert_close(its, start[0] * (1 - 0.5 * 0.01), rtol=1e-15, atol=0)


# ----------------------------------------------------------------------------------------------- padasip


def identification(seed: int, taps: int, noise: float, steps: int = 150) -> tuple[Any, Any]:
    """A signal's last samples, newest first, [steps, taps], and an unknown filter's response, [steps], with noise."""
    generator = np.random.default_rng(seed)
    signal = generator.normal(size=steps + taps)
    inputs = np.stack([signal[k : k + taps][::-1] for k in range(steps)])
    return inputs, inputs @ generator.normal(size=taps) + noise * generator.normal(size=steps)


def adapt(name: str, inputs: Any, targets: Any, start: Any, **options: Any) -> list[Any]:
    """The weights of a neuron after each example, by ours."""
    neuron = nn.Linear(inputs.shape[1], 1, bias=False).double()
    neuron.weight.data = torch.tensor(start)[None]
    optimizer = lab.create_optimizer(name, neuron, **options)
    history = []
    for x, d in zip(torch.tensor(inputs), torch.tensor(targets), strict=True):
        optimizer.zero_grad()
        (0.5 * (d - neuron(x[None])).square().mean()).backward()
        optimizer.step()
        history.append(neuron.weight.detach().numpy()[0].copy())
    return history


def adapt_peer(adaptive: Any, inputs: Any, targets: Any) -> list[Any]:
    history = []
    for x, d in zip(inputs, targets, strict=True):
        adaptive.adapt(d, x)
        history.append(adaptive.w.copy())
    return history


filters = {
    "seed": seeds, "taps": st.integers(1, 8), "noise": st.sampled_from([0.0, 0.3]),
}  # fmt: skip


@given(**filters, mu=st.floats(0.05, 1.95), eps=st.sampled_from([0.0, 1e-8, 1e-3, 1.0]))
@settings(max_examples=6)
def test_nlms_adapts_as_padasips_filter(seed: int, taps: int, noise: float, mu: float, eps: float) -> None:
    """For 0 < mu < 2 a step never increases a difference, so rounding errors add up at most: 150 of 1e-16."""
    inputs, targets = identification(seed, taps, noise)
    start = np.linspace(-1.0, 1.0, taps)
    theirs = adapt_peer(padasip.filters.FilterNLMS(taps, mu=mu, eps=eps, w=start), inputs, targets)
    np.testing.assert_allclose(adapt("nlms", inputs, targets, start, lr=mu, eps=eps), theirs, rtol=1e-12, atol=1e-12)


@given(**filters, mu=st.floats(0.001, 0.02))
@settings(max_examples=6)
def test_lms_adapts_as_padasips_filter(seed: int, taps: int, noise: float, mu: float) -> None:
    """The rate is below 2 / ||x||^2 for these inputs, so again errors add up at most."""
    inputs, targets = identification(seed, taps, noise)
    start = np.linspace(-1.0, 1.0, taps)
    theirs = adapt_peer(padasip.filters.FilterLMS(taps, mu=mu, w=start), inputs, targets)
    np.testing.assert_allclose(adapt("lms", inputs, targets, start, lr=mu), theirs, rtol=1e-12, atol=1e-12)


@given(**filters, eps=st.sampled_from([1e-8, 1e-3, 1.0]))
@settings(max_examples=6)
def test_nlms_l1_is_its_closed_form(seed: int, taps: int, noise: float, eps: float) -> None:
    """Padasip has no such filter. With mu ||x||_2^2 < 2 ||x||_1, here by the largest input, errors add up at most."""
    inputs, targets = identification(seed, taps, noise)
    mu = 1.0 / np.abs(inputs).max()
    start = np.linspace(-1.0, 1.0, taps)
    w, wanted = start, []
    for x, d in zip(inputs, targets, strict=True):
        w = w + mu * (d - w @ x) * x / (eps + np.abs(x).sum())
        wanted.append(w)
    np.testing.assert_allclose(adapt("nlms-l1", inputs, targets, start, lr=mu, eps=eps), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["nlms", "nlms-l1"])
def test_difference_12_defaults_of_the_filters(name: str) -> None:
    theirs = {option: p.default for option, p in inspect.signature(padasip.filters.FilterNLMS).parameters.items()}
    ours = lab.get_optimizer(name).defaults
    assert (theirs["mu"], theirs["eps"]) == (0.1, 0.001)
    assert (ours["lr"], ours["eps"]) == (1.0, 1e-8)


def test_without_noise_the_filter_is_identified() -> None:
    inputs, targets = identification(0, 6, 0.0, steps=400)
    weights = adapt("nlms", inputs, targets, np.zeros(6), lr=1.0)[-1]
    np.testing.assert_allclose(inputs @ weights, targets, atol=1e-9)
