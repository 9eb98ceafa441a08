"""Trajectories in float64 beside torch.optim: the same gradients in, the same parameters out, to 1e-12."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import insgd_lab as lab

from . import toys
from .trajectories import Course, Trail, assert_agree, course, courses, decays, follow, rates

# Torch's own classes behind the registry's names.
BORROWED: dict[str, type[torch.optim.Optimizer]] = {
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "rmsprop": torch.optim.RMSprop,
    "adamw": torch.optim.AdamW,
}
# How torch computes, not what: the lab leaves these to torch.
SWITCHES = {"foreach", "fused", "differentiable", "capturable"}


@st.composite
def sgd_options(draw: st.DrawFn) -> dict[str, Any]:
    nesterov = draw(st.booleans())
    return {
        "momentum": 0.9 if nesterov else draw(st.sampled_from([0.0, 0.5, 0.9])),
        "dampening": 0.0 if nesterov else draw(st.sampled_from([0.0, 0.1, 0.9])),
        "weight_decay": draw(decays),
        "nesterov": nesterov,
        "maximize": draw(st.booleans()),
    }


moments = {
    "betas": st.tuples(toys.decay_rates, toys.decay_rates),
    "eps": st.sampled_from([1e-8, 1e-3]),
    "weight_decay": decays,
    "maximize": st.booleans(),
}
radam_options = st.fixed_dictionaries({**moments, "decoupled": st.booleans()})
adam_options = st.fixed_dictionaries({**moments, "decoupled": st.booleans(), "amsgrad": st.booleans()})


def walk(name: str, path: Course, lr: Any, options: dict[str, Any]) -> Trail:
    return follow(lambda params: lab.create_optimizer(name, params, lr=lr, **options), path)


def walk_torch(kind: type[torch.optim.Optimizer], path: Course, lr: Any, options: dict[str, Any]) -> Trail:
    return follow(lambda params: kind(params, lr=lr, **options), path)


def torchs(options: dict[str, Any]) -> dict[str, Any]:
    """Ours in torch's spelling."""
    return {"decoupled_weight_decay" if name == "decoupled" else name: value for name, value in options.items()}


@given(rates, courses(), sgd_options())
@settings(max_examples=40)
def test_sgd_is_torchs_sgd(lr: float, path: Course, options: dict[str, Any]) -> None:
    assert_agree(walk("sgd", path, lr, options), walk_torch(torch.optim.SGD, path, lr, options))


@given(rates, courses(), adam_options)
@settings(max_examples=40)
def test_adam_is_torchs_adam(lr: float, path: Course, options: dict[str, Any]) -> None:
    theirs = walk_torch(torch.optim.Adam, path, lr, torchs(options))
    assert_agree(walk("adam", path, lr, options), theirs)


@given(rates, courses(), adam_options)
@settings(max_examples=20)
def test_adam_with_decoupled_decay_is_torchs_adamw(lr: float, path: Course, options: dict[str, Any]) -> None:
    options["decoupled"] = True
    theirs = {name: value for name, value in options.items() if name != "decoupled"}
    assert_agree(walk("adam", path, lr, options), walk_torch(torch.optim.AdamW, path, lr, theirs))


