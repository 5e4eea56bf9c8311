"""Standardisation by the training songs, inside the network, so that callers send raw segments."""

from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from segue.data.song import N_FEATURES, Ints
from segue.data.table import SongTable

ROWS_AT_A_TIME = 1000


class Standardise(nn.Module):
    """(segments - mean) / deviation, feature by feature; both are saved with the network but not trained."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        """Make one that changes nothing, to be filled by `of` or by a checkpoint."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(N_FEATURES))
        self.register_buffer("deviation", torch.ones(N_FEATURES))

    @classmethod
    def of(cls, songs: SongTable, rows: Ints) -> Self:
        """Measure the mean and standard deviation of every feature over all segments of the given songs.

        Songs that are standardised already pass unchanged.
        """
        made = cls()
        if songs.units == "standardised":
            return made
        # Counted from a value of the feature itself: far from zero, sums of squares would swallow a small deviation.
        origin = songs.songs(rows[:1])[0][0].astype(np.float64)
        count, total, squares = 0, np.zeros(N_FEATURES), np.zeros(N_FEATURES)
        for start in range(0, len(rows), ROWS_AT_A_TIME):
            values = np.concatenate(songs.songs(rows[start : start + ROWS_AT_A_TIME])).astype(np.float64) - origin
            count += len(values)
            total += values.sum(axis=0)
            squares += np.square(values).sum(axis=0)
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - np.square(mean), 0))
        made.mean.copy_(torch.from_numpy(origin + mean))
        # A feature that never changes tells nothing; dividing it by 1 leaves it at 0.
        made.deviation.copy_(torch.from_numpy(np.where(deviation > 1e-6, deviation, 1.0)))
        return made

    def forward(self, segments: Tensor) -> Tensor:
        """Return raw `segments` (..., 25) with mean 0 and standard deviation 1 over the training songs."""
        return (segments - self.mean) / self.deviation
