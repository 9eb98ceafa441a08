"""Layers that do the work of several alike, their members, in one call: what a packed model is made of.

A tensor of a packed model has the channels (or features) of its members side by side: ``[batch, members * channels,
height, width]`` or ``[batch, …, members * features]``. So whatever treats channels alike (ReLU, pooling, the mean of a
plane, flattening, sums) needs no packed form, and a convolution is one with as many groups more as there are members.

The parameters of a packed layer are stacks, ``[members, …]``, and the parameters and gradients of its members are
views of them: what an optimizer does to a member's own parameter is done to the stack.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from insgd_lab.sensors import SideBySide

__all__ = ["PACKED", "NotPackable", "PackedDropout", "PackedLayer"]


class NotPackable(Exception):
    """Runs that cannot share a device side by side; the message says why."""


class PackedLayer(SideBySide):
    """Layers of one kind and shape as one.

    Args:
        members: the layers, which own the parameters and buffers; from now on these are views of the stacks.

    Attributes:
        stacks: parameters and buffers by name, ``[members, …]``.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.check(members[0])
        self.members: Sequence[Any] = tuple(members)
        self.stacks: dict[str, Tensor | None] = {}
        self.keep(range(len(members)))

    @property
    def like(self) -> Any:
        """A layer with the settings of all."""
        return self.members[0]

    def check(self, layer: Any) -> None:
        """Refuse a layer with a setting that has no packed form.

        Raises:
            NotPackable: it has one.
        """

    def keep(self, numbers: Sequence[int]) -> None:
        """Go on with these of the members."""
        self.members = tuple(self.members[number] for number in numbers)
        self.stacks = {name: self._stack(name) for name in (*self.like._parameters, *self.like._buffers)}

    def _stack(self, name: str) -> Tensor | None:
        parts = [getattr(member, name) for member in self.members]
        if parts[0] is None:
            return None
        stack = torch.stack([part.detach() for part in parts])
        for member, part, view in zip(self.members, parts, stack.unbind(), strict=True):
            if isinstance(part, nn.Parameter):
                part.data = view
                part.grad = None
            else:
                member._buffers[name] = view
        return stack.requires_grad_(parts[0].requires_grad)

    def parameter_stacks(self) -> list[Tensor]:
        """The stacks that are trained."""
        return [stack for stack in self.stacks.values() if stack is not None and stack.requires_grad]

    def share_gradients(self) -> None:
        """Make the members' gradients views of the stacks', where a backward pass has made new ones."""
        for name, stack in self.stacks.items():
            if stack is None or stack.grad is None:
                continue
            last = getattr(self.members[-1], name)
            if last.grad is None or last.grad._base is not stack.grad:
                for member, view in zip(self.members, stack.grad.unbind(), strict=True):
                    getattr(member, name).grad = view

    def row(self, name: str) -> Tensor | None:
        """A stack with its members side by side, ``[members * size, …]``."""
        stack = self.stacks.get(name)
        return None if stack is None else stack.flatten(0, 1)


class PackedConv2d(PackedLayer):
    """Convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, members * inputs, H, W] to [B, members * outputs, H', W']."""
        layer, padding = self.like, self.like.padding
        if layer.padding_mode != "zeros":
            x, padding = F.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), 0
        weight, groups = self.row("weight"), len(self.members) * layer.groups
        assert weight is not None
        return F.conv2d(x, weight, self.row("bias"), layer.stride, padding, layer.dilation, groups)


class PackedLinear(PackedLayer):
    """Linear layers."""

    def forward(self, x: Tensor) -> Tensor:
        """[…, members * inputs] to […, members * outputs]."""
        weight, bias, leading = self.stacks["weight"], self.stacks["bias"], x.shape[:-1]
        assert weight is not None
        # Examples last: so the gradient of the weight comes out as the weight lies, in half the time.
        columns = x.reshape(-1, len(self.members), self.like.in_features).permute(1, 2, 0)
        out = torch.bmm(weight, columns) if bias is None else torch.baddbmm(bias.unsqueeze(2), weight, columns)
        return out.permute(2, 0, 1).reshape(*leading, -1)


