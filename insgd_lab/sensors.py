"""Forward hooks that measure what layers are fed.

A sensor watches the layers of a model whose forward is x -> W x, and keeps for each weight the statistic of the
calls that led to its gradient::

    sensor = InputSensor(model)
    sensor.watch([model.fc.weight], p=2.0, granularity="layer", center=False, power=True)
    loss(model(x)).backward()
    sensor.read([model.fc.weight])       # [log of the mean over examples of ||x_b||_2^2]

A call counts when its layer is in training mode and gradient flows back through its output. The statistic is
computed in the forward hook (x may be overwritten later) and handed over by a hook on the output's autograd
node, which fires in a backward pass and nowhere else. So evaluation, ``no_grad``, a discarded loss, and the
recomputing forward of activation checkpointing count nothing. A call counts once, however many backward passes
go through it.
"""

from __future__ import annotations

import copy
import math
import threading
import warnings
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, ClassVar, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from insgd_lab.input_statistics import Settings
from insgd_lab.measured_layers import (
    PACKED,
    UNPACKED,
    SideBySide,
    computed_from,
    expanded,
    measured,
    measured_members,
    owned,
    power_shape,
)

__all__ = ["InputSensor", "SideBySide"]


class _Call(NamedTuple):
    """One call's measurement of one weight: ``log_s`` has the power's shape, or is one stream's scalar."""

    meter: _Meter
    log_s: Tensor
    examples: int
    stream: int = 0


