"""A linear layer, a perceptron and plain convolutional networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from insgd_lab.training.models.layers import Layers, Shape, convolution, sequence

__all__ = ["custom_cnn", "digits_cnn", "linear", "mlp"]


def linear(input_shape: Shape, classes: int, *, bias: bool = True) -> nn.Module:
    """One linear layer on the flattened image: logistic regression under the cross-entropy.

    Without `bias` and on the squared error it is an adaptive filter.
    """
    return sequence({"flatten": nn.Flatten(), "head": nn.Linear(math.prod(input_shape), classes, bias=bias)})


def digits_cnn(input_shape: Shape, classes: int, *, batch_norm: bool = False) -> nn.Module:
    """Two 3 x 3 convolutions of 8 and 16 channels, the second with stride 2, and a linear layer."""
    return _plain_cnn(input_shape, classes, channels=(8, 16), strides=(1, 2), batch_norm=batch_norm)


def custom_cnn(input_shape: Shape, classes: int, *, batch_norm: bool = True, dropout: float = 0.2) -> nn.Module:
    """INSGD's custom network (Table 2): 3 x 3 convolutions of 8, 16, 32, 64 channels, dropout, linear layer.

    Args:
        input_shape: channels, height, width; (3, 32, 32) in the paper.
        classes: number of outputs.
        batch_norm: whether each convolution is followed by batch normalisation (the paper's Table 7 leaves it
            out).
        dropout: probability that one of the last feature maps' numbers is dropped.
    """
    return _plain_cnn(
        input_shape,
        classes,
        channels=(8, 16, 32, 64),
        strides=(1, 2, 2, 2),
        batch_norm=batch_norm,
        dropout=dropout,
    )


def mlp(input_shape: Shape, classes: int, *, batch_norm: bool = False, hidden: Sequence[int] = (128, 128)) -> nn.Module:
    """A perceptron on the flattened image, with ReLU hidden layers of the given widths."""
    widths = [math.prod(input_shape), *hidden]
    layers: Layers = {"flatten": nn.Flatten()}
    for number, (inputs, outputs) in enumerate(pairwise(widths), 1):
        layers[f"linear{number}"] = nn.Linear(inputs, outputs, bias=not batch_norm)
        layers |= {f"norm{number}": nn.BatchNorm1d(outputs)} if batch_norm else {}
        layers[f"relu{number}"] = nn.ReLU(inplace=True)
    return sequence({**layers, "head": nn.Linear(widths[-1], classes)})


def _plain_cnn(
    input_shape: Shape,
    classes: int,
    *,
    channels: Sequence[int],
    strides: Sequence[int],
    batch_norm: bool,
    dropout: float = 0.0,
) -> nn.Module:
    """Convolutions, each with optional batch norm and ReLU; then dropout (if any), flatten, linear."""
    inputs, height, width = input_shape
    layers: Layers = {}
    for number, (outputs, stride) in enumerate(zip(channels, strides, strict=True), 1):
        layers |= convolution(inputs, outputs, stride, batch_norm, number=str(number))
        layers[f"relu{number}"] = nn.ReLU(inplace=True)
        inputs, height, width = outputs, math.ceil(height / stride), math.ceil(width / stride)
    layers |= {"dropout": nn.Dropout(dropout)} if dropout else {}
    return sequence({**layers, "flatten": nn.Flatten(), "head": nn.Linear(inputs * height * width, classes)})
