"""The processes that share one run: one, or as many as `torchrun` started.

>>> with ranks_of_environment("cpu") as ranks:
...     ranks.total(losses)          # the sum over all processes, in all of them
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from insgd_lab.config import ConfigError, Problem

__all__ = ["ALONE", "Ranks", "current", "own_device", "ranks_of_environment"]


@dataclass(frozen=True)
class Ranks:
    """This process's number among those that share the run."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def total(self, sums: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            sums = sums.clone()
            dist.all_reduce(sums)
        return sums

    def alike(self, model: nn.Module) -> None:
        """Give the model the first process's buffers: each has running statistics of its own parts of the batches."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def told(self, value: Any) -> Any:
        """What the first process says, in all of them."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def parallel(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network with gradients averaged over all processes."""
        if self.size == 1:
            return network
        return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)


ALONE = Ranks()


def own_device(device: str) -> str:
    """The device of this process: under torchrun "cuda" is the GPU of its local rank.

    Raises:
        ConfigError: one GPU is named for several processes.
    """
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1 and device.startswith("cuda:"):
        message = "is one GPU, for several processes; write cuda, and each takes its own"
        raise ConfigError("run", [Problem(("device",), device, message)])
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in os.environ else device


def current(device: str) -> AbstractContextManager[object]:
    """Make a GPU the current one, on which torch's streams and graphs are."""
    return torch.cuda.device(device) if device.startswith("cuda") else nullcontext()


@contextmanager
def ranks_of_environment(device: str) -> Iterator[tuple[Ranks, str]]:
    """Join the processes that torchrun started, if it did, over gloo on CPUs and nccl on GPUs.

    Yields:
        The ranks, and this process's device, see `own_device`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield ALONE, device
        return
    device = own_device(device)
    # DDP would have gradients as its buckets lie; that costs a copy where channels are innermost, and is no fault.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size()), device
    finally:
        if ours:
            dist.destroy_process_group()
