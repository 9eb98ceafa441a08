"""A training step as one CUDA graph: recorded once, then replayed without Python.

The graph holds the forward pass with its sensors, the backward pass and the optimizer. The first steps run as they
are, on a stream of their own, so that every library has its workspace and every buffer exists; then one is recorded.
Batches of another size, such as an epoch's last, and steps that a Recorder looks at run as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from insgd_lab.recorders import Recorder
from insgd_lab.training.step import Take

__all__ = ["GraphedStep"]

_WARM_UP = 3


class GraphedStep:
    """Takes steps on a GPU, replaying a graph where it can.

    Args:
        take: one whole step on a batch; it must wait for nothing and keep all its state in the same tensors. What it
            returns stays in place, and the next replay writes over it.
        batch_size: of the batches whose step is recorded.
        device: where the step is taken; it must be the current one.
        recorder: which steps to leave to Python.
    """

    def __init__(self, take: Take, batch_size: int, device: torch.device, recorder: Recorder | None) -> None:
        self.take, self.batch_size, self.recorder = take, batch_size, recorder
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.graph: torch.cuda.CUDAGraph | None = None
        self.warm = 0

    def __call__(self, inputs: Tensor, targets: Tensor, count: int) -> Tensor:
        """Take one step on a batch of `count` examples."""
        if count != self.batch_size or (self.recorder is not None and self.recorder.due):
            return self._as_it_is(inputs, targets, count)
        if self.graph is None:
            if self.warm < _WARM_UP:
                self.warm += 1
                return self._as_it_is(inputs, targets, count)
            return self._record(inputs, targets)
        self.inputs.copy_(inputs)
        self.targets.copy_(targets)
        self.graph.replay()
        if self.recorder is not None:
            self.recorder.pass_by()
        return self.share

    def _as_it_is(self, inputs: Tensor, targets: Tensor, count: int) -> Tensor:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            share = self.take(inputs, targets, count)
        torch.cuda.current_stream().wait_stream(self.stream)
        return share

    def _record(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Record a step, which computes nothing but lets Python's observers count it; then replay it."""
        self.inputs, self.targets = inputs.clone(), targets.clone()
        self.graph = torch.cuda.CUDAGraph()
        # Other threads, such as the one that pins what loaders have read, may go on calling CUDA.
        with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
            self.share = self.take(self.inputs, self.targets, self.batch_size)
        self.graph.replay()
        return self.share
