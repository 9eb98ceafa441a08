"""Several runs side by side in one process, beside the same runs one after the other: an epoch of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.loops import BATCH, OPTIMIZERS, registered
from benchmarks.pairing import Code, Row
from insgd_lab.config import RunSpec
from insgd_lab.training.packing import PackedTraining
from insgd_lab.training.session import Training

__all__ = ["rows"]

_MEMBERS = 16
_IMAGES = 1197  # of digits
_NEVER = 10**9
_BATCHES = 40


def rows(device: str) -> Iterator[Row]:
    """The study on digits on a CPU; on a GPU ResNet-20, beside runs that are CUDA graphs alone."""
    if device == "cpu":
        group = f"{_MEMBERS} runs of digits-cnn, batch 64, layers recorded at every 10th step: side by side, one by one"
        tasks, images, target = {"data": "digits", "model": "digits-cnn"}, _IMAGES, 1 / 2
        settings: dict[str, Any] = {"batch_size": 64}
    else:
        group = f"{_MEMBERS} runs of ResNet-20 on {device}, batch {BATCH}: side by side, one by one"
        images, target = BATCH * _BATCHES, 1 / 3
        tasks, settings = {"data": registered(images), "model": "resnet20"}, {"batch_size": BATCH, "augment": True}
    for name in OPTIMIZERS:
        specs = [_spec(name, tasks, settings, seed) for seed in range(_MEMBERS)]
        yield Row(
            group, f"epoch: {_MEMBERS} {name} packed / one by one",
            lambda specs=specs: (_packed(specs, device), _one_by_one(specs, device)),  # type: ignore[misc]
            target, images=images * _MEMBERS,
        )  # fmt: skip


def _spec(name: str, task: dict[str, str], settings: dict[str, Any], seed: int) -> RunSpec:
    train = {"epochs": _NEVER, "eval_every": _NEVER, **settings}
    optimizer = {"name": name, **OPTIMIZERS[name]}
    return RunSpec.model_validate({"task": task, "train": train, "optimizer": optimizer, "seed": seed})


def _packed(specs: list[RunSpec], device: str) -> Code:
    return Code(PackedTraining(specs, device=device, record=True).run_epoch)


def _one_by_one(specs: list[RunSpec], device: str) -> Code:
    graph = {"cuda_graph": device == "cuda"}
    alone = [spec.model_copy(update={"train": spec.train.model_copy(update=graph)}) for spec in specs]
    runs = [Training(spec, device=device, record=True) for spec in alone]

    def epochs() -> None:
        for run in runs:
            run.run_epoch()

    return Code(epochs)
