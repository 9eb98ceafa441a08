"""What the models are put together from: named layers, in order."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

__all__ = ["Layers", "Shape", "convolution", "he_normal", "sequence"]

Shape = tuple[int, ...]
Layers = dict[str, nn.Module]
"""Named modules, in order; the names stand in records and figures."""


def sequence(layers: Layers) -> nn.Sequential:
    """The layers one after the other, under their names; none are the identity."""
    return nn.Sequential(OrderedDict(layers))


def convolution(
    inputs: int, outputs: int, stride: int, batch_norm: bool, *, kernel: int = 3, number: str = ""
) -> Layers:
    """A convolution that keeps the plane (but for its stride), and batch normalisation if asked for."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=not batch_norm)
    return {f"conv{number}": conv, **({f"norm{number}": nn.BatchNorm2d(outputs)} if batch_norm else {})}


def he_normal(model: nn.Module) -> None:
    """Draw all convolutions anew from the normal distribution of variance 2 / (inputs of one output).

    He et al., Delving Deep into Rectifiers, ICCV 2015, Equation 10. Everything else keeps torch's own start.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
