"""The layer records of members that share an optimizer, each with the names that it would have alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from insgd_lab.recorders import Recorder
from insgd_lab.training.packing.model import PackedModel
from insgd_lab.training.packing.optimizers import Shared

__all__ = ["Records"]


class Records:
    """Watches a shared optimizer, and takes what was recorded apart.

    Args:
        model: the packed model, with all its members.
        shared: the optimizer.
        every: as a `Recorder` has it.
    """

    def __init__(self, model: PackedModel, shared: Shared, every: int) -> None:
        self.recorder = Recorder(model, shared.optimizer, every=every)
        self._waiting: dict[int, list[pd.DataFrame]] = {member: [] for member in shared.members}

    def drain(self, member: int) -> pd.DataFrame:
        """A member's records since the last call for it, as `Recorder.drain` gives them."""
        frame = self.recorder.drain()
        if len(frame):
            for number, part in _apart(frame, list(self._waiting)).items():
                self._waiting[number].append(part)
        parts, self._waiting[member] = self._waiting[member], []
        if len(parts) == 1:
            return parts[0]
        return _categorical(pd.concat(parts, ignore_index=True)) if parts else frame.iloc[:0]


def _apart(frame: pd.DataFrame, members: Sequence[int]) -> dict[int, pd.DataFrame]:
    """Each member's rows: a parameter's name begins with "members.", the number, and a dot (see `PackedModel`)."""
    split = [name.split(".", 2) for name in frame.parameter.cat.categories]
    owners = np.array([int(number) for _, number, _ in split])[frame.parameter.cat.codes]
    names = np.array([name for *_, name in split])[frame.parameter.cat.codes]
    plain = frame.assign(parameter=names)
    return {member: _categorical(plain[owners == member].reset_index(drop=True)) for member in members}


def _categorical(frame: pd.DataFrame) -> pd.DataFrame:
    columns = {name: pd.Categorical(np.asarray(frame[name], dtype=str)) for name in ("parameter", "quantity")}
    return frame.assign(**columns)
