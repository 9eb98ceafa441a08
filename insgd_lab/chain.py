"""An optimizer is a list of rules, read top to bottom.

A rule takes the update so far (at first the gradient) and returns a new one; what is left at the end is
subtracted from the parameters. SGD with momentum, and Adam, in full::

    ChainOptimizer(params, [L2Penalty(5e-4), Momentum(0.9), LearningRate(0.1)])
    ChainOptimizer(params, [FirstMoment((0.9, 0.999)), SecondMoment((0.9, 0.999), 1e-8), LearningRate(1e-3)])

A rule is a frozen dataclass. Its fields become hyper-parameters of the parameter groups, where schedulers find
and change them, and it reads them there (``batch.group["lr"]``) at every step. Buffers that it declares in
``slots`` live in ``optimizer.state`` under torch's own names. Buffers are written in place; updates never are,
since an update may be a buffer, or the user's gradient.

Rules run one after the other over *all* parameters: each sees every batch of the step before the next one runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from insgd_lab.hyperparameters import DOMAINS, Domain, check_option, check_together

__all__ = ["Batch", "ChainOptimizer", "Rule", "Slot", "Tensors", "moment_dtype", "wiring"]

Tensors = list[Tensor]
Slot = Callable[[Tensor], Tensor]
"""Creates a rule's buffer for one parameter."""

_Member = tuple[Tensor, dict[str, Any]]  # a parameter and its state

_HALF = (torch.float16, torch.bfloat16)

# What torch itself and its schedulers keep in groups, and the label that users give them.
_FOREIGN_OPTIONS = ("params", "param_names", "initial_lr", "name")


def moment_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which moments and statistics of a parameter are kept: float32 for half precision."""
    return torch.float32 if dtype in _HALF else dtype


def wiring(**options: Any) -> Any:
    """A rule's field that is not a hyper-parameter (a sensor, say) and stays out of the groups."""
    return field(metadata={"wiring": True}, repr=False, **options)


