"""Selection: which of several teachers are worth asking together, by what they say of songs that they never saw."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from segue.data.metrics import log_softmax
from segue.data.song import Ints
from segue.data.splits import Splits

Doubles = NDArray[np.float64]

LOG_TEMPERATURES = (-3.0, 3.0)


@dataclass(frozen=True)
class Selected:
    """The teachers that answer together."""

    members: tuple[int, ...]  # In the order in which they were taken.
    reasons: tuple[str, ...]  # Of each teacher, kept or not, in the order in which they were given.


def select(held_out: Sequence[NDArray[Any]], labels: Ints, weights: Doubles) -> Selected:
    """Select teachers that answer together: the best one, then, one by one, those that make the answer surer.

    Caruana et al., *Ensemble Selection from Libraries of Models*, ICML 2004, by the negative log-likelihood of the mean
    log-probability at its best temperature. One more teacher is kept if it gains more than the standard error of its
    gain over the songs.

    Args:
        held_out: of each teacher its held-out logits (n, n_classes).
        labels: (n,) the classes of the songs.
        weights: (n,) how much each song counts; see `as_measured`.
    """
    said = [log_softmax(one) for one in held_out]
    alone = [_nll(one, labels, weights) for one in said]
    means = [_mean(one, weights) for one in alone]
    members = [int(np.argmin(means))]
    best = alone[members[0]]
    reasons = {members[0]: f"kept: the best alone, nll {means[members[0]]:.3f}"}
    pays = True
    while pays and len(members) < len(said):
        others = [place for place in range(len(said)) if place not in members]
        joined = [np.mean([said[place] for place in (*members, other)], axis=0) for other in others]
        gains = [best - _nll(one, labels, weights) for one in joined]
        means_of_gains = [_mean(gain, weights) for gain in gains]
        errors = [_standard_error(gain, weights) for gain in gains]
        first = int(np.argmax(means_of_gains))
        pays = means_of_gains[first] > errors[first]
        for other, gain, error in zip(others, means_of_gains, errors, strict=True):
            reasons[other] = f"left out: nll {means[other]:.3f} alone, gains {gain:.3f} +- {error:.3f}"
        if pays:
            reasons[others[first]] = reasons[others[first]].replace("left out", "kept")
            members.append(others[first])
            best = best - gains[first]
    return Selected(tuple(members), tuple(reasons[place] for place in range(len(said))))


def as_measured(labels: Ints, splits: Splits) -> Doubles:
    """Return weights (n_train,) under which classes count among training songs as among those that measure.

    Args:
        labels: (n_songs,) of the table.
        splits: its splits; validation, calibration and test songs measure.
    """
    n_classes = labels.max() + 1
    apart = np.concatenate([splits.validation, splits.calibration, splits.test])
    measuring, training = (np.bincount(labels[rows], minlength=n_classes) for rows in (apart, splits.train))
    weights: Doubles = (measuring / np.maximum(training, 1))[labels[splits.train]]
    return weights if weights.any() else np.ones(len(splits.train))


def _nll(log_probs: Doubles, labels: Ints, weights: Doubles) -> Doubles:
    """Return the negative log-likelihood of each song, (n,), at the temperature that is best for all."""
    right = np.arange(len(labels)), labels

    def at(log_temperature: float) -> Doubles:
        return -log_softmax(log_probs / np.exp(log_temperature))[right]

    best = minimize_scalar(lambda one: _mean(at(one), weights), bounds=LOG_TEMPERATURES, method="bounded")
    return at(best.x)


def _mean(values: Doubles, weights: Doubles) -> float:
    return float(np.average(values, weights=weights))


def _standard_error(values: Doubles, weights: Doubles) -> float:
    """Return the standard error of a weighted mean."""
    return float(np.sqrt(weights**2 @ (values - _mean(values, weights)) ** 2) / weights.sum())
