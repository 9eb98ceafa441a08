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

import math
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from insgd_lab.input_statistics import ConvShape, Settings, conv_statistic, vector_statistic

__all__ = ["InputSensor"]

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_ANY_CONV = (*_CONV, *_TRANSPOSED)
_UNPACKED = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
_Entry = tuple["_Meter", Tensor, int]


@dataclass(eq=False)
class _Meter:
    """What is known of one weight's input: the counted calls since the last step, as (log s, examples)."""

    name: str
    shape: tuple[int, ...]
    settings: Settings
    calls: list[tuple[Tensor, int]] = field(default_factory=list)

    def mean(self) -> Tensor | None:
        """Logarithm of the mean of the calls, each weighted by its number of examples."""
        if len(self.calls) <= 1:
            return self.calls[0][0] if self.calls else None
        total = sum(examples for _, examples in self.calls)
        logs = [log_s + math.log(examples / total) for log_s, examples in self.calls]
        return torch.logsumexp(torch.stack(logs), 0)


class _Counted:
    """Hands the measurements of one forward call to their meters, at most once."""

    def __init__(self, entries: list[_Entry]) -> None:
        self._entries = entries

    def __call__(self, _gradients: Any) -> None:
        entries, self._entries = self._entries, []
        for meter, log_s, examples in entries:
            meter.calls.append((log_s, examples))


