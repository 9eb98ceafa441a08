"""The runs that are still to do, handed out one by one or, where `train.packing` asks for it, several at a time.

    queue.add(run)
    queue.take()            # [run], or runs alike but for optimizers and seeds, which a worker trains side by side

Runs of the same optimizer with the same options go together first: side by side they are the cheapest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from insgd_lab.config import RunSpec
from insgd_lab.store import canonical_json

__all__ = ["RunQueue"]

_AUTO = 20  # docs/packing.md says what was measured


class RunQueue:
    """Runs in their order.

    Attributes:
        takers: how many workers take from it; towards the end they share what is left.
    """

    def __init__(self) -> None:
        self.takers = 1
        self._runs: dict[str, RunSpec] = {}
        self._alone: set[str] = set()  # runs that are not packed any more

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[RunSpec]:
        return iter(self._runs.values())

    def add(self, run: RunSpec) -> None:
        """Put a run at the end."""
        self._runs[run.id] = run

    def put_back(self, runs: Iterable[RunSpec], *, alone: bool = True) -> None:
        """Put runs that were taken at the front, each to be trained alone from now on or in packs as before."""
        back = {run.id: run for run in runs}
        if alone:
            self._alone |= back.keys()
        self._runs = {**back, **self._runs}

    def drop(self, name: str) -> None:
        """Leave a run out: it is done."""
        del self._runs[name]

    def take(self) -> list[RunSpec]:
        """The next run, and those that train beside it."""
        first = next(iter(self._runs.values()))
        runs = self._mates(first)[: self._size(first)]
        for run in runs:
            del self._runs[run.id]
        return runs

    def _size(self, run: RunSpec) -> int:
        packing = run.train.packing
        if packing == "off" or run.id in self._alone:
            return 1
        size = _AUTO if packing == "auto" else int(packing)
        # Towards the end no worker is to take what another could do meanwhile; small packs are not worth it, though.
        return min(size, max(math.ceil(len(self._runs) / self.takers), math.ceil(size / 2)))

    def _mates(self, first: RunSpec) -> list[RunSpec]:
        """The runs that may be packed with the first, itself in front, those of one optimizer together."""
        if first.train.packing == "off" or first.id in self._alone:
            return [first]
        by_optimizer: dict[str, list[RunSpec]] = {}
        for run in self._runs.values():
            if run.id not in self._alone and _alike(run) == _alike(first):
                by_optimizer.setdefault(canonical_json(run.optimizer.canonical("optimizer")), []).append(run)
        return [run for runs in by_optimizer.values() for run in runs]


def _alike(run: RunSpec) -> tuple[object, ...]:
    """What the runs of a pack have in common."""
    return run.pack_key, run.plugins, run.resources
