"""How long a model takes, measured the same way by export and by the benchmarks."""

import statistics
import time
from collections.abc import Callable

import numpy as np

from data.song import Floats
from serving.cascade import Model

SERVING_BATCH = 256


def seconds_per_call(
    call: Callable[[], object], *, budget_s: float = 0.5, least: int = 5, most: int = 2000
) -> list[float]:
    """Call until `budget_s` is spent, and return the seconds of each call; the first two do not count."""
    for _ in range(2):
        call()
    taken: list[float] = []
    while len(taken) < least or (sum(taken) < budget_s and len(taken) < most):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return taken


def us_per_window(model: Model, windows: Floats) -> float:
    """Return the median cost of a window in microseconds, at the serving batch of 256; windows (n, 120, 25), n >= 1."""
    batch = np.resize(windows, (SERVING_BATCH, *windows.shape[1:]))
    return statistics.median(seconds_per_call(lambda: model.logits(batch))) / SERVING_BATCH * 1e6
