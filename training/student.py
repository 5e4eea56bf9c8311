"""The student: one hidden layer, on the whole window (flat) or on its summary statistics (pooled).

Flat: 3000 numbers -> hidden -> classes, the original of the study. Pooled: mean, standard deviation, mean |difference|
from one segment to the next, and covariances of the 25 features over the window -> hidden -> classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from data.errors import ConfigError
from data.song import N_FEATURES, WINDOW
from training.standardise import Standardise

Look = Literal["flat", "pooled"]


@dataclass(frozen=True)
class StudentConfig:
    """The shape of a student."""

    look: Look = "flat"  # What it sees: the flattened window, or the window's summary statistics.
    hidden: int = 828  # Neurons of the hidden layer; the study's searches found 828 and 1784.
    input_dropout: float = 0.5  # Share of the inputs that a training step does not see.
    hidden_dropout: float = 0.5  # Share of the hidden neurons that a training step leaves out.

    def __post_init__(self) -> None:
        """Refuse a student that cannot learn."""
        if self.hidden < 1:
            raise ConfigError(f"hidden: expected at least 1 neuron, found {self.hidden}")
        for name in ("input_dropout", "hidden_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected a share from 0 up to 1, found {getattr(self, name)}")


class FlatLook(nn.Module):
    """The window as one row of 3000 numbers."""

    n_outputs = WINDOW * N_FEATURES

    def forward(self, segments: Tensor) -> Tensor:
        """Return (n, 120, 25) as (n, 3000)."""
        return segments.flatten(1)


class PooledLook(nn.Module):
    """The summary statistics of the window."""

    n_outputs = 3 * N_FEATURES + N_FEATURES * (N_FEATURES - 1) // 2

    def forward(self, segments: Tensor) -> Tensor:
        """Return mean, standard deviation, mean |difference| and covariances of (n, 120, 25) as (n, 375)."""
        mean = segments.mean(dim=1)
        centred = segments - mean[:, None]
        covariance = centred.transpose(1, 2) @ centred / segments.shape[1]
        deviation = covariance.diagonal(dim1=1, dim2=2).clamp(min=VARIANCE_FLOOR).sqrt()
        change = (segments[:, 1:] - segments[:, :-1]).abs().mean(dim=1)
        above = torch.triu_indices(N_FEATURES, N_FEATURES, offset=1)
        return torch.cat([mean, deviation, change, covariance[:, above[0], above[1]]], dim=1)


VARIANCE_FLOOR = 1e-8  # Below it a feature is constant; the root of an exact zero has no gradient.


class Student(nn.Module):
    """One hidden layer with batch normalisation and tanh, from raw segments to logits."""

    def __init__(self, config: StudentConfig, *, n_classes: int, standardise: Standardise) -> None:
        """Make an untrained student; `standardise` carries the mean and deviation of the training songs."""
        super().__init__()
        self.standardise = standardise
        self.look = FlatLook() if config.look == "flat" else PooledLook()
        self.input_norm = nn.BatchNorm1d(self.look.n_outputs, affine=False)
        self.input_dropout = nn.Dropout(config.input_dropout)
        self.hidden = nn.Linear(self.look.n_outputs, config.hidden)
        self.hidden_norm = nn.BatchNorm1d(config.hidden)
        self.hidden_dropout = nn.Dropout(config.hidden_dropout)
        self.readout = nn.Linear(config.hidden, n_classes)

    def forward(self, segments: Tensor) -> Tensor:
        """Return logits (n, n_classes) for raw windows (n, 120, 25)."""
        seen = self.input_dropout(self.input_norm(self.look(self.standardise(segments))))
        hidden = torch.tanh(self.hidden_norm(self.hidden(seen)))
        logits: Tensor = self.readout(self.hidden_dropout(hidden))
        return logits

    def parts(self, segments: Tensor) -> Iterator[Tensor]:
        """Yield the logits of the whole window once: a student learns from a song in one training step."""
        yield self(segments)
