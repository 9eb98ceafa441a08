"""An optimizer is a list of rules, read top to bottom.

A rule takes the update so far (at first the gradient) and returns a new one; what is left at the end is
subtracted from the parameters. SGD with momentum, and Adam, in full::

    ChainOptimizer(params, [L2Penalty(5e-4), Momentum(0.9), LearningRate(0.1)])
    ChainOptimizer(params, [FirstMoment((0.9, 0.999)), SecondMoment((0.9, 0.999), 1e-8), LearningRate(1e-3)])

A rule is a frozen dataclass. Its fields become hyper-parameters of the parameter groups, where schedulers find
and change them, and it reads them there (``batch.group["lr"]``) at every step. Buffers that it declares in
``slots`` live in ``optimizer.state`` under torch's own names. Buffers are written in place; updates never are,
since an update may be a buffer, or the user's gradient.

A rule acts on one batch of parameters at a time. One that has to see all of them first, for a global norm or a
collective, does so in ``prepare`` or ``run``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from insgd_lab.batch import HALF, Batch, State, Tensors, Vectors, blocks, moment_dtype, scalar
from insgd_lab.hyperparameters import DOMAINS, Domain, check_option, check_together

__all__ = ["Batch", "ChainOptimizer", "Rule", "Shared", "Slot", "Tensors", "moment_dtype", "scalar", "wiring"]

Slot = Callable[[Tensor], Tensor]
"""Creates a rule's buffer for one parameter."""

_Kind = tuple[torch.device, torch.dtype, int, int]

# What torch itself and its schedulers keep in groups, and the label that users give them.
_FOREIGN_OPTIONS = ("params", "param_names", "initial_lr", "name")


def wiring(**options: Any) -> Any:
    """A rule's field that is not a hyper-parameter (a sensor, say) and stays out of the groups."""
    return field(metadata={"wiring": True}, repr=False, **options)


@dataclass(frozen=True)
class Shared:
    """A slot that all parameters of the optimizer share: one tensor, made for the first of them."""

    create: Slot

    def __call__(self, param: Tensor) -> Tensor:
        """The tensor, for the first parameter that asks."""
        return self.create(param)


