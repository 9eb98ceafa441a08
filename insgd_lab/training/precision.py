"""Number formats of training: what is computed in float32, tf32, bfloat16 or float16.

Parameters, gradients and the optimizer's state are float32 in every mode. "bfloat16" and "float16" run forward and
backward under torch's autocast, float16 with a loss that is scaled, so that small gradients do not vanish. "float32"
means it: torch's own default lets a GPU's convolutions round to tf32, which only "tf32" does here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

__all__ = ["autocast", "fp32_arithmetic", "scaler"]

_HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass."""
    return torch.autocast(device.type, _HALF[precision]) if precision in _HALF else nullcontext()


def scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """What scales the loss; does nothing unless the precision is float16."""
    return torch.amp.GradScaler(device.type, enabled=precision == "float16")


@contextmanager
def fp32_arithmetic(precision: str) -> Iterator[None]:
    """Run a block with a GPU's float32 products rounded to tf32 if that is the precision, else exact."""
    with _unwarned():
        before = [place.allow_tf32 for place in _PLACES]
    try:
        _allow_tf32([precision == "tf32"] * len(_PLACES))
        yield
    finally:
        _allow_tf32(before)


_PLACES: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)


def _allow_tf32(allowed: Sequence[bool]) -> None:
    with _unwarned():
        for place, value in zip(_PLACES, allowed, strict=True):
            place.allow_tf32 = value


@contextmanager
def _unwarned() -> Iterator[None]:
    """Without torch 2.9's advice to use the newer `fp32_precision`.

    That makes these older names raise when read, as torch's own compiler still does.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please use the new API settings to control TF32", UserWarning)
        yield
