"""What laws feed an optimizer: small layers, and scripts of gradients and inputs that derive from a seed.

Gradients are given, not computed, wherever a law allows it: then a trajectory is not chaotic, and rounding can be
told from error. Layers are still run on given inputs, for rules that measure them::

    layers, script = Layers(seed=0), Script(seed=0)
    optimizer = build(spec, layers, lr=0.1)
    play(optimizer, layers, script, range(5))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["Array", "Layers", "Net", "Script", "feed", "parameters", "play", "present", "weights_of"]

Array = NDArray[np.float64]


class Layers(nn.Module):
    """A linear layer, a convolution, a depthwise convolution and an offset, each with an input of its own."""

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 3)
        self.conv = nn.Conv2d(2, 4, 3, padding=1, stride=2, bias=False)
        self.depthwise = nn.Conv2d(3, 3, 2, groups=3, bias=False)
        self.offset = nn.Parameter(torch.empty(3))  # of the bias's shape: state must not go by shape
        self.to(dtype)
        _fill(self, np.random.default_rng([seed, 0]))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The sum of all outputs; ``inputs`` by layer: [batch, 5], [batch, 2, 5, 5] and [batch, 3, 4, 4].

        A layer without inputs is not run.
        """
        outputs = [module(inputs[name]).sum() for name, module in self.named_children() if name in inputs]
        return torch.stack([*outputs, self.offset.sum()]).sum()


INPUTS = {"linear": (5,), "conv": (2, 5, 5), "depthwise": (3, 4, 4)}
"""The shape of one example, by layer."""


class Net(nn.Module):
    """A convolution, a tanh and a linear layer, for [batch, 2, 5, 5]; smooth, so that no gradient is exactly zero."""

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1, stride=2)
        self.head = nn.Linear(27, 2)
        self.to(dtype)
        _fill(self, np.random.default_rng([seed, 1]), 0.3)

    def forward(self, x: Tensor) -> Tensor:
        """Two numbers an example."""
        features: Tensor = torch.tanh(self.conv(x)).flatten(1)
        return self.head(features)  # type: ignore[no-any-return]


def _fill(model: nn.Module, numbers: np.random.Generator, size: float = 1.0) -> None:
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(torch.from_numpy(size * numbers.standard_normal(param.shape)))


@dataclass(frozen=True)
class Script:
    """Gradients and layer inputs of every step, in float64.

    Attributes:
        seed: from which they derive.
        nudge: by how much each number is perturbed, relatively and with random sign (see ``numerics``).
        dead: every other step, one example of each input is zero.
        input_factor: multiplies the inputs.
        grad_factor: multiplies the gradients.
        batch: examples a step.
        input_seed: other inputs at the same gradients.
    """

    seed: int
    nudge: float = 0.0
    dead: bool = False
    input_factor: float = 1.0
    grad_factor: float = 1.0
    batch: int = 3
    input_seed: int = 0

    def grads(self, step: int, shapes: Iterable[tuple[int, ...]]) -> list[Array]:
        """One gradient a shape; their sizes vary a thousandfold over steps and tensors."""
        numbers = np.random.default_rng([self.seed, step, 2])
        return [
            self.nudged(self.grad_factor * 10 ** numbers.uniform(-1.5, 1.5) * numbers.standard_normal(shape), step)
            for shape in shapes
        ]

    def inputs(self, step: int) -> dict[str, Array]:
        """One batch for each of the :class:`Layers`; spread and mean vary over steps."""
        numbers = np.random.default_rng([self.seed, step, 3, self.input_seed])
        found = {}
        for name, shape in INPUTS.items():
            x = 10 ** numbers.uniform(-0.5, 0.5) * numbers.standard_normal((self.batch, *shape)) + numbers.uniform(
                -1, 1
            )
            if self.dead and step % 2:
                x[0] = 0.0
            found[name] = self.nudged(self.input_factor * x, step)
        return found

    def nudged(self, values: Array, step: int = 0) -> Array:
        """The values, each perturbed."""
        if self.nudge == 0:
            return values
        signs = np.random.default_rng([self.seed, step, 4]).choice([-1.0, 1.0], values.shape)
        return values * (1 + self.nudge * signs)

    def but(self, **changes: Any) -> Script:
        """The same, but for these fields."""
        return replace(self, **changes)


def present(
    optimizer: torch.optim.Optimizer, layers: Layers, grads: Iterable[Array], inputs: Mapping[str, Array] | None = None
) -> None:
    """Run the layers on these inputs (None: not at all), and then set these gradients."""
    optimizer.zero_grad()
    dtype = layers.offset.dtype
    if inputs is not None:
        layers({name: torch.from_numpy(x).to(dtype) for name, x in inputs.items()}).backward()
    for param, grad in zip(layers.parameters(), grads, strict=True):
        param.grad = torch.from_numpy(grad).to(dtype)


def feed(optimizer: torch.optim.Optimizer, layers: Layers, script: Script, step: int, *, measure: bool = True) -> None:
    """Give the layers one step's inputs and gradients."""
    grads = script.grads(step, [tuple(param.shape) for param in layers.parameters()])
    present(optimizer, layers, grads, script.inputs(step) if measure else None)


def play(
    optimizer: torch.optim.Optimizer, layers: Layers, script: Script, span: Iterable[int], *, measure: bool = True
) -> None:
    """Take the script's steps of that span."""
    for step in span:
        feed(optimizer, layers, script, step, measure=measure)
        optimizer.step()


def parameters(model: nn.Module) -> list[Tensor]:
    """Copies of the parameters."""
    return [param.detach().clone() for param in model.parameters()]


def weights_of(model: nn.Module) -> list[Array]:
    """Copies of the parameters as arrays."""
    return [param.detach().double().numpy().copy() for param in model.parameters()]
