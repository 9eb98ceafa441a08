"""Whether packing pays: it saves what Python and torch spend on every operation, not arithmetic."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from insgd_lab.config import RunSpec
from insgd_lab.training.models import count
from insgd_lab.training.session import build_model, load_data

__all__ = ["worth_packing"]

_LIMIT = 5_000_000  # multiply-adds of a batch's forward pass in one layer; docs/packing.md says what was measured


def worth_packing(spec: RunSpec, device: str = "cpu", data_dir: Path | None = None) -> bool:
    """Whether runs like this one are faster side by side; on a GPU always, until someone has measured it."""
    if torch.device(device).type != "cpu":
        return True
    data = load_data(spec, data_dir)
    model = build_model(spec, data.input_shape, data.classes)
    layers = sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in model.modules())
    products = count(model, data.input_shape).multiply_adds * spec.train.batch_size
    return products <= _LIMIT * layers
