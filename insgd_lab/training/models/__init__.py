"""The models: perceptrons, convolutional and residual networks, with and without batch normalisation.

A factory takes the shape of one image and the number of classes: `custom_cnn((3, 32, 32), 10,
batch_norm=False)`. A layer in front of batch normalisation has no bias of its own (the normalisation
subtracts it and has its own).
"""

from insgd_lab.training.models.layers import Layers, Shape
from insgd_lab.training.models.resnet import Block, Bottleneck, ResNet, resnet18, resnet20, resnet50, wrn18
from insgd_lab.training.models.simple import custom_cnn, digits_cnn, linear, mlp

__all__ = [
    "Block",
    "Bottleneck",
    "Layers",
    "ResNet",
    "Shape",
    "custom_cnn",
    "digits_cnn",
    "linear",
    "mlp",
    "resnet18",
    "resnet20",
    "resnet50",
    "wrn18",
]
