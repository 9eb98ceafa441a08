"""What holds for every rule of the registry, whatever it computes: types, copies, graphs, ways to run a model.

Rules are chosen by their capabilities. `test_contract` has the rest of what torch expects of an optimizer, and
`test_sensors` when a layer's call counts.
"""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import insgd_lab as lab

from . import toys
from .zoo import images, zoo

every_rule = pytest.mark.parametrize("name", toys.ALL)
every_chain = pytest.mark.parametrize("name", toys.CHAINS)
RATE = 0.01
# A weight's gradient may be zero but for rounding (a key's bias in attention): 1e-17 over the smallest eps, 1e-10.
NEAR = RATE * 1e-17 / 1e-10 * 10

# Another value for each option that a group may have for itself.
OTHER: dict[str, Any] = {
    "lr": 0.02, "momentum": 0.5, "dampening": 0.3, "weight_decay": 0.1, "betas": (0.7, 0.9), "eps": 1e-3,
    "gamma": 0.5, "beta": 0.5, "adanorm": 0.8, "trust_coefficient": 0.1, "threshold": 4.0, "rho": 0.5, "alpha": 0.7,
    "lr_decay": 0.1, "maximize": True,
}  # fmt: skip


def variants(name: str) -> list[dict[str, Any]]:
    """The rule with its defaults, and with each option that makes it run other code."""
    found: list[dict[str, Any]] = [{}]
    candidates: list[dict[str, Any]] = [
        {"maximize": True}, {"momentum": 0.5, "weight_decay": 0.1, "nesterov": False}, {"weight_decay": 0.1},
        {"weight_decay": 0.1, "decoupled": True}, {"amsgrad": True}, {"scope": "global"}, {"correct": "second"},
        {"correct": "both"}, {"belief": "raw"}, {"adanorm": 0.9}, {"project": {"box": [-0.2, 0.2]}},
        {"project": {"ball": 0.5}}, {"granularity": "channel"}, {"damping": "additive"}, {"exclude": "none"},
        {"momentum": 0.5, "dampening": 0.0, "nesterov": True}, {"centered": True},
    ]  # fmt: skip
    known = lab.get_optimizer(name).defaults
    return found + [options for options in candidates if all(option in known for option in options)]


def train(name: str, model: nn.Module, xs: list[Tensor], **options: Any) -> Any:
    optimizer = lab.create_optimizer(name, model, **{"lr": RATE, **options})
    toys.train(model, optimizer, xs)
    return optimizer


