"""Parameter groups for any optimizer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["param_groups"]


def param_groups(
    model: nn.Module, weight_decay: float, no_decay: tuple[str, ...] = ("bias", "norm")
) -> list[dict[str, Any]]:
    """Two groups of a model's parameters: with weight decay and without.

    Args:
        model: the model.
        weight_decay: for the first group; the second has 0.
        no_decay: "bias" stands for parameters of that name, "norm" for those of normalisation layers; any
            other word for parameters whose full name contains it.

    Returns:
        Groups of (name, parameter) pairs, ready for any optimizer; empty ones are left out.
    """
    norms = {
        id(param)
        for module in model.modules() if "norm" in type(module).__name__.lower()
        for param in module.parameters(recurse=False)
    }  # fmt: skip

    def exempt(name: str, param: Tensor) -> bool:
        words = {
            "bias": name.rpartition(".")[2].endswith("bias"),
            "norm": id(param) in norms,
        }
        return any(words.get(word, word in name) for word in no_decay)

    named = list(model.named_parameters())
    plain = [(name, param) for name, param in named if exempt(name, param)]
    decayed = [(name, param) for name, param in named if not exempt(name, param)]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
