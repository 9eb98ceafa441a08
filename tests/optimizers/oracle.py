"""INSGD's Algorithm 1 written a second time, by explicit patches and plain float64 numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def statistic(x: Tensor, layer: nn.Module, *, p: float, granularity: str, center: bool, power: bool) -> Tensor:
    """s_t, shaped to divide the gradient of the layer's weight."""
    if isinstance(layer, nn.Linear):
        vectors = x.reshape(-1, x.shape[-1])
        if center:
            vectors = torch.stack([_standard(v) for v in vectors])
        return torch.stack([_size(v, p, power) for v in vectors]).mean()
    if center:
        x = torch.stack([torch.stack([_standard(plane) for plane in example]) for example in x])
    if granularity == "layer":
        return torch.stack([_size(example, p, power) for example in x]).mean()
    weight, groups = layer.weight, layer.groups
    outputs = weight.shape[0]
    if granularity == "channel":
        planes = torch.stack([torch.stack([_size(e[c], p, power) for e in x]).mean() for c in range(x.shape[1])])
        rows = []
        for output in range(outputs if groups > 1 else 1):
            group = output // (outputs // groups)
            rows.append(planes[group * weight.shape[1] : (group + 1) * weight.shape[1]])
        return torch.stack(rows)[:, :, None, None]
    columns = F.unfold(_padded(x, layer), layer.kernel_size, layer.dilation, 0, layer.stride)
    per_group = columns.unflatten(1, (groups, -1))
    sizes = torch.stack([
        torch.stack([_size(per_group[b, g, :, n], p, power) for b in range(len(x)) for n in range(columns.shape[2])])
        for g in range(groups)
    ]).mean(1)  # fmt: skip
    if groups == 1:
        return sizes[0]
    return sizes.repeat_interleave(outputs // groups)[:, None, None, None]


def _padded(x: Tensor, layer: Any) -> Tensor:
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    height, width = layer.padding
    return F.pad(x, (width, width, height, height), mode=mode)


def _size(v: Tensor, p: float, power: bool) -> Tensor:
    if p == math.inf:
        return v.abs().max()
    total = (v.abs() ** p).sum()
    return total if power else total ** (1 / p)


def _standard(v: Tensor) -> Tensor:
    std = v.flatten().std() if v.numel() > 1 else torch.tensor(0.99, dtype=v.dtype)
    return (v - v.mean()) / max(float(std), 0.01)


@dataclass
class Algorithm1:
    """One parameter's step; the state is kept here."""

    lr: float
    beta: float
    eps: float
    damping: str
    momentum: float
    dampening: float
    weight_decay: float
    decay: str
    nesterov: bool
    P: Tensor | None = None
    b: Tensor | None = None

    def step(self, theta: Tensor, g: Tensor, s: Tensor | None) -> Tensor:
        if s is not None:
            self.P = s if self.P is None else self.beta * self.P + (1 - self.beta) * s
        scale: Tensor | float = 1.0
        if self.P is not None:
            scale = 1 / self.P.log().clamp(min=self.eps) if self.damping == "log" else 1 / (self.eps + self.P)
        before, after = (self.weight_decay, 0.0) if self.decay == "before" else (0.0, self.weight_decay)
        h = scale * (g + before * theta) + after * theta
        if self.momentum == 0:
            return theta - self.lr * h
        self.b = h if self.b is None else self.momentum * self.b + (1 - self.dampening) * h
        return theta - self.lr * (h + self.momentum * self.b if self.nesterov else self.b)
