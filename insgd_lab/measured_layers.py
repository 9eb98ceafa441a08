"""Which weights a layer multiplies its input by, what shape their input's power has, and how it is measured.

Linear and convolution layers have one such weight; attention has its in-projection, packed or not, and the weight of
its out-projection. Everything else (biases, normalisation, embeddings, tokens) has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from insgd_lab.input_statistics import (
    ConvShape,
    Settings,
    conv_statistic,
    conv_statistics,
    vector_statistic,
    vector_statistics,
)

__all__ = [
    "PACKED", "UNPACKED", "SideBySide", "computed_from", "expanded", "measured", "measured_members", "owned",
    "power_shape",
]  # fmt: skip

PACKED = "in_proj_weight"
UNPACKED = ("q_proj_weight", "k_proj_weight", "v_proj_weight")

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_ANY_CONV = (*_CONV, *_TRANSPOSED)


class SideBySide(nn.Module):
    """A layer that does the work of several alike, its members, in one call.

    The channels (or features) of its input and output are those of the first member, then those of the second, and so
    on. The members own the parameters and are never called.
    """

    members: Sequence[nn.Module]


def _weights(module: nn.Module) -> tuple[str, ...]:
    """The names of the weights by which a module multiplies its input."""
    if isinstance(module, nn.MultiheadAttention):
        return (PACKED, *UNPACKED)
    return ("weight",) if isinstance(module, (nn.Linear, *_ANY_CONV)) else ()


def owned(module: nn.Module) -> list[Tensor]:
    """The weights by which a module multiplies its input.

    A parametrised weight (spectral norm, say) is computed from other parameters, and is none of them.
    """
    named = [module._parameters.get(name) for name in _weights(module)]
    if isinstance(module, nn.MultiheadAttention):
        named.append(module.out_proj._parameters.get("weight"))
    return [param for param in named if param is not None]


def computed_from(module: nn.Module) -> list[Tensor]:
    """The parameters from which a module computes its weights: parametrizations, and the older hooks' weight_*."""
    hidden = [name for name in _weights(module) if parametrize.is_parametrized(module, name)]
    sources = [param for name in hidden for param in module.parametrizations[name].parameters()]  # type: ignore[index, union-attr]
    if module._parameters.get("weight") is None and "weight" in _weights(module):
        sources += [p for name, p in module._parameters.items() if name.startswith("weight_") and p is not None]
    return sources


def power_shape(module: Any, param: Tensor, granularity: str) -> tuple[int, ...]:
    """The shape of a weight's power.

    Raises:
        ValueError: the layer has no such granularity.
    """
    if isinstance(module, nn.MultiheadAttention):
        return (len(param), 1) if param is module._parameters[PACKED] else ()
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


def _examples(x: Tensor) -> int:
    """The number of vectors in ``[..., features]``."""
    return max(1, x.numel() // x.shape[-1])


def measured(module: nn.Module, x: Tensor, settings: Settings) -> tuple[Tensor, int]:
    """The logarithm of s of one input, and its number of examples."""
    if x.is_nested:
        x = x.values()  # sequences of unlike lengths (torch.jagged) are stored as [vectors, features]
    if not isinstance(module, _ANY_CONV):
        return vector_statistic(x, settings), _examples(x)
    if x.dim() == len(module.kernel_size) + 1:
        x = x.unsqueeze(0)
    return conv_statistic(x, settings, _conv_shape(module)), x.shape[0]


def measured_members(members: Sequence[nn.Module], x: Tensor, first: int, settings: Settings) -> tuple[Tensor, int]:
    """What :func:`measured` gives for each of several like layers whose inputs lie side by side.

    Args:
        members: the layers, neighbours.
        x: the input of all that lie there.
        first: how many of them come before these.
        settings: what to measure.

    Returns:
        The logarithms of s, ``[members]`` or ``[members, …]``, and each one's number of examples.
    """
    module: Any = members[0]
    is_conv = isinstance(module, _ANY_CONV)
    axis, width = (1, module.in_channels) if is_conv else (-1, module.in_features)
    x = x.narrow(axis, first * width, len(members) * width)
    if is_conv:
        return conv_statistics(x, settings, _conv_shape(module), len(members)), x.shape[0]
    return vector_statistics(x, settings, len(members)), _examples(x)


def _conv_shape(module: Any) -> ConvShape:
    return ConvShape(
        module.groups, module.kernel_size, module.stride, module.dilation,
        tuple(module._reversed_padding_repeated_twice), module.padding_mode,
    )  # fmt: skip


def expanded(log_s: Tensor, module: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Bring a scalar, ``[channels]`` or ``[groups]`` to the shape that divides the weight's gradient."""
    if log_s.numel() == math.prod(shape):
        return log_s.view(shape)
    groups, outputs = int(module.groups), shape[0]  # type: ignore[arg-type]
    blocks = log_s.view(groups, 1, -1).expand(-1, outputs // groups, -1)
    return blocks.reshape(shape)
