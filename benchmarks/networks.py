"""The networks whose tensors are stepped."""

from __future__ import annotations

import torch
from torch import nn

from insgd_lab.training.models import resnet20, vit

__all__ = ["NETWORKS", "build"]


NETWORKS = {"ResNet-20": lambda: resnet20((3, 32, 32), 10), "ViT": lambda: vit((3, 32, 32), 10)}


def build(network: str) -> nn.Module:
    """The network with its usual initial weights, the same each time."""
    torch.manual_seed(0)
    return NETWORKS[network]()
