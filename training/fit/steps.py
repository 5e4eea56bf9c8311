"""The training steps of a batch; on a GPU they are recorded once, as a graph, and launched with one call.

A recurrence over 120 segments is thousands of kernels of a few microseconds each, and Python takes longer to launch one
than the GPU to run it. A CUDA graph launches them all at once (https://docs.pytorch.org/docs/stable/notes/cuda.html,
CUDA graphs).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from segue.training.fit.losses import Loss, Targets
from segue.training.fit.optimisers import Optimiser
from segue.training.networks.network import Network


class Taken(NamedTuple):
    """What the steps of a batch came to; the next batch writes over it."""

    costs: Tensor  # (n_parts,) the loss at each step.
    logits: Tensor  # (n, n_classes) at the last step.


class _Recording(NamedTuple):
    """A graph, and the memory it reads from and writes to."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    taken: Taken


class BatchSteps:
    """Corrects the weights of a network once for each of its parts of a batch."""

    def __init__(self, network: Network, optimiser: Optimiser, loss: Loss, clip_norm: float) -> None:
        """Take no step yet.

        Args:
            network: what learns, where it will stay.
            optimiser: corrects its weights.
            loss: what is made small.
            clip_norm: a gradient that is longer is shortened to it.
        """
        self.network = network
        self._optimiser = optimiser
        self._loss = loss
        self._clip_norm = clip_norm
        self._recordings: dict[int, _Recording] = {}  # By the number of songs.
        self._warm: set[int] = set()

    def take(self, segments: Tensor, targets: Targets, rates: Sequence[float]) -> Taken:
        """Learn from raw windows (n, 120, 25) with a learning rate for each part, (n_parts,)."""
        if not (segments.is_cuda and self._optimiser.is_recordable):
            return self._take(segments, targets, rates)
        inputs = [segments, torch.tensor(rates, device=segments.device), *(one for one in targets if one is not None)]
        if len(segments) not in self._warm:  # Libraries allocate what they need at first use, which no graph may.
            self._warm.add(len(segments))
            return self._aside(inputs)
        if len(segments) not in self._recordings:
            self._recordings[len(segments)] = self._record(inputs)
        recording = self._recordings[len(segments)]
        for kept, given in zip(recording.inputs, inputs, strict=True):
            kept.copy_(given)
        recording.graph.replay()
        return recording.taken

    def _take(self, segments: Tensor, targets: Targets, rates: Sequence[float] | Tensor) -> Taken:
        costs = []
        for logits, rate in zip(self.network.parts(segments), rates, strict=True):
            cost = self._loss(logits, targets)
            self._optimiser.step(cost, rate, self._clip_norm)
            costs.append(cost.detach())
        return Taken(torch.stack(costs), logits.detach())

    def _aside(self, inputs: list[Tensor]) -> Taken:
        """Take the steps on another stream than the usual one, as a graph is recorded."""
        stream, usual = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(usual)
        with torch.cuda.stream(stream):
            segments, rates, *targets = inputs
            taken = self._take(segments, Targets(*targets), rates)
        usual.wait_stream(stream)
        return taken

    def _record(self, inputs: list[Tensor]) -> _Recording:
        kept = [tensor.clone() for tensor in inputs]
        segments, rates, *targets = kept
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            taken = self._take(segments, Targets(*targets), rates)
        return _Recording(graph, kept, taken)
