"""torchvision's models: MobileNetV3, adapted to small images, and ResNet-50 as it is trained on ImageNet.

They keep torchvision's names of parameters, so that weights published for them fit, and start as torchvision starts
them: convolutions from He et al.'s normal distribution by their outputs (fan out), MobileNetV3's linear layers from a
normal one of deviation 0.01.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from insgd_lab.training.models.layers import Shape
from insgd_lab.training.vision import torchvision

__all__ = ["mobilenetv3", "resnet50_7x7"]


def mobilenetv3(input_shape: Shape, classes: int, *, stem_stride: int = 1) -> nn.Module:
    """The small MobileNetV3 of torchvision (Howard et al. 2019, Table 2), for small images unless asked otherwise.

    INSGD (sections 3.2 and 4.1, Table 5) trains "MobileNetV3" on CIFAR-10 at batch size 256 and says neither which of
    the two nor how it was adapted. Small is this lab's choice, and the one adaptation is the first convolution's
    stride, 1 in place of 2: at 32 x 32 the last blocks see 2 x 2 positions where they would be left with one.

    Args:
        input_shape: channels, height, width.
        classes: number of outputs.
        stem_stride: of the first convolution; 2 is the network for ImageNet, unchanged.

    Raises:
        VisionError: torchvision cannot be imported.
    """
    model: nn.Module = torchvision().models.mobilenet_v3_small(num_classes=classes)
    stem: Any = model.get_submodule("features.0")
    stem[0] = _like(stem[0], input_shape[0], stem_stride)
    return model


def resnet50_7x7(input_shape: Shape, classes: int) -> nn.Module:
    """The ResNet-50 of torchvision, for ImageNet: a 7 x 7 convolution of stride 2, pooling, and the stages.

    It is the network of PyTorch's ImageNet training code, which INSGD uses (section 4.3).

    Raises:
        VisionError: torchvision cannot be imported.
    """
    model: Any = torchvision().models.resnet50(num_classes=classes)
    model.conv1 = _like(model.conv1, input_shape[0], stride=2)
    whole: nn.Module = model
    return whole


def _like(conv: nn.Conv2d, inputs: int, stride: int) -> nn.Conv2d:
    """The first convolution with other inputs or another stride, started as torchvision starts it."""
    stride_now = (stride, stride)
    if (conv.in_channels, conv.stride) == (inputs, stride_now):
        return conv
    kernel, padding = conv.kernel_size, conv.padding
    made = nn.Conv2d(inputs, conv.out_channels, kernel, stride_now, padding, bias=False)  # type: ignore[arg-type]
    nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
    return made
