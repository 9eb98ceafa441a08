"""Where runs are trained on one machine: how many workers there are, and the GPU of each. No torch.

>>> demand = ResourcesSpec(gpus=0.5)
>>> worker_count(demand, "cuda", cores=64, gpus=4, runs=100)
8
>>> [device_of(worker, "cuda", gpus=4) for worker in range(6)]
['cuda:0', 'cuda:1', 'cuda:2', 'cuda:3', 'cuda:0', 'cuda:1']
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence

from insgd_lab.config import ArmSpec, ResourcesSpec, RunSpec

__all__ = ["demand_of", "device_of", "gpu_slots", "settings_over", "times_in", "worker_count"]

_SLACK = 1e-9  # of a quotient of decimals: ten tenths are a whole


def demand_of(runs: Iterable[RunSpec]) -> ResourcesSpec:
    """What is enough for each of the runs."""
    demands = {run.resources for run in runs}
    return functools.reduce(ResourcesSpec.covering, demands) if demands else ResourcesSpec()


def settings_over(arms: Sequence[ArmSpec], key: str, value: float) -> str:
    """The options that change what runs of these arms take, where an arm's own [resources] lie over the study's."""
    own = [f"arm.{arm.name}.resources.{key}" for arm in arms if key in arm.resources]
    paths = own if len(own) == len(arms) else [f"resources.{key}", *own]
    return " ".join(f"--set {path}={value:.12g}" for path in paths)


def worker_count(demand: ResourcesSpec, device: str, *, cores: int, gpus: int, runs: int) -> int:
    """How many workers train at a time, at least one: as many as have the cores, or GPUs, that a run asks for.

    There are never more than runs.

    Args:
        demand: of the greediest run.
        device: "cpu", "cuda" or "cuda:1".
        cores: of this machine that are ours.
        gpus: that torch sees here.
        runs: how many there are.
    """
    ours = 1 if ":" in device else gpus
    room = times_in(cores, demand.cpus) if device == "cpu" else gpu_slots(ours, demand.gpus)
    return max(1, min(room, runs))


def gpu_slots(gpus: float, share: float) -> int:
    """How many runs that each ask for `share` of a GPU these hold; a share is never split between two of them."""
    share = share or 1.0  # whoever trains on a GPU and does not say how much of it takes one
    return int(gpus) * times_in(1, share) if share < 1 else times_in(gpus, share)


def times_in(whole: float, part: float) -> int:
    """How often a part is contained in the whole."""
    return math.floor(whole / part + _SLACK)


def device_of(worker: int, device: str, gpus: int) -> str:
    """The device of a worker: GPUs in turn where there are several and none is named."""
    return f"{device}:{worker % gpus}" if device == "cuda" and gpus > 1 else device
