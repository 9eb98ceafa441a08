"""Several like models as one, whose forward computes all of them on inputs that lie side by side.

>>> packed = PackedModel([mlp((1, 8, 8), 10) for _ in range(4)], (1, 8, 8))
>>> outputs = packed.apart(packed(packed.together([images] * 4)))      # [4, B, 10]
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from insgd_lab.training.packing.layers import PACKED, NotPackable, PackedDropout, PackedLayer

__all__ = ["PackedModel", "release"]

_EXAMPLES = 2  # of the trial


class PackedModel(nn.Module):
    """Models of one architecture side by side.

    The forward code is the first member's own; its layers that own parameters, and its dropouts, are replaced by
    packed ones. That this computes what each member would alone is tried once, on random inputs, for the forward code
    may mix channels in a way that no packed layer sees.

    Args:
        members: the models, on one device; from now on their parameters are views of stacked ones, and stay theirs.
        input_shape: of one example.

    Raises:
        NotPackable: a layer without packed form, or forward code that mixes channels.
    """

    def __init__(self, members: Sequence[nn.Module], input_shape: tuple[int, ...]) -> None:
        super().__init__()
        if any(repr(member) != repr(members[0]) for member in members):
            raise NotPackable("models of unlike architecture; pack runs with the same model and options")
        alone = [copy.deepcopy(member) for member in (members[0], members[-1])]
        self.members = nn.ModuleList(members)
        self.streams: list[torch.Generator] = []
        self.body = _replaced(members)
        self.layers = [module for module in self.body.modules() if isinstance(module, PackedLayer)]
        self._try(alone, input_shape)

    def forward(self, x: Tensor) -> Tensor:
        """Inputs side by side to outputs side by side."""
        out: Tensor = self.body(x)
        return out

    def together(self, inputs: Sequence[Tensor]) -> Tensor:
        """The members' inputs ``[B, channels, …]`` side by side."""
        return torch.stack(list(inputs), 1).flatten(1, 2)

    def apart(self, outputs: Tensor) -> Tensor:
        """The members' outputs: ``[B, members * K]`` to ``[members, B, K]``."""
        return outputs.unflatten(1, (len(self.members), -1)).transpose(0, 1)

    def keep(self, numbers: Sequence[int]) -> None:
        """Go on with these of the members; the others have no gradients any more."""
        for number, member in enumerate(self.members):
            if number not in numbers:
                member.zero_grad()
        self.members = nn.ModuleList([self.members[number] for number in numbers])
        for layer in self.layers:
            layer.keep(numbers)
        if self.streams:
            self.set_streams([self.streams[number] for number in numbers])

    def set_streams(self, streams: Sequence[torch.Generator]) -> None:
        """Give each member the random stream from which its dropouts draw."""
        self.streams = list(streams)
        for layer in self.layers:
            if isinstance(layer, PackedDropout):
                layer.streams = self.streams

    def clear_gradients(self) -> None:
        """Set the gradients to zero, in place."""
        gradients = [
            stack.grad for layer in self.layers for stack in layer.parameter_stacks() if stack.grad is not None
        ]
        if gradients:
            torch._foreach_zero_(gradients)

    def share_gradients(self) -> None:
        """After a backward pass: the members' gradients are views of what it left. What it did not reach has none."""
        for layer in self.layers:
            layer.share_gradients()

    def _try(self, alone: Sequence[nn.Module], input_shape: tuple[int, ...]) -> None:
        """Compare with copies of the first and the last member, dropping but without statistics of the batch."""
        parameter = next(chain.from_iterable(member.parameters() for member in alone), torch.empty(0))
        stream = torch.Generator().manual_seed(0)
        inputs = [torch.randn(_EXAMPLES, *input_shape, generator=stream).to(parameter) for _ in self.members]
        for model in (self, *alone):
            for module in model.modules():
                module.training = isinstance(module, (nn.Dropout, PackedDropout))
        self.set_streams([torch.Generator(parameter.device).manual_seed(0) for _ in self.members])
        with torch.no_grad(), torch.random.fork_rng(devices=_gpus(parameter.device)):
            torch.manual_seed(0)
            before = torch.get_rng_state()
            outputs = self.body(self.together(inputs))
            drawn = not torch.equal(before, torch.get_rng_state())
            for member, number in zip(alone, (0, -1), strict=True):
                torch.manual_seed(0)
                wanted = member(inputs[number])
                if drawn or wanted.ndim != 2 or not _close(self.apart(outputs)[number], wanted):
                    raise NotPackable(
                        f"{type(member).__name__}.forward does not compute side by side what it computes alone: it "
                        "mixes channels, or draws random numbers, outside of the layers that have a packed form"
                    )
        self.train()


def release(member: nn.Module) -> None:
    """Give a model that has trained in a pack tensors of its own, which hold nothing of the others."""
    member.zero_grad()
    for module in member.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                parameter.data = parameter.data.clone()
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.clone()


def _replaced(members: Sequence[nn.Module]) -> nn.Module:
    """The first member's architecture with packed layers."""
    body = copy.deepcopy(members[0])
    modules = [dict(member.named_modules(remove_duplicate=False)) for member in members]
    packed: dict[nn.Module, PackedLayer] = {}
    owners: dict[Tensor, nn.Module] = {}
    for name, module in modules[0].items():
        if not (_owns(module) or isinstance(module, (nn.Dropout, nn.Flatten))):
            continue
        _check_kind(name, module)
        for parameter in module.parameters(recurse=False):
            if owners.setdefault(parameter, module) is not module:
                raise NotPackable(f"{name} shares a parameter with another layer")
        if module not in packed:
            packed[module] = PACKED[type(module)]([found[name] for found in modules])
        if not name:
            return packed[module]
        parent, _, own = name.rpartition(".")
        setattr(body.get_submodule(parent), own, packed[module])
    return body


def _owns(module: nn.Module) -> bool:
    return any(value is not None for value in (*module._parameters.values(), *module._buffers.values()))


def _check_kind(name: str, module: nn.Module) -> None:
    if type(module) not in PACKED or not set(module._parameters) <= {"weight", "bias"}:
        known = ", ".join(kind.__name__ for kind in PACKED)
        what = f"the model's {type(module).__name__}{f' {name!r}' if name else ' itself'}"
        raise NotPackable(f"{what} has parameters or random numbers, and a packed form have only {known}")


def _gpus(device: torch.device) -> list[torch.device]:
    return [] if device.type == "cpu" else [device]


def _close(found: Tensor, wanted: Tensor) -> bool:
    """Equal up to rounding; what is mixed up is off by as much as the numbers themselves."""
    scale = wanted.abs().amax().clamp(min=1e-30)
    return found.shape == wanted.shape and bool(((found - wanted).abs() <= 1e-2 * scale).all())
