"""The teacher: a recurrent network with batch normalisation between the affine map and tanh.

h_t = tanh(BN(W_x x_t + W_h h_{t-1})), with the same BN parameters and running statistics at every step, and an affine
readout of the state to the classes. Batch normalisation is Ioffe and Szegedy, ICML 2015; putting it inside the
recurrence with shared statistics is the study's. The bias of the affine map is left out: BN subtracts it, and its own
beta takes its place.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data.errors import ConfigError
from data.song import N_FEATURES, WINDOW
from training.standardise import Standardise


@dataclass(frozen=True)
class TeacherConfig:
    """The shape of a teacher."""

    state: int = 341  # Neurons of the recurrent state; 341 is what the study's search found.
    bptt_steps: int = 8  # Segments between two training steps; a divisor of 120, and 120 is full backpropagation.

    def __post_init__(self) -> None:
        """Refuse a state without neurons and steps that do not divide the window."""
        if self.state < 1:
            raise ConfigError(f"state: expected at least 1 neuron, found {self.state}")
        if self.bptt_steps < 1 or WINDOW % self.bptt_steps:
            divisors = ", ".join(str(n) for n in range(1, WINDOW + 1) if WINDOW % n == 0)
            raise ConfigError(f"bptt_steps: expected a divisor of {WINDOW} ({divisors}), found {self.bptt_steps}")


class BatchNormCell(nn.Module):
    """One step of the recurrence: tanh(BN(driven + W_h h))."""

    def __init__(self, *, state: int) -> None:
        """Make a cell of `state` neurons, its recurrent weights orthogonal so that states neither fade nor explode."""
        super().__init__()
        self.recurrent = nn.Linear(state, state, bias=False)
        nn.init.orthogonal_(self.recurrent.weight)
        # A batch updates the running statistics once a step, 120 times, hence the slow average.
        self.norm = nn.BatchNorm1d(state, eps=1e-3, momentum=0.01)

    def forward(self, driven: Tensor, state: Tensor) -> Tensor:
        """Return the next state (n, state) from W_x x_t, `driven` (n, state), and the present `state` (n, state)."""
        return torch.tanh(self.norm(driven + self.recurrent(state)))


class Teacher(nn.Module):
    """The BN-RNN, from raw segments to logits."""

    def __init__(self, config: TeacherConfig, *, n_classes: int, standardise: Standardise) -> None:
        """Make an untrained teacher; `standardise` carries the mean and deviation of the training songs."""
        super().__init__()
        self.bptt_steps = config.bptt_steps
        self.standardise = standardise
        self.input = nn.Linear(N_FEATURES, config.state, bias=False)
        self.cell = BatchNormCell(state=config.state)
        self.readout = nn.Linear(config.state, n_classes)

    def forward(self, segments: Tensor) -> Tensor:
        """Return logits (n, n_classes), read from the last state, for raw windows (n, 120, 25)."""
        logits: Tensor = self.readout(self._advance(segments, self._start(segments)))
        return logits

    def parts(self, segments: Tensor) -> Iterator[Tensor]:
        """Yield the logits after each part of `bptt_steps` segments; the state goes on to the next part detached.

        Truncated backpropagation through time: the caller may take a training step between two parts.
        """
        state = self._start(segments)
        for part in torch.split(segments, self.bptt_steps, dim=1):
            state = self._advance(part, state)
            yield self.readout(state)
            state = state.detach()

    def _start(self, segments: Tensor) -> Tensor:
        return segments.new_zeros(len(segments), self.readout.in_features)

    def _advance(self, segments: Tensor, state: Tensor) -> Tensor:
        driven = self.input(self.standardise(segments))
        for step in range(driven.shape[1]):
            state = self.cell(driven[:, step], state)
        return state
