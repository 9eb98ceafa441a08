"""Transfer learning: a model starts from the weights of a file, and parts of it are not trained.

load_initial(model, init)           # over the fresh weights; before the optimizer is made
freeze(model, init.frozen)
...
model.train()
keep_frozen_in_eval(model)          # after every model.train()
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from insgd_lab.config import ConfigError, InitSpec, Problem
from insgd_lab.config.initial import sha256_of

__all__ = ["freeze", "keep_frozen_in_eval", "load_initial"]

_SHOWN = 8


def load_initial(model: nn.Module, init: InitSpec) -> None:
    """Give the model the weights of a file, all but those that `init.reset` names.

    Names and shapes of parameters and buffers must be those of the file; types are the model's.

    Raises:
        ConfigError: the file changed or holds no weights; names or shapes differ; a pattern matches nothing.
    """
    own, given = model.state_dict(), _read(init)
    for pattern in init.reset:
        _check_matches("reset", pattern, {**given, **own}, "parameter or buffer of the model or the file")
    wanted, found = _without(own, init.reset), _without(given, init.reset)
    _check_fits(init, wanted, found)
    model.load_state_dict(found, strict=False)


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Leave the parameters whose names match one of the patterns out of training.

    Raises:
        ConfigError: a pattern matches nothing, or all of them everything.
    """
    parameters = dict(model.named_parameters())
    for pattern in patterns:
        _check_matches("frozen", pattern, parameters, "parameter of the model")
    for name, parameter in parameters.items():
        if _matches(name, patterns):
            parameter.requires_grad_(False)
    if patterns and not any(parameter.requires_grad for parameter in parameters.values()):
        raise _refused("frozen", list(patterns), "freezes every parameter; leave some to be trained")


def keep_frozen_in_eval(model: nn.Module) -> None:
    """Put every part all of whose parameters are frozen into evaluation mode, whatever is inside it.

    So the running statistics of a frozen batch norm stay as they are, and a frozen block drops nothing out.
    """
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def _read(init: InitSpec) -> Mapping[str, Tensor]:
    path = Path(init.path)
    try:
        found = sha256_of(path)
        weights = torch.load(path, map_location="cpu", weights_only=True) if found == init.sha256 else None
    except Exception as error:  # it may be anyone's file, and be damaged in any way
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        message = f"cannot be read ({reason}); expected what torch.save writes of a model's state_dict"
        raise _refused("path", init.path, message) from None
    if found != init.sha256:
        message = f"{path} has {found}: it changed after the run was checked; put the file back, or start again"
        raise _refused("sha256", init.sha256, message)
    if isinstance(weights, Mapping) and isinstance(weights.get("model"), Mapping):
        weights = weights["model"]
    if not (isinstance(weights, Mapping) and weights and all(isinstance(t, Tensor) for t in weights.values())):
        raise _refused("path", init.path, f"expected a state_dict, names with tensors, {_description(weights)}")
    return weights


def _description(value: Any) -> str:
    if not isinstance(value, Mapping):
        return f"found {type(value).__name__}"
    odd = [f"{name} ({type(each).__name__})" for name, each in value.items() if not isinstance(each, Tensor)]
    return f"found {_listed(odd)}" if odd else "found nothing in it"


def _check_fits(init: InitSpec, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    missing, surplus = ([n for n in one if n not in other] for one, other in ((wanted, found), (found, wanted)))
    shapes = {n: (tuple(found[n].shape), tuple(wanted[n].shape)) for n in wanted if n in found}
    odd = {name: pair for name, pair in shapes.items() if pair[0] != pair[1]}
    parts = [f"lacks {_listed(missing)} of the model"] if missing else []
    parts += [f"has {_listed(surplus)}, which the model lacks"] if surplus else []
    parts += ["has other shapes: " + _listed(f"{n} {a}, in the model {b}" for n, (a, b) in odd.items())] if odd else []
    if parts:
        prefix = _head([*missing, *surplus, *odd][0])
        remedy = f'is this another model? What is to start afresh, or be left out, belongs in reset, such as "{prefix}"'
        raise _refused("path", init.path, f"the file {'; it '.join(parts)}; {remedy}")


def _head(name: str) -> str:
    """A pattern for what stands beside the name."""
    parent, dot, _ = name.rpartition(".")
    return f"{parent}.*" if dot else name


def _check_matches(key: str, pattern: str, names: Collection[str], what: str) -> None:
    if any(fnmatchcase(name, pattern) for name in names):
        return
    near = difflib.get_close_matches(pattern, sorted({*names, *map(_head, names)}), n=3)
    known = _listed(dict.fromkeys(f"{name.partition('.')[0]}.*" if "." in name else name for name in names))
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are {known}"
    raise _refused(key, pattern, f"matches no {what}; {hint}")


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _without(tensors: Mapping[str, Tensor], patterns: Sequence[str]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not _matches(name, patterns)}


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _refused(key: str, value: object, message: str) -> ConfigError:
    return ConfigError("run", [Problem(("task", "init_from", key), value, message)])
