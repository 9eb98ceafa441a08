"""Starting from others' weights: what is loaded, what stays fresh, what stays still; and what is refused, in words."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from insgd_lab import Recorder, registry
from insgd_lab.config import ConfigError, InitSpec
from insgd_lab.training.transfer import freeze, keep_frozen_in_eval, load_initial


def model(classes: int = 3, seed: int = 0) -> nn.Module:
    """A stem, a block with all that has a mode of its own, and a head."""
    torch.manual_seed(seed)
    block = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6, affine=False), nn.Dropout(0.5))
    return nn.ModuleDict(
        {
            "stem": nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)),
            "block": block,
            "drop": nn.Dropout(0.5),
            "head": nn.Linear(6, classes),
        }
    )


def forward(net: nn.Module, x: Tensor) -> Tensor:
    for part in net.values():
        x = part(x)
    return x


@pytest.fixture
def source() -> nn.Module:
    """A model whose weights and statistics are nobody's initial ones."""
    net = model(seed=1)
    forward(net.train(), torch.randn(8, 4))
    return net


@pytest.fixture
def weights(source: nn.Module, tmp_path: Path) -> Path:
    path = tmp_path / "weights.pt"
    torch.save(source.state_dict(), path)
    return path


def init(path: Path, **more: Any) -> InitSpec:
    return InitSpec(path=str(path), **more)


def refusal(net: nn.Module, spec: InitSpec) -> str:
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ConfigError) as caught:
        load_initial(net, spec)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    return str(caught.value.problems[0])


def test_parameters_and_buffers_become_those_of_the_file(source: nn.Module, weights: Path) -> None:
    net = model()
    load_initial(net, init(weights))
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in net.state_dict().items())


def test_a_table_with_the_weights_under_model_will_do(source: nn.Module, tmp_path: Path) -> None:
    net, path = model(), tmp_path / "checkpoint.pt"
    torch.save({"epoch": 3, "model": source.state_dict()}, path)
    load_initial(net, init(path))
    assert torch.equal(net["head"].weight, source["head"].weight)


def test_what_is_reset_keeps_its_fresh_values_and_shapes(source: nn.Module, weights: Path) -> None:
    net = model(classes=7)
    fresh = copy.deepcopy(net["head"].state_dict())
    load_initial(net, init(weights, reset=["head.*"]))
    assert all(torch.equal(net["head"].state_dict()[name], tensor) for name, tensor in fresh.items())
    assert torch.equal(net["stem"][0].weight, source["stem"][0].weight)


def test_what_the_file_has_under_another_name_may_be_left_out(source: nn.Module, tmp_path: Path) -> None:
    path, state = tmp_path / "other.pt", source.state_dict()
    torch.save({name.replace("head.", "fc."): tensor for name, tensor in state.items()}, path)
    net = model()
    load_initial(net, init(path, reset=["head.*", "fc.*"]))
    assert torch.equal(net["stem"][0].weight, state["stem.0.weight"])


def test_types_stay_the_models(source: nn.Module, tmp_path: Path) -> None:
    torch.save(source.double().state_dict(), tmp_path / "double.pt")
    net = model()
    load_initial(net, init(tmp_path / "double.pt"))
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}


def test_names_and_shapes_that_differ_are_listed_with_the_remedy(source: nn.Module, tmp_path: Path) -> None:
    state = source.state_dict()
    state["fc.weight"] = state.pop("head.weight")
    torch.save(state, tmp_path / "other.pt")
    said = refusal(model(classes=5), init(tmp_path / "other.pt"))
    assert "the file lacks head.weight of the model; it has fc.weight, which the model lacks" in said
    assert "it has other shapes: head.bias (3,), in the model (5,)" in said
    assert said.endswith('belongs in reset, such as "head.*"')


