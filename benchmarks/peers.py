"""Who is measured beside whom: for each rule of the lab the nearest rule of torch.optim and of pytorch_optimizer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

import insgd_lab as lab

__all__ = ["ADAM", "SGD", "Contender", "contenders", "peers_version"]

Make = Callable[[nn.Module], torch.optim.Optimizer]
_MOMENTUM = {"momentum": 0.9, "weight_decay": 5e-4}


@dataclass(frozen=True)
class Peer:
    """Somebody else's optimizer."""

    name: str
    make: Make


@dataclass(frozen=True)
class Contender:
    """One of our rules, with the options that make it do what its peers do.

    Attributes:
        name: in the registry, with options where they matter.
        make: builds it.
        relative: torch.optim's nearest relative.
        target: the highest ratio of times allowed beside it.
        peer: pytorch_optimizer's same rule, where it has one and is installed.
    """

    name: str
    make: Make
    relative: Peer
    target: float | None = None
    peer: Peer | None = None


def _torch(kind: type[torch.optim.Optimizer], words: str = "", **options: Any) -> Peer:
    return Peer(f"torch {kind.__name__}{words}", lambda net: kind(net.parameters(), foreach=True, **options))


SGD = _torch(torch.optim.SGD, lr=0.1, **_MOMENTUM)
_PLAIN_SGD = _torch(torch.optim.SGD, " (no momentum)", lr=0.1)
ADAM = _torch(torch.optim.Adam, lr=1e-3)
_RADAM = _torch(torch.optim.RAdam, lr=1e-3)
_AMSGRAD = _torch(torch.optim.Adam, " (amsgrad)", lr=1e-3, amsgrad=True)


@dataclass(frozen=True)
class _Match:
    """How a rule is measured; what the table below does not name is measured beside SGD, and only reported."""

    relative: Peer = SGD
    target: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    peer: str | None = None  # its class in pytorch_optimizer
    peer_options: Mapping[str, Any] = field(default_factory=dict)


_BETAS = {"betas": (0.9, 0.999)}
_NORM = {"adanorm": True, **_BETAS}
_INSGD = _Match(SGD, 1.3, {"weight_decay": 5e-4})
_MATCHES = {
    "sgd": _Match(SGD, 1.3, _MOMENTUM),
    "lms": _Match(_PLAIN_SGD),
    "nlms": _Match(_PLAIN_SGD),
    "nlms-l1": _Match(_PLAIN_SGD),
    "lsalr": _Match(_PLAIN_SGD),
    "lars": _Match(SGD, None, _MOMENTUM, "LARS", _MOMENTUM),
    "insgd-l1": _INSGD,
    "insgd-l2": _INSGD,
    "insgd-linf": _INSGD,
    "insgd-lp": _INSGD,
    "insgd-norm": _INSGD,
    "insgd-reference-l1": _Match(SGD, None, _MOMENTUM),
    "insgd-reference-l2": _Match(SGD, None, _MOMENTUM),
    "adam": _Match(ADAM, 1.1),
    "adamnorm": _Match(ADAM, 1.1, {}, "AdaNorm", _BETAS),
    "adamnorm-reference": _Match(ADAM),
    "diffgrad": _Match(ADAM, None, {}, "DiffGrad", _BETAS),
    "diffgradnorm": _Match(ADAM, 1.5, {}, "DiffGrad", _NORM),
    "radam": _Match(_RADAM, None, {}, "RAdam", _BETAS),
    "radamnorm": _Match(ADAM, 1.5, {}, "RAdam", _NORM),
    "radamnorm-reference": _Match(_RADAM),
    "adabelief": _Match(ADAM, None, {}, "AdaBelief", _BETAS),
    "adabeliefnorm": _Match(ADAM, 1.5, {}, "AdaBelief", _NORM),
}
_VARIANTS = {
    "adam": (({"amsgrad": True}, _AMSGRAD),),
    "adamnorm": (({"scope": "global"}, ADAM), ({"correct": "both"}, ADAM)),
    "sgd": (({**_MOMENTUM, "adanorm": 0.95}, SGD),),
    "insgd-l2": (({"granularity": "channel", "weight_decay": 5e-4}, SGD),),
}


def contenders() -> list[Contender]:
    """Every rule of the registry that is a chain, and some of their options."""
    found = []
    for name in lab.list_optimizers():
        if not lab.get_optimizer(name).capabilities.chain:
            continue
        match = _MATCHES.get(name, _Match())
        found.append(Contender(name, _maker(name, match.options), match.relative, match.target, _peer(match)))
        for options, relative in _VARIANTS.get(name, ()):
            words = ", ".join(f"{key}={value}" for key, value in options.items() if key not in _MOMENTUM)
            found.append(Contender(f"{name} ({words})", _maker(name, options), relative))
    return found


def _maker(name: str, options: Mapping[str, Any]) -> Make:
    return lambda net: lab.create_optimizer(name, net, **options)


def _peer(match: _Match) -> Peer | None:
    package = _pytorch_optimizer()
    if package is None or match.peer is None:
        return None
    kind = getattr(package, match.peer)
    name = f"pytorch_optimizer {match.peer}" + (" (adanorm)" if "adanorm" in match.peer_options else "")
    return Peer(name, lambda net: kind(net.parameters(), foreach=True, **match.peer_options))


@functools.cache
def _pytorch_optimizer() -> Any:
    try:
        import pytorch_optimizer
    except ImportError:
        return None
    return pytorch_optimizer


def peers_version() -> str | None:
    """The version of pytorch_optimizer; None where it is not installed, and so not measured."""
    if _pytorch_optimizer() is None:
        return None
    from importlib.metadata import version

    return version("pytorch-optimizer")
