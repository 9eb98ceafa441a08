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
from insgd_lab.rules.numbers import library, norms, numbers, quietly, scaled

__all__ = ["LogNormGain", "NormCorrection", "TrustRatio"]


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

    def together(self, group: Mapping[str, Any]) -> bool:
        """A global norm spans all batches."""
        return bool(group["scope"] == "global")

    def run(self, updates: list[Tensors], batches: list[Batch]) -> list[Tensors]:
        """Correct by the norm of all whose scope is global; the others one by one."""
        whole = [i for i, batch in enumerate(batches) if self.together(batch.group)]
        gain = self._global_gain([updates[i] for i in whole], [batches[i] for i in whole])
        return [
            self._corrected(update, batch, _expanded(gain, batch))
            if self.together(batch.group)
            else self(update, batch)
            for update, batch in zip(updates, batches, strict=True)
        ]

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Correct one batch, tensor by tensor."""
        average = numbers(batch.vector("exp_avg_norm"), may_look=batch.may_look)
        gain = _next_gain(average, norms(update, may_look=batch.may_look), batch.group["gamma"])
        return self._corrected(update, batch, gain)

    def _global_gain(self, updates: list[Tensors], batches: list[Batch]) -> Tensor:
        """The gain of the norm of all, ``[1]``."""
        gammas = {batch.group["gamma"] for batch in batches}
        if len(gammas) > 1:
            raise ValueError(f"scope='global' has one running norm, but the groups ask for gamma = {sorted(gammas)}")
        average = batches[0].state["exp_avg_norm"][0]
        for batch in batches:
            batch.share("exp_avg_norm", average)
        parts = [
            torch.linalg.vector_norm(torch.as_tensor(norms(update, may_look=batch.may_look))).to(average.device)
            for update, batch in zip(updates, batches, strict=True)
        ]
        gain: Tensor = _next_gain(average.view(1), torch.linalg.vector_norm(torch.stack(parts)).view(1), gammas.pop())
        return gain

    def _corrected(self, update: Tensors, batch: Batch, gain: Any) -> Tensors:
        batch.note("norm_gain", lambda: zip(batch.params, torch.as_tensor(gain).unbind(), strict=True))
        corrected = scaled(update, gain)
        correct = batch.group["correct"]
        if correct != "first":
            batch.second = corrected
        return update if correct == "second" else corrected


def _new_norm(param: Tensor) -> Tensor:
    return torch.zeros((), dtype=torch.float64, device=param.device)


def _expanded(gain: Tensor, batch: Batch) -> Any:
    """The gain of all for each parameter of a batch."""
    return numbers(gain.to(batch.params[0].device).repeat(len(batch.params)), may_look=batch.may_look)


def _next_gain(average: Any, norm: Any, gamma: float) -> Any:
    """Write e_t to ``average`` and return max(1, e / ||g||), 1 where g = 0; a norm that is no number leaves e alone."""
    where = library(norm).where
    with quietly(norm):
        average[...] = where(library(norm).isfinite(norm), gamma * average + (1 - gamma) * norm, average)
        return where((average > norm) & (norm > 0), average / norm, 1.0)


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
        both = norms([*params, *some], may_look=batch.may_look)  # one call costs less than two
        weight, grad = both[: len(params)], both[len(params) :]
        with quietly(weight):
            ratio = coefficient * weight / (grad + decay * weight + eps)
        ratio = library(weight).where((weight > 0) & (grad > 0), ratio, 1.0)
        batch.note("trust_ratio", lambda: zip(params, torch.as_tensor(ratio).unbind(), strict=True))
        if decay:
            some = list(torch._foreach_add(some, params, alpha=decay))
        for i, product in zip(included, scaled(some, ratio), strict=True):
            result[i] = product
        return result


@dataclass(frozen=True)
class LogNormGain(Rule):
    """u <- u (1 + log(1 + 1 / ||u||)) per tensor (LSALR, INSGD Eq. 18; Singh et al. 2015). Zero stays zero."""

    equation: ClassVar[str] = "u <- u (1 + log(1 + 1 / ||u||))"

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """Lengthen short updates."""
        norm = norms(update, may_look=batch.may_look)
        with quietly(norm):
            gain = library(norm).where(norm > 0, 1 + library(norm).log1p(1 / norm), 1.0)
        batch.note("lsalr_gain", lambda: zip(batch.params, torch.as_tensor(gain).unbind(), strict=True))
        return scaled(update, gain)
