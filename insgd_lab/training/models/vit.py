"""The vision transformer of Dosovitskiy et al. (ICLR 2021), with and without layer normalisation.

Patches become tokens by one linear layer; a class token is put in front, and learned positions are added. Each of
the blocks is x <- x + attention(norm(x)), x <- x + mlp(norm(x)). The class token, normalised, gives the scores.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from insgd_lab.training.models.layers import Shape, sequence

__all__ = ["VisionTransformer", "vit"]


def vit(
    input_shape: Shape,
    classes: int,
    *,
    patch: int = 4,
    dim: int = 512,
    depth: int = 6,
    heads: int = 8,
    mlp_dim: int = 512,
    dropout: float = 0.0,
    layer_norm: bool = True,
) -> nn.Module:
    """INSGD's vision transformer for CIFAR-10 (section 3.2 and Table 8).

    The paper gives the patch, "a linear layer dimension of 512", depth and heads. The 512 is read as the width of
    the tokens and of the hidden layer alike (Dosovitskiy et al. have four times the width there). It names no
    dropout, so there is none unless asked for.

    Linear layers start from Glorot's uniform distribution with biases of zero, positions from a normal one of
    deviation 0.02, the class token from zero, after Dosovitskiy et al.'s published code (whose head starts from
    zero too, and whose embedding from another distribution of like size).

    Args:
        input_shape: channels, height, width; (3, 32, 32) in the paper.
        classes: number of outputs.
        patch: height and width of a patch.
        dim: width of the tokens.
        depth: number of blocks.
        heads: attention heads in each.
        mlp_dim: width of each block's hidden layer.
        dropout: probability that a number is dropped after embedding, in attention, and after each linear layer
            of a block.
        layer_norm: whether tokens are normalised in front of attention, hidden layer and head (Table 8 leaves it
            out).

    Raises:
        ValueError: the image is not a whole number of patches, or the width not one of heads.
    """
    _, height, width = input_shape
    if height % patch or width % patch:
        raise ValueError(
            f"patch = {patch}: images of {height} x {width} are no whole number of patches; choose a divisor of both"
        )
    if dim % heads:
        raise ValueError(f"dim = {dim} is not a multiple of heads = {heads}; choose heads that divide it")
    return VisionTransformer(input_shape, classes, patch, dim, depth, heads, mlp_dim, dropout, layer_norm)


class TransformerBlock(nn.Module):
    """Attention and a hidden layer, each beside a shortcut."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, dropout: float, layer_norm: bool) -> None:
        super().__init__()
        self.norm1 = _norm(dim, layer_norm)
        self.attention = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.norm2 = _norm(dim, layer_norm)
        self.mlp = sequence(
            {
                "linear1": nn.Linear(dim, mlp_dim),
                "gelu": nn.GELU(),
                "dropout1": nn.Dropout(dropout),
                "linear2": nn.Linear(mlp_dim, dim),
                "dropout2": nn.Dropout(dropout),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, tokens, dim] to the same."""
        tokens = self.norm1(x)
        attended, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        x = x + self.dropout(attended)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class VisionTransformer(nn.Module):
    """See :func:`vit`, which checks what this one takes."""

    def __init__(
        self,
        input_shape: Shape,
        classes: int,
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_dim: int,
        dropout: float,
        layer_norm: bool,
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.patch = patch
        self.embed = nn.Linear(channels * patch**2, dim)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.position = nn.Parameter(torch.empty(1, 1 + (height // patch) * (width // patch), dim))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(TransformerBlock(dim, heads, mlp_dim, dropout, layer_norm) for _ in range(depth)))
        self.norm = _norm(dim, layer_norm)
        self.head = nn.Linear(dim, classes)
        nn.init.normal_(self.position, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):  # attention starts its in-projection itself, in the same way
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] to scores [B, classes]."""
        patches = F.unfold(x, self.patch, stride=self.patch).transpose(1, 2)  # [B, patches, C * patch * patch]
        tokens = torch.cat([self.token.expand(len(x), -1, -1), self.embed(patches)], 1) + self.position
        out: Tensor = self.head(self.norm(self.blocks(self.dropout(tokens))[:, 0]))
        return out


def _norm(dim: int, wanted: bool) -> nn.Module:
    return nn.LayerNorm(dim) if wanted else nn.Identity()
