"""The training harness beside a plain loop: images per second of both, and the memory of both rules.

Timed is a whole epoch of training, reading and augmentation included: ResNet-20 on pictures of CIFAR-10's shape, batch
128. On a GPU the harness replays its steps as CUDA graphs.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import plain_loop
from benchmarks.networks import build
from benchmarks.pairing import Code, Row
from insgd_lab import registry
from insgd_lab.config import RunSpec
from insgd_lab.training.session import Training
from insgd_lab.training.splits import ImageSplits, Split

__all__ = ["BATCH", "OPTIMIZERS", "harness", "pictures", "plain", "plain_rule", "registered", "rows"]

BATCH = 128
DECAY = {"weight_decay": 5e-4}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1, "momentum": 0.9, **DECAY}, "insgd-l1": {"lr": 0.1, **DECAY}, "adamnorm": {"lr": 1e-3, **DECAY},
}  # fmt: skip
_BATCHES = {"cpu": 2, "cuda": 40}
_WORKERS, _BATCHES_OF_WORKERS = 2, 8  # enough that filling their queues anew each epoch weighs little
_NEVER = 10**9


def rows(device: str) -> Iterator[Row]:
    """Time and memory on a device."""
    group = f"an epoch of ResNet-20 on {device}, batch {BATCH}: the harness beside a plain loop ({_words()})"
    for name in OPTIMIZERS:
        target = 1 / 5 if device == "cuda" else 1 / 1.3 if name.startswith("insgd") else None
        yield _beside_plain(group, name, device, target, _BATCHES[device])
    batches = max(_BATCHES[device], _BATCHES_OF_WORKERS)
    yield _beside_plain(group, "insgd-l1", device, None, batches, _WORKERS)
    group = f"the harness on {device}, ResNet-20, batch {BATCH}: INSGD beside SGD"
    if device == "cuda":
        images = BATCH * _BATCHES[device]
        yield Row(
            group, "epoch: harness insgd-l1 / harness sgd",
            lambda: (harness("insgd-l1", device, images), harness("sgd", device, images)), 1.03, images=images,
        )  # fmt: skip
    yield Row(
        group, "peak memory: harness insgd-l1 / harness sgd",
        lambda: (Code(lambda: peak("insgd-l1", device)), Code(lambda: peak("sgd", device))), 1.05, memory=True,
    )  # fmt: skip


def _words() -> str:
    return "torchvision's transforms" if plain_loop.TRANSFORMS == "torchvision" else "its transforms done with PIL"


def _beside_plain(group: str, name: str, device: str, target: float | None, batches: int, workers: int = 0) -> Row:
    images = BATCH * batches
    words = f" ({workers} workers)" if workers else ""
    return Row(
        group, f"epoch: harness {name} / plain {name}{words}",
        lambda: (harness(name, device, images), plain(name, device, images, workers)), target, images=images,
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------- the two


@functools.cache
def pictures(count: int) -> ImageSplits:
    """Random pictures of CIFAR-10's shape with random labels."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 32, 32), generator=draw, dtype=torch.uint8)
    split = Split(images, torch.randint(10, (count,), generator=draw))
    return ImageSplits("pictures", 10, split, split, split, mean=plain_loop.MEAN, std=plain_loop.STD)


@functools.cache
def registered(count: int) -> str:
    """The name under which the pictures are in the registry."""
    name = f"{count}-random-pictures"
    registry.register_data(registry.DataSpec(name, lambda data_dir: pictures(count), classes=10))
    return name


def harness(name: str, device: str, images: int) -> Code:
    """An epoch of the harness, evaluation left out."""
    return Code(training(name, device, images).run_epoch)


def training(name: str, device: str, images: int) -> Training:
    """The run of the harness."""
    spec = {
        "task": {"data": registered(images), "model": "resnet20"},
        "train": {
            "epochs": _NEVER, "eval_every": _NEVER, "batch_size": BATCH, "augment": True,
            "cuda_graph": device == "cuda",
        },
        "optimizer": {"name": name, **OPTIMIZERS[name]},
    }  # fmt: skip
    return Training(RunSpec.model_validate(spec), device=device)


def plain(name: str, device: str, images: int, workers: int = 0) -> Code:
    """An epoch of the plain loop."""
    train = pictures(images).train
    pixels: Any = np.ascontiguousarray(train.images.permute(0, 2, 3, 1).numpy())
    data = plain_loop.Pictures(pixels, train.labels.tolist(), plain_loop.augmenting())
    loop = plain_loop.PlainLoop(build("ResNet-20"), lambda net: plain_rule(name, net), data, device, BATCH, workers)
    return Code(loop.epoch)


def plain_rule(name: str, net: nn.Module) -> torch.optim.Optimizer:
    """The rule of that name as the plain loop has it."""
    options = OPTIMIZERS[name]
    if name == "sgd":
        return torch.optim.SGD(net.parameters(), **options)
    return {"insgd-l1": plain_loop.INSGD, "adamnorm": plain_loop.AdamNorm}[name](net, **options)


# ------------------------------------------------------------------------------------------------- memory


# glibc keeps what is freed of its heap in holes that other tensors may not fit: by how much a process grows would then
# vary by a tenth from one to the next. Large tensors that are mapped one by one are given back when freed.
_NO_HOLES = {"MALLOC_MMAP_THRESHOLD_": "100000", "MALLOC_TRIM_THRESHOLD_": "100000"}


def peak(name: str, device: str) -> int:
    """Bytes that training takes at most beyond what a process has before it, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.loops", name, device], cwd=Path(__file__).parents[1],
        env={**os.environ, **_NO_HOLES}, stdout=subprocess.PIPE, check=True, text=True,
    )  # fmt: skip
    return int(done.stdout)


def _measured_peak(name: str, device: str) -> int:
    run = training(name, device, BATCH * _BATCHES[device])
    if device == "cuda":
        run.run_epoch()
        return torch.cuda.max_memory_allocated()
    import resource  # not everywhere, and needed here alone

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run.run_epoch()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(_measured_peak(*sys.argv[1:]))