@dataclass(eq=False)
class _Meter:
    """What is known of one weight's input: the counted calls since the last step.

    A packed in-projection has three streams, the query, key and value inputs; any other weight has one.
    """

    name: str
    shape: tuple[int, ...]
    settings: Settings
    streams: int = 1
    calls: list[_Call] = field(default_factory=list)

    def mean(self) -> Tensor | None:
        """Logarithm of the mean of the calls, each weighted by its number of examples; None without calls."""
        if self.streams == 1 or not self.calls:
            return _mean(self.calls)
        means = [_mean([call for call in self.calls if call.stream == stream]) for stream in range(self.streams)]
        unknown = torch.full_like(self.calls[0].log_s, math.nan)
        blocks = torch.stack([unknown if mean is None else mean for mean in means])
        return blocks.repeat_interleave(self.shape[0] // self.streams).view(self.shape)


def _mean(calls: list[_Call]) -> Tensor | None:
    if len(calls) <= 1:
        return calls[0].log_s if calls else None
    total = sum(call.examples for call in calls)
    return torch.logsumexp(torch.stack([call.log_s + math.log(call.examples / total) for call in calls]), 0)


class _Counted:
    """Hands the measurements of one forward call to their meters, at most once."""

    def __init__(self, calls: list[_Call]) -> None:
        self._calls = calls

    def __call__(self, _gradients: Any) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            call.meter.calls.append(call)


class _Hook:
    """A module's hook. It holds the sensor weakly, and a copy of it is inert: a copied model measures nothing."""

    def __init__(self, sensor: InputSensor | None, method: str) -> None:
        self._sensor = None if sensor is None else weakref.ref(sensor)
        self._method = method

    def __call__(self, module: nn.Module, *arguments: Any) -> None:
        if module.training and torch.is_grad_enabled():
            self._measure(module, arguments)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _measure(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        # A compiled model leaves its graph for it: no graph can hold a hook on a node of autograd.
        sensor = self._sensor() if self._sensor is not None else None
        if sensor is not None:
            getattr(sensor, self._method)(module, *arguments)

    def release(self) -> None:
        self._sensor = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Hook, (None, self._method)

    @property
    def inert(self) -> bool:
        return self._sensor is None


class InputSensor:
    """Measures the inputs of a model's Linear, convolution and attention layers.

    Args:
        model: the model; its layers are found by module type, also inside wrappers (DDP, torch.compile).
        process_group: average statistics over these ranks at each reading; a DistributedDataParallel model
            brings its own.

    Attributes:
        by_examples: whether ranks count as their examples do, for whoever weights their gradients so; else equally,
            as DistributedDataParallel weights gradients.

    The settings of :meth:`watch` are those of :class:`insgd_lab.input_statistics.Settings`.

    A compiled model is measured if it is first called after :meth:`watch`; torch does not look for new hooks in
    code that it has compiled.
    """

    def __init__(self, model: nn.Module, process_group: Any = None) -> None:
        self.model = model
        self._process_group = _process_group(model) if process_group is None else process_group
        self.by_examples = False
        self._meters: dict[Tensor, _Meter] = {}
        self._start()

    def _start(self) -> None:
        self._hooks: dict[nn.Module, list[tuple[_Hook, Any]]] = {}
        self._taps: dict[nn.Module, _LinearTap] = {}
        self._finalizer = weakref.finalize(self, _remove, self._hooks)

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self.model, "meters": [(p, replace(m, calls=[])) for p, m in self._meters.items()]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A process group goes into no file: DDP finds the default one again, and any other must be given anew.
        self.model, self._meters = state["model"], dict(state["meters"])
        self._process_group, self.by_examples = _process_group(self.model), False
        self._start()
        self._attach()

    def __deepcopy__(self, memo: dict[int, Any]) -> InputSensor:
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        twin._process_group, twin.by_examples = self._process_group, self.by_examples
        return twin

    def watch(self, params: Iterable[Tensor], *, p: float, granularity: str, center: bool, power: bool) -> None:
        """Watch the layers that own these parameters; those of other layers are left alone.

        A weight that its layer computes from other parameters (weight_norm, spectral_norm, pruning) has no input
        power of its own, and neither have they: a warning names them.

        Raises:
            ValueError: a parameter that is not the model's; a granularity that a layer does not have; one weight
                tied between unlike layers; a lazy layer whose shape is needed and not known yet.
        """
        params = list(params)
        names: dict[Tensor, str] = {param: name for name, param in self.model.named_parameters()}
        self._check_owned(params, names)
        meters: dict[Tensor, _Meter] = {}
        for module, param in self._owners(set(params)):
            meter = _new_meter(module, param, names[param], Settings(p, granularity, center, power))
            if meters.setdefault(param, meter).shape != meter.shape:
                raise ValueError(
                    f"{names[param]} is shared by layers whose powers have shapes {meters[param].shape} and "
                    f"{meter.shape}; use granularity='layer', or untie them"
                )
        self._warn_of_computed_weights(set(params) - set(meters), names)
        self._meters |= meters
        self._attach()

    def _owners(self, params: set[Tensor]) -> list[tuple[nn.Module, Tensor]]:
        return [(module, param) for module in self.model.modules() for param in owned(module) if param in params]

    def _check_owned(self, params: list[Tensor], names: dict[Tensor, str]) -> None:
        if foreign := [param for param in params if param not in names]:
            raise ValueError(
                f"{len(foreign)} of {len(params)} parameters (the first is {_describe(foreign[0])}) are not parameters "
                f"of the {type(self.model).__name__} that is measured, and all must be; add their layer to that model, "
                "or leave them to another optimizer"
            )

    def _warn_of_computed_weights(self, params: set[Tensor], names: dict[Tensor, str]) -> None:
        sources = [names[p] for module in self.model.modules() for p in computed_from(module) if p in params]
        if sources:
            warnings.warn(
                f"the weights of layers are computed from {', '.join(dict.fromkeys(sources))}, whose input power is "
                "not measured: they take scale 1. To have them measured, make the weights parameters again "
                "(torch.nn.utils.parametrize.remove_parametrizations)",
                stacklevel=2,
            )

    def _attach(self) -> None:
        for module in self.model.modules():
            _drop_inert_hooks(module)
            layers = module.members if isinstance(module, SideBySide) else [module]
            if module in self._hooks or not any(param in self._meters for layer in layers for param in owned(layer)):
                continue
            if isinstance(module, SideBySide):
                after = _Hook(self, "_after_members")
                self._hooks[module] = [(after, module.register_forward_hook(after, with_kwargs=True))]
            elif isinstance(module, nn.MultiheadAttention):
                before, after = _Hook(self, "_before_attention"), _Hook(self, "_after_attention")
                handle = module.register_forward_hook(after, with_kwargs=True, always_call=True)
                self._hooks[module] = [(before, module.register_forward_pre_hook(before)), (after, handle)]
            else:
                after = _Hook(self, "_after_layer")
                self._hooks[module] = [(after, module.register_forward_hook(after, with_kwargs=True))]

    def shape(self, param: Tensor) -> tuple[int, ...]:
        """Shape of the parameter's power; ``(0,)`` where it has none."""
        meter = self._meters.get(param)
        return (0,) if meter is None else meter.shape

    def layers(self, param: Tensor) -> list[nn.Module]:
        """The layers that own the parameter."""
        return [module for module in self.model.modules() if any(param is weight for weight in owned(module))]

    def measured(self, params: Sequence[Tensor]) -> list[int]:
        """The places in the list of those whose layers are watched."""
        return [i for i, param in enumerate(params) if param in self._meters]

    def name(self, param: Tensor) -> str:
        """The watched parameter's name in the model."""
        return self._meters[param].name

    def read(self, params: Sequence[Tensor]) -> list[Tensor | None]:
        """The logarithm of s since the last reading, None where nothing was measured; starts afresh.

        Data-parallel on a device that must not be waited for, what no rank measured is NaN instead.

        All parameters must be watched. Under data-parallel training every rank reads the same ones.
        """
        meters = [self._meters[param] for param in params]
        readings = [meter.mean() for meter in meters]
        weights = [sum(call.examples for call in meter.calls) if self.by_examples else 1 for meter in meters]
        self.discard()
        if self._process_group is None or not params:
            return readings
        return self._average_over_ranks(params, readings, weights)

    def _average_over_ranks(
        self, params: Sequence[Tensor], readings: list[Tensor | None], weights: Sequence[int]
    ) -> list[Tensor | None]:
        """Weighted mean over the ranks that measured; one collective."""
        shapes, device = [self._meters[param].shape for param in params], params[0].device

        def filled(shape: Sequence[int], value: float) -> Tensor:
            return torch.full(shape, value, dtype=torch.float64, device=device)

        known = [filled(s, math.nan) if r is None else r for r, s in zip(readings, shapes, strict=True)]
        shares = [filled(s, math.log(w) if w else -math.inf) for w, s in zip(weights, shapes, strict=True)]
        local = torch.stack([torch.cat([each.reshape(-1) for each in row]) for row in (known, shares)])
        ranks = [torch.empty_like(local) for _ in range(dist.get_world_size(self._process_group))]
        dist.all_gather(ranks, local, group=self._process_group)
        logs, log_weights = torch.stack(ranks, 1)
        log_weights = torch.where(logs.isnan(), -math.inf, log_weights)
        logs = torch.where(logs.isnan(), -math.inf, logs)
        mean = torch.logsumexp(logs + log_weights, 0) - torch.logsumexp(log_weights, 0)
        mean = torch.where((log_weights > -math.inf).any(0), mean, math.nan)
        parts = torch.split(mean, [math.prod(shape) for shape in shapes])
        merged = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        if mean.device.type != "cpu":
            return list(merged)  # looking for layers that no rank measured would wait for the device
        return [None if part.isnan().all() else part for part in merged]

    def discard(self) -> None:
        """Drop what was counted since the last reading."""
        for tap in self._taps.values():
            tap.close()  # left by a forward that was broken off
        self._taps.clear()
        for meter in self._meters.values():
            if meter.calls:
                meter.calls = []

    def close(self) -> None:
        """Remove all hooks from the model."""
        self._finalizer()

    def _after_layer(self, module: Any, args: Any, kwargs: Any, output: Any) -> None:
        if _counts(output):
            x = args[0] if args else kwargs["input"]
            self._hand_over(output, [self._call(module, module._parameters.get("weight"), x)])

    def _after_members(self, module: SideBySide, args: Any, kwargs: Any, output: Any) -> None:
        if not _counts(output):
            return
        x, first, calls = args[0] if args else kwargs["input"], 0, list[_Call | None]()
        for settings, alike in groupby(module.members, self._settings):
            members = list(alike)
            if settings is not None and x.numel():
                calls += self._calls(members, x, first, settings)
            first += len(members)
        self._hand_over(output, calls)

    def _settings(self, layer: nn.Module) -> Settings | None:
        """What is measured of a layer's input, if anything."""
        param = layer._parameters.get("weight")
        meter = None if param is None or not param.requires_grad else self._meters.get(param)
        return None if meter is None else meter.settings

    def _calls(self, members: list[nn.Module], x: Tensor, first: int, settings: Settings) -> list[_Call]:
        with torch.no_grad():
            logs, examples = measured_members(members, x.detach(), first, settings)
            meters = [self._meters[layer._parameters["weight"]] for layer in members]  # type: ignore[index]
            return [
                _Call(meter, expanded(log_s, layer, meter.shape), examples)
                for meter, log_s, layer in zip(meters, logs.unbind(), members, strict=True)
            ]

    def _before_attention(self, module: nn.MultiheadAttention, args: Any) -> None:
        # The functional form of attention reads the out-projection's weight directly, so that module's own
        # hooks never fire: its input is seen in the call of F.linear.
        if module in self._taps:
            self._taps.pop(module).close()
        weight = module.out_proj._parameters.get("weight")
        if weight is not None and weight in self._meters:
            self._taps[module] = _LinearTap(weight)

    def _after_attention(self, module: Any, args: Any, kwargs: Any, output: Any) -> None:
        tap = self._taps.pop(module, None)
        inputs = tap.close() if tap is not None else []
        if output is None or not _counts(output[0]):
            return
        named = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
        streams = [named["query"], named["key"], named["value"]]
        calls = [self._call(module, module.out_proj._parameters.get("weight"), x) for x in inputs]
        packed = module._parameters.get(PACKED)
        if packed is not None:
            calls += self._packed(module, packed, streams)
        else:
            weights = [module._parameters.get(name) for name in UNPACKED]
            calls += [self._call(module, w, x) for w, x in zip(weights, streams, strict=True)]
        self._hand_over(output[0], calls)

    def _call(self, module: nn.Module, param: Tensor | None, x: Tensor) -> _Call | None:
        meter = None if param is None else self._meters.get(param)
        if param is None or meter is None or not param.requires_grad or x.numel() == 0:
            return None
        with torch.no_grad():
            log_s, examples = measured(module, x.detach(), meter.settings)
            return _Call(meter, log_s if meter.streams > 1 else expanded(log_s, module, meter.shape), examples)

    def _packed(self, module: nn.Module, param: Tensor, streams: list[Tensor]) -> list[_Call | None]:
        found = {id(x): self._call(module, param, x) for x in streams}  # self-attention has one input
        calls = [found[id(x)] for x in streams]
        return [None if call is None else call._replace(stream=number) for number, call in enumerate(calls)]

    @staticmethod
    def _hand_over(output: Tensor, calls: list[_Call | None]) -> None:
        counted = [call for call in calls if call is not None]
        # A view's own node is dropped when the view is written in place (ReLU(inplace=True) after a Linear on
        # sequences); the node of its base stays.
        node = output._base.grad_fn if output._is_view() and output._base is not None else output.grad_fn
        if counted and node is not None:
            node.register_prehook(_Counted(counted))


class _LinearTap:
    """Listens to F.linear for calls with one weight, from creation to :meth:`close`."""

    # F.linear is replaced while any tap listens: several sensors may watch one model, and close in any order.
    listening: ClassVar[list[_LinearTap]] = []
    originals: ClassVar[dict[str, Any]] = {}
    lock: ClassVar[Any] = threading.Lock()  # two threads may each be training a model

    def __init__(self, weight: Tensor) -> None:
        self.weight: Tensor = weight
        self.inputs: list[Tensor] = []
        with self.lock:
            if not self.listening:
                for name, replacement in _REPLACEMENTS.items():
                    self.originals[name] = getattr(F, name)
                    setattr(F, name, replacement)
            self.listening.append(self)

    def close(self) -> list[Tensor]:
        """Stop listening; returns the inputs that were seen."""
        with self.lock:
            if self in self.listening:
                self.listening.remove(self)
                if not self.listening:
                    for name in _REPLACEMENTS:
                        setattr(F, name, self.originals[name])
        return self.inputs


def _tapped_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    for tap in tuple(_LinearTap.listening):
        if weight is tap.weight:
            tap.inputs.append(input)
    result: Tensor = _LinearTap.originals["linear"](input, weight, bias)
    return result


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _tapped_attention(*args: Any, **kwargs: Any) -> Any:
    # A compiled graph would take it whole, and no tap would see the F.linear in it.
    return _LinearTap.originals["multi_head_attention_forward"](*args, **kwargs)


_REPLACEMENTS = {"linear": _tapped_linear, "multi_head_attention_forward": _tapped_attention}


def _remove(hooks: dict[nn.Module, list[tuple[_Hook, Any]]]) -> None:
    for pairs in hooks.values():
        for hook, handle in pairs:
            handle.remove()
            hook.release()  # compiled code goes on calling it
    hooks.clear()


def _drop_inert_hooks(module: nn.Module) -> None:
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        for key, hook in list(hooks.items()):
            if isinstance(hook, _Hook) and hook.inert:
                del hooks[key]


def _counts(output: Any) -> bool:
    """Whether gradient may flow back through a layer's output; not under torch.func's transforms."""
    transformed = torch._C._functorch.is_functorch_wrapped_tensor
    return isinstance(output, Tensor) and output.requires_grad and not transformed(output)


def _describe(param: Tensor) -> str:
    return "an uninitialized one" if is_lazy(param) else f"of shape {tuple(param.shape)}"


def _process_group(model: nn.Module) -> Any:
    """That of the DistributedDataParallel in the model, which torch.compile may have wrapped; None without."""
    parallel = (m for m in model.modules() if isinstance(m, nn.parallel.DistributedDataParallel))
    return next((module.process_group for module in parallel), None)


def _new_meter(module: nn.Module, param: Tensor, name: str, settings: Settings) -> _Meter:
    if settings.granularity != "layer" and is_lazy(param):
        raise ValueError(
            f"{name} has no shape yet, and granularity={settings.granularity!r} needs it; call the model once on an "
            "example before making the optimizer"
        )
    streams = 3 if param is module._parameters.get(PACKED) else 1
    return _Meter(name, power_shape(module, param, settings.granularity), settings, streams)
