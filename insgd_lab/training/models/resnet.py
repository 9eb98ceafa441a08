"""Residual networks for small images: a 3 x 3 stem without pooling, and stages that halve the plane.

ResNet-20 is He et al.'s own for CIFAR-10 (CVPR 2016, section 4.2). ResNet-18 and ResNet-50 are their networks for
ImageNet (Table 1) with that stem in place of the 7 x 7 convolution and the pooling, as in AdaNorm's published
code, which has them from kuangliu's pytorch-cifar; with its own stem ResNet-50 is torchvision's. Where a block
changes the shape, its shortcut is a 1 x 1 projection (option B). Convolutions start from :func:`he_normal`.

Without batch normalisation the activations grow with each block, as in the INSGD paper's Table 7: nothing is put
in its place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from insgd_lab.training.models.borrowed import resnet50_7x7
from insgd_lab.training.models.layers import Shape, convolution, he_normal, sequence

__all__ = ["Block", "Bottleneck", "ResNet", "resnet18", "resnet20", "resnet50", "wrn18"]


def resnet20(input_shape: Shape, classes: int, *, batch_norm: bool = True) -> nn.Module:
    """ResNet-20 for small images (He et al. 2016, section 4.2): 3 stages of 3 blocks, 16, 32, 64 channels.

    The INSGD paper's Table 1 prints 32 for the first convolution of each of the last three blocks; this is
    He et al.'s 64.
    """
    return ResNet(input_shape[0], classes, Block, (16, 32, 64), (3, 3, 3), batch_norm=batch_norm)


def resnet18(input_shape: Shape, classes: int, *, batch_norm: bool = True) -> nn.Module:
    """ResNet-18 for small images: 4 stages of 2 blocks, 64 to 512 channels."""
    return ResNet(input_shape[0], classes, Block, (64, 128, 256, 512), (2, 2, 2, 2), batch_norm=batch_norm)


def resnet50(input_shape: Shape, classes: int, *, stem: str = "3x3", batch_norm: bool = True) -> nn.Module:
    """ResNet-50: 4 stages of 3, 4, 6, 3 bottlenecks, 256 to 2048 channels.

    Args:
        input_shape: channels, height, width.
        classes: number of outputs.
        stem: "3x3", for small images, or "7x7": torchvision's network for ImageNet (:func:`resnet50_7x7`).
        batch_norm: whether each convolution is followed by batch normalisation.

    Raises:
        ValueError: torchvision's network without batch normalisation.
        VisionError: the stem is torchvision's, and torchvision cannot be imported.
    """
    if stem == "7x7":
        if not batch_norm:
            raise ValueError(
                'batch_norm = False: stem = "7x7" is torchvision\'s ResNet-50, which has batch normalisation; choose '
                'stem = "3x3", or leave batch_norm'
            )
        return resnet50_7x7(input_shape, classes)
    return ResNet(
        input_shape[0], classes, Bottleneck, (256, 512, 1024, 2048), (3, 4, 6, 3), stem=64, batch_norm=batch_norm
    )


def wrn18(input_shape: Shape, classes: int, *, width: int = 2, batch_norm: bool = True) -> nn.Module:
    """Wide ResNet-18 for small images: ResNet-18 whose stages have `width` times the channels.

    INSGD (section 4.2) trains the "Wide ResNet-18" of Zagoruyko and Komodakis (2016) on CIFAR-100 and says no
    more. Their networks for CIFAR have 6 n + 4 layers, which 18 is not; the 18 layers that they widen are those of
    ResNet-18, for ImageNet, whose stem keeps its 64 channels. So this is that network with the stem for small
    images. How wide INSGD's is cannot be told from the paper: 2 is this lab's choice, the smallest whole number
    that widens.
    """
    stages = tuple(width * channels for channels in (64, 128, 256, 512))
    return ResNet(input_shape[0], classes, Block, stages, (2, 2, 2, 2), stem=64, batch_norm=batch_norm)


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut: x -> relu(f(x) + shortcut(x))."""

    def __init__(self, inputs: int, outputs: int, stride: int, batch_norm: bool) -> None:
        super().__init__()
        self.first = sequence(convolution(inputs, outputs, stride, batch_norm))
        self.second = sequence(convolution(outputs, outputs, 1, batch_norm))
        self.shortcut = _shortcut(inputs, outputs, stride, batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H/stride, W/stride]."""
        out = self.second(torch.relu(self.first(x)))
        return torch.relu(out + self.shortcut(x))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside a shortcut, the first two with a quarter of the outputs.

    The 3 x 3 convolution has the stride, as in AdaNorm's published code; He et al. gave it to the first.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, batch_norm: bool) -> None:
        super().__init__()
        inner = outputs // 4
        self.first = sequence(convolution(inputs, inner, 1, batch_norm, kernel=1))
        self.second = sequence(convolution(inner, inner, stride, batch_norm))
        self.third = sequence(convolution(inner, outputs, 1, batch_norm, kernel=1))
        self.shortcut = _shortcut(inputs, outputs, stride, batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H/stride, W/stride]."""
        out = self.third(torch.relu(self.second(torch.relu(self.first(x)))))
        return torch.relu(out + self.shortcut(x))


class ResNet(nn.Module):
    """A 3 x 3 convolution, stages of blocks (each but the first halves the plane), mean, linear layer.

    Args:
        inputs: channels of an image.
        classes: number of outputs.
        block: :class:`Block` or :class:`Bottleneck`.
        channels: outputs of each stage's blocks.
        depths: each stage's number of blocks.
        stem: outputs of the first convolution; those of the first stage unless given.
        batch_norm: whether each convolution is followed by batch normalisation.
    """

    def __init__(
        self,
        inputs: int,
        classes: int,
        block: type[Block] | type[Bottleneck],
        channels: Sequence[int],
        depths: Sequence[int],
        *,
        stem: int | None = None,
        batch_norm: bool,
    ) -> None:
        super().__init__()
        width = stem or channels[0]
        self.stem = sequence({**convolution(inputs, width, 1, batch_norm), "relu": nn.ReLU(inplace=True)})
        blocks = []
        for stage, (outputs, depth) in enumerate(zip(channels, depths, strict=True)):
            for place in range(depth):
                blocks.append(block(width, outputs, 2 if stage and not place else 1, batch_norm))
                width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] to scores [B, classes]."""
        out: Tensor = self.head(self.blocks(self.stem(x)).mean((2, 3)))
        return out


def _shortcut(inputs: int, outputs: int, stride: int, batch_norm: bool) -> nn.Sequential:
    same = stride == 1 and inputs == outputs
    return sequence({} if same else convolution(inputs, outputs, stride, batch_norm, kernel=1))
