"""Whole training steps of ResNet-20: forward, backward and ``step()``, batch 128."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import insgd_lab as lab
from benchmarks.networks import build
from benchmarks.pairing import Code, Row
from benchmarks.peers import SGD, Make

__all__ = ["rows"]

_GROUP = "training step of ResNet-20, batch 128"
_SETTINGS: tuple[tuple[dict[str, Any], float | None], ...] = (
    ({"p": 2}, 1.05), ({"p": 1}, 1.05), ({"p": math.inf}, None), ({"granularity": "channel"}, None),
    ({"granularity": "neuron"}, None), ({"center": True}, None),
)  # fmt: skip


def rows() -> Iterator[Row]:
    """INSGD's sensors, and the Recorder."""
    for options, target in _SETTINGS:
        words = ", ".join(f"{key}={value}" for key, value in options.items())
        yield Row(
            _GROUP, f"training step: INSGD({words}) / torch SGD",
            lambda options=options: (training_step(_insgd(options)), training_step(SGD.make)),  # type: ignore[misc]
            target,
        )  # fmt: skip
    yield Row(
        _GROUP, "training step: Recorder(every=10) / none",
        lambda: (training_step(SGD.make, every=10), training_step(SGD.make)), 1.02, repeats=10,
    )  # fmt: skip


def _insgd(options: dict[str, Any]) -> Make:
    def make(net: nn.Module) -> torch.optim.Optimizer:
        return lab.INSGD(net, lr=0.1, weight_decay=5e-4, **options)

    return make


def training_step(make: Make, every: int | None = None) -> Code:
    """Forward, backward and step on one batch, recorded every n-th step if asked."""
    net = build("ResNet-20")
    optimizer = make(net)
    if every is not None:
        lab.Recorder(net, optimizer, every=every)
    images, labels = torch.randn(128, 3, 32, 32), torch.randint(10, (128,))

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()

    return Code(run)