class _Hook:
    """A module's hook. It holds the sensor weakly, and a copy of it is inert: a copied model measures nothing."""

    def __init__(self, sensor: InputSensor | None, method: str) -> None:
        self._sensor = None if sensor is None else weakref.ref(sensor)
        self._method = method

    def __call__(self, *arguments: Any) -> None:
        sensor = self._sensor() if self._sensor is not None else None
        if sensor is not None:
            getattr(sensor, self._method)(*arguments)

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

    The settings of :meth:`watch` are those of :class:`insgd_lab.input_statistics.Settings`.
    """

    def __init__(self, model: nn.Module, process_group: Any = None) -> None:
        self.model = model
        if process_group is None and isinstance(model, nn.parallel.DistributedDataParallel):
            process_group = model.process_group
        self._process_group = process_group
        self._meters: dict[Tensor, _Meter] = {}
        self._start()

    def _start(self) -> None:
        self._handles: dict[nn.Module, list[Any]] = {}
        self._taps: dict[nn.Module, _LinearTap] = {}
        self._finalizer = weakref.finalize(self, _remove, self._handles)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "model": self.model, "process_group": None,
            "meters": {param: (m.name, m.shape, m.settings) for param, m in self._meters.items()},
        }  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.model, self._process_group = state["model"], state["process_group"]
        self._meters = {
            param: _Meter(name, shape, settings) for param, (name, shape, settings) in state["meters"].items()
        }
        self._start()
        self._attach()

    def watch(self, params: Iterable[Tensor], *, p: float, granularity: str, center: bool, power: bool) -> None:
        """Watch the layers that own these parameters; others are left alone.

        Raises:
            ValueError: a granularity that a layer does not have; one weight tied between unlike layers.
        """
        settings = Settings(p, granularity, center, power)
        wanted = set(params)
        names: dict[Tensor, str] = {param: name for name, param in self.model.named_parameters()}
        shapes: dict[Tensor, tuple[int, ...]] = {}
        for module in self.model.modules():
            for param in _owned(module):
                if param not in wanted:
                    continue
                shape = _shape(module, param, granularity)
                if shapes.setdefault(param, shape) != shape:
                    raise ValueError(
                        f"{names[param]} is shared by layers whose powers have shapes {shapes[param]} and {shape}; "
                        "use granularity='layer', or untie them"
                    )
        for param, shape in shapes.items():
            self._meters[param] = _Meter(names[param], shape, settings)
        self._attach()

    def _attach(self) -> None:
        inside_attention = {m.out_proj for m in self.model.modules() if isinstance(m, nn.MultiheadAttention)}
        for module in self.model.modules():
            _drop_inert_hooks(module)
            owns = any(param in self._meters for param in _owned(module))
            if not owns or module in self._handles or module in inside_attention:
                continue
            if isinstance(module, nn.MultiheadAttention):
                self._handles[module] = [
                    module.register_forward_pre_hook(_Hook(self, "_before_attention")),
                    module.register_forward_hook(_Hook(self, "_after_attention"), with_kwargs=True, always_call=True),
                ]
            else:
                self._handles[module] = [module.register_forward_hook(_Hook(self, "_after_layer"), with_kwargs=True)]

    def shape(self, param: Tensor) -> tuple[int, ...]:
        """Shape of the parameter's power; ``(0,)`` where it has none."""
        meter = self._meters.get(param)
        return (0,) if meter is None else meter.shape

    def name(self, param: Tensor) -> str:
        """The watched parameter's name in the model."""
        return self._meters[param].name

    def read(self, params: Sequence[Tensor]) -> list[Tensor | None]:
        """The logarithm of s since the last reading, None where nothing was measured; starts afresh.

        All parameters must be watched. Under data-parallel training every rank reads the same ones.
        """
        readings = [self._meters[param].mean() for param in params]
        self.discard()
        if self._process_group is None or not params:
            return readings
        return self._average_over_ranks(params, readings)

    def _average_over_ranks(self, params: Sequence[Tensor], readings: list[Tensor | None]) -> list[Tensor | None]:
        """Unweighted mean over the ranks that measured, as DDP weights gradients; one collective."""
        shapes = [self._meters[param].shape for param in params]
        unknown = [torch.full(shape, math.nan, dtype=torch.float64, device=params[0].device) for shape in shapes]
        pairs = zip(readings, unknown, strict=True)
        local = torch.cat([(nan if reading is None else reading).reshape(-1) for reading, nan in pairs])
        ranks = [torch.empty_like(local) for _ in range(dist.get_world_size(self._process_group))]
        dist.all_gather(ranks, local, group=self._process_group)
        logs = torch.stack(ranks)
        counts = (~logs.isnan()).sum(0)
        logs = torch.where(logs.isnan(), -math.inf, logs)
        mean = torch.where(counts > 0, torch.logsumexp(logs, 0) - counts.double().log(), math.nan)
        parts = torch.split(mean, [math.prod(shape) for shape in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]

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
        if not _counts(module, output):
            return
        x = args[0] if args else kwargs["input"]
        self._hand_over(output, [self._entry(module, module._parameters["weight"], x)])

    def _before_attention(self, module: nn.MultiheadAttention, args: Any) -> None:
        # The functional form of attention reads the out-projection's weight directly, so that module's own
        # hooks never fire: its input is seen in the call of F.linear.
        if module in self._taps:
            self._taps.pop(module).close()
        weight = module.out_proj._parameters.get("weight")
        if weight is not None and module.training and torch.is_grad_enabled():
            self._taps[module] = _LinearTap(weight)

    def _after_attention(self, module: Any, args: Any, kwargs: Any, output: Any) -> None:
        tap = self._taps.pop(module, None)
        inputs = tap.close() if tap is not None else []
        if output is None or not _counts(module, output[0]):
            return
        named = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
        streams = [named["query"], named["key"], named["value"]]
        entries = [self._entry(module, module.out_proj._parameters.get("weight"), x) for x in inputs]
        packed = module._parameters.get("in_proj_weight")
        if packed is not None:
            entries.append(self._packed_entry(packed, streams))
        else:
            weights = [module._parameters.get(name) for name in _UNPACKED]
            entries += [self._entry(module, w, x) for w, x in zip(weights, streams, strict=True)]
        self._hand_over(output[0], entries)

    def _entry(self, module: nn.Module, param: Tensor | None, x: Tensor) -> _Entry | None:
        meter = None if param is None else self._meters.get(param)
        if param is None or meter is None or not param.requires_grad or x.numel() == 0:
            return None
        with torch.no_grad():
            log_s, examples = _measure(module, x.detach(), meter.settings)
            return meter, _expand(log_s, module, meter), examples

    def _packed_entry(self, param: Tensor, streams: list[Tensor]) -> _Entry | None:
        meter = self._meters.get(param)
        if meter is None or not param.requires_grad or streams[0].numel() == 0:
            return None
        with torch.no_grad():
            measured = {id(x): vector_statistic(x.detach(), meter.settings) for x in streams}
            blocks = torch.stack([measured[id(x)] for x in streams])
            return (
                meter,
                blocks.repeat_interleave(param.shape[0] // 3).view(meter.shape),
                _examples(streams[0]),
            )

    @staticmethod
    def _hand_over(output: Tensor, entries: list[_Entry | None]) -> None:
        counted = [entry for entry in entries if entry is not None]
        # A view's own node is dropped when the view is written in place (ReLU(inplace=True) after a Linear on
        # sequences); the node of its base stays.
        node = output._base.grad_fn if output._is_view() and output._base is not None else output.grad_fn
        if counted and node is not None:
            node.register_prehook(_Counted(counted))


class _LinearTap:
    """Listens to F.linear for calls with one weight, from creation to :meth:`close`."""

    # F.linear is replaced while any tap listens: several sensors may watch one model, and close in any order.
    listening: ClassVar[list[_LinearTap]] = []
    original: ClassVar[Any] = None

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.inputs = weight, list[Tensor]()
        if not self.listening:
            _LinearTap.original, F.linear = F.linear, _tapped_linear
        self.listening.append(self)

    def close(self) -> list[Tensor]:
        """Stop listening; returns the inputs that were seen."""
        if self in self.listening:
            self.listening.remove(self)
            if not self.listening:
                F.linear = self.original
        return self.inputs


def _tapped_linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    for tap in _LinearTap.listening:
        if weight is tap.weight:
            tap.inputs.append(input)
    result: Tensor = _LinearTap.original(input, weight, bias)
    return result


def _remove(handles: dict[nn.Module, list[Any]]) -> None:
    for module_handles in handles.values():
        for handle in module_handles:
            handle.remove()
    handles.clear()


def _drop_inert_hooks(module: nn.Module) -> None:
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        for key, hook in list(hooks.items()):
            if isinstance(hook, _Hook) and hook.inert:
                del hooks[key]


def _counts(module: nn.Module, output: Any) -> bool:
    return module.training and torch.is_grad_enabled() and isinstance(output, Tensor) and output.requires_grad


def _examples(x: Tensor) -> int:
    """The number of vectors in ``[..., features]``."""
    return max(1, x.numel() // x.shape[-1])


def _measure(module: nn.Module, x: Tensor, settings: Settings) -> tuple[Tensor, int]:
    """The logarithm of s of one input, and its number of examples."""
    if not isinstance(module, _ANY_CONV):
        return vector_statistic(x, settings), _examples(x)
    if x.dim() == len(module.kernel_size) + 1:
        x = x.unsqueeze(0)
    shape = ConvShape(
        module.groups, module.kernel_size, module.stride, module.dilation,
        tuple(module._reversed_padding_repeated_twice), module.padding_mode,
    )  # fmt: skip
    return conv_statistic(x, settings, shape), x.shape[0]


def _expand(log_s: Tensor, module: nn.Module, meter: _Meter) -> Tensor:
    """Bring ``[channels]`` or ``[groups]`` to the shape that divides the weight's gradient."""
    if log_s.numel() == math.prod(meter.shape):
        return log_s.view(meter.shape)
    groups, outputs = int(module.groups), meter.shape[0]  # type: ignore[arg-type]
    blocks = log_s.view(groups, 1, -1).expand(-1, outputs // groups, -1)
    return blocks.reshape(meter.shape)


def _owned(module: nn.Module) -> list[Tensor]:
    """The weights by which a module multiplies its input.

    A parametrised weight (spectral norm, say) is computed from other parameters, and is none of them.
    """
    if isinstance(module, nn.MultiheadAttention):
        named = [module._parameters.get(name) for name in ("in_proj_weight", *_UNPACKED)]
        named.append(module.out_proj._parameters.get("weight"))
    elif isinstance(module, (nn.Linear, *_ANY_CONV)):
        named = [module._parameters.get("weight")]
    else:
        named = []
    return [param for param in named if param is not None]


def _shape(module: Any, param: Tensor, granularity: str) -> tuple[int, ...]:
    """The shape of a weight's power.

    Raises:
        ValueError: the layer has no such granularity.
    """
    if isinstance(module, nn.MultiheadAttention):
        return (len(param), 1) if param is module.in_proj_weight else ()
    ones = (1,) * (param.ndim - 2)
    if isinstance(module, _TRANSPOSED):
        if granularity == "neuron":
            raise ValueError(
                f"granularity='neuron' is not defined for {type(module).__name__}: its outputs share no receptive "
                "field; use 'layer' or 'channel'"
            )
        return (len(param), 1, *ones) if granularity == "channel" else ()
    if isinstance(module, _CONV):
        rows = len(param) if module.groups > 1 else 1
        if granularity == "channel":
            return (rows, param.shape[1], *ones)
        if granularity == "neuron" and module.groups > 1:
            return (rows, 1, *ones)
    return ()
