"""The models: small convolutional networks and a perceptron, each with and without batch normalisation.

A factory takes the shape of one image and the number of classes: `custom_cnn((3, 32, 32), 10,
batch_norm=False)`. A layer in front of batch normalisation has no bias of its own (the normalisation
subtracts it and has its own).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
Layers = dict[str, nn.Module]
"""Named modules, in order; the names stand in records and figures."""


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
    return _sequence({**layers, "head": nn.Linear(widths[-1], classes)})


def resnet20(input_shape: Shape, classes: int, *, batch_norm: bool = True) -> nn.Module:
    """ResNet-20 for small images (He et al. 2016, section 4.2): 3 stages of 3 blocks, 16, 32, 64 channels.

    The two blocks that change the shape have a 1 x 1 projection on their shortcut (option B). Convolutions
    start from He et al.'s normal distribution. The INSGD paper's Table 1 prints 32 for the first
    convolution of each of the last three blocks; this is He et al.'s 64.
    """
    return ResNet(input_shape[0], classes, (16, 32, 64), 3, batch_norm)


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut: x -> relu(f(x) + shortcut(x))."""

    def __init__(self, inputs: int, outputs: int, stride: int, batch_norm: bool) -> None:
        super().__init__()
        self.first = _sequence(_convolution(inputs, outputs, stride, batch_norm))
        self.second = _sequence(_convolution(outputs, outputs, 1, batch_norm))
        same = stride == 1 and inputs == outputs
        self.shortcut = _sequence({} if same else _convolution(inputs, outputs, stride, batch_norm, kernel=1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H/stride, W/stride]."""
        out = self.second(torch.relu(self.first(x)))
        return torch.relu(out + self.shortcut(x))


class ResNet(nn.Module):
    """A 3 x 3 convolution, stages of blocks (each new stage halves the plane), mean, linear layer."""

    def __init__(self, inputs: int, classes: int, channels: Sequence[int], depth: int, batch_norm: bool) -> None:
        super().__init__()
        self.stem = _sequence({**_convolution(inputs, channels[0], 1, batch_norm), "relu": nn.ReLU(inplace=True)})
        widths = [channels[0], *(width for width in channels for _ in range(depth))]
        self.blocks = nn.Sequential(
            *(Block(old, new, 1 if old == new else 2, batch_norm) for old, new in pairwise(widths))
        )
        self.head = nn.Linear(channels[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] to scores [B, classes]."""
        out: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return out


def _convolution(
    inputs: int, outputs: int, stride: int, batch_norm: bool, *, kernel: int = 3, number: str = ""
) -> Layers:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=not batch_norm)
    return {f"conv{number}": conv, **({f"norm{number}": nn.BatchNorm2d(outputs)} if batch_norm else {})}


def _sequence(layers: Layers) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


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
        layers |= _convolution(inputs, outputs, stride, batch_norm, number=str(number))
        layers[f"relu{number}"] = nn.ReLU(inplace=True)
        inputs, height, width = outputs, math.ceil(height / stride), math.ceil(width / stride)
    layers |= {"dropout": nn.Dropout(dropout)} if dropout else {}
    return _sequence({**layers, "flatten": nn.Flatten(), "head": nn.Linear(inputs * height * width, classes)})
