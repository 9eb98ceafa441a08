"""The statistic s_t of one call's input x (INSGD Eq. 26, 29): the mean over examples of ||x_b||_p^p.

Everything is returned as a natural logarithm in float64: at p = 16 an input of 1e20 has no power that a float64
could hold, but its logarithm is 737. What x_b is, is the granularity:

* ``layer``: the whole feature map of an example, or the feature vector of a Linear layer;
* ``neuron``: the receptive-field patch that one output position of a convolution sees;
* ``channel``: one input channel's plane.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ConvShape", "Settings", "conv_statistic", "conv_statistics", "vector_statistic", "vector_statistics"]

_MIN_STD = 0.01
_LOG_SMALL = -60.0  # below it a float32 sum of powers may have lost terms to underflow
_UNDEFINED_STD = 0.99  # math.md section 1: how the published code reads the std of a single element


@dataclass(frozen=True)
class Settings:
    """What to measure: norm order, what x_b is, whether to standardise it, and whether to take the p-th power."""

    p: float = 2.0
    granularity: str = "layer"
    center: bool = False
    power: bool = True


@dataclass(frozen=True)
class ConvShape:
    """The geometry of a convolution that decides its receptive fields; ``padding`` as F.pad takes it."""

    groups: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    padding_mode: str


def vector_statistic(x: Tensor, settings: Settings) -> Tensor:
    """The logarithm of s of vectors ``[..., features]``: every leading axis counts examples. Returns a scalar."""
    x = _widen(x)
    if settings.center:
        x = _standardise(x, dims=(-1,))
    return _log_mean(x, settings, _over((-1,)), keep=False)


def conv_statistic(x: Tensor, settings: Settings, shape: ConvShape) -> Tensor:
    """The logarithm of s of feature maps ``[batch, channels, *spatial]``.

    Returns a scalar for "layer", ``[channels]`` for "channel", ``[groups]`` for "neuron".
    """
    x = _widen(x)
    spatial = tuple(range(2, x.ndim))
    if settings.center:
        x = _standardise(x, spatial)
    if settings.granularity == "layer":
        return _log_mean(x, settings, _over(tuple(range(1, x.ndim))), keep=False)
    if settings.granularity == "channel":
        return _log_mean(x, settings, _over(spatial), keep=True)
    grouped = x.view(len(x), shape.groups, -1, *x.shape[2:])
    return _log_mean(grouped, settings, _over_patches(shape), keep=True)


def vector_statistics(x: Tensor, settings: Settings, members: int) -> Tensor:
    """The logarithms of s of vectors that lie side by side, ``[..., members * features]``. Returns ``[members]``."""
    x = torch.unflatten(_widen(x), -1, (members, -1)).flatten(0, -3)
    if settings.center:
        x = _standardise(x, dims=(-1,))
    return _log_mean(x, settings, _over((-1,)), keep=True)


def conv_statistics(x: Tensor, settings: Settings, shape: ConvShape, members: int) -> Tensor:
    """The logarithms of s of feature maps that lie side by side, ``[batch, members * channels, *spatial]``.

    ``shape`` is one member's. Returns ``[members]`` for "layer", ``[members, channels]`` for "channel" and
    ``[members, groups]`` for "neuron".
    """
    if settings.granularity != "layer":
        # A member is so many groups more: no receptive field spans two of them.
        grouped = replace(shape, groups=members * shape.groups)
        return conv_statistic(x, settings, grouped).view(members, -1)
    x = _widen(x)
    if settings.center:
        x = _standardise(x, tuple(range(2, x.ndim)))
    return _log_mean(torch.unflatten(x, 1, (members, -1)), settings, _over(tuple(range(2, x.ndim + 1))), keep=True)


@dataclass(frozen=True)
class _Reduction:
    """Brings elementwise values to one number an example, plane or patch."""

    add: Callable[[Tensor], Tensor]
    add_squares: Callable[[Tensor], Tensor]
    top: Callable[[Tensor], Tensor]


def _over(dims: tuple[int, ...]) -> _Reduction:
    # The norm squares and adds in one pass over memory, without storing the squares.
    return _Reduction(
        lambda x: x.sum(dims), lambda x: torch.linalg.vector_norm(x, 2, dims).square(), lambda x: x.amax(dims)
    )


def _over_patches(shape: ConvShape) -> _Reduction:
    return _Reduction(
        lambda x: _patch_sums(x, shape), lambda x: _patch_sums(x.square(), shape), lambda x: _patch_maxima(x, shape)
    )


def _widen(x: Tensor) -> Tensor:
    # A float16 sum of squares overflows at 65504.
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _standardise(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    # In float64: a float32 sum of squares overflows at inputs of 1e19.
    centred = x - x.mean(dims, keepdim=True, dtype=torch.float64).to(x.dtype)
    numbers = math.prod(x.shape[d] for d in dims)
    if numbers == 1:
        return centred / _UNDEFINED_STD
    norm: Tensor = torch.linalg.vector_norm(centred, 2, dims, keepdim=True, dtype=torch.float64)
    return centred / (norm / math.sqrt(numbers - 1)).clamp(min=_MIN_STD).to(x.dtype)


def _log_mean(x: Tensor, settings: Settings, over: _Reduction, *, keep: bool) -> Tensor:
    """Logarithm of the mean power: over everything, or over all axes but the second (``keep``)."""
    if settings.p == math.inf:
        return _log_mean_of(over.top(x.abs()), keep=keep)
    if settings.p in (1, 2) and x.device.type == "cpu":
        # Powers as they are, in one pass. Whether they left the type's range can be looked at for free on a
        # CPU only; a GPU would have to be waited for.
        total = over.add(x.abs()) if settings.p == 1 else over.add_squares(x)
        plain = _log_mean_of(_root(total, settings), keep=keep)
        low, high = (plain, plain) if plain.ndim == 0 else torch.aminmax(plain)
        if low.item() > _LOG_SMALL and high.item() < math.inf:
            return plain
    # Divided by the largest magnitude first, so that powers neither overflow nor vanish.
    magnitude = x.abs()
    peak = magnitude.amax([d for d in range(x.ndim) if not (keep and d == 1)], keepdim=True)
    total = over.add((magnitude / torch.where(peak > 0, peak, 1)).pow(settings.p))
    scaled = _log_mean_of(_root(total, settings), keep=keep)
    order = settings.p if settings.power else 1.0
    return scaled + order * peak.double().flatten().log().view(scaled.shape)


def _root(total: Tensor, settings: Settings) -> Tensor:
    """The power itself, or the norm of which it is the power."""
    return total if settings.power else total.double().pow(1 / settings.p)


def _log_mean_of(total: Tensor, *, keep: bool) -> Tensor:
    dims = [d for d in range(total.ndim) if not (keep and d == 1)]
    return total.mean(dims, dtype=torch.float64).log()


def _pad(x: Tensor, shape: ConvShape) -> Tensor:
    if not any(shape.padding):
        return x
    return F.pad(x, shape.padding, mode="constant" if shape.padding_mode == "zeros" else shape.padding_mode)


def _patch_sums(x: Tensor, shape: ConvShape) -> Tensor:
    """Sums over receptive fields: ``[batch, groups, channels, *spatial]`` to ``[batch, groups, *positions]``."""
    return _slide(lambda windows: windows.sum(-1), _pad(x.sum(2), shape), shape)


def _patch_maxima(x: Tensor, shape: ConvShape) -> Tensor:
    return _slide(lambda windows: windows.amax(-1), _pad(x.amax(2), shape), shape)


def _slide(reduce: Callable[[Tensor], Tensor], x: Tensor, shape: ConvShape) -> Tensor:
    """Reduce every window of the last axes, one axis after the other.

    A convolution with ones would add as well, but in half precision under autocast and in TF32 on a GPU.
    """
    last = len(shape.kernel)
    for axis, (size, stride, dilation) in enumerate(zip(shape.kernel, shape.stride, shape.dilation, strict=True)):
        windows = x.unfold(axis - last, dilation * (size - 1) + 1, stride)
        x = reduce(windows[..., ::dilation])
    return x
