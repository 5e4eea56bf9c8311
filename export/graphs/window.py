"""What the networks of a graph read of the raw window, each part computed once however many networks read it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from segue.data.song import N_FEATURES, WINDOW
from segue.export.graphs.affine import Doubles, standardisation_of
from segue.export.graphs.writer import SEGMENTS, Writer
from segue.training.networks.graph import Seen
from segue.training.networks.standardise import Standardise
from segue.training.networks.summary import CHANGE_FLOOR, LAGS, VARIANCE_FLOOR

PERIOD = WINDOW + max(LAGS)
FREQUENCIES = np.concatenate([np.arange(PERIOD // 2 + 1), np.arange(1, PERIOD // 2)])  # Of cosines, then of sines.
DIAGONAL = np.arange(N_FEATURES) * (N_FEATURES + 1)  # Of a flat (25, 25) matrix.


@dataclass(frozen=True)
class Moments:
    """Sums over the raw window; what is centred has the window's mean taken off."""

    mean: str  # (n, 25)
    products: str  # (n, 25, 25), of any two centred features.
    squares: str  # (n, 25), of the centred features.
    changes: str  # (n, 25), |differences| from one segment to the next.
    lagged: str  # (n, lags, 25), products of a centred feature with itself so many segments later.


class Window:
    """The raw window in a graph."""

    def __init__(self, writer: Writer) -> None:
        """Read the window of the graph that `writer` writes."""
        self.writer = writer

    @cached_property
    def by_step(self) -> str:
        """The segments, step by step: (120, n, 25)."""
        return self.writer.op("Transpose", SEGMENTS, perm=[1, 0, 2])

    @cached_property
    def by_feature(self) -> str:
        """The segments, feature by feature: (n, 25, 120)."""
        return self.writer.op("Transpose", SEGMENTS, perm=[0, 2, 1])

    @cached_property
    def flat(self) -> str:
        """The segments in one row: (n, 3000)."""
        return self.writer.op("Flatten", SEGMENTS, axis=1)

    @cached_property
    def moments(self) -> Moments:
        """The sums that summary statistics are made from."""
        op, tensor = self.writer.op, self.writer.tensor
        waves = self._mixed(_waves(), SEGMENTS)
        products = op("MatMul", op("Transpose", waves, perm=[0, 2, 1]), waves)
        changes = op("Sub", self._steps(SEGMENTS, 1, WINDOW), self._steps(SEGMENTS, 0, WINDOW - 1))
        return Moments(
            mean=op("ReduceMean", SEGMENTS, axes=[1], keepdims=0),
            products=products,
            squares=op("Gather", op("Flatten", products, axis=1), tensor(DIAGONAL), axis=1),
            changes=op("Flatten", self._mixed(np.ones((1, WINDOW - 1)), op("Abs", changes)), axis=1),
            lagged=self._mixed(_lag_sums(), op("Mul", waves, waves)),
        )

    def statistics(self, standardise: Standardise) -> Seen:
        """Return the statistics (n, N_STATISTICS) of the standardised window; see `segue.training.networks.summary`.

        They are made from the raw moments: what standardisation does to each is known, so that only these few numbers
        and not the window are scaled.
        """
        op, tensor = self.writer.op, self.writer.tensor
        scale, shift = standardisation_of(standardise)
        moments = self.moments
        variance = op("Max", op("Mul", moments.squares, tensor(scale**2 / WINDOW)), tensor(np.array(VARIANCE_FLOOR)))
        # From here on, 1 / deviation in standard units times the scale to standard units: centred raw values times this
        # are the unit values that autocorrelation and correlation are made of.
        unit = op("Div", tensor(scale), op("Sqrt", variance))
        unit_square = op("Mul", unit, unit)
        changes = op("Mul", moments.changes, tensor(scale))
        across, down = op("Unsqueeze", unit, self.writer.ints(1)), op("Unsqueeze", unit, self.writer.ints(2))
        correlation = op("Flatten", op("Mul", op("Mul", moments.products, across), down), axis=1)
        rows, columns = np.triu_indices(N_FEATURES, k=1)
        value = op(
            "Concat",
            moments.mean,
            op("Log", variance),
            op("Log", op("Add", changes, tensor(np.array(CHANGE_FLOOR * (WINDOW - 1))))),
            op("Flatten", op("Mul", moments.lagged, op("Unsqueeze", unit_square, self.writer.ints(1))), axis=1),
            op("Gather", correlation, tensor(rows * N_FEATURES + columns), axis=1),
            axis=1,
        )
        # Means in place of sums, and roots and logarithms of them, are scales and shifts of what was just computed.
        each, zeros = np.ones(N_FEATURES), np.zeros(N_FEATURES)
        scales = [scale, each / 2, each, *(each / (WINDOW - lag) for lag in LAGS)]
        shifts = [shift, zeros, each * -np.log(WINDOW - 1), *[zeros] * len(LAGS)]
        return Seen(
            value,
            np.concatenate([*scales, np.full(len(rows), 1 / WINDOW)]),
            np.concatenate([*shifts, np.zeros(len(rows))]),
        )

    def _steps(self, value: str, start: int, stop: int) -> str:
        """Return the segments from `start` to `stop` of values (n, 120, features)."""
        ints = self.writer.ints
        return self.writer.op("Slice", value, ints(start), ints(stop), ints(1))

    def _mixed(self, mix: Doubles, value: str) -> str:
        """Return sums (n, k, features) over the steps of values (n, steps, features), weighted by (k, steps)."""
        return self.writer.op("MatMul", self.writer.tensor(mix), value)


def _waves() -> Doubles:
    """Return what makes the waves of a window's centred features, (PERIOD, 120): a real orthonormal Fourier transform.

    Sums of products over the waves are sums over the segments, by Parseval's theorem; the window is followed by as many
    zeros as the longest lag, so that no segment meets one of the next period. One product with the raw window thus
    stands for centring it, squaring it, and as many shifted copies as there are lags.
    """
    turns = 2 * np.pi * np.outer(FREQUENCIES, np.arange(WINDOW)) / PERIOD
    waves = np.where(np.arange(PERIOD)[:, None] <= PERIOD // 2, np.cos(turns), np.sin(turns))
    alone = FREQUENCIES % (PERIOD // 2) == 0  # Their sines are zero.
    waves *= np.sqrt(np.where(alone, 1.0, 2.0) / PERIOD)[:, None]
    centred: Doubles = waves - waves.mean(axis=1, keepdims=True)
    return centred


def _lag_sums() -> Doubles:
    """Return what makes sums of lagged products of squared waves, (lags, PERIOD): Wiener and Khinchin's theorem."""
    sums: Doubles = np.cos(2 * np.pi * np.outer(LAGS, FREQUENCIES) / PERIOD)
    return sums
