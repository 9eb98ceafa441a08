"""Train several runs side by side, each into its own folder.

>>> outcomes = train_packed(specs, [study.run(spec.id) for spec in specs])
>>> [outcome.status for outcome in outcomes]

Each folder ends with what the run would leave alone, up to rounding, and its checkpoints are those of the run alone:
whoever takes it up may train it alone, or in another pack.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from insgd_lab.config import RunSpec
from insgd_lab.store import InUse, RunFolder
from insgd_lab.training import checkpoint
from insgd_lab.training.loop import Outcome, finish, first_info, warn, write_records
from insgd_lab.training.packing.model import release
from insgd_lab.training.packing.training import Member, PackedTraining
from insgd_lab.training.precision import fp32_arithmetic
from insgd_lab.training.progress import Progress
from insgd_lab.training.ranks import ALONE, current

__all__ = ["train_packed"]

OnEnd = Callable[[RunSpec, Outcome], None]
State = Mapping[str, Any]


def train_packed(
    specs: Sequence[RunSpec],
    folders: Sequence[RunFolder],
    *,
    data_dir: Path | None = None,
    device: str = "cpu",
    on_end: OnEnd = lambda spec, outcome: None,
    checkpoint_seconds: float = 30.0,
    stop: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Train runs side by side to their ends, going on from the checkpoints in their folders.

    Runs whose checkpoints are at different steps share the device only with those at the same.

    Args:
        specs: what to train; alike but for optimizers and seeds (`RunSpec.pack_key`).
        folders: where to write each.
        data_dir: the folder of the data sets; None as in `files.data_folder`.
        device: "cpu", "cuda" or "cuda:1".
        on_end: called with a run that has come to its end, and what it leaves.
        checkpoint_seconds: the least time between two checkpoints; they are written after steps, of all at once.
        stop: asked after each step; once it says True checkpoints are written and the call ends.

    Returns:
        The outcomes, in the order of the specs.

    Raises:
        NotPackable: the runs cannot be packed; nothing has been written.
        KeyboardInterrupt: `stop` said True.
        StoreError: another process is training one of them, or has (`InUse`); nothing has been written.
    """
    with current(device), fp32_arithmetic(specs[0].train.precision), ExitStack() as locks:
        for folder in folders:
            locks.enter_context(folder.locked())
            folder.set_damage_aside()
            if folder.is_finished:
                raise InUse(f"{folder.path} has been finished by another process; train the others")
        states = [checkpoint.load(folder, spec.id) for spec, folder in zip(specs, folders, strict=True)]
        abreast: dict[int, list[int]] = {}
        for number, state in enumerate(states):
            abreast.setdefault(0 if state is None else state["step"], []).append(number)
        outcomes: dict[int, Outcome] = {}
        for numbers in abreast.values():
            pack = _Pack([specs[k] for k in numbers], [folders[k] for k in numbers], device, data_dir)
            pack.begin([states[k] for k in numbers])
            outcomes |= zip(numbers, pack.train(checkpoint_seconds, stop, on_end), strict=True)
        return [outcomes[number] for number in range(len(specs))]


class _Pack:
    """Runs at one step, and the folders that keep them."""

    def __init__(
        self, specs: Sequence[RunSpec], folders: Sequence[RunFolder], device: str, data_dir: Path | None
    ) -> None:
        self.specs, self.folders = specs, folders
        self.infos = [first_info(spec, device, ALONE, packing=len(specs)) for spec in specs]
        self.progresses = [Progress() for _ in specs]
        self.training = PackedTraining(specs, self.progresses, data_dir=data_dir, device=device, record=True)

    def begin(self, states: Sequence[State | None]) -> None:
        """Go on from the checkpoints, if there are any."""
        fingerprint = getattr(self.training.data, "fingerprint", None)
        saved = [state for state in states if state is not None and state["data"] == fingerprint]
        if len(saved) < sum(state is not None for state in states):
            warn(f"{self.folders[0].path}: its data changed since the checkpoint was written; the pack starts over")
        if saved:
            self.training.load_state_dicts(saved)
        for folder, info, progress in zip(self.folders, self.infos, self.progresses, strict=True):
            folder.drop_parts_from(progress.parts)
            folder.write_info({**info, **progress.summary()})

    def train(self, checkpoint_seconds: float, stop: Callable[[], bool], on_end: OnEnd) -> list[Outcome]:
        """Train to the end."""
        self.saved = time.monotonic()
        outcomes: dict[int, Outcome] = {}

        def keep() -> None:
            stopping = stop()
            if stopping or time.monotonic() - self.saved >= checkpoint_seconds:
                self._save()
            if stopping:
                raise KeyboardInterrupt

        for members in self.training.epochs(keep):
            for member in members:
                if member.finished:
                    self._flush(member)
                    release(member.model)
                    folder, info = self.folders[member.number], self.infos[member.number]
                    outcomes[member.number] = finish(member, folder, info)
                    on_end(member.spec, outcomes[member.number])
            if not all(member.finished for member in members):
                keep()
        return [outcomes[number] for number in range(len(self.specs))]

    def _save(self) -> None:
        for member in self.training.members:
            if not member.finished:
                self._flush(member)
                folder, info = self.folders[member.number], self.infos[member.number]
                checkpoint.save(folder, self.training.state_dict(member))
                folder.write_info({**info, **member.progress.summary()})
        self.saved = time.monotonic()

    def _flush(self, member: Member) -> None:
        write_records(self.folders[member.number], member.progress, member.drain())
