"""How long a model takes, measured the same way by export and by the benchmarks."""

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from segue.data.song import Floats, Songs
from segue.serving.cascade import CalibratedModel, Model

SERVING_BATCH = 256
SERVING_BATCHES = (1, 16, SERVING_BATCH)  # A song alone, a few at once, a full batch.


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


def us_per_window(model: Model, songs: Songs, windows: int) -> float:
    """Return the median cost of a window in microseconds, from songs in memory to the model's predictions for them.

    Args:
        model: the model.
        songs: raw, at least one; the serving batch of 256 is made of them, over and over.
        windows: that it sees of a song, at most.
    """
    calibrated = CalibratedModel(model, windows=windows, temperature=1.0)
    batch = songs.take(np.resize(np.arange(len(songs)), SERVING_BATCH))
    seen = int(calibrated.predict(batch).windows.sum())
    return statistics.median(seconds_per_call(lambda: calibrated.predict(batch))) / seen * 1e6


def songs_per_s_in_turn(
    models: Sequence[Model], windows: Floats, *, batches: Sequence[int] = SERVING_BATCHES, budget_s: float
) -> list[dict[int, float]]:
    """Return the median songs/s of each model at each batch, a window a song; windows (n, 120, 25), n >= 1.

    The models are called in turn, so that a machine that slows down slows all of them. Each batch takes about
    `budget_s` a model, and at least three calls.
    """
    found: list[dict[int, float]] = [{} for _ in models]
    for size in batches:
        batch = np.resize(windows, (size, *windows.shape[1:]))
        taken: list[list[float]] = [[] for _ in models]
        while len(taken[0]) < 4 or sum(map(sum, taken)) < budget_s * len(models):
            for model, times in zip(models, taken, strict=True):
                started = time.perf_counter()
                model.logits(batch)
                times.append(time.perf_counter() - started)
        for speeds, times in zip(found, taken, strict=True):
            speeds[size] = size / statistics.median(times[1:])
    return found