@dataclass
class Batch:
    """Parameters of one step that share group, device, type and step count, as parallel lists.

    Attributes:
        params: the parameters.
        grads: their gradients, in at least float32; never written in place.
        state: the buffers that the rules declared, by name.
        group: the live hyper-parameters.
        step: how many steps these parameters have taken, this one included.
        fresh: the slots that were made for this step.
        factor: a number by which the update is still to be multiplied. Rules that are ``linear`` in the update
            leave it alone or multiply it further, which saves a pass over memory.
        notes: where rules publish what they know, or None when nobody listens.
    """

    params: Tensors
    grads: Tensors
    state: dict[str, Tensors]
    group: dict[str, Any]
    step: int
    fresh: frozenset[str] = frozenset()
    factor: float | Tensor = 1.0
    notes: dict[str, dict[Tensor, Tensor]] | None = None

    def note(self, name: str, values: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> None:
        """Publish a quantity: ``values`` gives (parameter, value) pairs and is only called for a listener."""
        if self.notes is not None:
            self.notes.setdefault(name, {}).update(values())


@dataclass(frozen=True)
class Rule:
    """One equation. Subclasses are frozen dataclasses that define ``__call__``.

    Attributes:
        linear: True where scaling the update before the rule is the same as scaling it after.
        domains: the values that its options may take; a rule in which a name of the lab means something else
            brings its own.
    """

    linear: ClassVar[bool] = False
    domains: ClassVar[Mapping[str, Domain]] = DOMAINS

    def slots(self, group: Mapping[str, Any]) -> Mapping[str, Slot]:
        """Buffers this rule keeps per parameter, under the group's present settings."""
        return {}

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """The update that follows from ``update`` for one batch."""
        raise NotImplementedError

    def run(self, updates: list[Tensors], batches: list[Batch]) -> list[Tensors]:
        """All batches of a step; rules that need to see them together override this."""
        return [self(update, batch) for update, batch in zip(updates, batches, strict=True)]

    def join(self, group: Mapping[str, Any]) -> None:
        """A group entered the optimizer, or its settings were replaced."""

    def forget(self) -> None:
        """Gradients were cleared: drop what was gathered for the step that never came."""

    def close(self) -> None:
        """Let go of everything outside the optimizer."""

    def hyperparameters(self) -> dict[str, Any]:
        """The fields that go to the parameter groups, with the values given here as defaults."""
        return {f.name: getattr(self, f.name) for f in fields(self) if not f.metadata.get("wiring")}


class ChainOptimizer(torch.optim.Optimizer):
    """Runs rules and speaks torch.optim.

    Args:
        params: a model, parameters, (name, parameter) pairs, or groups of either.
        rules: the chain, in order.
        maximize: climb instead of descend.

    A group may name rules of the chain to leave out: ``{"params": biases, "skip": ("L2Penalty",)}``.

    Raises:
        ValueError: an option outside its range, or unknown in a group; rules that disagree on a shared field.
        TypeError: complex or non-floating parameters.
    """

    def __init__(self, params: Any, rules: Sequence[Rule], *, maximize: bool = False) -> None:
        self.rules: tuple[Rule, ...] = tuple(rules)
        self._listening = False
        self._notes: dict[str, dict[Tensor, Tensor]] = {}
        defaults = {**_merge_hyperparameters(self.rules), "maximize": maximize, "skip": ()}
        super().__init__(params.parameters() if isinstance(params, nn.Module) else params, defaults)

    def __getstate__(self) -> dict[str, Any]:
        # torch keeps defaults, state and groups only; without the rules a copy could not step.
        return {**super().__getstate__(), "rules": self.rules, "_listening": False, "_notes": {}}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its options are checked, and a tensor learning rate is the group's own copy."""
        for option in param_group:
            if option not in {*self.defaults, *_FOREIGN_OPTIONS}:
                known = ", ".join(sorted(self.defaults))
                raise ValueError(f"parameter group: unknown option {option!r}; expected one of {known}")
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            self._check_group(group)
            for rule in self.rules:
                rule.join(group)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise
        for option, value in group.items():
            if isinstance(value, Tensor):
                group[option] = value.clone()

    def _check_group(self, group: dict[str, Any]) -> None:
        number = len(self.param_groups) - 1
        domains = {"maximize": DOMAINS["maximize"]}
        for rule in self.rules:
            domains |= {name: rule.domains[name] for name in rule.hyperparameters() if name in rule.domains}
        for option in self.defaults:
            check_option(f"param_groups[{number}][{option!r}]", group[option], domains.get(option))
        check_together(f"param_groups[{number}]", group)
        names = {type(rule).__name__ for rule in self.rules}
        if unknown := set(group["skip"]) - names:
            raise ValueError(f"skip names {sorted(unknown)}, but the chain has {sorted(names)}; correct the name")
        for param in group["params"]:
            if not param.is_floating_point():
                raise TypeError(
                    f"{type(self).__name__} takes real floating-point parameters, got {param.dtype}; "
                    "use torch.view_as_real for complex ones"
                )

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear gradients, and with them what was measured for a step that never came."""
        super().zero_grad(set_to_none)
        for rule in self.rules:
            rule.forget()

    def close(self) -> None:
        """Remove the hooks that the rules put on the model. The optimizer must not step afterwards."""
        for rule in self.rules:
            rule.close()

    def listen(self) -> None:
        """Have the next step's rules publish what they know in :attr:`notes`."""
        self._listening = True

    @property
    def notes(self) -> Mapping[str, Mapping[Tensor, Tensor]]:
        """What the last step that was listened to published: quantity, then parameter, then value."""
        return self._notes

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; returns what ``closure``, which recomputes the loss, gave."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._notes = {} if self._listening else self._notes
        batches = self._gather()
        self._listening = False
        updates = [batch.grads for batch in batches]
        for rule in self.rules:
            updates = _run_rule(rule, updates, batches)
        for update, batch in zip(updates, batches, strict=True):
            _apply(update, batch)
        return loss

    def _gather(self) -> list[Batch]:
        """The parameters that have gradients, in batches, each with its step counted and its buffers made."""
        gathered = [(group, self._alike(group)) for group in self.param_groups]
        return [
            self._batch(members, group, step) for group, alike in gathered for (_, _, step), members in alike.items()
        ]

    def _alike(self, group: dict[str, Any]) -> dict[tuple[torch.device, torch.dtype, int], list[_Member]]:
        """A group's parameters with gradients, by device, type and step; nothing is counted or made yet."""
        alike: dict[tuple[torch.device, torch.dtype, int], list[_Member]] = {}
        for param in group["params"]:
            if param.grad is None:
                continue
            if param.grad.is_sparse:
                raise RuntimeError(
                    f"{type(self).__name__} does not support sparse gradients; "
                    "use sparse=False in the embedding, or torch.optim.SparseAdam"
                )
            state = self.state[param]
            alike.setdefault((param.device, param.dtype, state.get("step", 0) + 1), []).append((param, state))
        return alike

    def _batch(self, members: list[_Member], group: dict[str, Any], step: int) -> Batch:
        for _, state in members:
            state["step"] = step
        params = [param for param, _ in members]
        grads = [param.grad for param in params if param.grad is not None]
        if params[0].dtype in _HALF:
            grads = [grad.float() for grad in grads]
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        slots = {name: make for rule in self._active(group) for name, make in rule.slots(group).items()}
        fresh = frozenset(name for name, make in slots.items() if _create(name, make, members))
        buffers = {name: [state[name] for _, state in members] for name in slots}
        return Batch(params, grads, buffers, group, step, fresh, notes=self._notes if self._listening else None)

    def _active(self, group: dict[str, Any]) -> Iterable[Rule]:
        return (rule for rule in self.rules if type(rule).__name__ not in group["skip"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore groups and buffers, each buffer in the type it was saved in.

        torch casts every buffer to its parameter's type, which would round a running power to bfloat16.
        """
        super().load_state_dict(state_dict)
        saved = (number for group in state_dict["param_groups"] for number in group["params"])
        params = [param for group in self.param_groups for param in group["params"]]
        for number, param in zip(saved, params, strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                if isinstance(value, Tensor):
                    self.state[param][name] = value.detach().to(param.device, copy=True)
        for group in self.param_groups:
            for rule in self.rules:
                rule.join(group)


def _create(name: str, make: Slot, members: list[_Member]) -> bool:
    """Make one slot where it is missing; says whether it was."""
    missing = [(param, state) for param, state in members if name not in state]
    for param, state in missing:
        state[name] = make(param)
    return bool(missing)


def _merge_hyperparameters(rules: Sequence[Rule]) -> dict[str, Any]:
    """The rules' fields together; two rules may declare one field if they agree on its value."""
    merged: dict[str, Any] = {}
    for rule in rules:
        for name, value in rule.hyperparameters().items():
            if name in merged and merged[name] != value:
                raise ValueError(f"two rules disagree on {name}: {merged[name]!r} and {value!r}; give one value")
            merged[name] = value
    return merged


def _run_rule(rule: Rule, updates: list[Tensors], batches: list[Batch]) -> list[Tensors]:
    """Run one rule over the batches whose group does not skip it."""
    name = type(rule).__name__
    active = [i for i, batch in enumerate(batches) if name not in batch.group["skip"]]
    if not rule.linear:
        for i in active:
            updates[i] = _settle(updates[i], batches[i])
    results = rule.run([updates[i] for i in active], [batches[i] for i in active])
    updates = list(updates)
    for i, result in zip(active, results, strict=True):
        updates[i] = result
    return updates


def _settle(update: Tensors, batch: Batch) -> Tensors:
    """Multiply the pending factor in, for a rule that looks at the update's size."""
    if isinstance(batch.factor, float) and batch.factor == 1.0:
        return update
    settled = list(torch._foreach_mul(update, batch.factor))
    batch.factor = 1.0
    return settled


def _apply(update: Tensors, batch: Batch) -> None:
    if isinstance(batch.factor, Tensor):
        torch._foreach_sub_(batch.params, _settle(update, batch))
    else:
        torch._foreach_add_(batch.params, update, alpha=-batch.factor)
