"""Arithmetic on one number a tensor: norms, and scaling by them.

The numbers of a batch are a small float64 vector. Where its values may be read (``batch.may_look``) it is numpy's,
since a tensor operation on a handful of numbers costs ten times as much; elsewhere it is torch's, on the device.
Functions are written once, for either.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from insgd_lab.chain import Tensors

__all__ = ["library", "norms", "numbers", "quietly", "scaled"]

_PIECE = 1 << 16  # elements


def numbers(vector: Tensor, *, may_look: bool) -> Any:
    """A float64 vector to compute with: numpy's view of it or itself; writing to either writes to it."""
    return vector.numpy() if may_look else vector


def library(vector: Any) -> Any:
    """The library that the vector belongs to; torch and numpy share the names used here."""
    return torch if isinstance(vector, Tensor) else np


def quietly(vector: Any) -> AbstractContextManager[Any]:
    """Without numpy's warnings of 0 / 0 and the like, in the branch of a ``where`` that is not taken."""
    return nullcontext() if isinstance(vector, Tensor) else np.errstate(all="ignore")


def norms(tensors: Tensors, *, may_look: bool) -> Any:
    """Their l2 norms as :func:`numbers`, ``[tensors]``, right for elements of 1e30 and 1e-30 too.

    On a CPU float32 does where its squares neither overflow nor vanish, which takes half the time; in pieces, since
    a float32 sum of millions of squares is some 1e-4 too small.
    """
    if not (may_look and tensors[0].dtype == torch.float32):
        return numbers(torch.stack(torch._foreach_norm(tensors, 2, dtype=torch.float64)), may_look=may_look)
    found = torch.stack(torch._foreach_norm([_condensed(tensor) for tensor in tensors], 2)).double().numpy()
    for i in np.flatnonzero(~((found > 1e-15) & (found < 1e18))):
        found[i] = torch.linalg.vector_norm(tensors[i], dtype=torch.float64).item()
    return found


def _condensed(tensor: Tensor) -> Tensor:
    """Itself, or the norms of its pieces."""
    size = tensor.numel()
    if size <= _PIECE:
        return tensor
    flat, whole = tensor.reshape(-1), size // _PIECE * _PIECE
    pieces = torch.linalg.vector_norm(flat[:whole].view(-1, _PIECE), dim=1)
    return pieces if whole == size else torch.cat([pieces, torch.linalg.vector_norm(flat[whole:]).view(1)])


def scaled(tensors: Tensors, gain: Any) -> Tensors:
    """Each tensor times its number of ``gain``, a vector ``[tensors]`` of :func:`numbers`.

    A gain of 1e40 is no float32, but its root is: such a product is taken in two halves. Where values may be read only
    those are multiplied whose gain is not 1.
    """
    if isinstance(gain, Tensor):
        return _multiply(tensors, gain, in_halves=True)
    changed = np.flatnonzero(gain != 1.0)
    products = list(tensors)
    if len(changed):
        factors = gain[changed]
        some = _multiply([tensors[i] for i in changed], torch.from_numpy(factors), in_halves=not factors.max() <= 1e30)
        for i, product in zip(changed, some, strict=True):
            products[i] = product
    return products


def _multiply(tensors: Tensors, gain: Tensor, *, in_halves: bool) -> Tensors:
    factors = list((gain.sqrt() if in_halves else gain).to(tensors[0].dtype).unbind())
    products = torch._foreach_mul(tensors, factors)
    return list(torch._foreach_mul(products, factors) if in_halves else products)
