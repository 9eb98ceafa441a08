"""torch.optim's own classes that are compared with, under the lab's way of calling."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["adadelta", "adagrad", "adamw", "rmsprop"]


def _parameters(params: Any) -> Any:
    return params.parameters() if isinstance(params, nn.Module) else params


def adagrad(params: Any, **options: Any) -> torch.optim.Adagrad:
    """torch.optim.Adagrad of a model, parameters or groups."""
    return torch.optim.Adagrad(_parameters(params), **options)


def adadelta(params: Any, **options: Any) -> torch.optim.Adadelta:
    """torch.optim.Adadelta of a model, parameters or groups."""
    return torch.optim.Adadelta(_parameters(params), **options)


def rmsprop(params: Any, **options: Any) -> torch.optim.RMSprop:
    """torch.optim.RMSprop of a model, parameters or groups."""
    return torch.optim.RMSprop(_parameters(params), **options)


def adamw(params: Any, **options: Any) -> torch.optim.AdamW:
    """torch.optim.AdamW of a model, parameters or groups."""
    return torch.optim.AdamW(_parameters(params), **options)