def saved(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def same_state(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left["param_groups"] == right["param_groups"]
    assert left["state"].keys() == right["state"].keys()
    for number, slots in left["state"].items():
        assert slots.keys() == right["state"][number].keys()
        for key, value in slots.items():
            if isinstance(value, Tensor):
                torch.testing.assert_close(value, right["state"][number][key], rtol=0, atol=0, equal_nan=True)
            else:
                assert value == right["state"][number][key]


# ------------------------------------------------------------------------------------------- states and copies


@every_rule
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_checkpoint_gives_back_every_buffer_to_the_bit_and_in_its_type(name: str, dtype: torch.dtype) -> None:
    wirings = [{}, {"capturable": True}] if toys.able(name).chain else [{}]
    # torch rounds buffers to the parameters' type: where that is the narrowest, every option is tried.
    tried = variants(name) if dtype == torch.bfloat16 else [{}]
    for options, wiring in itertools.product(tried, wirings):
        model = toys.net(dtype=dtype)
        optimizer = train(name, model, toys.batches(0, 2, dtype=dtype), **options, **wiring)
        fresh = lab.create_optimizer(name, model, **options, **wiring)
        fresh.load_state_dict(saved(optimizer.state_dict()))
        same_state(fresh.state_dict(), optimizer.state_dict())


@every_rule
def test_groups_take_the_steps_of_optimizers_of_their_own(name: str) -> None:
    together, apart = zoo(), zoo()
    options = {key: value for key, value in OTHER.items() if key in lab.get_optimizer(name).defaults}
    needs = {"model": together} if toys.able(name).reads_inputs else {}
    first, second = _halves(together)
    groups = [{"params": first}, {"params": second, **_of_groups(options)}]
    joint = lab.create_optimizer(name, groups, lr=RATE, **({"adanorm": 0.9} if "adanorm" in options else {}), **needs)
    needs = {"model": apart} if toys.able(name).reads_inputs else {}
    first, second = _halves(apart)
    plain = {"lr": RATE, **({"adanorm": 0.9} if "adanorm" in options else {})}
    pair = [
        lab.create_optimizer(name, first, **plain, **needs),
        lab.create_optimizer(name, second, **{**plain, **options}, **needs),
    ]
    for x in images(0, 3):
        toys.train(together, joint, [x])
        for optimizer in pair:
            optimizer.zero_grad()
        toys.loss(apart, x).backward()
        for optimizer in pair:
            optimizer.step()
    toys.assert_near(toys.parameters(together), toys.parameters(apart), NEAR)


def _halves(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    params = list(model.parameters())
    return params[::2], params[1::2]


def _of_groups(options: dict[str, Any]) -> dict[str, Any]:
    """In groups AdaNorm's gamma has its own name, also where ``adanorm=`` put the correction in front."""
    return {"gamma" if key == "adanorm" else key: value for key, value in options.items()}


@every_chain
def test_each_rule_of_a_chain_can_be_skipped_by_a_group(name: str) -> None:
    for options in variants(name):
        rules = lab.create_optimizer(name, toys.net(), **options).rules
        for skipped in [type(rule).__name__ for rule in rules]:
            model = toys.net()
            skip = (skipped, *(type(rule).__name__ for rule in rules if skipped in rule.needs))
            groups = [{"params": [model.conv.weight], "skip": skip}, {"params": [model.head.weight]}]
            needs = {"model": model} if toys.able(name).reads_inputs else {}
            optimizer = lab.create_optimizer(name, groups, lr=RATE, **options, **needs)
            toys.train(model, optimizer, toys.batches(0, 2))
            assert all(p.isfinite().all() for p in model.parameters())


@every_chain
def test_copies_go_on_with_every_option_and_never_touch_the_original(name: str) -> None:
    for options in variants(name):
        for wiring in ({}, {"capturable": True}):
            model = toys.net()
            optimizer = train(name, model, toys.batches(0, 2), **options, **wiring)
            copies = [copy.deepcopy((model, optimizer)), pickle.loads(pickle.dumps((model, optimizer)))]
            before = copy.deepcopy(optimizer.state_dict())
            for pair in copies:
                toys.train(*pair, toys.batches(1, 2))
            same_state(optimizer.state_dict(), before)
            toys.train(model, optimizer, toys.batches(1, 2))
            for other, twin in copies:
                toys.assert_same(toys.parameters(model), toys.parameters(other))
                same_state(optimizer.state_dict(), twin.state_dict())


# ----------------------------------------------------------------------------------- ways to run a model


@every_rule
@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_changes_nothing(name: str, reentrant: bool) -> None:
    plain, recomputing = zoo(), zoo(reentrant=reentrant)
    train(name, plain, images(0, 3))
    train(name, recomputing, images(0, 3))
    toys.assert_near(toys.parameters(plain), toys.parameters(recomputing), NEAR)


@every_rule
def test_unequal_micro_batches_equal_one_batch_through_every_kind_of_layer(name: str) -> None:
    whole, parts = zoo(), zoo()
    train(name, whole, images(0, 3, size=7))
    optimizer = lab.create_optimizer(name, parts, lr=RATE)
    for x in images(0, 3, size=7):
        optimizer.zero_grad()
        for micro in x.split([1, 4, 2]):
            (toys.loss(parts, micro) * len(micro) / len(x)).backward()
        optimizer.step()
    toys.assert_near(toys.parameters(whole), toys.parameters(parts), NEAR)


@pytest.mark.parametrize("name", toys.MEASURING)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_kind_of_layer_is_measured_in_every_type(name: str, dtype: torch.dtype) -> None:
    model = zoo(dtype=dtype)
    optimizer = train(name, model, images(0, 2, dtype=dtype))  # a layer that is not measured would warn
    assert all(p.isfinite().all() for p in model.parameters())
    powers = [slots["log_power"] for slots in optimizer.state.values() if "log_power" in slots]
    assert all(power.isfinite().all() and power.dtype == torch.float64 for power in powers)


@every_rule
def test_a_group_that_comes_later_is_trained_like_one_that_was_there(name: str) -> None:
    model, twin = zoo(), zoo()
    train(name, twin, images(0, 3))
    needs = {"model": model} if toys.able(name).reads_inputs else {}
    first, second = _halves(model)
    optimizer = lab.create_optimizer(name, first, lr=RATE, **needs)
    optimizer.add_param_group({"params": second})
    try:
        toys.train(model, optimizer, images(0, 3))
    except KeyError:
        if toys.able(name).chain:
            raise
        pytest.skip(f"this torch's own {name} makes no state for groups that come later")
    toys.assert_near(toys.parameters(model), toys.parameters(twin), NEAR)


@pytest.mark.parametrize("name", toys.MEASURING)
def test_parameters_of_another_model_are_refused_with_the_remedy(name: str) -> None:
    model, other = toys.net(), nn.Linear(3, 2)
    words = r"2 of 2 parameters .*\(2, 3\).* not parameters of the Net that is measured.*add their layer.*or leave"
    with pytest.raises(ValueError, match=words):
        lab.create_optimizer(name, other.parameters(), model=model)
    optimizer = lab.create_optimizer(name, model)
    with pytest.raises(ValueError, match=words):
        optimizer.add_param_group({"params": list(other.parameters())})
    assert len(optimizer.param_groups) == 1
    toys.train(model, optimizer, toys.batches(0, 1))


# --------------------------------------------------------------------------------------- compiled and captured


class Counting:
    """A backend of torch.compile that runs graphs as they are and counts them."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, _inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.fixture
def _uncompiled() -> Any:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def layer() -> nn.Linear:
    """What is enough to compile a step for, since tracing takes its time for every parameter."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(6, 4, dtype=torch.float64)


@every_chain
@pytest.mark.usefixtures("_uncompiled")
def test_one_graph_holds_every_compiled_capturable_step(name: str) -> None:
    backend, graphs = Counting(), []
    model, twin = layer(), layer()
    optimizer, eager = (
        lab.create_optimizer(name, m, lr=torch.tensor(RATE, dtype=torch.float64), capturable=True)
        for m in (model, twin)
    )
    for x in toys.batches(0, 5):
        for m, o in ((model, optimizer), (twin, eager)):
            toys.train(m, o, [x])
            o.param_groups[0]["lr"].mul_(0.9)
        graphs.append(backend.graphs)
        if len(graphs) == 1:  # the first step makes the buffers
            optimizer.step = torch.compile(optimizer.step, backend=backend)
    assert graphs == [0, 1, 1, 1, 1]
    assert not torch._dynamo.utils.counters["graph_break"]
    toys.assert_near(toys.parameters(model), toys.parameters(twin), 1e-14)


def kind(name: str) -> tuple[bool, bool, bool]:
    able = toys.able(name)
    return able.chain, able.reads_inputs, able.scalar_gain


# What a step that is not capturable does on the host, every rule of a kind does; a norm correction is one.
KINDS = {(kind(name), "gamma" in lab.get_optimizer(name).defaults): name for name in reversed(toys.ALL)}


@pytest.mark.parametrize("name", KINDS.values())
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # torch's own, in tracing its own classes
@pytest.mark.usefixtures("_uncompiled")
def test_a_step_compiled_from_the_first_is_the_eager_one(name: str) -> None:
    model, twin = layer(), layer()
    train(name, twin, toys.batches(0, 3))
    optimizer = lab.create_optimizer(name, model, lr=RATE)
    optimizer.step = torch.compile(optimizer.step, backend="eager")
    toys.train(model, optimizer, toys.batches(0, 3))
    toys.assert_near(toys.parameters(model), toys.parameters(twin), 1e-14)


# Where a graph breaks, dynamo looks at the .grad of what is handed on; it hides torch's warning, but not an error.
hidden = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")


@hidden
@pytest.mark.usefixtures("_uncompiled")
@pytest.mark.parametrize("names", [[name] for name in toys.MEASURING] + [sorted(set(toys.ALL) - set(toys.MEASURING))])
def test_a_compiled_model_is_trained_as_an_eager_one(names: list[str]) -> None:
    model = toys.net()
    compiled = torch.compile(model, backend="aot_eager")  # once for all rules that put no hooks on it
    for name in names:
        twin = toys.net()
        train(name, twin, toys.batches(0, 3))
        model.load_state_dict(toys.net().state_dict())
        train(name, compiled, toys.batches(0, 3))
        toys.assert_near(toys.parameters(model), toys.parameters(twin), NEAR)


@hidden
@pytest.mark.usefixtures("_uncompiled")
def test_every_kind_of_layer_is_measured_in_a_compiled_model() -> None:
    name = toys.MEASURING[0]
    model, twin = zoo(), zoo()
    train(name, twin, images(0, 2))
    train(name, torch.compile(model, backend="aot_eager"), images(0, 2))
    toys.assert_near(toys.parameters(model), toys.parameters(twin), NEAR)


@every_chain
def test_a_capturable_step_is_the_plain_one(name: str) -> None:
    for options in variants(name):
        model, twin = toys.net(), toys.net()
        plain = train(name, twin, toys.batches(0, 7), **options)
        captured = train(name, model, toys.batches(0, 7), **options, capturable=True)
        toys.assert_near(toys.parameters(model), toys.parameters(twin), NEAR)
        for ours, theirs in zip(captured.state.values(), plain.state.values(), strict=True):
            step = ours["step"]
            assert (step.dtype, step.ndim, step.item()) == (torch.float64, 0, theirs["step"])


@every_chain
def test_capturable_counts_each_parameters_own_steps(name: str) -> None:
    model, twin = toys.net(), toys.net()
    optimizers = [
        lab.create_optimizer(name, model, lr=RATE, capturable=True),
        lab.create_optimizer(name, twin, lr=RATE),
    ]
    for number, x in enumerate(toys.batches(0, 6)):
        for m, optimizer in zip((model, twin), optimizers, strict=True):
            optimizer.zero_grad()
            toys.loss(m, x).backward()
            if number in (0, 3):
                m.head.bias.grad = None
            if number == 2:
                m.conv.weight.grad = None
            optimizer.step()
    toys.assert_near(toys.parameters(model), toys.parameters(twin), NEAR)
    ours, theirs = (
        [o.state[p]["step"] for p in m.parameters()] for m, o in zip((model, twin), optimizers, strict=True)
    )
    assert [int(step) for step in ours] == theirs == [5, 6, 6, 4]


@every_chain
@pytest.mark.parametrize(("saving", "loading"), [(True, False), (False, True)])
def test_checkpoints_go_from_capturable_to_plain_and_back(name: str, saving: bool, loading: bool) -> None:
    model, twin = toys.net(), toys.net()
    train(name, twin, toys.batches(0, 5))
    first = train(name, model, toys.batches(0, 5)[:3], capturable=saving)
    second = lab.create_optimizer(name, model, lr=RATE, capturable=loading)
    second.load_state_dict(saved(first.state_dict()))
    toys.train(model, second, toys.batches(0, 5)[3:])
    toys.assert_near(toys.parameters(model), toys.parameters(twin), NEAR)
    assert all(isinstance(slots["step"], Tensor) == loading for slots in second.state.values())


class NoTransfer(TorchDispatchMode):
    """Refuses to bring numbers of the host to the device, for which it would be waited as well."""

    def __enter__(self) -> Any:
        self.make, torch.tensor = torch.tensor, None  # no operation that could be seen
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch.tensor = self.make
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [value for value in args if isinstance(value, Tensor) and value.ndim]
        if isinstance(result, Tensor) and result.is_meta and any(not value.is_meta for value in given):
            raise AssertionError(f"{func} takes a tensor of the host to the device")
        return result


@every_chain
def test_a_capturable_step_never_looks_at_device_values(name: str) -> None:
    for number, options in enumerate(variants(name)):
        dtype = torch.float32 if number else torch.bfloat16
        model = toys.net(dtype=dtype).to("meta")  # tensors without values: whoever looks gets an error
        optimizer = lab.create_optimizer(name, model, lr=RATE, capturable=True, **options)
        optimizer.param_groups[0]["lr"] = torch.tensor(RATE, device="meta")
        for _ in range(2):
            optimizer.zero_grad()
            with NoTransfer():
                toys.loss(model, torch.empty(4, 3, 6, 6, dtype=dtype, device="meta")).backward()
                optimizer.step()
        assert all(slots["step"].is_meta for slots in optimizer.state.values())


@every_chain
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU, and none is at hand")
def test_a_cuda_graph_holds_the_training_step(name: str) -> None:
    for options in variants(name):
        model, twin = (toys.net(dtype=torch.float32).cuda() for _ in range(2))
        xs = [x.cuda() for x in toys.batches(0, 6, dtype=torch.float32)]
        train(name, twin, xs, **options)
        optimizer = lab.create_optimizer(name, model, **{"lr": RATE, **options}, capturable=True)
        replay, x = _captured(model, optimizer, xs[0])
        for step in xs[1:]:
            x.copy_(step)
            replay()
        toys.assert_near(toys.parameters(model), toys.parameters(twin), 1e-4)


def _captured(model: nn.Module, optimizer: Any, first: Tensor) -> tuple[Any, Tensor]:
    """One step on a side stream, which makes the buffers; then a graph of forward, backward and step."""
    x, side = first.clone(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        toys.train(model, optimizer, [x])
        optimizer.zero_grad()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        toys.loss(model, x).backward()
        optimizer.step()
        optimizer.zero_grad()
    return graph.replay, x