@dataclass(frozen=True)
class Rule:
    """One equation. Subclasses are frozen dataclasses that define ``__call__``.

    Attributes:
        equation: what it does, in a line of plain text: u is the update, g the gradient.
        linear: True where scaling the update (by a number, or element by element) before the rule is the same as
            scaling it after.
        needs: names of rules without which, before it, it cannot run.
        domains: the values that its options may take; a rule in which a name of the lab means something else
            brings its own.
    """

    equation: ClassVar[str] = ""
    linear: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    domains: ClassVar[Mapping[str, Domain]] = DOMAINS

    def slots(self, group: Mapping[str, Any]) -> Mapping[str, Slot]:
        """Buffers this rule keeps per parameter, under the group's present settings."""
        return {}

    def idle(self, group: Mapping[str, Any]) -> bool:
        """Whether the rule does nothing under the group's present settings, and so need not run."""
        return False

    def __call__(self, update: Tensors, batch: Batch) -> Tensors:
        """The update that follows from ``update`` for one batch."""
        raise NotImplementedError

    def prepare(self, batches: list[Batch]) -> None:
        """Before any rule runs: what needs all batches of the step but not their updates."""

    def together(self, group: Mapping[str, Any]) -> bool:
        """Whether :meth:`run` must see the updates of all batches of the step at once."""
        return False

    def run(self, updates: list[Tensors], batches: list[Batch]) -> list[Tensors]:
        """All batches of a step, where they must be seen ``together``."""
        return [self(update, batch) for update, batch in zip(updates, batches, strict=True)]

    def finish(self, batch: Batch) -> None:
        """The parameters have moved; a projection puts them back here."""

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
        capturable: keep step counts on the device and never wait for it, so that a CUDA graph can hold the step
            (after one step outside of it, which makes the buffers) and one compiled frame serves every step.
            A learning rate that is to change must then be a tensor on the device.

    A group may name rules of the chain to leave out: ``{"params": biases, "skip": ("L2Penalty",)}``.

    Raises:
        ValueError: an option outside its range, or unknown in a group; rules that disagree on a shared field.
        TypeError: complex or non-floating parameters.
    """

    def __init__(self, params: Any, rules: Sequence[Rule], *, maximize: bool = False, capturable: bool = False) -> None:
        for rule in rules:
            if not isinstance(rule, Rule):
                raise TypeError(f"a chain is a list of rules, such as Momentum(0.9); got {rule!r} among them")
        self.rules: tuple[Rule, ...] = tuple(rules)
        self.capturable = capturable
        self._transient()
        defaults = {**_merge_hyperparameters(self.rules), "maximize": maximize, "skip": ()}
        super().__init__(params.parameters() if isinstance(params, nn.Module) else params, defaults)

    def _transient(self) -> None:
        """What no copy and no checkpoint takes along."""
        self._listening = False
        self._notes: dict[str, dict[Tensor, Tensor]] = {}
        self._vectors: dict[int, Vectors] = {}

    def __getstate__(self) -> dict[str, Any]:
        # torch keeps defaults, state and groups only; without the rules a copy could not step.
        return {**super().__getstate__(), "rules": self.rules, "capturable": self.capturable}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._transient()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its options are checked, and a tensor learning rate is the group's own copy."""
        for option in param_group:
            if option not in {*self.defaults, *_FOREIGN_OPTIONS}:
                known = ", ".join(sorted(self.defaults))
                raise ValueError(
                    f"parameter group: unknown option {option!r}; expected one of {known}; a rule that the chain lacks "
                    "is asked for at the optimizer itself (adanorm, project)"
                )
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
        self._check_skip(group["skip"])
        for param in group["params"]:
            if not param.is_floating_point():
                raise TypeError(
                    f"{type(self).__name__} takes real floating-point parameters, got {param.dtype}; "
                    "use torch.view_as_real for complex ones"
                )

    def _check_options(self, groups: Iterable[Mapping[str, Any]]) -> None:
        """Refuse the groups of a state that other rules have saved."""
        for number, group in enumerate(groups):
            missing = self.defaults.keys() - group.keys()
            surplus = (group.keys() & DOMAINS.keys()) - self.defaults.keys()
            if missing or surplus:
                odd = [f"lack {', '.join(sorted(missing))}"] * bool(missing)
                odd += [f"have {', '.join(sorted(surplus))}"] * bool(surplus)
                raise ValueError(
                    f"the state is not of {type(self).__name__} with these rules: the options of its "
                    f"param_groups[{number}] {' and '.join(odd)}; load what an optimizer made in the same way has saved"
                )

    def _check_skip(self, skip: Iterable[str]) -> None:
        if isinstance(skip, str):
            raise ValueError(f"skip = {skip!r}: expected a tuple of rule names, such as ({skip!r},)")
        names = [type(rule).__name__ for rule in self.rules]
        if unknown := set(skip) - set(names):
            raise ValueError(f"skip names {sorted(unknown)}, but the chain has {sorted(names)}; correct the name")
        for number, rule in enumerate(self.rules):
            missing = set(rule.needs) - (set(names[:number]) - set(skip))
            if missing and names[number] not in skip:
                raise ValueError(f"{names[number]} needs {', '.join(sorted(missing))} before it; skip both or neither")

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
        self._listening, self._notes = True, {}

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
        batches = self._gather()
        if self._listening:  # an attribute written at every step is more than torch 2.9 can compile
            self._listening = False
        for rule in self.rules:
            rule.prepare([batch for batch in batches if _runs(rule, batch.group)])
        updates, done = [batch.grads for batch in batches], 0
        for number, rule in enumerate(self.rules):
            if any(rule.together(batch.group) for batch in batches if _runs(rule, batch.group)):
                updates = [_through(self.rules[done:number], *each) for each in zip(updates, batches, strict=True)]
                updates = _together(rule, updates, batches)
                done = number + 1
        # Batch by batch to the end, so that what a small batch leaves in the cache is used while it is there.
        for number, batch in enumerate(batches):
            batch.apply(_through(self.rules[done:], updates[number], batch))
            updates[number] = []
            for rule in self.rules:
                if _runs(rule, batch.group):
                    rule.finish(batch)
        return loss

    def _gather(self) -> list[Batch]:
        """The parameters that have gradients, in batches, each with its step counted and its buffers made."""
        alike = [
            (group, block) for group in self.param_groups for members in self._alike(group) for block in blocks(members)
        ]
        return [self._batch(number, *each) for number, each in enumerate(alike)]

    def _alike(self, group: dict[str, Any]) -> Iterable[Tensors]:
        """A group's parameters with gradients, parted by device, type and age; nothing is counted or made yet."""
        alike: dict[_Kind, Tensors] = {}
        last: _Kind | None = None
        members: Tensors = []
        for param in group["params"]:
            grad = param.grad
            if grad is None:
                continue
            if grad.is_sparse:
                raise RuntimeError(
                    f"{type(self).__name__} does not support sparse gradients; "
                    "use sparse=False in the embedding, or torch.optim.SparseAdam"
                )
            state = self.state[param]
            step = state.get("step", 0)
            # Counts on the device cannot be compared, but parameters that began together share one tensor.
            count = id(step) if isinstance(step, Tensor) else step
            key = (param.device, param.dtype, count, len(state))  # what has other buffers is of another age
            if key != last:  # most parameters are like the one before
                last, members = key, alike.setdefault(key, [])
            members.append(param)
        return alike.values()

    def _batch(self, number: int, group: dict[str, Any], params: Tensors) -> Batch:
        states: list[State] = [self.state[param] for param in params]
        begins = "step" not in states[0]
        step = self._count(params[0], states)
        grads = [param.grad for param in params if param.grad is not None]
        if params[0].dtype in HALF:
            grads = [grad.float() for grad in grads]
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        if group["skip"]:
            self._check_skip(group["skip"])
        active = [rule for rule in self.rules if _runs(rule, group)]
        slots = {name: make for rule in active for name, make in rule.slots(group).items()}
        fresh = frozenset(name for name, make in slots.items() if self._create(name, make, params, states))
        buffers = {name: [state[name] for state in states] for name in slots}
        return Batch(
            params, grads, buffers, group, step, begins, fresh, notes=self._notes if self._listening else None,
            _states=states, _vectors=self._vectors.setdefault(number, {}),
        )  # fmt: skip

    def _count(self, param: Tensor, states: list[State]) -> int | Tensor:
        """Count a step of parameters that have taken equally many."""
        step: int | Tensor = states[0].get("step", 0)
        if not self.capturable:
            step = int(step) + 1
        elif not isinstance(step, Tensor):
            step = torch.full((), step + 1.0, dtype=torch.float64, device=param.device)
        else:
            if sum(state.get("step") is step for state in self.state.values()) > len(states):
                step = step.clone()  # the others that share it do not step now
            step.add_(1)
        for state in states:
            state["step"] = step
        return step

    def _create(self, name: str, make: Slot, params: Tensors, states: list[State]) -> bool:
        """Make one slot where it is missing; says whether it was."""
        missing = [(param, state) for param, state in zip(params, states, strict=True) if name not in state]
        for param, state in missing:
            known = self._shared(name) if isinstance(make, Shared) else None
            state[name] = make(param) if known is None else known
        return bool(missing)

    def _shared(self, name: str) -> Tensor | None:
        """The slot of that name that the parameters of all groups that share it have already."""
        for group in self.param_groups:
            slots = {
                slot: make for rule in self.rules if _runs(rule, group) for slot, make in rule.slots(group).items()
            }
            if isinstance(slots.get(name), Shared):
                for param in group["params"]:
                    if param in self.state and name in self.state[param]:
                        found: Tensor = self.state[param][name]
                        return found
        return None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore groups and buffers, each buffer in the type it was saved in.

        torch casts every buffer to its parameter's type, which would round a running power to bfloat16.

        Raises:
            ValueError: the state is another optimizer's, or one's with other rules.
        """
        self._check_options(state_dict["param_groups"])
        super().load_state_dict(state_dict)
        saved = (number for group in state_dict["param_groups"] for number in group["params"])
        params = [param for group in self.param_groups for param in group["params"]]
        copies: dict[tuple[int, torch.device], Tensor] = {}  # what was shared stays shared
        for number, param in zip(saved, params, strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                if isinstance(value, Tensor):
                    key = (id(value), param.device)
                    if key not in copies:
                        copies[key] = value.detach().to(param.device, copy=True)
                    self.state[param][name] = copies[key]
        for state in self.state.values():
            if not self.capturable and isinstance(state.get("step"), Tensor):
                state["step"] = int(state["step"])
        for group in self.param_groups:
            for rule in self.rules:
                rule.join(group)


def _runs(rule: Rule, group: Mapping[str, Any]) -> bool:
    return type(rule).__name__ not in group["skip"] and not rule.idle(group)


def _merge_hyperparameters(rules: Sequence[Rule]) -> dict[str, Any]:
    """The rules' fields together; two rules may declare one field if they agree on its value."""
    merged: dict[str, Any] = {}
    for rule in rules:
        for name, value in rule.hyperparameters().items():
            if name in merged and merged[name] != value:
                raise ValueError(f"two rules disagree on {name}: {merged[name]!r} and {value!r}; give one value")
            merged[name] = value
    return merged


def _through(rules: Sequence[Rule], update: Tensors, batch: Batch) -> Tensors:
    """Run rules over one batch."""
    for rule in rules:
        if _runs(rule, batch.group):
            update = rule(update if rule.linear else batch.settle(update), batch)
            if not isinstance(update, (list, tuple)) or len(update) != len(batch.params):
                raise TypeError(
                    f"{type(rule).__name__} returned {type(update).__name__}; expected a list with one tensor for each "
                    f"of the batch's {len(batch.params)} parameters"
                )
    return update


def _together(rule: Rule, updates: list[Tensors], batches: list[Batch]) -> list[Tensors]:
    """Run a rule over all batches in whose group it is active at once."""
    active = [i for i, batch in enumerate(batches) if _runs(rule, batch.group)]
    if not rule.linear:
        for i in active:
            updates[i] = batches[i].settle(updates[i])
    results = rule.run([updates[i] for i in active], [batches[i] for i in active])
    for i, result in zip(active, results, strict=True):
        updates[i] = result
    return updates
