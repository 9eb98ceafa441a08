from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor, nn

import insgd_lab as lab

CHAINS = [name for name in lab.list_optimizers() if lab.get_optimizer(name).capabilities.chain]

# Buffers of the parameter's size that each rule cannot do without, from its equations: m, v, the gradient before, b.
MOMENTS = {
    "adabelief": 2, "adabeliefnorm": 2, "adam": 2, "adamnorm": 2, "adamnorm-reference": 2, "diffgrad": 3,
    "diffgradnorm": 3, "insgd-l1": 1, "insgd-l2": 1, "insgd-linf": 1, "insgd-lp": 1, "insgd-norm": 1,
    "insgd-reference-l1": 1, "insgd-reference-l2": 1, "lars": 1, "lms": 0, "lsalr": 0, "nlms": 0, "nlms-l1": 0,
    "radam": 2, "radamnorm": 2, "radamnorm-reference": 2, "sgd": 0,
}  # fmt: skip
# Options that add a buffer, or a norm, and the buffers there are then.
OPTIONS = [
    ("sgd", {"momentum": 0.9}, 1),
    ("sgd", {"momentum": 0.9, "adanorm": 0.95}, 1),
    ("adam", {"amsgrad": True}, 3),
    ("adamnorm", {"scope": "global"}, 2),
    ("adamnorm", {"correct": "both"}, 2),
    ("adabeliefnorm", {"belief": "raw"}, 2),
]
SCALAR = 8  # bytes of a float64


def _network(dtype: torch.dtype) -> nn.Sequential:
    convolution = nn.Conv2d(3, 8, 3)
    return nn.Sequential(convolution, nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).to(dtype)


def _stepped(name: str, network: nn.Module, steps: int = 3, **options: object) -> torch.optim.Optimizer:
    optimizer = lab.create_optimizer(name, network, **options)
    dtype = next(network.parameters()).dtype
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.randn(4, 3, 8, 8, dtype=dtype)).square().mean().backward()
        optimizer.step()
    return optimizer


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """All that the state keeps alive: whole storages, a shared one once; a plain number counts as a scalar."""
    values = [value for state in optimizer.state.values() for value in state.values()]
    storages = {v.untyped_storage().data_ptr(): v.untyped_storage().nbytes() for v in values if isinstance(v, Tensor)}
    return sum(storages.values()) + SCALAR * sum(not isinstance(value, Tensor) for value in values)


def _allowed(network: nn.Module, moments: int) -> int:
    """The moments, in at least float32, and two scalars a tensor."""
    params = list(network.parameters())
    return sum(p.numel() * moments * max(4, p.element_size()) for p in params) + 2 * SCALAR * len(params)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", CHAINS)
def test_state_is_the_rules_moments_and_two_scalars_a_tensor(name: str, dtype: torch.dtype) -> None:
    network = _network(dtype)
    optimizer = _stepped(name, network)
    assert _state_bytes(optimizer) <= _allowed(network, MOMENTS[name])


@pytest.mark.parametrize(("name", "options", "moments"), OPTIONS)
def test_options_cost_no_more_than_their_own_buffers(name: str, options: dict[str, object], moments: int) -> None:
    network = _network(torch.float32)
    assert _state_bytes(_stepped(name, network, **options)) <= _allowed(network, moments)


@pytest.mark.parametrize("name", [n for n in CHAINS if lab.get_optimizer(n).capabilities.capturable])
def test_capturable_state_is_no_larger(name: str) -> None:
    network = _network(torch.float32)
    optimizer = _stepped(name, network, capturable=True)
    assert _state_bytes(optimizer) <= _allowed(network, MOMENTS[name])


@pytest.mark.parametrize("name", CHAINS)
def test_a_restored_state_is_no_larger(name: str) -> None:
    network = _network(torch.float32)
    saved = _stepped(name, network).state_dict()
    optimizer = lab.create_optimizer(name, network)
    optimizer.load_state_dict(saved)
    optimizer.step()
    assert _state_bytes(optimizer) <= _allowed(network, MOMENTS[name])


@pytest.mark.parametrize("name", CHAINS)
def test_an_optimizer_holds_nothing_beside_its_state(name: str) -> None:
    network = _network(torch.float32)
    before = _live_storages()
    optimizer = _stepped(name, network)
    gc.collect()
    after = _live_storages()
    for param in network.parameters():
        assert param.grad is not None
        after.pop(param.grad.untyped_storage().data_ptr())
    new = sum(size for pointer, size in after.items() if pointer not in before)
    assert new <= _allowed(network, MOMENTS[name])
    del optimizer


def _live_storages() -> dict[int, int]:
    """Bytes by address."""
    tensors = [t for t in gc.get_objects() if type(t) in (Tensor, nn.Parameter)]
    plain = [t for t in tensors if t.device.type == "cpu" and t.layout is torch.strided]
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in plain}