@given(rates, courses(), radam_options)
@settings(max_examples=40)
def test_radam_is_torchs_radam(lr: float, path: Course, options: dict[str, Any]) -> None:
    theirs = walk_torch(torch.optim.RAdam, path, lr, torchs(options))
    assert_agree(walk("radam", path, lr, options), theirs)


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("radam", torch.optim.RAdam)]
)
def test_a_tensor_learning_rate_is_followed_where_a_schedule_takes_it(
    name: str, kind: type[torch.optim.Optimizer]
) -> None:
    path = course(1, [0.9**t for t in range(10)], gaps=0.1)
    rate = torch.tensor(0.1, dtype=torch.float64)
    ours = walk(name, path, rate, {"weight_decay": 0.05})
    assert_agree(ours, walk_torch(kind, path, rate, {"weight_decay": 0.05}))
    assert_agree(ours, walk(name, path, 0.1, {"weight_decay": 0.05}))


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.1),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 7),
        # Cycles the momentum, of SGD, and beta1, of Adam, too.
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.2, total_steps=12),
        lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=3),
    ],
)
@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [("sgd", torch.optim.SGD, {"momentum": 0.9}), ("adam", torch.optim.Adam, {}), ("radam", torch.optim.RAdam, {})],
)
def test_torchs_schedulers_drive_ours_as_they_drive_torchs(
    name: str, kind: type[torch.optim.Optimizer], options: dict[str, Any], schedule: Any
) -> None:
    path = course(4)
    trails = []
    for create in (lambda p: lab.create_optimizer(name, p, lr=0.1, **options), lambda p: kind(p, lr=0.1, **options)):
        schedulers: list[Any] = []

        def change(optimizer: torch.optim.Optimizer, t: int, schedulers: list[Any] = schedulers) -> None:
            # A scheduler sets the rate when it is made, before the first step, and at each of its steps after one.
            if t == 1:
                schedulers.append(schedule(optimizer))
            else:
                schedulers[0].step()

        trails.append(follow(create, path, change))
    assert_agree(*trails)


@given(rates, courses(), adam_options)
@settings(max_examples=20)
def test_adamnorm_with_gamma_zero_is_adam_to_the_last_bit(lr: float, path: Course, options: dict[str, Any]) -> None:
    assert_agree(walk("adamnorm", path, lr, {**options, "gamma": 0.0}), walk("adam", path, lr, options), 0.0)


# -------------------------------------------------------------------------------------- torch's own classes


@pytest.mark.parametrize("name", BORROWED)
def test_borrowed_rules_are_torchs_own_class_for_a_model_and_for_parameters(name: str) -> None:
    model = nn.Linear(3, 2)
    for source in (model, model.parameters(), list(model.named_parameters()), [{"params": [model.bias], "lr": 0.5}]):
        assert type(lab.create_optimizer(name, source)) is BORROWED[name]
    assert lab.create_optimizer(name, [{"params": [model.bias], "lr": 0.5}]).param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("name", BORROWED)
def test_borrowed_rules_have_torchs_options_and_torchs_defaults(name: str) -> None:
    signature = inspect.signature(BORROWED[name]).parameters
    theirs = {option: p.default for option, p in signature.items() if option not in {"params", *SWITCHES}}
    assert dict(lab.get_optimizer(name).defaults) == theirs


@pytest.mark.parametrize("name", BORROWED)
def test_borrowed_rules_pass_every_option_on(name: str) -> None:
    other: dict[type, Any] = {float: 0.3, int: 0.3, bool: True, tuple: (0.5, 0.6)}
    defaults = lab.get_optimizer(name).defaults
    options = {option: other[type(value)] for option, value in defaults.items()}
    group = lab.create_optimizer(name, nn.Linear(3, 2), **options).param_groups[0]
    assert {option: group[option] for option in options} == options


@pytest.mark.parametrize("name", BORROWED)
def test_borrowed_rules_step_as_torchs_do(name: str) -> None:
    path = course(6, [0.9**t for t in range(10)])
    options = {"weight_decay": 0.05, "maximize": True}
    assert_agree(walk(name, path, 0.05, options), walk_torch(BORROWED[name], path, 0.05, options), 0.0)


@pytest.mark.parametrize("name", BORROWED)
@pytest.mark.parametrize("option", ["adanorm", "project"])
def test_borrowed_rules_are_no_chains_and_refuse_what_chains_take(name: str, option: str) -> None:
    with pytest.raises((LookupError, TypeError, ValueError), match=option):
        lab.create_optimizer(name, nn.Linear(3, 2), **{option: 0.95})


# ------------------------------------------------------------------------------------------------ defaults


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("radam", torch.optim.RAdam)]
)
def test_defaults_of_chains_are_torchs(name: str, kind: type[torch.optim.Optimizer]) -> None:
    theirs = {option: p.default for option, p in inspect.signature(kind).parameters.items()}
    ours = torchs(dict(lab.get_optimizer(name).defaults))
    shared = set(ours) & set(theirs)
    assert shared >= set(theirs) - {"params", *SWITCHES}
    assert {option: ours[option] for option in shared} == {option: theirs[option] for option in shared}
