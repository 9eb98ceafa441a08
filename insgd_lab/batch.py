"""What a rule is given at a step: parameters with their gradients, buffers and settings, and what is still pending.

The multiplication by a number and the division by a tensor that a chain owes to its update are carried along, and done
in the pass that subtracts it from the parameters::

    batch.factor, batch.divisor = 0.1, roots     # theta <- theta - 0.1 update / roots, once the chain has run
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import is_
from typing import Any

import torch
from torch import Tensor

__all__ = ["HALF", "Batch", "State", "Tensors", "Vectors", "blocks", "moment_dtype", "scalar"]

Tensors = list[Tensor]
State = dict[str, Any]
"""What an optimizer keeps of one parameter."""
Vectors = dict[str, tuple[Tensors, Tensor]]
"""Small buffers by name, and the vector whose parts they are."""

HALF = (torch.float16, torch.bfloat16)
_BLOCK = 1 << 20  # elements


def moment_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which moments and statistics of a parameter are kept: float32 for half precision."""
    return torch.float32 if dtype in HALF else dtype


def scalar(value: float | Tensor, like: Tensors) -> Any:
    """A number in the form that ``torch._foreach_*`` multiplies these tensors by fastest.

    On a CPU that is a tensor of their own type: a Python number is wrapped anew for every tensor of the list, which
    takes three times as long as the multiplication.
    """
    if isinstance(value, Tensor):
        return value.to(like[0].dtype)
    return torch.tensor(value, dtype=like[0].dtype) if like[0].device.type == "cpu" else value


@dataclass
class Batch:
    """Parameters of one step that share group, device, type and step count, as parallel lists.

    Attributes:
        params: the parameters.
        grads: their gradients, in at least float32; never written in place.
        state: the buffers that the rules declared, by name.
        group: the live hyper-parameters.
        step: how many steps these parameters have taken, this one included; a float64 scalar on the device
            where the step is to be captured.
        begins: whether this is their first step.
        fresh: the slots that were made for this step.
        averaged: what the first moment averaged at this step.
        second: what second moments read, where a rule put something else in the gradient's place.
        factor: a number by which the update is still to be multiplied.
        divisor: what it is still to be divided by, element by element; it belongs to the batch and may be written
            in place. Rules that are ``linear`` in the update leave both alone or add to them, which saves passes
            over memory.
        scratch: what a rule prepared for this step, by its own name.
        notes: where rules publish what they know, or None when nobody listens.
    """

    params: Tensors
    grads: Tensors
    state: dict[str, Tensors]
    group: dict[str, Any]
    step: int | Tensor
    begins: bool = False
    fresh: frozenset[str] = frozenset()
    averaged: Tensors = field(default_factory=list)
    second: Tensors | None = None
    factor: float | Tensor = 1.0
    divisor: Tensors | None = None
    scratch: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, dict[Tensor, Tensor]] | None = None
    _states: list[State] = field(default_factory=list, repr=False)
    _vectors: Vectors = field(default_factory=dict, repr=False)

    @property
    def may_look(self) -> bool:
        """Whether rules may read values of tensors: on a CPU that is free, elsewhere the device would be waited for."""
        return self.params[0].device.type == "cpu" and not isinstance(self.step, Tensor)

    def note(self, name: str, values: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> None:
        """Publish a quantity: ``values`` gives (parameter, value) pairs and is only called for a listener."""
        if self.notes is not None:
            self.notes.setdefault(name, {}).update(values())

    def vector(self, name: str) -> Tensor:
        """The small buffers of that name end to end, ``[numbers]``: writing to it writes to them.

        They become parts of one vector when it is first asked for, so that one operation reaches them all.
        """
        buffers = self.state[name]
        parts, vector = self._vectors.get(name, ([], buffers[0]))
        if len(parts) != len(buffers) or not all(map(is_, parts, buffers)):
            vector = torch.cat([buffer.reshape(-1) for buffer in buffers])
            pieces = torch.split_with_sizes(vector, [buffer.numel() for buffer in buffers])
            parts = [piece.view(buffer.shape) for piece, buffer in zip(pieces, buffers, strict=True)]
            for state, part in zip(self._states, parts, strict=True):
                state[name] = part
            self.state[name] = parts
            self._vectors[name] = (parts, vector)
        return vector

    def share(self, name: str, buffer: Tensor) -> None:
        """Have all parameters of the batch keep this one tensor under that name."""
        if not all(map(is_, self.state[name], [buffer] * len(self.params))):
            for state in self._states:
                state[name] = buffer
            self.state[name] = [buffer] * len(self.params)

    def settle(self, update: Tensors) -> Tensors:
        """Carry out what is pending, for a rule that looks at the update itself."""
        if self.divisor is not None:
            update, self.divisor = list(torch._foreach_div(update, self.divisor)), None
        if isinstance(self.factor, Tensor) or self.factor != 1.0:
            update = list(torch._foreach_mul(update, scalar(self.factor, update)))
        self.factor = 1.0
        return update

    def apply(self, update: Tensors) -> None:
        """Subtract the update from the parameters, with what is pending in the same pass."""
        if isinstance(self.factor, Tensor):
            torch._foreach_sub_(self.params, self.settle(update))
        elif self.divisor is None:
            torch._foreach_add_(self.params, update, alpha=-self.factor)
        elif update[0].dtype == self.params[0].dtype:
            torch._foreach_addcdiv_(self.params, update, self.divisor, value=-self.factor)
        else:
            torch._foreach_add_(self.params, torch._foreach_div(update, self.divisor), alpha=-self.factor)


def blocks(params: Tensors) -> Iterable[Tensors]:
    """On a CPU, runs of parameters whose temporaries stay in the cache; elsewhere all of them, in few launches."""
    if params[0].device.type != "cpu":
        return [params]
    sizes = [param.numel() for param in params]
    if sum(sizes) <= _BLOCK:
        return [params]
    parted: list[Tensors] = [[]]
    filled = 0
    for param, size in zip(params, sizes, strict=True):
        if parted[-1] and filled + size > _BLOCK:
            parted.append([])
            filled = 0
        parted[-1].append(param)
        filled += size
    return parted
