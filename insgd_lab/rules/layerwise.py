"""Rules that scale each parameter tensor by one number, made of norms.

The numbers of all tensors of a batch are computed together, as one float64 vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from insgd_lab.chain import Batch, Rule, Shared, Slot, Tensors

__all__ = ["LogNormGain", "NormCorrection", "TrustRatio", "norms", "scaled"]


def norms(tensors: Tensors, *, may_look: bool) -> Tensor:
    """Their l2 norms, float64 ``[tensors]``, right for elements of 1e30 and 1e-30 too.

    On a CPU float32 does where its squares neither overflow nor vanish, which takes half the time.
    """
    if not (may_look and tensors[0].dtype == torch.float32):
        return torch.stack(torch._foreach_norm(tensors, 2, dtype=torch.float64))
    found = torch.stack(torch._foreach_norm(tensors, 2)).double()
    for i, norm in enumerate(found.tolist()):
        if not 1e-15 < norm < 1e18:
            found[i] = torch.linalg.vector_norm(tensors[i], dtype=torch.float64)
    return found


def scaled(tensors: Tensors, gain: Tensor, *, may_look: bool) -> Tensors:
    """Each tensor times its number of ``gain``, float64 ``[tensors]``.

    A gain of 1e40 is no float32, but its root is: such a product is taken in two halves.
    """
    if not may_look:
        root = list(gain.sqrt().to(tensors[0].dtype).unbind())
        return list(torch._foreach_mul(torch._foreach_mul(tensors, root), root))
    products = list(tensors)
    gains = {i: value for i, value in enumerate(gain.tolist()) if value != 1.0}
    if gains:
        some, values = [tensors[i] for i in gains], list(gains.values())
        if max(values) < 1e30:
            some = list(torch._foreach_mul(some, values))
        else:
            halves = [value**0.5 for value in values]
            some = list(torch._foreach_mul(torch._foreach_mul(some, halves), halves))
        for i, product in zip(gains, some, strict=True):
            products[i] = product
    return products


@dataclass(frozen=True)
class NormCorrection(Rule):
    """e <- gamma e + (1 - gamma) ||g||;  s = g max(1, e / ||g||)  (AdaNorm Eq. 2-4).

    g is the update as it arrives here. ``scope`` says whose norm is taken: each "tensor" its own, or "global" that
    of all parameters with gradients, with one e. ``correct`` says what s replaces: the update, and so the "first"
    moment behind (Eq. 5), what "second" moments read, or "both" (Table 3). A zero gradient stays zero.
    """

    equation: ClassVar[str] = "e <- gamma e + (1 - gamma) ||u||;  u <- u max(1, e / ||u||)"
    gamma: float = 0.95
    scope: str = "tensor"
    correct: str = "first"

    def slots(self, group: Mapping[str, Any]) -> Mapping[str, Slot]:
        """The running mean of the norm."""
        return {"exp_avg_norm": _new_norm if group["scope"] == "tensor" else Shared(_new_norm)}

    def run(self, updates: list[Tensors], batches: list[Batch]) -> list[Tensors]:
        """Tensor by tensor, or with the norm of all batches together."""
        whole = [i for i, batch in enumerate(batches) if batch.group["scope"] == "global"]
        gains = [
            None if i in whole else self._gain(u, b) for i, (u, b) in enumerate(zip(updates, batches, strict=True))
        ]
        if whole:
            gain = self._global_gain([updates[i] for i in whole], [batches[i] for i in whole])
            for i in whole:
                gains[i] = gain.to(updates[i][0].device).expand(len(updates[i]))
        return [
            self._corrected(update, batch, gain)
            for update, batch, gain in zip(updates, batches, gains, strict=True)
            if gain is not None
        ]

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """One batch by itself."""
        return self.run([update], [batch])[0]

    def _gain(self, update: Tensors, batch: Batch) -> Tensor:
        return _next_gain(batch.vector("exp_avg_norm"), norms(update, may_look=batch.may_look), batch.group["gamma"])

    def _global_gain(self, updates: list[Tensors], batches: list[Batch]) -> Tensor:
        """The gain of the norm of all, ``[1]``."""
        gammas = {batch.group["gamma"] for batch in batches}
        if len(gammas) > 1:
            raise ValueError(f"scope='global' has one running norm, but the groups ask for gamma = {sorted(gammas)}")
        average = batches[0].state["exp_avg_norm"][0]
        for batch in batches:
            batch.share("exp_avg_norm", average)
        parts = [
            torch.linalg.vector_norm(norms(update, may_look=batch.may_look)).to(average.device)
            for update, batch in zip(updates, batches, strict=True)
        ]
        return _next_gain(average.view(1), torch.linalg.vector_norm(torch.stack(parts)).view(1), gammas.pop())

    def _corrected(self, update: Tensors, batch: Batch, gain: Tensor) -> Tensors:
        batch.note("norm_gain", lambda: zip(batch.params, gain.unbind(), strict=True))
        corrected = scaled(update, gain, may_look=batch.may_look)
        correct = batch.group["correct"]
        if correct != "first":
            batch.second = corrected
        return update if correct == "second" else corrected


def _new_norm(param: Tensor) -> Tensor:
    return torch.zeros((), dtype=torch.float64, device=param.device)


def _next_gain(average: Tensor, norm: Tensor, gamma: float) -> Tensor:
    """Write e_t to ``average`` and return max(1, e / ||g||), 1 where g = 0."""
    average.mul_(gamma).add_(norm, alpha=1 - gamma)
    return torch.where((average > norm) & (norm > 0), average / norm, 1.0)


@dataclass(frozen=True)
class TrustRatio(Rule):
    """u <- r (u + weight_decay theta), r = trust_coefficient ||theta|| / (||u|| + weight_decay ||theta|| + eps).

    LARS (You, Gitman and Ginsburg 2017, Algorithm 1; INSGD Eq. 17 has lr for the coefficient and no decay). A zero
    norm of either gives ratio 1. With ``exclude="1d"`` parameters of at most one dimension (biases, normalisation)
    keep their update, without ratio and decay; "none" excludes nothing, and a group's ``skip`` excludes the group.
    """

    equation: ClassVar[str] = (
        "u <- (u + weight_decay theta) trust_coefficient ||theta|| / (||u|| + weight_decay ||theta|| + eps)  "
        "(exclude 1d: not for biases and the like)"
    )
    trust_coefficient: float = 0.001
    weight_decay: float = 0.0
    eps: float = 1e-8
    exclude: str = "1d"

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Scale what is not excluded."""
        coefficient, decay, eps = (batch.group[key] for key in ("trust_coefficient", "weight_decay", "eps"))
        spared = 1 if batch.group["exclude"] == "1d" else -1
        included = [i for i, param in enumerate(batch.params) if param.ndim > spared]
        result = list(update)
        if not included:
            return result
        params, some = [batch.params[i] for i in included], [update[i] for i in included]
        weight, grad = norms(params, may_look=batch.may_look), norms(some, may_look=batch.may_look)
        ratio = coefficient * weight / (grad + decay * weight + eps)
        ratio = torch.where((weight > 0) & (grad > 0), ratio, 1.0)
        batch.note("trust_ratio", lambda: zip(params, ratio.unbind(), strict=True))
        if decay:
            some = list(torch._foreach_add(some, params, alpha=decay))
        for i, product in zip(included, scaled(some, ratio, may_look=batch.may_look), strict=True):
            result[i] = product
        return result


@dataclass(frozen=True)
class LogNormGain(Rule):
    """u <- u (1 + log(1 + 1 / ||u||)) per tensor (LSALR, INSGD Eq. 18; Singh et al. 2015). Zero stays zero."""

    equation: ClassVar[str] = "u <- u (1 + log(1 + 1 / ||u||))"

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Lengthen short updates."""
        norm = norms(update, may_look=batch.may_look)
        gain = torch.where(norm > 0, 1 + torch.log1p(1 / norm), 1.0)
        batch.note("lsalr_gain", lambda: zip(batch.params, gain.unbind(), strict=True))
        return scaled(update, gain, may_look=batch.may_look)
