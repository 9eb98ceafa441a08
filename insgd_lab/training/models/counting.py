"""How large a model is: its parameters, and the multiply-adds of one image.

A model on the meta device has shapes and no numbers, so counting is instant whatever its size::

    with torch.device("meta"):
        model = resnet50((3, 32, 32), 10)
    count(model, (3, 32, 32))            # Size(parameters=23520842, multiply_adds=1297829888)
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from insgd_lab.training.models.layers import Shape

__all__ = ["Size", "count"]


@dataclass(frozen=True)
class Size:
    """A model's number of parameters, and of multiplications (each with its addition) in one image's forward pass."""

    parameters: int
    multiply_adds: int


def count(model: nn.Module, input_shape: Shape) -> Size:
    """The size of a model, which is left as it is.

    Counted are the products of linear layers, convolutions and attention; biases, normalisation, activations,
    pooling and sums are not, as in the papers' tables.
    """
    twin = copy.deepcopy(model).to("meta").train()  # attention in evaluation mode takes a path of its own
    products: list[int] = []

    def note(module: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        products.append(_products(module, inputs[0], output))

    for module in twin.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.MultiheadAttention)):
            module.register_forward_hook(note)
    images = 2  # batch normalisation refuses one
    twin(torch.empty(images, *input_shape, device="meta"))
    return Size(sum(parameter.numel() for parameter in model.parameters()), sum(products) // images)


def _products(module: Any, x: Tensor, output: Any) -> int:
    if isinstance(module, nn.MultiheadAttention):
        batch, tokens, width = x.shape  # batch first, attending to itself
        return 4 * batch * tokens * width**2 + 2 * batch * tokens**2 * width  # projections; scores and their mean
    inputs = module.in_features if isinstance(module, nn.Linear) else module.weight[0].numel()
    return int(output.numel()) * int(inputs)
