"""Small models, problems and Hypothesis strategies that the optimizer tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import insgd_lab as lab

ALL = lab.list_optimizers()
MEASURING = [name for name in ALL if lab.get_optimizer(name).capabilities.reads_inputs]
CHAINS = [name for name in ALL if lab.get_optimizer(name).capabilities.chain]

seeds = st.integers(0, 2**16)
decay_rates = st.sampled_from([0.0, 0.3, 0.9, 0.99])


class Net(nn.Module):
    """A convolution, a ReLU in place and a linear layer, for 3x6x6 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, stride=2)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(36, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.conv(x)).flatten(1))


def able(name: str) -> lab.registry.Capabilities:
    return lab.get_optimizer(name).capabilities


def net(seed: int = 0, dtype: torch.dtype = torch.float64) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net().to(dtype)


def batches(seed: int, count: int, size: int = 4, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, 3, 6, 6, generator=generator, dtype=torch.float64).to(dtype) for _ in range(count)]


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).square().mean()


def train(model: nn.Module, optimizer: Any, xs: list[Tensor]) -> None:
    for x in xs:
        optimizer.zero_grad()
        loss(model, x).backward()
        optimizer.step()


def parameters(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def assert_same(left: Iterator[Tensor] | list[Tensor], right: Iterator[Tensor] | list[Tensor]) -> None:
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def assert_near(left: Any, right: Any, tolerance: float = 1e-10) -> None:
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
