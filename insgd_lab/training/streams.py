"""Random streams: each purpose of each seed has its own, so nothing that one part draws can move another.

A stream is addressed, not stored: `generator(seed, "order, epoch 3")` is the same wherever and whenever it is
asked for. A resumed run therefore needs no generator state, and every arm of a study sees the same splits,
initial weights, order and augmentation for the same seed.

>>> generator(0, "order, epoch 1").initial_seed() == derive(0, "order, epoch 1")
True
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, purpose: str) -> int:
    """The 63-bit seed of the stream that `purpose` has under `seed`."""
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: str, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator at the start of the stream of (seed, purpose)."""
    return torch.Generator(device=device).manual_seed(derive(seed, purpose))


@contextmanager
def global_stream(seed: int, purpose: str, device: str | torch.device = "cpu") -> Iterator[None]:
    """Run a block on torch's global generators, seeded for (seed, purpose), and put the caller's states back.

    For what draws from the global generator whatever one does: weight initialisation and dropout.
    """
    device = torch.device(device)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        # Not torch.manual_seed, which would seed the generators of all GPUs too, and dropout may be drawing there.
        torch.default_generator.manual_seed(derive(seed, purpose))
        for gpu in devices:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(derive(seed, purpose))
        yield
