"""VGG16 for small images."""

from __future__ import annotations

from torch import nn

from insgd_lab.training.models.layers import Layers, Shape, convolution, he_normal, sequence

__all__ = ["vgg16"]

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16(input_shape: Shape, classes: int, *, batch_norm: bool = True) -> nn.Module:
    """VGG16 for small images: 13 3 x 3 convolutions, five times halved by pooling, and one linear layer.

    The convolutions are those of Simonyan and Zisserman (ICLR 2015, configuration D); one linear layer stands for
    their three of 4096 channels and no dropout, as in AdaNorm's published code (from
    kuangliu's pytorch-cifar). At 32 x 32 one position is left; of larger images the mean of what is left
    is taken, and a plane of one pixel is no longer halved, so that any size will do. Convolutions start from
    :func:`he_normal`.
    """
    inputs, number = input_shape[0], 0
    layers: Layers = {}
    for stage, channels in enumerate(_STAGES, 1):
        for outputs in channels:
            number += 1
            layers |= convolution(inputs, outputs, 1, batch_norm, number=str(number))
            layers[f"relu{number}"] = nn.ReLU(inplace=True)
            inputs = outputs
        layers[f"pool{stage}"] = nn.MaxPool2d(2, ceil_mode=True)
    layers |= {"mean": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "head": nn.Linear(inputs, classes)}
    model = sequence(layers)
    he_normal(model)
    return model