class PackedBatchNorm(PackedLayer):
    """Batch normalisations, each with statistics of its own."""

    def check(self, layer: Any) -> None:
        """Refuse running statistics whose weight depends on the number of batches."""
        if layer.track_running_stats and layer.momentum is None:
            raise NotPackable("a batch norm with momentum=None; give it one")

    def forward(self, x: Tensor) -> Tensor:
        """[B, members * channels, …] to the same."""
        layer, batches = self.like, self.stacks.get("num_batches_tracked")
        if self.training and batches is not None:
            batches.add_(1)
        mean, variance = self.row("running_mean"), self.row("running_var")
        own = self.training or mean is None
        momentum = 0.0 if layer.momentum is None else layer.momentum
        return F.batch_norm(x, mean, variance, self.row("weight"), self.row("bias"), own, momentum, layer.eps)


class PackedLayerNorm(PackedLayer):
    """Layer normalisations."""

    def forward(self, x: Tensor) -> Tensor:
        """[…, members * features] to the same; of several normalised axes the first holds the members."""
        shape: tuple[int, ...] = self.like.normalized_shape
        weight, bias = self.stacks["weight"], self.stacks["bias"]
        out = F.layer_norm(x.unflatten(-len(shape), (len(self.members), shape[0])), shape, eps=self.like.eps)
        out = out if weight is None else out * weight
        out = out if bias is None else out + bias
        return out.flatten(-len(shape) - 1, -len(shape))


class PackedDropout(PackedLayer):
    """Dropouts, each with a random stream of its own, which gives it the numbers that it would draw alone.

    Attributes:
        streams: one generator for each member; all dropouts of a packed model share the list.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__(members)
        self.streams: list[torch.Generator] = []

    def forward(self, x: Tensor) -> Tensor:
        """[B, members * channels, …] or […, members * features] to the same."""
        kept = 1 - self.like.p
        if not self.training or kept == 1:
            return x
        axis = -1 if x.ndim == 3 else 1
        parts = x.chunk(len(self.members), axis)
        # As torch does it: in the layout that a member's own tensor has, which decides where a number falls.
        inner = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if inner else torch.contiguous_format
        noise = [
            torch.empty(part.shape, dtype=x.dtype, device=x.device, memory_format=layout).bernoulli_(
                kept, generator=stream
            )
            for part, stream in zip(parts, self.streams, strict=True)
        ]
        return x * torch.cat(noise, axis).div_(kept)


class PackedFlatten(PackedLayer):
    """Flattenings: as they are, but that the gradient comes back in the layout of the planes.

    Left as a transposed matrix it would have the backward pass of whatever made the planes take ten times as long.
    """

    def check(self, layer: Any) -> None:
        """Refuse all but the flattening of everything behind the batch."""
        if (layer.start_dim, layer.end_dim) != (1, -1):
            raise NotPackable("a flattening of some axes only")

    def forward(self, x: Tensor) -> Tensor:
        """[B, members * channels, …] to [B, members * features]."""
        if x.requires_grad and x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
            x.register_hook(_channels_last)
        return x.flatten(1)


def _channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous().contiguous(memory_format=torch.channels_last)


PACKED: Mapping[type[nn.Module], type[PackedLayer]] = {
    nn.Conv2d: PackedConv2d,
    nn.Linear: PackedLinear,
    nn.BatchNorm1d: PackedBatchNorm,
    nn.BatchNorm2d: PackedBatchNorm,
    nn.LayerNorm: PackedLayerNorm,
    nn.Dropout: PackedDropout,
    nn.Flatten: PackedFlatten,
}
"""The packed form of each kind of layer; a subclass may do anything and has none."""
