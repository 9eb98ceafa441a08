"""One model with every kind of layer that is measured, and every way of calling one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class Zoo(nn.Module):
    """For images ``[batch, 4, 4, 4]``.

    Depthwise and transposed convolutions, attention packed and unpacked, an encoder layer, a layer used twice, two
    layers with one weight. ``reentrant`` recomputes the middle in the backward pass, in torch's one way or the other.
    """

    def __init__(self, *, reentrant: bool | None = None) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.depthwise = nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4)
        self.transposed = nn.ConvTranspose2d(4, 4, 2, stride=2, groups=4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.across = nn.MultiheadAttention(4, 2, kdim=3, vdim=3, bias=False)
        self.encoder = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.twice = nn.Linear(4, 4)
        self.tied, self.head = nn.Linear(4, 4), nn.Linear(4, 4)
        self.head.weight = self.tied.weight

    def middle(self, x: Tensor) -> Tensor:
        planes = self.transposed(torch.tanh(self.depthwise(x)))
        tokens = nn.functional.avg_pool2d(planes, 2).flatten(2).mT
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        memory = x.flatten(2)[..., :3].transpose(0, 1)
        crossed, _ = self.across(tokens.transpose(0, 1), memory, value=memory)
        tokens = self.encoder(crossed.transpose(0, 1) + tokens)
        return self.twice(torch.tanh(self.twice(tokens)))

    def forward(self, x: Tensor) -> Tensor:
        if self.reentrant is None:
            tokens = self.middle(x)
        else:
            tokens = checkpoint(self.middle, x.clone().requires_grad_(), use_reentrant=self.reentrant)
        return self.head(torch.tanh(self.tied(tokens.mean(1))))


def zoo(seed: int = 0, dtype: torch.dtype = torch.float64, *, reentrant: bool | None = None) -> Zoo:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Zoo(reentrant=reentrant).to(dtype)


def images(seed: int, count: int, size: int = 4, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, 4, 4, 4, generator=generator, dtype=torch.float64).to(dtype) for _ in range(count)]
