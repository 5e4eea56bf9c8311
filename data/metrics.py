"""What the numbers mean: probabilities, the cross-entropy of an answer, accuracy, nll, ece, agreement.

Training, calibration, service, scorer and benchmarks all call these, so that their figures can be compared.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segue.data.song import Floats, Ints

Probs = NDArray[np.float64]
TINY = 1e-300  # Keeps the logarithm of a probability of zero finite.


def log_softmax(logits: NDArray[Any]) -> Probs:
    """Return the logarithms of the probabilities of `logits` (n, n_classes), in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: Probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def softmax(logits: NDArray[Any], temperature: float | Probs = 1.0) -> Probs:
    """Return the probabilities of logits / temperature, (n, n_classes), in float64; the temperature may be (n,)."""
    result: Probs = np.exp(log_softmax(logits / np.expand_dims(temperature, -1)))
    return result


def mean_over_windows(logits: Floats, counts: Ints) -> Floats:
    """Return one row of logits a song: the mean log-probability over its windows.

    Args:
        logits: (n_windows, n_classes), the windows of a song next to each other.
        counts: (n_songs,) windows of each song, at least one; they add up to n_windows.
    """
    if len(counts) == len(logits):  # A window each.
        return log_softmax(logits).astype(np.float32)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    sums = np.add.reduceat(log_softmax(logits), starts, axis=0)
    mean: Floats = (sums / counts[:, None]).astype(np.float32)
    return mean


def cross_entropy_nats(probs: Probs) -> Probs:
    """Return `-log(max probs)` of each row of (n, n_classes), (n,), in nats.

    The cross-entropy of the model's distribution against its own decision: 0 = certain, log(n_classes) = clueless. It
    needs no label, so it can be read at serving time. A NaN stays a NaN, which no threshold accepts.
    """
    others = np.sort(probs, axis=1)[:, :-1].sum(axis=1)  # What the largest lacks of 1, even if it is 1 to all digits.
    nats: Probs = np.abs(np.log1p(-others))
    return nats


def accuracy(scores: NDArray[Any], labels: Ints) -> float:
    """Return the share of rows of (n, n_classes), logits or probs, whose largest entry is at the label."""
    return float((scores.argmax(axis=1) == labels).mean())


def agreement(scores: NDArray[Any], other_scores: NDArray[Any]) -> float:
    """Return the share of rows on which two models, by logits or probs (n, n_classes), pick the same class."""
    return float((scores.argmax(axis=1) == other_scores.argmax(axis=1)).mean())


def nll(probs: Probs, labels: Ints) -> float:
    """Return the mean negative log-likelihood of the labels under probs (n, n_classes), in nats."""
    return float(-np.log(np.maximum(probs[np.arange(len(labels)), labels], TINY)).mean())


def reliability(probs: Probs, labels: Ints, bins: int = 15) -> tuple[Ints, Probs, Probs]:
    """Return songs, mean confidence and accuracy in equal-width bins of confidence, (bins,) each; NaN where none is.

    Niculescu-Mizil and Caruana, *Predicting Good Probabilities with Supervised Learning*, ICML 2005.
    """
    confidence = probs.max(axis=1)
    right = probs.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    songs = np.bincount(bin_of, minlength=bins)
    sums = [np.bincount(bin_of, weights=values, minlength=bins) for values in (confidence, right)]
    mean_confidence, accuracy = (np.where(songs, each / np.maximum(songs, 1), np.nan) for each in sums)
    return songs, mean_confidence, accuracy


def ece(probs: Probs, labels: Ints, bins: int = 15) -> float:
    """Return the expected calibration error: |confidence - accuracy|, averaged over equal-width bins of confidence.

    Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017.
    """
    songs, confidence, accuracy = reliability(probs, labels, bins)
    return float(np.nansum(songs * np.abs(confidence - accuracy)) / len(labels))
