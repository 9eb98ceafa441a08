"""``step()`` alone, of every rule of the lab, beside its relatives.

Timed is ``optimizer.step()`` and nothing else. Before each step, outside the timing and equally for both sides, every
parameter gets a new gradient, as after ``zero_grad`` and a backward pass: a copy of one of eight sets, in turn. Their
elements are normal; their sizes are drawn for each tensor and set from a log-normal distribution (sigma 0.5), so that
AdaNorm's correction acts on about half of the tensors. (With one gradient for ever the norm never falls below its
mean, and the correction would never act.)

Rules that read their inputs get, as freshly, what their sensors measured in eight real forward and backward passes:
the running power moves at every step. What the sensors cost in those passes is not in these rows; it is in those of
whole training steps.

Thirty steps of warm-up bring moments and mean norms to their working size, and RAdam past its threshold.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks import NETWORKS, build
from benchmarks.pairing import Code, Row
from benchmarks.peers import Make, Peer, contenders
from insgd_lab.chain import ChainOptimizer
from insgd_lab.rules.input_power import Measuring
from insgd_lab.sensors import InputSensor

__all__ = ["rows"]

_SETS = 8
_WARMUP = 30
_REPEATS = {"ResNet-20": 10, "ViT": 1}


def rows() -> Iterator[Row]:
    """Every chain of the registry on every network's tensors, beside torch.optim and pytorch_optimizer."""
    for network in NETWORKS:
        tensors = f"step() on {network}'s {len(list(build(network).parameters()))} tensors"
        for ours in contenders():
            rivals = [("torch.optim, foreach=True", ours.relative, ours.target)]
            if ours.peer is not None:
                rivals.append(("pytorch_optimizer, foreach=True", ours.peer, 1.0))
            for house, rival, target in rivals:
                yield Row(
                    f"{tensors}, beside {house}", f"step({network}): {ours.name} / {rival.name}",
                    _pair(network, ours.make, rival), target, _REPEATS[network], _WARMUP,
                )  # fmt: skip


def _pair(network: str, ours: Make, rival: Peer) -> Callable[[], tuple[Code, Code]]:
    return lambda: (step(network, ours), step(network, rival.make))


def step(network: str, make: Make) -> Code:
    """A step with fresh gradients and fresh input statistics."""
    net = build(network)
    optimizer = make(net)
    replays = [_replay(rule.sensor, net) for rule in _measuring(optimizer)]
    params, number = list(net.parameters()), itertools.count()

    def prepare() -> None:
        turn = next(number) % _SETS
        for param, gradient in zip(params, _gradients(network)[turn], strict=True):
            param.grad = gradient.clone()
        for replay in replays:
            replay(turn)

    return Code(optimizer.step, prepare)


@functools.cache
def _gradients(network: str) -> list[list[Tensor]]:
    """Eight sets of gradients."""
    draw = torch.Generator().manual_seed(1)
    shapes = [param.shape for param in build(network).parameters()]
    return [
        [0.01 * torch.randn(shape, generator=draw) * (0.5 * torch.randn((), generator=draw)).exp() for shape in shapes]
        for _ in range(_SETS)
    ]


def _measuring(optimizer: torch.optim.Optimizer) -> list[Measuring]:
    rules = optimizer.rules if isinstance(optimizer, ChainOptimizer) else ()
    return [rule for rule in rules if isinstance(rule, Measuring)]


def _replay(sensor: InputSensor, net: nn.Module) -> Callable[[int], None]:
    """Measure eight batches of images of varied contrast; what is returned hands one of the measurements over."""
    draw = torch.Generator().manual_seed(2)
    meters = list(sensor._meters.values())  # the sensor has no other way in than a backward pass
    measured = []
    for _ in range(_SETS):
        images = torch.randn(4, 3, 32, 32, generator=draw) * (0.5 * torch.randn((), generator=draw)).exp()
        F.cross_entropy(net(images), torch.arange(4)).backward()
        measured.append([list(meter.calls) for meter in meters])
        sensor.discard()

    def replay(turn: int) -> None:
        for meter, calls in zip(meters, measured[turn], strict=True):
            meter.calls = list(calls)

    return replay
