"""What an optimizer did to each parameter tensor, recorded while it trains.

Any torch optimizer can be watched; a chain of this lab also tells what its rules know::

    with Recorder(model, optimizer, every=10) as recorder:
        train(...)
    recorder.frame()        # step, parameter, quantity, value

Quantities per parameter tensor, with g the gradient as it enters ``step`` and theta, theta' the parameter before
and after it:

=================  ======================================================================================
grad_norm          ||g||
update_norm        ||theta' - theta||, measured
weight_norm        ||theta||
effective_step     ||theta' - theta|| / ||g||; with momentum a ratio of norms, not a gain
relative_update    ||theta' - theta|| / ||theta||
cosine             of theta - theta' with g
rotation           angle between theta and theta', radians
input_power        P, averaged where it is not a scalar; NaN for a parameter without one
step_scale         1 / f(P), averaged likewise; 1 for a parameter without input power
clipped            1 where log P fell below its floor (the share, where P is not a scalar)
norm_gain          max(1, e / ||g||) of the norm correction
trust_ratio        the local rate of LARS; 1 for an excluded parameter
lsalr_gain         1 + log(1 + 1 / ||g||) of LSALR
=================  ======================================================================================

A zero denominator gives NaN. Nothing is copied from the device before a chunk is full or a frame is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from insgd_lab.chain import ChainOptimizer, Tensors
from insgd_lab.store import write_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MEASURED", "Recorder"]

MEASURED = (
    "grad_norm", "update_norm", "weight_norm", "effective_step", "relative_update", "cosine", "rotation",
)  # fmt: skip
"""Quantities recorded for every optimizer; those that a chain's rules publish come after them."""

_ABSENT = {"step_scale": 1.0, "norm_gain": 1.0, "trust_ratio": 1.0, "lsalr_gain": 1.0}
_CHUNK = 64


class Recorder:
    """Watches an optimizer's steps; a context manager.

    Args:
        model: names the parameters.
        optimizer: any torch optimizer over them.
        every: record steps 1, 1 + every, 1 + 2 every, …; steps that a GradScaler skips do not count.
        sink: a folder for ``part-00000.parquet``, ``part-00001.parquet``, …: each full chunk of 64 recorded
            steps is written there and forgotten, the rest on closing. Without it everything is kept.

    Raises:
        ValueError: ``every`` below 1, or an optimizer that shares no parameter with the model.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        every: int = 10,
        sink: str | Path | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"every = {every}: expected a whole number >= 1; 1 records each step")
        self._names: dict[Tensor, str] = {param: name for name, param in model.named_parameters()}
        if not any(param in self._names for group in optimizer.param_groups for param in group["params"]):
            raise ValueError("the optimizer holds none of the model's parameters; pass the model that it trains")
        self.optimizer, self.every = optimizer, every
        self._sink = None if sink is None else Path(sink)
        self._parts = 0
        self._step = 0
        self._records: list[_Record] = []
        self._before: tuple[Tensors, Tensors, Tensors] | None = None
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching; what has been recorded stays, or goes to the sink."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self._records:
            self._flush()

    def state_dict(self) -> dict[str, int]:
        """How many steps have been seen and how many parts written."""
        return {"step": self._step, "parts": self._parts}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on counting where another recorder stopped."""
        self._step, self._parts = state["step"], state["parts"]

    @property
    def due(self) -> bool:
        """Whether the next step will be recorded."""
        return self._step % self.every == 0

    def pass_by(self) -> None:
        """Count a step that the optimizer took unseen, as the replay of a CUDA graph does."""
        self._step += 1

    def frame(self) -> pd.DataFrame:
        """The records that have not been drained or written: step, parameter, quantity, value (float32)."""
        return _frame(self._records)

    def drain(self) -> pd.DataFrame:
        """As :meth:`frame`, and forget them."""
        records, self._records = self._records, []
        return _frame(records)

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._step += 1
        self._before = None  # a step that raised may have left one
        if (self._step - 1) % self.every:
            return
        params = [p for group in optimizer.param_groups for p in group["params"] if p in self._names]
        # A closure computes the gradient inside the step: then it is read afterwards.
        late = bool(args and args[0] is not None) or kwargs.get("closure") is not None
        if not late:
            params = [p for p in params if p.grad is not None]
        grads = [] if late else [_wide(p.grad) for p in params if p.grad is not None]
        with torch.no_grad():
            self._before = (params, [_wide(p) for p in params], grads)
        if isinstance(optimizer, ChainOptimizer):
            optimizer.listen()

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._before is None:
            return
        (params, old, grads), self._before = self._before, None
        notes = optimizer.notes if isinstance(optimizer, ChainOptimizer) else {}
        if not grads:
            kept = [(p, before) for p, before in zip(params, old, strict=True) if p.grad is not None]
            params, old = [p for p, _ in kept], [before for _, before in kept]
            grads = [_wide(p.grad) for p in params if p.grad is not None]
        if not params:
            return
        with torch.no_grad():
            values = _measure(grads, old, [_wide(p) for p in params])
            values |= {name: _noted(name, noted, params) for name, noted in notes.items()}
        names = [self._names[p] for p in params]
        self._records.append(_Record(self._step, names, list(values), torch.stack(list(values.values()))))
        if self._sink is not None and len(self._records) >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        if self._sink is None:
            return
        write_table(self._sink / f"part-{self._parts:05d}.parquet", self.drain(), "layers")
        self._parts += 1