def test_a_file_of_another_model_does_not_fill_the_screen(tmp_path: Path) -> None:
    torch.save({f"layer{k}": torch.ones(1) for k in range(100)}, tmp_path / "other.pt")
    assert "layer7 and 92 more" in refusal(model(), init(tmp_path / "other.pt"))


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("heads.*", r"matches no parameter or buffer of the model or the file; did you mean 'head\.\*'"),
        ("stem.0.wieght", r"did you mean 'stem\.0\.weight'"),
        ("xyz", r"there are stem\.\*, block\.\*, head\.\*"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused_with_near_names(weights: Path, pattern: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        load_initial(model(), init(weights, reset=[pattern]))
    with pytest.raises(ConfigError, match=hint.replace("or buffer of the model or the file", "of the model")):
        freeze(model(), [pattern])


def test_a_file_that_changed_after_the_run_was_checked_is_refused(weights: Path) -> None:
    spec = init(weights)
    torch.save(model().state_dict(), weights)
    assert "it changed after the run was checked" in refusal(model(), spec)
    weights.unlink()
    assert "cannot be read (FileNotFoundError" in refusal(model(), spec)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"not weights", "cannot be read (UnpicklingError"),
        (b"", "cannot be read (EOFError"),
        ([1, 2], "expected a state_dict, names with tensors, found list"),
        ({"epoch": 3, "weight": torch.ones(1)}, "expected a state_dict, names with tensors, found epoch (int)"),
        ({}, "expected a state_dict, names with tensors, found nothing in it"),
        (nn.Linear(2, 2), "cannot be read (UnpicklingError: Weights only load failed"),
    ],
)
def test_what_holds_no_weights_is_refused(content: Any, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    said = refusal(model(), init(path))
    assert said.startswith("task.init_from.path")
    assert expected in said


def test_frozen_parameters_are_those_that_a_pattern_names() -> None:
    net = model()
    freeze(net, ["stem.*", "*.bias"])
    still = {name for name, parameter in net.named_parameters() if not parameter.requires_grad}
    assert still == {"stem.0.weight", "stem.0.bias", "stem.1.weight", "stem.1.bias", "block.0.bias", "head.bias"}


def test_something_must_be_left_to_train() -> None:
    with pytest.raises(ConfigError, match="freezes every parameter; leave some to be trained"):
        freeze(model(), ["*"])
    freeze(model(), [])


def test_frozen_parts_stay_in_evaluation_mode_and_keep_their_statistics() -> None:
    net = model()
    freeze(net, ["stem.*", "block.*"])
    net.train()
    keep_frozen_in_eval(net)
    training = {name for name, module in net.named_modules() if module.training}
    assert training == {"", "drop", "head"}
    before = copy.deepcopy(net.state_dict())
    forward(net, torch.randn(8, 4))
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_a_batch_norm_alone_may_be_frozen_and_a_part_of_a_block_does_not_still_the_block() -> None:
    net = model()
    freeze(net, ["stem.1.*", "block.0.bias"])
    net.train()
    keep_frozen_in_eval(net)
    assert {name for name, module in net.named_modules() if not module.training} == {"stem.1"}


def trained(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    stream = torch.Generator().manual_seed(5)
    for _ in range(4):
        x, labels = torch.randn(8, 4, generator=stream), torch.randint(3, (8,), generator=stream)
        net.train()
        keep_frozen_in_eval(net)
        torch.manual_seed(9)
        optimizer.zero_grad()
        functional.cross_entropy(forward(net, x), labels).backward()
        optimizer.step()


FROZEN = ["stem.*", "block.0.bias"]


@pytest.mark.parametrize("name", registry.list_optimizers())
def test_to_an_optimizer_frozen_tensors_might_as_well_not_be_there(name: str) -> None:
    spec = registry.get_optimizer(name)
    decay = {"weight_decay": 0.1} if "weight_decay" in spec.defaults else {}
    one, other = model(), model()
    freeze(one, FROZEN)
    freeze(other, FROZEN)
    before = {n: p.clone() for n, p in one.named_parameters()}
    watched = registry.create_optimizer(name, one, **decay)
    with Recorder(one, watched, every=1) as recorder:
        trained(one, watched)
    left = [parameter for parameter in other.parameters() if parameter.requires_grad]
    wiring = {"model": other} if spec.capabilities.reads_inputs else {}
    trained(other, registry.create_optimizer(name, left, **decay, **wiring))
    for (tensor, own), alone in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(own, alone), tensor
        assert torch.equal(own, before[tensor]) == (not own.requires_grad), tensor
    recorded = set(recorder.frame()["parameter"])
    assert recorded == {tensor for tensor, own in one.named_parameters() if own.requires_grad}
