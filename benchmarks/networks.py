"""The networks whose tensors are stepped."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from insgd_lab.training.models import resnet20

__all__ = ["NETWORKS", "VisionTransformer", "build"]


class VisionTransformer(nn.Module):
    """The papers' vision transformer for 32 x 32 images (INSGD, Section 4.1): 80 tensors, 9.5 million numbers.

    Patches of 4 x 4, width 512, depth 6, 8 heads; "a linear layer dimension of 512" is read as the width of the
    feed-forward layers too.
    """

    def __init__(self, classes: int = 10, width: int = 512, depth: int = 6, heads: int = 8, patch: int = 4) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 1 + (32 // patch) ** 2, width))
        self.blocks = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(width, heads, width, dropout=0.0, batch_first=True, norm_first=True)
                for _ in range(depth)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[batch, classes]`` of images ``[batch, 3, 32, 32]``."""
        patches = self.embed(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), patches], dim=1) + self.position
        return self.head(self.norm(self.blocks(tokens))[:, 0])


NETWORKS = {"ResNet-20": lambda: resnet20((3, 32, 32), 10), "ViT": VisionTransformer}


def build(network: str) -> nn.Module:
    """The network with its usual initial weights, the same each time."""
    torch.manual_seed(0)
    return NETWORKS[network]()
