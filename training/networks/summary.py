"""Summary statistics of a window: what the pooled student sees, and what a teacher may see beside its states."""

import torch
from torch import Tensor

from segue.data.song import N_FEATURES

LAGS = (1, 2, 3, 4, 6, 8, 12, 16)  # Segments.
N_STATISTICS = N_FEATURES * (3 + len(LAGS)) + N_FEATURES * (N_FEATURES - 1) // 2
VARIANCE_FLOOR = 1e-4  # Below it, in standard units, a feature is constant.
CHANGE_FLOOR = 1e-2


def spread(variance: Tensor) -> Tensor:
    """Return the standard deviation of a variance; the root of an exact zero has no gradient."""
    return variance.clamp(min=VARIANCE_FLOOR).sqrt()


def mean_and_spread(values: Tensor) -> Tensor:
    """Return mean and standard deviation over time, (n, 2 * features), of (n, steps, features)."""
    return torch.cat([values.mean(dim=1), spread(values.var(dim=1, correction=0))], dim=1)


def summary(standard: Tensor) -> Tensor:
    """Return the summary statistics (n, N_STATISTICS) of standardised windows (n, steps, 25).

    For each feature its mean, the logarithms of its standard deviation and of its mean |difference| from one segment to
    the next, and its autocorrelation at `LAGS`; and the correlations of the features.
    """
    n_steps = standard.shape[1]
    mean = standard.mean(dim=1)
    centred = standard - mean[:, None]
    covariance = centred.transpose(1, 2) @ centred / n_steps
    deviation = spread(covariance.diagonal(dim1=1, dim2=2))
    unit = centred / deviation[:, None]
    change = (standard[:, 1:] - standard[:, :-1]).abs().mean(dim=1)
    above = torch.triu_indices(N_FEATURES, N_FEATURES, offset=1, device=standard.device)
    correlation = covariance / (deviation[:, :, None] * deviation[:, None])
    return torch.cat(
        [
            mean,
            deviation.log(),
            (change + CHANGE_FLOOR).log(),
            *((unit[:, lag:] * unit[:, :-lag]).mean(dim=1) for lag in LAGS),
            correlation[:, above[0], above[1]],
        ],
        dim=1,
    )
