"""What torch expects of a torch.optim.Optimizer, and what a user expects of its errors."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import insgd_lab as lab
from insgd_lab.chain import ChainOptimizer, Rule
from insgd_lab.hyperparameters import Domain
from insgd_lab.registry import UnknownName
from insgd_lab.rules.basic import L2Penalty, LearningRate, Momentum
from insgd_lab.rules.moments import FirstMoment, SecondMoment

from . import toys

every_rule = pytest.mark.parametrize("name", toys.ALL)
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@every_rule
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_floating_type_trains_with_statistics_in_at_least_float32(name: str, dtype: torch.dtype) -> None:
    model = toys.net(dtype=dtype)
    # torch's own classes keep moments in the parameters' type, where 1e-8 is no float16.
    options = {} if toys.able(name).chain else {"eps": 1e-3}
    optimizer = lab.create_optimizer(name, model, lr=0.01, **options)
    toys.train(model, optimizer, toys.batches(0, 3, dtype=dtype))
    assert all(p.dtype == dtype and p.isfinite().all() for p in model.parameters())
    wide = torch.promote_types(dtype, torch.float32)
    for slots in optimizer.state.values() if toys.able(name).chain else ():
        assert all(v.dtype in (wide, torch.float64) for v in slots.values() if isinstance(v, torch.Tensor))


@every_rule
def test_closures_are_called_with_gradients_and_their_loss_is_returned(name: str) -> None:
    model, x = toys.net(), toys.batches(0, 1)[0]
    twin = toys.net()
    optimizer = lab.create_optimizer(name, model)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = toys.loss(model, x)
        value.backward()
        return value

    with torch.no_grad():
        assert optimizer.step(closure).item() == toys.loss(twin, x).item()
    toys.train(twin, lab.create_optimizer(name, twin), [x])
    toys.assert_same(toys.parameters(model), toys.parameters(twin))


@every_rule
@pytest.mark.parametrize("tensor_rate", [False, True])
def test_schedulers_move_the_rate_of_the_next_step(name: str, tensor_rate: bool) -> None:
    model, twin = toys.net(), toys.net()
    rate: Any = torch.tensor(0.1, dtype=torch.float64) if tensor_rate else 0.1
    optimizer = lab.create_optimizer(name, model, lr=rate)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    other = lab.create_optimizer(name, twin, lr=0.1)
    for step, x in enumerate(toys.batches(0, 3)):
        toys.train(model, optimizer, [x])
        scheduler.step()
        other.param_groups[0]["lr"] = 0.1 * 0.5**step
        toys.train(twin, other, [x])
    toys.assert_near(toys.parameters(model), toys.parameters(twin), 1e-14)


@every_rule
def test_one_cycle_finds_what_it_cycles(name: str) -> None:
    model = toys.net()
    optimizer = lab.create_optimizer(name, model)
    cycles = ("momentum" in optimizer.defaults and optimizer.defaults["momentum"] > 0) or "betas" in optimizer.defaults
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=4, cycle_momentum=cycles)
    toys.train(model, optimizer, toys.batches(0, 1))
    scheduler.step()


def test_a_tensor_rate_given_as_a_default_is_not_shared_between_groups() -> None:
    model = toys.net()
    groups = [{"params": [p]} for p in model.parameters()]
    optimizer = lab.SGD(groups, lr=torch.tensor(0.1))
    optimizer.param_groups[0]["lr"].fill_(0.5)
    assert optimizer.param_groups[1]["lr"].item() == pytest.approx(0.1)


@every_rule
def test_deepcopy_and_pickle_carry_the_rules_along(name: str) -> None:
    model = toys.net()
    optimizer = lab.create_optimizer(name, model)
    toys.train(model, optimizer, toys.batches(0, 2))
    copies = [copy.deepcopy((model, optimizer)), pickle.loads(pickle.dumps((model, optimizer)))]
    for pair in [*copies, (model, optimizer)]:
        toys.train(*pair, toys.batches(1, 2))
    for other, _ in copies:
        toys.assert_same(toys.parameters(model), toys.parameters(other))


@every_rule
def test_the_grad_scaler_unscales_and_skips(name: str) -> None:
    model, twin = toys.net(dtype=torch.float32), toys.net(dtype=torch.float32)
    optimizer, other = lab.create_optimizer(name, model), lab.create_optimizer(name, twin)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    good = toys.batches(0, 2, dtype=torch.float32)
    for x in (good[0], torch.full_like(good[0], torch.inf), good[1]):
        optimizer.zero_grad()
        scaler.scale(toys.loss(model, x)).backward()
        scaler.step(optimizer)
        scaler.update()
    toys.train(twin, other, good)
    toys.assert_near(toys.parameters(model), toys.parameters(twin), 1e-6)


@every_rule
def test_groups_have_their_own_options_and_may_skip_rules(name: str) -> None:
    model = toys.net()
    measures = lab.get_optimizer(name).capabilities.reads_inputs
    groups = [
        {"params": [model.conv.weight], "lr": 0.0},
        {"params": [model.head.weight], "skip": ("LearningRate",)},
    ]
    optimizer = lab.create_optimizer(name, groups, **({"model": model} if measures else {}))
    before = toys.parameters(model)
    toys.train(model, optimizer, toys.batches(0, 1))
    assert torch.equal(model.conv.weight, before[0])
    assert not torch.equal(model.head.weight, before[2])


@every_rule
def test_sparse_gradients_are_supported_or_refused_by_name(name: str) -> None:
    sparse, dense = nn.Embedding(4, 2, sparse=True), nn.Embedding(4, 2)
    dense.load_state_dict(sparse.state_dict())
    optimizer = lab.create_optimizer(name, sparse)
    sparse(torch.tensor([1, 2])).sum().backward()
    if not toys.able(name).sparse:
        with pytest.raises(RuntimeError, match="sparse gradients"):
            optimizer.step()
        return
    with torch.sparse.check_sparse_tensor_invariants(enable=True):  # torch warns where nobody chose
        optimizer.step()
    dense(torch.tensor([1, 2])).sum().backward()
    lab.create_optimizer(name, dense).step()
    toys.assert_near(toys.parameters(sparse), toys.parameters(dense), 1e-6)


@every_rule
def test_complex_parameters_are_supported_or_refused_by_name(name: str) -> None:
    model = nn.ParameterList([torch.zeros(2, dtype=torch.complex128)])
    if not toys.able(name).complex:
        with pytest.raises(TypeError, match=r"complex128.*view_as_real"):
            lab.create_optimizer(name, model)
        return
    real = torch.zeros(2, 2, dtype=torch.float64)
    model[0].grad = torch.tensor([1 + 2j, -3 - 1j], dtype=torch.complex128)
    real.grad = torch.view_as_real(model[0].grad)
    lab.create_optimizer(name, model).step()
    lab.create_optimizer(name, [real]).step()
    toys.assert_near([torch.view_as_real(model[0].detach())], [real])


@every_rule
def test_unknown_options_are_refused_with_the_nearest_name(name: str) -> None:
    with pytest.raises(UnknownName, match=r"unknown option.*'lrr'.*'lr'"):
        lab.create_optimizer(name, toys.net(), lrr=0.1)
    if toys.able(name).chain:
        with pytest.raises(ValueError, match="unknown option 'lrr'"):
            lab.create_optimizer(name, toys.net()).add_param_group({"params": [torch.zeros(1)], "lrr": 1})


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("sgd", {"lr": -1.0}, "finite number >= 0"),
        ("sgd", {"lr": float("nan")}, "finite number >= 0"),
        ("sgd", {"momentum": 1.5}, r"\[0, 1\]"),
        ("sgd", {"nesterov": True}, "nesterov needs momentum"),
        ("insgd-l1", {"nesterov": True}, "set dampening to 0"),
        ("insgd-lp", {"p": 0.5}, r"\[1, 16\], or inf"),
        ("insgd-lp", {"beta": 1.0}, r"\[0, 1\)"),
        ("insgd-lp", {"granularity": "row"}, "'layer', 'neuron', 'channel'"),
        ("insgd-lp", {"damping": "exp"}, "'log', 'additive'"),
        ("insgd-lp", {"decay": "never"}, "'after', 'before'"),
        ("adam", {"betas": (0.9, 1.0)}, "a pair"),
        ("adamnorm", {"gamma": -0.1}, r"\[0, 1\)"),
        ("sgd", {"maximize": 1}, "true or false"),
    ],
)
def test_impossible_values_are_refused_with_what_was_expected(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lab.create_optimizer(name, toys.net(), **options)


def test_a_refused_group_leaves_the_optimizer_as_it_was() -> None:
    optimizer = lab.SGD(toys.net())
    with pytest.raises(ValueError, match="finite number"):
        optimizer.add_param_group({"params": [torch.zeros(1)], "lr": -1.0})
    assert len(optimizer.param_groups) == 1


def test_skip_must_name_rules_of_the_chain() -> None:
    with pytest.raises(ValueError, match=r"'Momentun'.*'Momentum'"):
        lab.SGD([{"params": [torch.zeros(1)], "skip": ("Momentun",)}])


def test_a_group_cannot_skip_what_another_rule_reads() -> None:
    with pytest.raises(ValueError, match="Belief needs FirstMoment"):
        lab.AdaBelief([{"params": [torch.zeros(1)], "skip": ("FirstMoment",)}])
    lab.AdaBelief([{"params": [torch.zeros(1)], "skip": ("FirstMoment", "Belief")}])


def test_rules_that_share_a_field_must_agree() -> None:
    rules = [FirstMoment((0.9, 0.999)), SecondMoment((0.8, 0.999), 1e-8), LearningRate(1e-3)]
    with pytest.raises(ValueError, match="disagree on betas"):
        ChainOptimizer([torch.zeros(1)], rules)


def test_the_rate_may_precede_the_momentum() -> None:
    theta = torch.tensor([1.0], dtype=torch.float64)
    optimizer = ChainOptimizer([theta], [LearningRate(0.1), Momentum(0.5)])
    for _ in range(2):
        theta.grad = torch.ones_like(theta)
        optimizer.step()
        optimizer.param_groups[0]["lr"] = 1.0
    assert theta.item() == pytest.approx(1 - 0.1 - (0.05 + 1.0))


def test_the_penalty_enters_the_gradient_at_the_head_and_the_update_further_down() -> None:
    class Probe(LearningRate):
        def __call__(self, update: Any, batch: Any) -> Any:
            seen.append(batch.grads[0].item())
            return super().__call__(update, batch)

    for rules, wanted in (
        ([L2Penalty(1.0), Probe(0.1)], 3.0),
        ([Momentum(0.5), L2Penalty(1.0), Probe(0.1)], 1.0),
    ):
        seen: list[float] = []
        theta = torch.tensor([2.0])
        theta.grad = torch.ones(1)
        ChainOptimizer([theta], rules).step()
        assert seen == [wanted]


def test_momentum_that_is_switched_on_later_starts_with_the_whole_update() -> None:
    ours, theirs = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    optimizers = [lab.SGD([ours], lr=1.0, dampening=0.5), torch.optim.SGD([theirs], lr=1.0, dampening=0.5)]
    for _ in range(3):
        for theta, optimizer in zip((ours, theirs), optimizers, strict=True):
            theta.grad = torch.ones_like(theta)
            optimizer.step()
            optimizer.param_groups[0]["momentum"] = 0.9
    assert ours.item() == pytest.approx(theirs.item())


def test_a_refused_sparse_gradient_counts_no_step() -> None:
    model = nn.ModuleList([nn.Linear(1, 1), nn.Embedding(2, 2, sparse=True)])
    optimizer = lab.SGD(model, lr=0.1, momentum=0.9, dampening=0.5)
    (model[0](torch.ones(1)).sum() + model[1](torch.tensor([0])).sum()).backward()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
    assert all("step" not in state for state in optimizer.state.values())


def test_a_rule_may_bring_domains_of_its_own() -> None:
    @dataclasses.dataclass(frozen=True)
    class Power(Rule):
        domains: ClassVar[dict[str, Domain]] = {"gamma": Domain(lambda value: value > 1, "a number above 1")}
        gamma: float = 2.0

        def __call__(self, update: Any, batch: Any) -> Any:
            return [u.sign() * u.abs() ** batch.group["gamma"] for u in update]

    theta = torch.zeros(1)
    theta.grad = torch.full((1,), 3.0)
    ChainOptimizer([theta], [Power(), LearningRate(1.0)]).step()
    assert theta.item() == -9.0
    with pytest.raises(ValueError, match="a number above 1"):
        ChainOptimizer([theta], [Power(0.5), LearningRate(1.0)])


def test_parameters_with_different_step_counts_are_corrected_separately() -> None:
    late, early = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    optimizer = lab.Adam([early, late], lr=0.1, eps=0.0)
    for step in range(3):
        early.grad = torch.ones_like(early)
        late.grad = torch.ones_like(late) if step == 2 else None
        optimizer.step()
    assert early.item() == pytest.approx(-0.3)
    assert late.item() == pytest.approx(-0.1)


def test_a_running_power_survives_a_bfloat16_checkpoint() -> None:
    layer = nn.Linear(1, 1, bias=False).bfloat16()
    optimizer = lab.INSGD(layer, beta=0.0)
    layer(torch.full((1, 1), 1111.0, dtype=torch.bfloat16)).sum().backward()
    optimizer.step()
    power = optimizer.state[layer.weight]["log_power"].clone()
    fresh = lab.INSGD(layer)
    fresh.load_state_dict(optimizer.state_dict())
    assert torch.equal(fresh.state[layer.weight]["log_power"], power)
    assert fresh.state[layer.weight]["momentum_buffer"].dtype == torch.float32


def test_checkpoints_hold_no_callables_and_no_wiring() -> None:
    state = lab.INSGD(toys.net()).state_dict()
    allowed = (int, float, str, bool, tuple, list, type(None))
    assert all(isinstance(value, allowed) for group in state["param_groups"] for value in group.values())


def test_param_groups_spare_biases_and_norm_layers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    groups = lab.param_groups(model, weight_decay=0.1)
    optimizer = lab.SGD(groups, lr=0.1)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1, 0.0]
    assert optimizer.param_groups[0]["param_names"] == ["0.weight", "3.weight"]
    assert optimizer.param_groups[1]["param_names"] == ["0.bias", "1.weight", "1.bias", "3.bias"]
    only_head = lab.param_groups(model, weight_decay=0.1, no_decay=("0.", "1."))
    assert [name for name, _ in only_head[0]["params"]] == ["3.weight", "3.bias"]


def test_buffers_of_another_age_are_not_begun_anew() -> None:
    old, late = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    optimizer = lab.SGD([old, late], lr=1.0)
    for momentum, has_buffer in ((0.9, True), (0.0, False), (0.9, True)):
        optimizer.param_groups[0]["momentum"] = momentum
        old.grad = torch.ones_like(old) if momentum else None
        late.grad = None if has_buffer and not optimizer.state.get(late) else torch.ones_like(late)
        optimizer.step()
    assert optimizer.state[old]["momentum_buffer"].item() == pytest.approx(1.9)
    assert optimizer.state[late]["momentum_buffer"].item() == pytest.approx(1.0)


def test_a_live_skip_is_checked_at_the_step() -> None:
    theta = torch.zeros(1)
    optimizer = lab.AdaBelief([theta])
    optimizer.param_groups[0]["skip"] = ("FirstMoment",)
    theta.grad = torch.ones(1)
    with pytest.raises(ValueError, match="Belief needs FirstMoment"):
        optimizer.step()


def test_unknown_options_of_a_class_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(TypeError, match="AdamNorm has no option 'gama'; did you mean 'gamma'"):
        lab.AdamNorm([torch.zeros(1)], gama=0.9)
    with pytest.raises(TypeError, match=r"SGD has no option 'learning_rate'; known: .*\blr\b"):
        lab.SGD([torch.zeros(1)], learning_rate=0.9)


def test_a_floor_of_zero_is_refused_where_it_would_divide() -> None:
    with pytest.raises(ValueError, match="give a floor"):
        lab.INSGD(toys.net(), eps=0.0)
    lab.INSGD(toys.net(), eps=0.0, damping="additive")


@pytest.mark.parametrize(
    ("saved", "loading", "words"),
    [
        (lambda p: torch.optim.Adam(p), lambda p: lab.Adam(p), "lack .*skip"),
        (lambda p: lab.SGD(p), lambda p: lab.SGD(p, adanorm=0.9), "lack .*gamma"),
        (lambda p: lab.SGD(p, project={"ball": 1.0}), lambda p: lab.SGD(p), "have project"),
        (lambda p: lab.Adam(p), lambda p: lab.AdamNorm(p), "lack correct, gamma, scope"),
    ],
)
def test_the_state_of_other_rules_is_refused(saved: Any, loading: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        loading([torch.zeros(1)]).load_state_dict(saved([torch.zeros(1)]).state_dict())


def test_a_chain_takes_rules_and_rules_give_lists() -> None:
    class Single(Rule):
        def __call__(self, update: Any, batch: Any) -> Any:
            return update[0]

    theta = torch.zeros(3)
    theta.grad = torch.ones(3)
    with pytest.raises(TypeError, match=r"got 'Sign' among them"):
        ChainOptimizer([theta], ["Sign"])
    with pytest.raises(TypeError, match=r"got <class.*LearningRate.* among them"):
        ChainOptimizer([theta], [LearningRate])
    with pytest.raises(TypeError, match="Single returned Tensor; expected a list with one tensor"):
        ChainOptimizer([theta], [Single()]).step()


def test_skip_is_a_tuple() -> None:
    with pytest.raises(ValueError, match=r"skip = 'Momentum': expected a tuple"):
        lab.SGD([{"params": [torch.zeros(1)], "skip": "Momentum"}])
