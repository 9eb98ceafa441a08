"""What the named optimizers have in common."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from torch import nn

from insgd_lab.chain import ChainOptimizer, Rule
from insgd_lab.hyperparameters import DOMAINS, check_option
from insgd_lab.rules.basic import L2Penalty, Projection
from insgd_lab.rules.layerwise import NormCorrection
from insgd_lab.sensors import InputSensor

__all__ = ["Common", "NamedOptimizer", "sensor_of"]


class Common(TypedDict, total=False):
    """Options of every named chain; see :class:`NamedOptimizer`."""

    maximize: bool
    capturable: bool
    adanorm: float | None
    project: Mapping[str, Any] | None


class NamedOptimizer(ChainOptimizer):
    """A chain with the options that all named optimizers share, keyword-only.

    Args:
        params: a model, parameters, (name, parameter) pairs, or groups.
        rules: the chain.
        maximize: climb instead of descend.
        capturable: never wait for the device, see :class:`insgd_lab.chain.ChainOptimizer`.
        adanorm: gamma of AdaNorm's correction (AdaNorm Eq. 2-4) of each gradient, put in front of the chain, behind
            weight decay that opens it; None for none.
        project: after the step, project each parameter tensor onto ``{"box": [low, high]}`` or
            ``{"ball": radius}``; None for neither.

    Raises:
        ValueError: an option outside its range; ``adanorm`` on a rule that corrects already.
        TypeError: an unknown option; the nearest name is suggested.
    """

    def __init__(
        self, params: Any, rules: Sequence[Rule], *, maximize: bool = False, capturable: bool = False,
        adanorm: float | None = None, project: Mapping[str, Any] | None = None, **unknown: Any,
    ) -> None:  # fmt: skip
        if unknown:
            raise TypeError(_unknown(type(self), next(iter(unknown))))
        chain = list(rules)
        check_option("adanorm", adanorm, DOMAINS["adanorm"])
        if adanorm is not None:
            if any(isinstance(rule, NormCorrection) for rule in chain):
                raise ValueError(
                    f"adanorm = {adanorm}: {type(self).__name__} corrects the norm already; set gamma instead"
                )
            chain.insert(1 if isinstance(chain[0], L2Penalty) else 0, NormCorrection(adanorm))
        if project is not None:
            chain.append(Projection(project))
        super().__init__(params, chain, maximize=maximize, capturable=capturable)


def _unknown(optimizer: type, option: str) -> str:
    own = [name for name in inspect.signature(optimizer).parameters if name not in ("params", "common")]
    near = difflib.get_close_matches(option, [*own, *Common.__annotations__], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted([*own, *Common.__annotations__]))}"
    return f"{optimizer.__name__} has no option {option!r}; {hint}"


def sensor_of(name: str, params: Any, model: nn.Module | None, process_group: Any) -> InputSensor:
    """A sensor on the model, which is ``params`` itself or given beside it.

    Raises:
        TypeError: neither is a model.
    """
    measured = params if isinstance(params, nn.Module) else model
    if not isinstance(measured, nn.Module):
        raise TypeError(
            f"{name} measures what layers are fed and needs the model, got {type(params).__name__}; "
            f"write {name}(model, ...) or {name}(params, model=model, ...)"
        )
    return InputSensor(measured, process_group)
