"""The models: perceptrons, convolutional and residual networks, a vision transformer, and torchvision's.

A factory takes the shape of one image and the number of classes: `custom_cnn((3, 32, 32), 10,
batch_norm=False)`. A layer in front of batch normalisation has no bias of its own (the normalisation
subtracts it and has its own); most come with and without norms. docs/models.md says how large each is, by
:func:`count`.
"""

from insgd_lab.training.models.borrowed import mobilenetv3
from insgd_lab.training.models.counting import Size, count
from insgd_lab.training.models.layers import Layers, Shape
from insgd_lab.training.models.points import Point, point
from insgd_lab.training.models.resnet import Block, Bottleneck, ResNet, resnet18, resnet20, resnet50, wrn18
from insgd_lab.training.models.simple import custom_cnn, digits_cnn, linear, mlp
from insgd_lab.training.models.vgg import vgg16
from insgd_lab.training.models.vit import VisionTransformer, vit

__all__ = [
    "Block",
    "Bottleneck",
    "Layers",
    "Point",
    "ResNet",
    "Shape",
    "Size",
    "VisionTransformer",
    "count",
    "custom_cnn",
    "digits_cnn",
    "linear",
    "mlp",
    "mobilenetv3",
    "point",
    "resnet18",
    "resnet20",
    "resnet50",
    "vgg16",
    "vit",
    "wrn18",
]
