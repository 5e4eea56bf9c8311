"""A dial that follows the clock: the threshold at which the songs that are left fit into the time that is left."""

import time

import numpy as np
from numpy.typing import NDArray

from segue.errors import ConfigError
from segue.serving.batch.scorer import Part
from segue.serving.bundle.load import Bundle
from segue.serving.ladder import ASK_ALL_NATS


class Budget:
    """Sets the threshold of each part from what the parts before it have cost."""

    def __init__(self, seconds: float, bundle: Bundle, threads: int) -> None:
        """Allow `seconds` from now on; what songs cost is first taken from the bundle.

        Raises:
            ConfigError: no time at all.
        """
        if not seconds > 0:
            raise ConfigError(f"budget: expected more than 0 seconds, found {seconds:g}")
        self._end = time.perf_counter() + seconds
        self._threads = threads
        manifest = bundle.manifest
        # Of one thread, as parts report it; the bundle's are measured with all cores.
        costs = [manifest.entry(rung).us_per_window * rung.windows * threads / 1e6 for rung in manifest.all_rungs]
        self._first_s, self._above_s = costs[0], sum(costs[1:])
        self._doubts: NDArray[np.float64] | None = None
        self._first_nats = manifest.threshold_nats

    def threshold(self, songs_left: int) -> float:
        """Return the threshold for the next part, of `songs_left` songs that are still to be scored."""
        seconds = (self._end - time.perf_counter()) * self._threads / max(songs_left, 1)
        share = (seconds - self._first_s) / self._above_s  # Of the songs that may go on from the first rung.
        if share <= 0:
            return np.inf
        if share >= 1:
            return ASK_ALL_NATS
        return self._first_nats if self._doubts is None else float(np.quantile(self._doubts, 1 - share))

    def learn(self, part: Part, songs: int) -> None:
        """Take over what a part has cost, on the first rung and above it, and how its songs are to the student."""
        self._first_s = part.student_s / max(songs, 1)
        if part.went_on:
            self._above_s = part.teacher_s / part.went_on
        if len(part.doubts):
            self._doubts = part.doubts