class _Record:
    """One step: ``values`` is ``[quantities, parameters]`` on the device."""

    def __init__(self, step: int, names: list[str], quantities: list[str], values: Tensor) -> None:
        self.step, self.names, self.quantities, self.values = step, names, quantities, values


def _wide(tensor: Tensor) -> Tensor:
    """A dense copy in at least float32."""
    detached = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
    return detached.to(torch.promote_types(detached.dtype, torch.float32), copy=True)


def _norms(tensors: Tensors) -> Tensor:
    return torch.stack([n.to(tensors[0].device) for n in torch._foreach_norm(tensors, 2, dtype=torch.float64)])


def _dots(left: Tensors, right: Tensors) -> Tensor:
    # In float64: products of float32 gradients of 1e25 overflow, and those of 1e-25 vanish.
    return torch.stack(
        [torch.dot(a.double().flatten(), b.double().flatten()) for a, b in zip(left, right, strict=True)]
    )


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator == 0, math.nan, numerator / denominator)


def _measure(grads: Tensors, old: Tensors, new: Tensors) -> dict[str, Tensor]:
    """The quantities of :data:`MEASURED`, each ``[parameters]`` in float64."""
    change = list(torch._foreach_sub(new, old))
    grad, update, weight = _norms(grads), _norms(change), _norms(old)
    along = _dots(old, change)
    # The area that theta and its change span, over their inner product: exact for small angles too.
    across = ((weight * update).square() - along.square()).clamp(min=0).sqrt()
    rotation = torch.atan2(across, weight.square() + along)
    values = (
        grad, update, weight, _ratio(update, grad), _ratio(update, weight),
        _ratio(-_dots(grads, change), grad * update), torch.where(weight == 0, math.nan, rotation),
    )  # fmt: skip
    return dict(zip(MEASURED, values, strict=True))


def _noted(name: str, noted: Mapping[Tensor, Tensor], params: Tensors) -> Tensor:
    absent = torch.full((), _ABSENT.get(name, math.nan), dtype=torch.float64, device=params[0].device)
    return torch.stack([noted[p].double() if p in noted else absent for p in params])


def _frame(records: list[_Record]) -> pd.DataFrame:
    import pandas as pd

    if not records:
        return pd.DataFrame({
            "step": np.array([], np.int64), "parameter": pd.Categorical([]), "quantity": pd.Categorical([]),
            "value": np.array([], np.float32),
        })  # fmt: skip
    values = torch.cat([r.values.flatten() for r in records]).float().cpu().numpy()
    steps = np.repeat([r.step for r in records], [r.values.numel() for r in records])
    parameters = np.concatenate([np.tile(r.names, len(r.quantities)) for r in records])
    quantities = np.concatenate([np.repeat(r.quantities, len(r.names)) for r in records])
    return pd.DataFrame({
        "step": steps.astype(np.int64), "parameter": pd.Categorical(parameters),
        "quantity": pd.Categorical(quantities), "value": values,
    })  # fmt: skip
