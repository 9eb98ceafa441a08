"""The optimizers of members that train side by side.

A chain of the lab's own rules treats every parameter by itself, so members that asked for the same rule with the same
options share one optimizer and one group: the lists of its foreach operations are as many times longer, and Python runs
once. Everything else gets an optimizer a member: rules that look at all parameters at once (a global norm), and rules
of others, of which nobody knows what they look at.

Each member's part of the state reads and loads as that of an optimizer of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from insgd_lab import registry
from insgd_lab.chain import ChainOptimizer
from insgd_lab.config import RunSpec
from insgd_lab.store import canonical_json
from insgd_lab.training.packing.model import PackedModel

__all__ = ["Shared", "share_optimizers"]


@dataclass
class Shared:
    """An optimizer and the numbers of the members that it trains."""

    optimizer: torch.optim.Optimizer
    members: list[int]

    def state_dict(self, member: int) -> dict[str, Any]:
        """A member's part, in tensors that hold no more than it."""
        whole = self.optimizer.state_dict()
        groups = [self._part(group["params"], member) for group in whole["param_groups"]]
        numbers = {number: k for k, number in enumerate(number for group in groups for number in group)}
        return {
            "state": {numbers[k]: _plain(whole["state"][k]) for k in numbers if k in whole["state"]},
            "param_groups": [
                {**group, "params": [numbers[k] for k in part]}
                for group, part in zip(whole["param_groups"], groups, strict=True)
            ],
        }

    def load_state_dicts(self, states: Mapping[int, Mapping[str, Any]]) -> None:
        """Go on from what each of the members has saved."""
        whole = self.optimizer.state_dict()
        first = states[self.members[0]]
        state: dict[int, Any] = {}
        for member in self.members:
            own = states[member]
            for group, saved in zip(whole["param_groups"], own["param_groups"], strict=True):
                for number, key in zip(self._part(group["params"], member), saved["params"], strict=True):
                    if key in own["state"]:
                        state[number] = own["state"][key]
        groups = [
            {**saved, "params": group["params"]}
            for group, saved in zip(whole["param_groups"], first["param_groups"], strict=True)
        ]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def _part(self, params: Sequence[int], member: int) -> Sequence[int]:
        """A member's of the parameters of a group, which lie there one member after the other."""
        place, each = self.members.index(member), len(params) // len(self.members)
        return params[place * each : (place + 1) * each]


def share_optimizers(specs: Sequence[RunSpec], model: PackedModel) -> list[Shared]:
    """The optimizers of all members: as few as there may be."""
    alike: dict[str, list[int]] = {}
    for number, spec in enumerate(specs):
        alike.setdefault(canonical_json(spec.optimizer.canonical("optimizer")), []).append(number)
    made = []
    for members in alike.values():
        spec = specs[members[0]]
        optimizer = _create(spec, model, members)
        if len(members) == 1 or _by_parameter(optimizer):
            made.append(Shared(optimizer, members))
            continue
        getattr(optimizer, "close", lambda: None)()
        made += [Shared(_create(spec, model, [member]), [member]) for member in members]
    return made


def _create(spec: RunSpec, model: PackedModel, members: Sequence[int]) -> torch.optim.Optimizer:
    name, options = spec.optimizer.name, dict(spec.optimizer.options)
    if registry.get_optimizer(name).capabilities.reads_inputs:
        options["model"] = model
    params: nn.Module | list[Tensor] = model.members[members[0]]
    if len(members) > 1 or "model" in options:
        params = [parameter for member in members for parameter in model.members[member].parameters()]
    optimizer: torch.optim.Optimizer = registry.create_optimizer(name, params, **options)
    return optimizer


def _by_parameter(optimizer: torch.optim.Optimizer) -> bool:
    """Whether nothing that is done to a parameter depends on which others there are."""
    if not isinstance(optimizer, ChainOptimizer):
        return False
    ours = all(type(each).__module__.startswith("insgd_lab.") for each in (optimizer, *optimizer.rules))
    return ours and not any(rule.together(group) for rule in optimizer.rules for group in optimizer.param_groups)


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    """Without the rest of the tensor that a small one may be a part of."""
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()}
