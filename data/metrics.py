"""What the numbers mean: probabilities, the cross-entropy of an answer, accuracy, nll, ece, agreement.

Training, calibration, service, scorer and benchmarks all call these, so that they can be compared.
"""

import numpy as np
from numpy.typing import NDArray

from data.song import Floats, Ints


def log_softmax(logits: Floats) -> NDArray[np.float64]:
    """Return the logarithms of the probabilities of `logits` (n, n_classes), in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def mean_over_windows(logits: Floats, counts: Ints) -> Floats:
    """Return one row of logits a song: the mean log-probability over its windows.

    Args:
        logits: (n_windows, n_classes), the windows of a song next to each other.
        counts: (n_songs,) windows of each song, at least one; they add up to n_windows.
    """
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    sums = np.add.reduceat(log_softmax(logits), starts, axis=0)
    mean: Floats = (sums / counts[:, None]).astype(np.float32)
    return mean


def cross_entropy_nats(logits: Floats, temperature: float) -> NDArray[np.float64]:
    """Return `-log(max probs)` of each row, (n,), in nats, with probs = softmax(logits / temperature).

    The cross-entropy of the model's distribution against its own decision: 0 = certain, log(n_classes) = clueless. It needs
    no label, so it can be read at serving time. A NaN stays a NaN, which no threshold accepts.
    """
    certainty: NDArray[np.float64] = log_softmax(logits / np.float32(temperature)).max(axis=1)
    return 0.0 - certainty


def probabilities(logits: Floats, temperature: float) -> NDArray[np.float64]:
    """Return softmax(logits / temperature), (n, n_classes)."""
    result: NDArray[np.float64] = np.exp(log_softmax(logits / np.float32(temperature)))
    return result


def accuracy(logits: Floats, labels: Ints) -> float:
    """Return the share of rows whose largest logit is at the label."""
    return float((logits.argmax(axis=1) == labels).mean())


def agreement(logits: Floats, other_logits: Floats) -> float:
    """Return the share of rows on which two models pick the same class."""
    return float((logits.argmax(axis=1) == other_logits.argmax(axis=1)).mean())


def nll(logits: Floats, labels: Ints, temperature: float = 1.0) -> float:
    """Return the mean negative log-likelihood of the labels, in nats."""
    log_probs = log_softmax(logits / np.float32(temperature))
    return float(-log_probs[np.arange(len(labels)), labels].mean())


def ece(logits: Floats, labels: Ints, temperature: float = 1.0, bins: int = 15) -> float:
    """Return the expected calibration error: |confidence - accuracy|, averaged over equal-width bins of confidence.

    Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017.
    """
    probs = probabilities(logits, temperature)
    confidence = probs.max(axis=1)
    right = probs.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))
